"""BERT with a classification, regression or span head."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from gated_bert.models.architecture import Architecture, BertConfig
from gated_bert.models.backbone import EncoderClassifier
from gated_bert.models.encoder import MASKED, PLACES, BertEncoder
from gated_bert.models.layers import gated_dense
from gated_bert.support.tensors import Shape, Tensor


@keras.saving.register_keras_serializable(package="gated_bert")
class BertClassifier(EncoderClassifier):
    """BERT out of `GatedDense` layers, with a linear head on the pooled first token, or on every token for spans.

    Its weights exist as soon as it is made. A `.keras` file holds all of it: architecture, weights and gates.

    Args:
        bert_config: the architecture, a `BertConfig` or its dictionary.
        **kwargs: `name` and `dtype` of `keras.Model`.

    Example:

    ```python
    model = BertClassifier(BertConfig.uniform(2, 64, 4, 128, vocab_size=1000))
    batch = {"input_ids": [[2, 7, 3]], "token_type_ids": [[0, 0, 0]], "attention_mask": [[1, 1, 1]]}
    logits = model({name: np.array(values) for name, values in batch.items()})
    ```
    """

    STORED = "bert_config"

    architecture: BertConfig
    encoder: BertEncoder

    def __init__(self, bert_config: BertConfig | dict, name: str = "bert_classifier", **kwargs: Any):
        super().__init__(name=name, **kwargs)
        self.bert_config = bert_config if isinstance(bert_config, BertConfig) else BertConfig.from_dict(bert_config)
        config = self.architecture = self.bert_config
        self.encoder = BertEncoder(config, name="bert", dtype=self.dtype_policy)
        self.dropout = keras.layers.Dropout(config.dropout_rate, dtype=self.dtype_policy)
        # Logits in full precision: the loss of 16-bit logits is too coarse to train on.
        self.classifier = gated_dense(config, config.num_outputs, "classifier", None, self.variable_dtype)
        self.build(None)

    def build(self, input_shape: Shape | None = None) -> None:
        self.encoder.build(None)
        self.classifier.build((None, self.bert_config.hidden_size))

    def call(self, inputs: dict[str, Tensor], training: bool | None = None) -> Tensor:
        """Classifies a batch, or its tokens.

        Args:
            inputs: dictionary of `input_ids`, `token_type_ids` and `attention_mask`, each int [batch, length].
            training: whether dropout and stochastic gates are active.

        Returns:
            Logits [batch, num_outputs], float32; with a span head [batch, num_outputs, length], where padding has
            no share in a softmax over the tokens.
        """
        hidden, pooled = self.encoder(inputs, training=training)
        if pooled is None:
            return self._token_logits(hidden, inputs.get("attention_mask"), training)
        return self.classifier(self.dropout(pooled, training=training), training=training)

    def _token_logits(self, hidden, attention_mask, training):
        # Tokens last: each output is then a classification of the tokens, for losses and metrics as they are.
        logits = ops.transpose(self.classifier(hidden, training=training), (0, 2, 1))
        if attention_mask is None:
            return logits
        return ops.where(ops.cast(attention_mask, "bool")[:, None, :], logits, MASKED)

    @classmethod
    def stored_matrices(cls, architecture: Architecture) -> dict[tuple[int | None, str], str]:
        blocks = range(architecture.num_layers)
        stems = {(block, role): f"encoder/blocks/encoder_block{f'_{block}' * bool(block)}/{place}"
                 for block in blocks for role, place in PLACES.items()}  # fmt: skip
        return stems | {(None, "pooler"): "encoder/pooler", (None, "classifier"): "classifier"}
