"""The loss with a teacher against NumPy, and against what Keras has of it."""

import functools

import keras
import numpy as np
import pytest
from keras import ops
from scipy.special import log_softmax

from gated_bert.models.distillation import TEACHER_OUTPUTS, Distillation, soft_loss

HARDNESS, TEMPERATURE = 0.7, 3.0
PADDING = -3e4
# By its default, the name of the loss, it takes no softmax (Keras 3.15).
KERAS = functools.partial(keras.distillation.LogitsDistillation, loss=keras.losses.KLDivergence())


def drawn(kind, batch=6, seed=0):
    """Labels, outputs of a teacher and of a student."""
    rng = np.random.default_rng(seed)
    if kind == "regression":
        return rng.normal(size=batch).astype("float32"), *(rng.normal(size=(2, batch, 1)).astype("float32"))
    if kind == "classification":
        return rng.integers(0, 3, batch).astype("int32"), *(3 * rng.normal(size=(2, batch, 3)).astype("float32"))
    lengths = np.array([7, 3, 5, 7, 2, 6])[:batch]
    outputs = 3 * rng.normal(size=(2, batch, 2, 7)).astype("float32")
    outputs = np.where(np.arange(7) < lengths[:, None, None], outputs, np.float32(PADDING))
    return rng.integers(0, lengths[:, None], (batch, 2)).astype("int32"), *outputs


def by_numpy(kind, labels, teacher, student, hardness, temperature):
    """(1 − h) · task + h · T² · KL, example by example and token by token, in float64."""
    found = []
    for label, wanted, given in zip(labels, teacher.astype(float), student.astype(float), strict=True):
        if kind == "regression":
            found.append((1 - hardness) * (given[0] - label) ** 2 + hardness * (given[0] - wanted[0]) ** 2)
            continue
        rows = [(label, wanted, given)] if kind == "classification" else list(zip(label, wanted, given, strict=True))
        losses = []
        for where, t, s in rows:
            t, s = t[t > PADDING], s[t > PADDING]
            p, q = log_softmax(t / temperature), log_softmax(s / temperature)
            divergence = sum(np.exp(a) * (a - b) for a, b in zip(p, q, strict=True))
            losses.append((1 - hardness) * -log_softmax(s)[where] + hardness * temperature**2 * divergence)
        found.append(np.mean(losses))
    return np.array(found)


@pytest.mark.parametrize("kind", ["classification", "regression", "span"])
@pytest.mark.parametrize("hardness", [0.0, HARDNESS, 1.0])
def test_the_loss_is_that_of_the_formula(kind, hardness):
    labels, teacher, student = drawn(kind)
    loss = Distillation(kind, hardness, TEMPERATURE)
    found = ops.convert_to_numpy(loss(None, {TEACHER_OUTPUTS: teacher}, labels, ops.convert_to_tensor(student)))
    np.testing.assert_allclose(found, by_numpy(kind, labels, teacher, student, hardness, TEMPERATURE), rtol=2e-5)


@pytest.mark.parametrize("kind", ["classification", "span"])
def test_keras_has_the_same_where_no_probability_is_tiny(kind):
    _, teacher, student = drawn(kind)
    own = float(ops.mean(soft_loss(kind, teacher, student, TEMPERATURE)))
    theirs = KERAS(TEMPERATURE).compute_loss(teacher, ops.convert_to_tensor(student))
    assert own == pytest.approx(float(theirs), rel=1e-4)


def test_a_class_that_the_student_denies_still_counts():
    """Where Keras' own stops: its probabilities are cut off at 1e-7."""
    teacher, student = np.array([[0.0, 0.0]], "float32"), np.array([[60.0, 0.0]], "float32")
    assert float(soft_loss("classification", teacher, student, 1.0)[0]) == pytest.approx(30 - np.log(2), rel=1e-5)
    assert float(KERAS(1.0).compute_loss(teacher, student)) < 10


def test_a_student_like_its_teacher_has_nothing_to_learn_from_it():
    for kind in ("classification", "regression", "span"):
        _, teacher, _ = drawn(kind)
        np.testing.assert_allclose(ops.convert_to_numpy(soft_loss(kind, teacher, teacher, 2.0)), 0, atol=1e-6)
