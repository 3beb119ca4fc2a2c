"""ELECTRA with a classification, regression or span head."""

from __future__ import annotations

import keras

from gated_bert.models.encoder import BertEncoder
from gated_bert.models.family_sizes import ElectraConfig
from gated_bert.models.post_norm import PostNormClassifier


@keras.saving.register_keras_serializable(package="gated_bert")
class ElectraEncoder(BertEncoder):
    """ELECTRA without a head; arguments as of `PostNormEncoder`."""

    CONFIG = ElectraConfig
    POOLER_ACTIVATION = "gelu"
    DROPS_FIRST_TOKEN = True


@keras.saving.register_keras_serializable(package="gated_bert")
class ElectraClassifier(PostNormClassifier):
    """ELECTRA out of `GatedDense` layers; the first layer of its head is the pooler. See `PostNormClassifier`."""

    ENCODER = ElectraEncoder
