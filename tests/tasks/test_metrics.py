import math

import keras
import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as sklearn_metrics

from gated_bert.tasks.metrics import (
    StreamingF1,
    StreamingMatthews,
    StreamingPearson,
    by_split,
    evaluate,
    streaming_metric,
)
from gated_bert.tasks.task import TASKS, Task


def as_logits(predicted, classes=2):
    return np.eye(classes)[predicted]


def test_counts_by_hand():
    # True positives 2, false positives 1, false negatives 1, true negatives 4.
    labels = np.array([1, 1, 1, 0, 0, 0, 0, 0])
    outputs = as_logits([1, 1, 0, 1, 0, 0, 0, 0])
    mrpc = evaluate(TASKS["mrpc"], outputs, labels)
    assert mrpc["accuracy"] == pytest.approx(6 / 8)
    assert mrpc["f1"] == pytest.approx(2 * 2 / (2 * 2 + 1 + 1))
    assert evaluate(TASKS["cola"], outputs, labels)["matthews"] == pytest.approx((2 * 4 - 1) / math.sqrt(3 * 3 * 5 * 5))
    assert list(mrpc) == ["loss", "accuracy", "f1"]


def test_losses_by_hand():
    loss = evaluate(TASKS["sst2"], np.array([[0.0, math.log(3)], [1000.0, 0.0]]), np.array([1, 0]))["loss"]
    assert loss == pytest.approx(math.log(4 / 3) / 2)
    assert evaluate(TASKS["stsb"], np.array([[1.0], [5.0]]), np.float32([2.0, 2.0]))["loss"] == 5.0


def test_correlations_by_hand():
    scores = evaluate(TASKS["stsb"], np.array([[1.0], [2.0], [9.0]]), np.float32([0.0, 1.0, 2.0]))
    assert scores["spearman"] == pytest.approx(1.0)
    assert scores["pearson"] == pytest.approx(8 / math.sqrt(38 * 2))


def test_constant_and_broken_outputs():
    labels = np.float32([1.0, 2.0, 3.0])
    scores = evaluate(TASKS["stsb"], np.ones((3, 1)), labels)
    assert scores["pearson"] == scores["spearman"] == 0.0
    assert evaluate(TASKS["cola"], as_logits([1, 1]), np.array([0, 1]))["matthews"] == 0.0
    assert evaluate(TASKS["mrpc"], as_logits([0, 0]), np.array([0, 0]))["f1"] == 0.0
    broken = evaluate(TASKS["stsb"], np.array([[1.0], [np.nan], [2.0]]), labels)
    assert all(math.isnan(value) for value in broken.values()) and list(broken) == ["loss", "pearson", "spearman"]


def test_f1_and_precision_of_several_classes_are_means_over_them():
    task = Task("own", "own", labels=("a", "b", "c"), metrics=("f1", "precision"))
    scores = evaluate(task, as_logits([0, 1, 1, 2], 3), np.array([0, 1, 2, 2]))
    assert scores["f1"] == pytest.approx((1 + 2 / 3 + 2 / 3) / 3)
    assert scores["precision"] == pytest.approx((1 + 1 / 2 + 1) / 3)


def evaluate_all(task, results):
    return by_split(task, {split: evaluate(task, *given) for split, given in results.items()})


def test_a_second_set_has_its_own_columns():
    good, bad = (as_logits([0, 1], 3), np.array([0, 1])), (as_logits([0, 1], 3), np.array([0, 2]))
    scores = evaluate_all(TASKS["mnli"], {"dev_mismatched": bad, "dev_matched": good})
    assert list(scores) == ["loss", "accuracy", "loss_mismatched", "accuracy_mismatched"]
    assert (scores["accuracy"], scores["accuracy_mismatched"]) == (1.0, 0.5)
    good, bad = ((as_logits(predicted, 4), np.array([0, 3])) for predicted in ([0, 3], [0, 1]))
    news = evaluate_all(TASKS["ag_news"], {"test": bad, "validation": good})
    assert (news["accuracy"], news["accuracy_test"]) == (1.0, 0.5)
    assert evaluate_all(TASKS["rte"], {"dev": (as_logits([0, 1]), np.array([0, 1]))})["accuracy"] == 1.0


@pytest.mark.parametrize(
    ("metric", "reference"),
    [(StreamingF1, sklearn_metrics.f1_score), (StreamingMatthews, sklearn_metrics.matthews_corrcoef)],
)
def test_streaming_counts_equal_scikit_learn(metric, reference):
    random = np.random.default_rng(0)
    labels, outputs = random.integers(0, 2, 500), random.normal(size=(500, 2))
    outputs[np.arange(500), labels] += 0.7
    streaming = metric(name="m")
    assert float(streaming.result()) == 0.0
    for rows in np.array_split(np.arange(500), 7):
        streaming.update_state(labels[rows].astype(np.int32), outputs[rows].astype(np.float32))
    assert float(streaming.result()) == pytest.approx(reference(labels, outputs.argmax(axis=1)), abs=1e-6)
    streaming.reset_state()
    assert float(streaming.result()) == 0.0


@pytest.mark.parametrize("offset", [0.0, 1000.0])
def test_streaming_pearson_equals_scipy_also_far_from_zero(offset):
    random = np.random.default_rng(0)
    labels = random.uniform(0, 5, 500).astype(np.float32)
    outputs = (labels + random.normal(size=500) + offset).astype(np.float32)
    streaming = StreamingPearson()
    assert float(streaming.result()) == 0.0
    for rows in np.array_split(np.arange(500), 7):
        streaming.update_state(labels[rows], outputs[rows, None])
    assert float(streaming.result()) == pytest.approx(stats.pearsonr(labels, outputs).statistic, abs=1e-4)


def test_each_task_has_a_streaming_metric_that_can_be_rebuilt():
    for task in TASKS.values():
        metric = streaming_metric(task)
        assert metric.name == task.primary_metric
        rebuilt = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(metric))
        assert type(rebuilt) is type(metric) and rebuilt.name == metric.name
    with pytest.raises(ValueError, match="no streaming form of spearman"):
        streaming_metric(Task("own", "own", "regression", metrics=("spearman",)))
