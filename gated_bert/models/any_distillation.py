"""Learning from a teacher with any Keras model: a loss to compile, and labels that hold what the teacher says."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

from gated_bert.models.distillation import hard_loss, mixed_loss
from gated_bert.support.checks import choose, number
from gated_bert.support.tensors import Tensor

KINDS = ("classification", "regression")


def with_teacher(labels: np.ndarray, outputs: np.ndarray) -> np.ndarray:
    """Labels for `fit` that hold what a teacher says of the same examples.

    Args:
        labels: [n] classes as numbers, or targets.
        outputs: of the teacher, [n, outputs]: logits, or for targets [n, 1]; `teacher.predict(x)`.

    Returns:
        [n, 1 + outputs] float32, for `DistillationLoss`.

    Raises:
        ValueError: other shapes.
    """
    labels, outputs = np.asarray(labels), np.asarray(outputs)
    rows = labels.reshape(len(labels), -1)
    if rows.shape[1] != 1 or outputs.ndim != 2 or len(outputs) != len(rows):
        raise ValueError(f"with_teacher: labels {labels.shape} and outputs {outputs.shape} are refused; allowed: [n] "
                         "and [n, outputs]")  # fmt: skip
    return np.concatenate([rows, outputs], axis=1).astype(np.float32)


@keras.saving.register_keras_serializable(package="gated_bert")
class DistillationLoss(keras.losses.Loss):
    """(1 − h) · task + h · teacher, of any Keras model whose outputs are logits [batch, classes] or targets [batch, 1].

    Of plain labels, as in an evaluation or where a criterion probes a batch, it is the task's loss alone: cross-entropy
    or squared error.

    Args:
        kind: `classification` or `regression`.
        hardness: h, 0 to 1.
        temperature: T, what logits are divided by.
        **kwargs: those of `keras.losses.Loss`.

    Raises:
        ConfigError: another kind, or a number out of its range.

    Example:

    ```python
    model.compile("adam", DistillationLoss(), metrics=[of_labels(keras.metrics.sparse_categorical_accuracy)])
    model.fit(x, with_teacher(labels, teacher.predict(x)))
    ```

    Paper: Hinton et al. 2015, Distilling the Knowledge in a Neural Network (https://arxiv.org/abs/1503.02531).
    """

    def __init__(
        self, kind: str = "classification", hardness: float = 0.9, temperature: float = 2.0,
        name: str = "distillation_loss", **kwargs: Any,
    ):  # fmt: skip
        super().__init__(name=name, **kwargs)
        choose("kind", kind, KINDS)
        number("hardness", hardness, 0, 1)
        number("temperature", temperature, 0, 100, True)
        self.kind, self.hardness, self.temperature = kind, hardness, temperature

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        """The loss of each example, [batch].

        Raises:
            ValueError: outputs of another shape: of a single one a softmax would say nothing.
        """
        shape = tuple(y_pred.shape)
        if len(shape) != 2 or (shape[1] is not None and (shape[1] == 1) != (self.kind == "regression")):
            raise ValueError(f"DistillationLoss: outputs {shape} are refused; allowed: of a classification [batch, "
                             "classes], logits of two classes or more, of a regression [batch, 1]")  # fmt: skip
        if not _holds_teacher(y_true, y_pred):
            return hard_loss(self.kind, ops.reshape(y_true, (-1,)), y_pred)
        return mixed_loss(self.kind, self.hardness, self.temperature, y_true[:, 0], y_true[:, 1:], y_pred)

    def get_config(self) -> dict[str, Any]:
        own = {name: getattr(self, name) for name in ("kind", "hardness", "temperature")}
        return super().get_config() | own


def of_labels(metric: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
    """A metric, `metric(y_true, y_pred)`, that sees the labels alone where what a teacher says stands beside them."""

    def seen(y_true: Tensor, y_pred: Tensor) -> Tensor:
        return metric(y_true[:, :1] if _holds_teacher(y_true, y_pred) else y_true, y_pred)

    seen.__name__ = getattr(metric, "__name__", "metric")
    return seen


def _holds_teacher(y_true: Tensor, y_pred: Tensor) -> bool:
    return len(y_true.shape) == 2 and y_true.shape[1] == y_pred.shape[1] + 1
