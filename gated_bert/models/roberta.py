"""RoBERTa and XLM-R with a classification, regression or span head."""

from __future__ import annotations

import keras
from keras import ops

from gated_bert.models.encoder import Embeddings, PostNormEncoder
from gated_bert.models.family_sizes import RobertaConfig, XlmRobertaConfig
from gated_bert.models.post_norm import PostNormClassifier
from gated_bert.support.tensors import Tensor


class RobertaEmbeddings(Embeddings):
    """Embeddings whose positions count what is no padding, from behind its id; see `Embeddings`."""

    config: RobertaConfig

    def positions(self, table: Tensor, token_ids: Tensor) -> Tensor:
        return ops.take(table, position_ids(token_ids, self.config.padding_index), axis=0)


def position_ids(token_ids: Tensor, padding_index: int) -> Tensor:
    """Rows of the position embedding of each of the token ids, int32 [batch, length]; of padding its id."""
    real = ops.cast(ops.not_equal(token_ids, padding_index), "int32")
    return ops.cumsum(real, axis=1) * real + padding_index


@keras.saving.register_keras_serializable(package="gated_bert")
class RobertaEncoder(PostNormEncoder):
    """RoBERTa without a head; arguments as of `PostNormEncoder`."""

    CONFIG = RobertaConfig
    EMBEDDINGS = RobertaEmbeddings
    DROPS_FIRST_TOKEN = True


@keras.saving.register_keras_serializable(package="gated_bert")
class RobertaClassifier(PostNormClassifier):
    """RoBERTa out of `GatedDense` layers; the first layer of its head is the pooler. See `PostNormClassifier`."""

    ENCODER = RobertaEncoder


@keras.saving.register_keras_serializable(package="gated_bert")
class XlmRobertaEncoder(RobertaEncoder):
    """XLM-R without a head; arguments as of `PostNormEncoder`."""

    CONFIG = XlmRobertaConfig


@keras.saving.register_keras_serializable(package="gated_bert")
class XlmRobertaClassifier(PostNormClassifier):
    """XLM-R out of `GatedDense` layers; see `RobertaClassifier`."""

    ENCODER = XlmRobertaEncoder
