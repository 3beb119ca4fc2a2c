"""What the toolkit asks of a model, whatever family of encoders it is of."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Protocol

import keras
from keras import ops

from gated_bert.models.architecture import Architecture
from gated_bert.models.encoder import EncoderBlock
from gated_bert.models.family import read_architecture_of
from gated_bert.models.gated_dense import GatedDense
from gated_bert.support.errors import UserError
from gated_bert.support.tensors import Tensor
from gated_bert.tasks.taught import LABELS

TrainingLoss = Callable[[keras.Model, Mapping[str, Any], Any, Any], Any]
"""(model, inputs, labels, outputs) → a loss per example [batch], or a scalar.

Labels are those of the batches that `fit` gets, with the teacher's outputs where there is one. The outputs are those
of the model in training, so that nothing is computed twice. It is called where the training step is traced: of
`keras.ops`, and of Keras' losses with `reduction="none"`, since the mean over a batch, also over one that several
devices share, is taken of what it returns.
"""


class Backbone(Protocol):
    """An encoder without a head.

    Attributes:
        blocks: its blocks from input to output; each names its matrices by role.
        embeddings: the layer that holds all that `embed` is made of.
        pooler: the layer that makes the first token what the classifier reads; None where there is none.
        pooler_activation: the activation function behind it: `tanh`, or one of `layers.ACTIVATION_FUNCTIONS`.
    """

    @property
    def pooler_activation(self) -> str: ...

    blocks: Sequence[EncoderBlock]
    embeddings: keras.layers.Layer
    pooler: GatedDense | None

    def pool(self, hidden: Tensor, attention_mask: Tensor, training: bool | None = None) -> Tensor | None:
        """What the classifier reads, [batch, hidden_size], of what the last block puts out; None without a pooler."""

    def embed(self, inputs: dict, training: bool | None = None) -> Tensor:
        """What the first block reads, [batch, length, hidden_size], of a dictionary of the model's inputs."""


class EncoderClassifier(keras.Model):
    """A backbone of gated layers with a head: whoever prunes, shrinks, exports or explains asks it, not a family.

    A family's class has the attributes below, computes in `call`, and makes its weights in `__init__`, so that
    `type(model)(architecture, name=…, dtype=…)` is another model of that family. `models.family` says how a family is
    registered.

    Attributes:
        architecture: its sizes.
        encoder: the backbone.
        classifier: the head's last layer.
    """

    STORED: ClassVar[str] = "architecture"
    """Where the architecture stands in the configuration that Keras stores."""

    architecture: Architecture
    encoder: Backbone
    classifier: GatedDense

    @classmethod
    def stored_matrices(cls, architecture: Architecture) -> dict[tuple[int | None, str], str]:
        """(encoder block, role) → where in a `.keras` file the arrays of a matrix stand; outside of blocks, None."""
        raise NotImplementedError(f"{cls.__name__} does not say where its matrices are stored")

    def gated_layers(self, roles: tuple[str, ...] | None = None) -> list[GatedDense]:
        """The gated layers from input to output.

        Args:
            roles: only these roles; None for all.

        Returns:
            For every block its matrices, of BERT query, key, value, attention output and the two of the feed-forward
            network, as far as the block has them; then pooler, which a span head has not, and classifier.
        """
        layers = [layer for block in self.encoder.blocks for layer in block.matrices().values()]
        layers += [layer for layer in (self.encoder.pooler, self.classifier) if layer is not None]
        return [layer for layer in layers if roles is None or layer.role in roles]

    def rebuilt(self, architecture: Architecture | None = None, dtype: Any = None) -> EncoderClassifier:
        """A model of the same family with fresh weights, not compiled; architecture and precision are by default these.

        Args:
            architecture: its sizes, e.g. smaller ones.
            dtype: as of `keras.Model`.
        """
        return type(self)(architecture or self.architecture, name=self.name, dtype=dtype or self.dtype_policy)

    def train_on(self, loss: TrainingLoss | None, beside: keras.layers.Layer | None = None) -> None:
        """Makes `fit` train on another loss than the compiled one, which evaluation, and what probes the task, keep.

        The model holds it by reference alone: what it is made of, another model for one, is no part of this model, its
        checkpoints or its files. The gates' own penalties are added to it as to the compiled loss.

        Args:
            loss: the loss; None for the compiled one again.
            beside: a built layer of the loss, whose weights are trained with the model's. They are in its variables and
                in checkpoints; `rebuilt` knows nothing of them, nor what `save_model` writes.
        """
        if beside is not None:
            self._tracker.unlock()
            self.beside = beside
            self._tracker.lock()
        # Keras and TensorFlow track what is set in the ordinary way, if it is a layer or holds variables.
        object.__setattr__(self, "_training_loss", loss)
        self.train_function = None

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool = True
    ) -> Tensor:
        loss = self.__dict__.get("_training_loss")
        if not training or loss is None:
            return super().compute_loss(x, _labels(y), y_pred, sample_weight, training)
        terms = [ops.mean(loss(self, x, y, y_pred)), *self.losses]
        # Sums what is a tensor and, of a batch that devices share, takes each one's part.
        return sum(map(self._aggregate_additional_loss, terms))

    def compute_metrics(self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None) -> dict[str, Any]:
        return super().compute_metrics(x, _labels(y), y_pred, sample_weight)

    def predict_on_batch(self, x: dict[str, Tensor]) -> Tensor:
        """As Keras' own, but an empty batch is refused, as it is of an exported model.

        Raises:
            UserError: no sequence in it.
        """
        refuse_empty_batch(x["input_ids"])
        return super().predict_on_batch(x)

    def get_config(self) -> dict[str, Any]:
        base = {
            "name": self.name,
            "trainable": self.trainable,
            "dtype": keras.dtype_policies.serialize(self.dtype_policy),
        }
        return {**base, self.STORED: self.architecture.to_dict()}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: dict | None = None) -> EncoderClassifier:
        config = dict(config)
        config["dtype"] = keras.dtype_policies.deserialize(config["dtype"], custom_objects=custom_objects)
        trainable = config.pop("trainable", True)
        model = cls(read_architecture_of(config.pop(cls.STORED), cls.__name__), **config)
        model.trainable = trainable
        return model

    def get_build_config(self) -> None:
        return None


def _labels(labels: Any) -> Any:
    """The labels of a batch, without what a teacher says beside them."""
    return labels[LABELS] if isinstance(labels, Mapping) else labels


def is_backbone(model: object) -> bool:
    """Whether `model` is of a known family, whose layers have roles, rather than any Keras model."""
    return isinstance(model, EncoderClassifier)


def refuse_empty_batch(input_ids: Tensor) -> None:
    """Refuses a batch [0, length], for which parts of exported models have no shape.

    Raises:
        UserError: no sequence in it.
    """
    if not len(input_ids):
        raise UserError("predict: a batch of 0 texts is refused; allowed: 1 or more")
