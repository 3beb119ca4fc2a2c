"""The official GLUE metrics on arrays, and streaming forms of all primary metrics for the progress of `fit`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
from keras import ops
from scipy import special, stats
from sklearn import metrics as sklearn_metrics

from gated_bert.support.tensors import Tensor
from gated_bert.tasks.kinds import MULTI_LABEL, SPANS, TARGET, TOKENS
from gated_bert.tasks.task import OUTSIDE, Task


def evaluate(task: Task, outputs: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Loss and metrics of a task.

    Args:
        task: what is judged.
        outputs: [n, num_outputs] logits, or predicted targets.
        labels: [n] classes or targets, or [n, classes] of several at once.

    Returns:
        "loss" (mean cross-entropy in nats, of several classes at once over them too, or mean squared error) and each of
        the task's metrics, as fractions. Constant predictions have correlation 0; outputs that are not finite give NaN
        everywhere.
    """
    outputs = np.asarray(outputs, dtype=np.float64)
    if not np.isfinite(outputs).all():
        return dict.fromkeys(("loss", *task.metrics), float("nan"))
    if task.kind == MULTI_LABEL:
        predicted = holding(outputs)
        # log(1 + eˣ) − yx is the cross-entropy of σ(x).
        loss = np.mean(np.logaddexp(0, outputs) - labels * outputs)
    elif task.kind == TARGET:
        predicted, labels = outputs[:, 0], np.asarray(labels, dtype=np.float64)
        loss = np.mean((predicted - labels) ** 2)
    else:
        predicted = outputs.argmax(axis=1)
        loss = -special.log_softmax(outputs, axis=1)[np.arange(len(labels)), labels].mean()
    return {"loss": float(loss), **{name: float(METRICS[name](labels, predicted)) for name in task.metrics}}


def holding(logits: np.ndarray) -> np.ndarray:
    """Which of several classes hold: those whose probability σ(x) is above a half; int32, as `logits`."""
    return (np.asarray(logits) > 0).astype(np.int32)


