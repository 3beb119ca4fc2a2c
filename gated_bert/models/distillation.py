"""The loss of a model that learns from another one: labels, the teacher's outputs, and outputs of encoder layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from gated_bert.models.backbone import EncoderClassifier
from gated_bert.support.tensors import Tensor
from gated_bert.tasks.encoded import REAL
from gated_bert.tasks.kinds import MULTI_LABEL, TARGET, TOKENS
from gated_bert.tasks.taught import LABELS, TEACHER_OUTPUTS

LAYER_MAP = "layer_map"
"""Name of the layer, and of its weight, that training alone has."""

def hard_loss(kind: str, labels: Tensor, outputs: Tensor) -> Tensor:
    """What a task's labels say.

    Args:
        kind: of the task.
        labels: [batch] classes or targets; of spans [batch, 2], of tags [batch, length], negative where there is none,
            of several classes at once [batch, outputs].
        outputs: of the model, [batch, outputs]; of spans [batch, 2, length], of tags [batch, length, outputs].

    Returns:
        The cross-entropy, of spans the mean of start and end, of several classes that over them, of tags so that the
        mean over the batch is that over its tags; or the squared error; [batch] float32.
    """
    if kind == TARGET:
        return ops.square(_float32(outputs)[:, 0] - _float32(ops.reshape(labels, (-1,))))
    if kind == MULTI_LABEL:
        return _per_example(ops.binary_crossentropy(_float32(labels), _float32(outputs), from_logits=True))
    if kind == TOKENS:
        known = labels >= 0
        classes = ops.where(known, labels, 0)
        losses = keras.losses.sparse_categorical_crossentropy(classes, _float32(outputs), from_logits=True)
        return _over_tokens(losses, known)
    return _per_example(keras.losses.sparse_categorical_crossentropy(labels, _float32(outputs), from_logits=True))


def soft_loss(
    kind: str, teacher: Tensor, outputs: Tensor, temperature: float, known: Tensor | None = None
) -> Tensor:
    """What a teacher's outputs say.

    `keras.distillation.LogitsDistillation(T, keras.losses.KLDivergence())` computes the same mean, but cuts
    probabilities off at 1e-7: a class that the student denies below that gives no gradient.

    Args:
        kind: of the task.
        teacher: the teacher's outputs, as `outputs`.
        outputs: of the model, [batch, outputs]; of spans [batch, 2, length], at padding so low that it has no share; of
            tags [batch, length, outputs].
        temperature: T.
        known: which tokens have tags, [batch, length].

    Returns:
        T² · KL(softmax(teacher/T) ‖ softmax(outputs/T)), of spans the mean of start and end, of tags so that the mean
        over the batch is that over its tags, of several classes at once the mean of each one's KL; of a regression the
        squared difference; [batch] float32.
    """
    teacher, outputs = ops.stop_gradient(_float32(teacher)), _float32(outputs)
    if kind == TARGET:
        return ops.square(outputs[:, 0] - teacher[:, 0])
    if kind == MULTI_LABEL:
        # Of σ(x) as of a softmax over x and 0.
        teacher, outputs = (ops.stack([each, ops.zeros_like(each)], axis=-1) for each in (teacher, outputs))
    wanted, found = (ops.log_softmax(each / temperature, axis=-1) for each in (teacher, outputs))
    losses = ops.sum(ops.exp(wanted) * (wanted - found), axis=-1)
    return temperature**2 * (_per_example(losses) if known is None else _over_tokens(losses, known))


class Distillation:
    """A training loss: (1 − h) · labels + h · teacher + layers.

    The teacher's outputs come with the batches, see `gated_bert.tasks.taught`.

    Args:
        kind: of the task.
        hardness: h.
        temperature: T.
        layers: what the outputs of encoder layers say; None: nothing.

    Paper: Hinton et al. 2015, Distilling the Knowledge in a Neural Network (https://arxiv.org/abs/1503.02531).
    """

    def __init__(self, kind: str, hardness: float, temperature: float, layers: LayerDistillation | None = None):
        self.kind, self.hardness, self.temperature, self.layers = kind, hardness, temperature, layers

    def __call__(self, model: Any, inputs: Mapping[str, Any], labels: Any, outputs: Any) -> Tensor:
        """The loss of each example, [batch]; see `gated_bert.models.backbone.TrainingLoss`."""
        wanted, teacher = labels[LABELS], labels[TEACHER_OUTPUTS]
        loss = mixed_loss(self.kind, self.hardness, self.temperature, wanted, teacher, outputs)
        return loss if self.layers is None else loss + self.layers(model, inputs)


class LayerDistillation:
    """β times the mean over pairs of encoder layers of ‖f_t − f_s‖² / ‖f_t‖² at real tokens.

    `last` pairs the last layers, `all` equal depths. `nearest` takes the teacher's layers 1/4, 2/4, 3/4 and 4/4 deep,
    each of which goes to the student's layer that is nearest after a linear map, and not before the previous one's.

    Args:
        teacher: its model, which is run in inference mode beside the student.
        student: the model that learns.
        which: `last`, `all` or `nearest`.
        weight: β.

    Attributes:
        linear: the map of `nearest`, [hidden, hidden], begun at identity, a weight of training; else None.

    Papers: Kurtic et al. 2023, Sparse Fine-tuning for Inference Acceleration of Large Language Models
    (https://arxiv.org/abs/2310.06927); Xia et al. 2022, Structured Pruning Learns Compact and Accurate Models
    (https://arxiv.org/abs/2204.00408).
    """

    def __init__(self, teacher: EncoderClassifier, student: EncoderClassifier, which: str, weight: float):
        self.teacher, self.which, self.weight = teacher, which, weight
        teacher.trainable = False
        for block in (*teacher.encoder.blocks, *student.encoder.blocks):
            block.watched = True
        self.linear: keras.layers.Dense | None = None
        if which == "nearest":
            size = student.architecture.hidden_size
            self.linear = keras.layers.Dense(size, use_bias=False, kernel_initializer="identity", name=LAYER_MAP,
                                             dtype=student.dtype_policy)  # fmt: skip
            self.linear.build((None, None, size))

    def __call__(self, model: EncoderClassifier, inputs: Mapping[str, Any]) -> Tensor:
        """The loss of a batch that the student has just read, a scalar."""
        given = [block.take_output() for block in model.encoder.blocks]
        self.teacher(inputs, training=False)
        wanted = [ops.stop_gradient(block.take_output()) for block in self.teacher.encoder.blocks]
        real = _float32(inputs[REAL])[..., None]
        if self.which == "last":
            pairs = [(wanted[-1], given[-1])]
        elif self.linear is None:
            pairs = list(zip(wanted, given, strict=True))
        else:
            pairs = _nearest([wanted[place] for place in quarters(len(wanted))], [*map(self.linear, given)], real)
        distances = [_distance(teacher, student, real) for teacher, student in pairs]
        return self.weight * sum(distances[1:], distances[0]) / len(distances)


def quarters(layers: int) -> list[int]:
    """The layers 1/4, 2/4, 3/4 and 4/4 deep, counted from 0; of fewer than four all."""
    return sorted({-(-layers * quarter // 4) - 1 for quarter in (1, 2, 3, 4)})


def _nearest(wanted: Sequence[Tensor], given: Sequence[Tensor], real: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Each of the teacher's layers with the student's nearest one from the previous one's on."""
    stacked = ops.stack(given)
    rows = ops.reshape(ops.stop_gradient(_float32(stacked) * real), (len(given), -1))
    squares, first, pairs = ops.sum(ops.square(rows), axis=1), 0, []
    for layer in wanted:
        # ‖t − s‖² less ‖t‖², which is the same for all.
        far = squares - 2.0 * ops.matmul(rows, ops.reshape(_float32(layer) * real, (-1,)))
        first = ops.argmin(ops.where(ops.arange(len(given)) < first, np.inf, far))
        pairs.append((layer, ops.take(stacked, first, axis=0)))
    return pairs


def _distance(teacher: Tensor, student: Tensor, real: Tensor) -> Tensor:
    teacher, student = _float32(teacher), _float32(student)
    return ops.sum(ops.square(teacher - student) * real) / ops.sum(ops.square(teacher) * real)


def mixed_loss(
    kind: str, hardness: float, temperature: float, labels: Tensor, teacher: Tensor, outputs: Tensor
) -> Tensor:
    """(1 − h) of `hard_loss` and h of `soft_loss`, [batch]; a part that has no share is not computed."""
    parts = []
    if hardness < 1:
        parts.append((1 - hardness) * hard_loss(kind, labels, outputs))
    if hardness > 0:
        known = labels >= 0 if kind == TOKENS else None
        parts.append(hardness * soft_loss(kind, teacher, outputs, temperature, known))
    return sum(parts[1:], parts[0])


def _per_example(values: Tensor) -> Tensor:
    """The mean over all axes but the first."""
    axes = tuple(range(1, len(values.shape)))
    return ops.mean(values, axis=axes) if axes else values


def _over_tokens(values: Tensor, known: Tensor) -> Tensor:
    """Sums of what tokens of a batch have, [batch], whose mean is that over all known tokens."""
    known = _float32(known)
    share = ops.cast(ops.shape(values)[0], "float32") / ops.maximum(ops.sum(known), 1.0)
    return ops.sum(values * known, axis=1) * share


def _float32(values):
    return ops.cast(values, "float32")
