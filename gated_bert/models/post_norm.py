"""Classifiers out of BERT's blocks: a head for texts, spans or tokens on any family's encoder of them."""

from __future__ import annotations

from typing import Any, ClassVar

import keras
from keras import ops

from gated_bert.models.architecture import Architecture, PostNormConfig
from gated_bert.models.backbone import EncoderClassifier
from gated_bert.models.encoder import MASKED, PLACES, PostNormEncoder
from gated_bert.models.layers import gated_dense
from gated_bert.support.tensors import Shape, Tensor


class PostNormClassifier(EncoderClassifier):
    """An encoder out of `GatedDense` layers, with a linear head on the pooled first token, or on every token.

    Its weights exist as soon as it is made. A `.keras` file holds all of it: architecture, weights and gates.

    Args:
        architecture: the architecture, or its dictionary.
        **kwargs: `name` and `dtype` of `keras.Model`.
    """

    ENCODER: ClassVar[type[PostNormEncoder]]
    BLOCK_FOLDER: ClassVar[str] = "encoder_block"
    """What Keras calls the first block in a `.keras` file: by its class."""

    architecture: PostNormConfig
    encoder: PostNormEncoder

    def __init__(self, architecture: PostNormConfig | dict, name: str | None = None, **kwargs: Any):
        super().__init__(name=name, **kwargs)
        if isinstance(architecture, dict):
            architecture = self.ENCODER.CONFIG.from_dict(architecture)
        config = self.architecture = architecture
        self.encoder = self.ENCODER(config, name=config.model_type, dtype=self.dtype_policy)
        self.dropout = keras.layers.Dropout(config.dropout_rate, dtype=self.dtype_policy)
        # Logits in full precision: the loss of 16-bit logits is too coarse to train on.
        self.classifier = gated_dense(
            config, config.num_outputs, "classifier", None, self.variable_dtype, use_bias=True
        )
        self.build(None)

    def build(self, input_shape: Shape | None = None) -> None:
        self.encoder.build(None)
        self.classifier.build((None, self.architecture.hidden_size))

    def call(self, inputs: dict[str, Tensor], training: bool | None = None) -> Tensor:
        """Classifies a batch, or its tokens.

        Args:
            inputs: dictionary of the model's inputs, see `PostNormEncoder.call`, each int [batch, length].
            training: whether dropout and stochastic gates are active.

        Returns:
            Logits [batch, num_outputs], float32; with a span head [batch, num_outputs, length], where padding has
            no share in a softmax over the tokens; with a token head [batch, length, num_outputs].
        """
        hidden, pooled = self.encoder(inputs, training=training)
        if self.architecture.span_head:
            return self._span_logits(hidden, inputs.get("attention_mask"), training)
        read = hidden if pooled is None else pooled
        return self.classifier(self.dropout(read, training=training), training=training)

    def _span_logits(self, hidden, attention_mask, training):
        # Tokens last: each output is then a classification of the tokens, for losses and metrics as they are.
        logits = ops.transpose(self.classifier(hidden, training=training), (0, 2, 1))
        if attention_mask is None:
            return logits
        return ops.where(ops.cast(attention_mask, "bool")[:, None, :], logits, MASKED)

    @classmethod
    def stored_matrices(cls, architecture: Architecture) -> dict[tuple[int | None, str], str]:
        blocks = range(architecture.num_layers)
        stems = {(block, role): f"encoder/blocks/{cls.BLOCK_FOLDER}{f'_{block}' * bool(block)}/{place}"
                 for block in blocks for role, place in PLACES.items()}  # fmt: skip
        return stems | {(None, "pooler"): "encoder/pooler", (None, "classifier"): "classifier"}