def by_split(task: Task, scores: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """Loss and metrics of all development sets under one name each.

    Args:
        task: what is judged.
        scores: of `evaluate`, by split.

    Returns:
        The first of the task's splits keeps the plain names, the others add theirs ("accuracy_mismatched",
        "loss_mismatched").
    """
    named: dict[str, float] = {}
    for split in task.dev_splits:
        suffix = "" if split == task.dev_splits[0] else "_" + split.removeprefix("dev_")
        named |= {name + suffix: value for name, value in scores[split].items()}
    return named


def _correlation(function):
    def correlate(labels: np.ndarray, predicted: np.ndarray) -> float:
        if len(labels) < 2 or np.ptp(labels) == 0 or np.ptp(predicted) == 0:
            return 0.0
        value = function(labels, predicted).statistic
        # Predictions so nearly constant that their variance vanishes.
        return value if np.isfinite(value) else 0.0

    return correlate


def _averaged(score):
    """The second class's score; where there are more than two, the mean over classes."""

    def average(labels: np.ndarray, predicted: np.ndarray, sample_weight: np.ndarray | None = None) -> float:
        several = max(labels.max(), predicted.max()) > 1
        options = {"average": "macro" if several else "binary", "zero_division": 0.0}
        return score(labels, predicted, sample_weight=sample_weight, **options)

    return average


def _of_labels(score, average: str):
    """A score of several classes at once, [n, classes] each; a class that neither holds nor is found has 0."""

    def averaged(labels: np.ndarray, predicted: np.ndarray) -> float:
        return score(labels, predicted, average=average, zero_division=0.0)

    return averaged


METRICS = {
    "accuracy": sklearn_metrics.accuracy_score,
    "f1": _averaged(sklearn_metrics.f1_score),
    "precision": _averaged(sklearn_metrics.precision_score),
    "matthews": sklearn_metrics.matthews_corrcoef,
    "micro_f1": _of_labels(sklearn_metrics.f1_score, average="micro"),
    "macro_f1": _of_labels(sklearn_metrics.f1_score, average="macro"),
    "subset_accuracy": sklearn_metrics.accuracy_score,
    "pearson": _correlation(stats.pearsonr),
    "spearman": _correlation(stats.spearmanr),
}
"""Metrics of (labels, predictions) by name; those of classes take `sample_weight` as well."""


def streaming_metric(task: Task) -> keras.metrics.Metric:
    """The task's primary metric on (labels, outputs), batch by batch in `fit`; of spans and tags the F1 of tokens.

    Raises:
        ValueError: the primary metric has no streaming form (Spearman needs all ranks at once).
    """
    name = task.primary_metric
    if task.kind == SPANS:
        return StreamingSpanF1(name=name)
    if task.kind == TOKENS:
        outside = task.labels.index(OUTSIDE) if name == "f1" and OUTSIDE in task.labels else None
        return StreamingTagF1(outside, name=name)
    if name not in STREAMING:
        raise ValueError(f"no streaming form of {name}; there is one of {', '.join(STREAMING)}")
    return STREAMING[name](name=name)


@keras.saving.register_keras_serializable("gated_bert")
class StreamingCounts(keras.metrics.Metric):
    """Base of the two-class metrics: counts of (label, prediction)."""

    def __init__(self, name: str, **kwargs: Any):
        super().__init__(name=name, **kwargs)
        self.counts = self.add_weight(shape=(2, 2), initializer="zeros", name="counts")

    def update_state(self, y_true: Tensor, y_pred: Tensor, sample_weight: Tensor | None = None) -> None:
        labels = ops.one_hot(ops.cast(ops.reshape(y_true, (-1,)), "int32"), 2, dtype="float32")
        predicted = ops.one_hot(ops.argmax(y_pred, axis=-1), 2, dtype="float32")
        self.counts.assign_add(ops.matmul(ops.transpose(labels), predicted))

    def rates(self) -> tuple:
        """True negatives, false positives, false negatives and true positives."""
        return self.counts[0, 0], self.counts[0, 1], self.counts[1, 0], self.counts[1, 1]


@keras.saving.register_keras_serializable("gated_bert")
class StreamingF1(StreamingCounts):
    """F1 of the second class."""

    def result(self) -> Tensor:
        _, false_positive, false_negative, true_positive = self.rates()
        return ops.divide_no_nan(2 * true_positive, 2 * true_positive + false_positive + false_negative)


@keras.saving.register_keras_serializable("gated_bert")
class StreamingMatthews(StreamingCounts):
    """Matthews correlation of two classes."""

    def result(self) -> Tensor:
        true_negative, false_positive, false_negative, true_positive = self.rates()
        product = (true_positive + false_positive) * (true_positive + false_negative)
        other = (true_negative + false_positive) * (true_negative + false_negative)
        covariance = true_positive * true_negative - false_positive * false_negative
        return ops.divide_no_nan(covariance, ops.sqrt(product) * ops.sqrt(other))


@keras.saving.register_keras_serializable("gated_bert")
class StreamingPearson(keras.metrics.Metric):
    """Pearson correlation, from running means and co-moments."""

    def __init__(self, name: str = "pearson", **kwargs: Any):
        super().__init__(name=name, **kwargs)
        self.count = self.add_weight(shape=(), initializer="zeros", name="count")
        self.means = self.add_weight(shape=(2,), initializer="zeros", name="means")
        self.moments = self.add_weight(shape=(2, 2), initializer="zeros", name="moments")

    def update_state(self, y_true: Tensor, y_pred: Tensor, sample_weight: Tensor | None = None) -> None:
        columns = [ops.cast(ops.reshape(values, (-1,)), "float32") for values in (y_true, y_pred)]
        batch = ops.stack(columns, axis=1)
        size = ops.cast(ops.shape(batch)[0], "float32")
        batch_means = ops.mean(batch, axis=0)
        centred = batch - batch_means
        # Merging means and moments, not sums of squares: in float32 those cancel.
        shift = batch_means - self.means
        total = self.count + size
        self.moments.assign_add(
            ops.matmul(ops.transpose(centred), centred) + ops.outer(shift, shift) * (self.count * size / total)
        )
        self.means.assign_add(shift * (size / total))
        self.count.assign(total)

    def result(self) -> Tensor:
        scale = ops.sqrt(self.moments[0, 0]) * ops.sqrt(self.moments[1, 1])
        return ops.divide_no_nan(self.moments[0, 1], scale)


@keras.saving.register_keras_serializable("gated_bert")
class StreamingSpanF1(keras.metrics.Mean):
    """Mean F1 of the tokens between the likeliest start and end, window by window.

    Labels are first and last token, [batch, 2]; outputs are logits [batch, 2, length].
    """

    def update_state(self, y_true: Tensor, y_pred: Tensor, sample_weight: Tensor | None = None) -> None:
        wanted = ops.cast(y_true, "int32")
        found = ops.cast(ops.argmax(y_pred, axis=-1), "int32")
        lengths = [ops.maximum(span[:, 1] - span[:, 0] + 1, 0) for span in (wanted, found)]
        shared = ops.minimum(wanted[:, 1], found[:, 1]) - ops.maximum(wanted[:, 0], found[:, 0]) + 1
        super().update_state(2 * ops.maximum(shared, 0) / (lengths[0] + lengths[1]), sample_weight)


@keras.saving.register_keras_serializable("gated_bert")
class _StreamingCountF1(keras.metrics.Metric):
    """F1 of what is counted: right, and found and wanted in all."""

    def __init__(self, name: str, **kwargs: Any):
        super().__init__(name=name, **kwargs)
        self.counts = self.add_weight(shape=(2,), initializer="zeros", name="counts")

    def add(self, right: Tensor, found: Tensor, wanted: Tensor) -> None:
        """Counts of booleans, all of one shape."""
        right, found, wanted = (ops.sum(ops.cast(each, "float32")) for each in (right, found, wanted))
        self.counts.assign_add(ops.stack([2 * right, found + wanted]))

    def result(self) -> Tensor:
        return ops.divide_no_nan(self.counts[0], self.counts[1])


@keras.saving.register_keras_serializable("gated_bert")
class StreamingTagF1(_StreamingCountF1):
    """F1 of the tags of tokens other than one; without one, their accuracy.

    Labels are [batch, length], negative at tokens without one; outputs are logits [batch, length, tags].

    Args:
        outside: index of the tag that is nothing to be found.
    """

    def __init__(self, outside: int | None, name: str = "f1", **kwargs: Any):
        super().__init__(name=name, **kwargs)
        self.outside = -1 if outside is None else outside

    def update_state(self, y_true: Tensor, y_pred: Tensor, sample_weight: Tensor | None = None) -> None:
        labels, predicted = ops.cast(y_true, "int32"), ops.cast(ops.argmax(y_pred, axis=-1), "int32")
        known = labels >= 0
        wanted, found = (ops.logical_and(known, each != self.outside) for each in (labels, predicted))
        self.add(ops.logical_and(wanted, labels == predicted), found, wanted)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "outside": self.outside}


@keras.saving.register_keras_serializable("gated_bert")
class StreamingMicroF1(_StreamingCountF1):
    """F1 over all of several classes at once; labels and logits are [batch, classes]."""

    def update_state(self, y_true: Tensor, y_pred: Tensor, sample_weight: Tensor | None = None) -> None:
        wanted, found = ops.cast(y_true, "int32") > 0, y_pred > 0
        self.add(ops.logical_and(wanted, found), found, wanted)


STREAMING = {
    "accuracy": keras.metrics.SparseCategoricalAccuracy,
    "f1": StreamingF1,
    "matthews": StreamingMatthews,
    "micro_f1": StreamingMicroF1,
    "pearson": StreamingPearson,
}
"""Streaming metrics by name."""
