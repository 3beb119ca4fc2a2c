"""DistilBERT with a classification, regression or span head."""

from __future__ import annotations

import keras

from gated_bert.models.encoder import PostNormEncoder
from gated_bert.models.family_sizes import DistilBertConfig
from gated_bert.models.post_norm import PostNormClassifier


@keras.saving.register_keras_serializable(package="gated_bert")
class DistilBertEncoder(PostNormEncoder):
    """DistilBERT without a head; arguments as of `PostNormEncoder`."""

    CONFIG = DistilBertConfig
    POOLER_ACTIVATION = "relu"


@keras.saving.register_keras_serializable(package="gated_bert")
class DistilBertClassifier(PostNormClassifier):
    """DistilBERT out of `GatedDense` layers; the first layer of its head is the pooler. See `PostNormClassifier`."""

    ENCODER = DistilBertEncoder
