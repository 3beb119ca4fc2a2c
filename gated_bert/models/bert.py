"""BERT with a classification, regression or span head."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import keras
from keras import ops

from gated_bert.models.architecture import BertConfig
from gated_bert.models.encoder import MASKED, BertEncoder
from gated_bert.models.gated_dense import GatedDense
from gated_bert.models.layers import ConstantOutput, gated_dense
from gated_bert.support.errors import UserError

TrainingLoss = Callable[[keras.Model, Mapping[str, Any], Any, Any], Any]
"""(model, inputs, labels, outputs) → a loss per example [batch], or a scalar.

The outputs are those of the model in training, so that nothing is computed twice. It is called where the training step
is traced: of `keras.ops`, and of Keras' losses with `reduction="none"`, since the mean over a batch, also over one that
several devices share, is taken of what it returns.
"""


@keras.saving.register_keras_serializable(package="gated_bert")
class BertClassifier(keras.Model):
    """BERT out of `GatedDense` layers, with a linear head on the pooled first token, or on every token for spans.

    Its weights exist as soon as it is made. A `.keras` file holds all of it: architecture, weights and gates.

    Args:
        bert_config: the architecture, a `BertConfig` or its dictionary.
        **kwargs: `name` and `dtype` of `keras.Model`.

    Example:

    ```python
    model = BertClassifier(BertConfig.uniform(2, 64, 4, 128, vocab_size=1000))
    logits = model({"input_ids": [[2, 7, 3]], "token_type_ids": [[0, 0, 0]], "attention_mask": [[1, 1, 1]]})
    ```
    """

    def __init__(self, bert_config: BertConfig | dict, name: str = "bert_classifier", **kwargs):
        super().__init__(name=name, **kwargs)
        self.bert_config = bert_config if isinstance(bert_config, BertConfig) else BertConfig.from_dict(bert_config)
        config = self.bert_config
        self.encoder = BertEncoder(config, name="bert", dtype=self.dtype_policy)
        self.dropout = keras.layers.Dropout(config.dropout_rate, dtype=self.dtype_policy)
        # Logits in full precision: the loss of 16-bit logits is too coarse to train on.
        self.classifier = gated_dense(config, config.num_outputs, "classifier", None, self.variable_dtype)
        self.build(None)

    def build(self, input_shape=None):
        self.encoder.build(None)
        self.classifier.build((None, self.bert_config.hidden_size))

    def call(self, inputs, training=None):
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

    def train_on(self, loss: TrainingLoss | None):
        """Makes `fit` train on another loss than the compiled one, which evaluation, and what probes the task, keep.

        The model holds it by reference alone: what it is made of, another model for one, is no part of this model, its
        checkpoints or its files. The gates' own penalties are added to it as to the compiled loss.

        Args:
            loss: the loss; None for the compiled one again.
        """
        # Keras and TensorFlow track what is set in the ordinary way, if it is a layer or holds variables.
        object.__setattr__(self, "_training_loss", loss)
        self.train_function = None

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        loss = self.__dict__.get("_training_loss")
        if not training or loss is None:
            return super().compute_loss(x, y, y_pred, sample_weight, training)
        terms = [ops.mean(loss(self, x, y, y_pred)), *self.losses]
        # Sums what is a tensor and, of a batch that devices share, takes each one's part.
        return sum(map(self._aggregate_additional_loss, terms))

    def predict_on_batch(self, x):
        """As Keras' own, but an empty batch is refused, as it is of an exported model.

        Raises:
            UserError: no sequence in it.
        """
        refuse_empty_batch(x["input_ids"])
        return super().predict_on_batch(x)

    def gated_layers(self, roles: tuple[str, ...] | None = None) -> list[GatedDense]:
        """The gated layers from input to output.

        Args:
            roles: only these roles; None for all.

        Returns:
            For every block query, key, value, attention output and the two of the feed-forward network, as far as
            the block has them; then pooler, which a span head has not, and classifier.
        """
        layers = []
        for block in self.encoder.blocks:
            attention, ffn = block.attention, block.ffn
            layers += [attention.query, attention.key, attention.value, attention.output_dense]
            layers += [ffn.intermediate, ffn.output_dense]
        layers += [self.encoder.pooler, self.classifier]
        gated = [layer for layer in layers if layer is not None and not isinstance(layer, ConstantOutput)]
        return [layer for layer in gated if roles is None or layer.role in roles]

    def get_config(self):
        base = {
            "name": self.name,
            "trainable": self.trainable,
            "dtype": keras.dtype_policies.serialize(self.dtype_policy),
        }
        return {**base, "bert_config": self.bert_config.to_dict()}

    @classmethod
    def from_config(cls, config, custom_objects=None):
        config = dict(config)
        config["dtype"] = keras.dtype_policies.deserialize(config["dtype"], custom_objects=custom_objects)
        trainable = config.pop("trainable", True)
        model = cls(**config)
        model.trainable = trainable
        return model

    def get_build_config(self):
        return None


def refuse_empty_batch(input_ids):
    """Refuses a batch [0, length], for which parts of exported models have no shape.

    Raises:
        UserError: no sequence in it.
    """
    if not len(input_ids):
        raise UserError("predict: a batch of 0 texts is refused; allowed: 1 or more")
