"""The loss of a model that learns from another one: labels, the teacher's outputs, and outputs of encoder layers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import keras
from keras import ops

from gated_bert.support.tensors import Tensor

TEACHER_OUTPUTS = "teacher_outputs"
"""Beside the inputs of a model, in batches of training: what the teacher says of these examples."""


def hard_loss(kind: str, labels: Tensor, outputs: Tensor) -> Tensor:
    """What a task's labels say.

    Args:
        kind: of the task.
        labels: [batch] classes or targets; of spans [batch, 2].
        outputs: of the model, [batch, outputs]; of spans [batch, 2, length].

    Returns:
        The cross-entropy, of spans the mean of start and end, or the squared error; [batch] float32.
    """
    if kind == "regression":
        return ops.square(_float32(outputs)[:, 0] - _float32(ops.reshape(labels, (-1,))))
    return _per_example(keras.losses.sparse_categorical_crossentropy(labels, _float32(outputs), from_logits=True))


def soft_loss(kind: str, teacher: Tensor, outputs: Tensor, temperature: float) -> Tensor:
    """What a teacher's outputs say.

    `keras.distillation.LogitsDistillation(T, keras.losses.KLDivergence())` computes the same mean, but cuts
    probabilities off at 1e-7: a class that the student denies below that gives no gradient.

    Args:
        kind: of the task.
        teacher: the teacher's outputs, as `outputs`.
        outputs: of the model, [batch, outputs]; of spans [batch, 2, length], at padding so low that it has no share.
        temperature: T.

    Returns:
        T² · KL(softmax(teacher/T) ‖ softmax(outputs/T)), of spans the mean of start and end; of a regression the
        squared difference; [batch] float32.
    """
    teacher, outputs = ops.stop_gradient(_float32(teacher)), _float32(outputs)
    if kind == "regression":
        return ops.square(outputs[:, 0] - teacher[:, 0])
    wanted, found = (ops.log_softmax(each / temperature, axis=-1) for each in (teacher, outputs))
    return temperature**2 * _per_example(ops.sum(ops.exp(wanted) * (wanted - found), axis=-1))


class Distillation:
    """A training loss: (1 − h) · labels + h · teacher + β · layers.

    The teacher's outputs come with the batches, under `TEACHER_OUTPUTS`.

    Args:
        kind: of the task.
        hardness: h.
        temperature: T.
        layers: what the outputs of encoder layers say, (model, inputs) → [batch], times β; None: nothing.

    Paper: Hinton et al. 2015, Distilling the Knowledge in a Neural Network (https://arxiv.org/abs/1503.02531).
    """

    def __init__(
        self, kind: str, hardness: float, temperature: float,
        layers: Callable[[keras.Model, Mapping[str, Any]], Tensor] | None = None,
    ):  # fmt: skip
        self.kind, self.hardness, self.temperature, self.layers = kind, hardness, temperature, layers

    def __call__(self, model: keras.Model, inputs: Mapping[str, Any], labels: Any, outputs: Any) -> Tensor:
        """The loss of each example, [batch]; see `gated_bert.models.backbone.TrainingLoss`."""
        loss = mixed_loss(self.kind, self.hardness, self.temperature, labels, inputs[TEACHER_OUTPUTS], outputs)
        return loss if self.layers is None else loss + self.layers(model, inputs)


def mixed_loss(
    kind: str, hardness: float, temperature: float, labels: Tensor, teacher: Tensor, outputs: Tensor
) -> Tensor:
    """(1 − h) of `hard_loss` and h of `soft_loss`, [batch]; a part that has no share is not computed."""
    parts = []
    if hardness < 1:
        parts.append((1 - hardness) * hard_loss(kind, labels, outputs))
    if hardness > 0:
        parts.append(hardness * soft_loss(kind, teacher, outputs, temperature))
    return sum(parts[1:], parts[0])


def _per_example(values: Tensor) -> Tensor:
    """The mean over all axes but the first."""
    axes = tuple(range(1, len(values.shape)))
    return ops.mean(values, axis=axes) if axes else values


def _float32(values):
    return ops.cast(values, "float32")
