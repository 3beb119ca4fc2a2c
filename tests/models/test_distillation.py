"""The loss with a teacher against NumPy, and against what Keras has of it."""

import functools

import keras
import numpy as np
import pytest
from keras import ops
from scipy.special import log_softmax

from gated_bert.config import ConfigError
from gated_bert.models.any_distillation import DistillationLoss, of_labels, with_teacher
from gated_bert.models.architecture import BertConfig
from gated_bert.models.bert import BertClassifier
from gated_bert.models.distillation import Distillation, LayerDistillation, quarters, soft_loss
from gated_bert.models.encoder import padding_bias
from gated_bert.tasks.taught import LABELS, TEACHER_OUTPUTS

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
    loss, told = Distillation(kind, hardness, TEMPERATURE), {LABELS: labels, TEACHER_OUTPUTS: teacher}
    found = ops.convert_to_numpy(loss(None, {}, told, ops.convert_to_tensor(student)))
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


def made(seed, layers):
    keras.utils.set_random_seed(seed)
    model = BertClassifier(BertConfig.uniform(layers, 8, 2, 16, vocab_size=30), name=f"m{seed}")
    for weight in model.trainable_variables:
        # Layers as they are made hardly differ.
        weight.assign_add(keras.random.normal(weight.shape, stddev=0.5, seed=seed))
    return model


def states_of(model, inputs):
    """What transformers calls the hidden states, without the embeddings."""
    hidden, bias = model.encoder.embed(inputs), padding_bias(inputs["attention_mask"])
    found = []
    for block in model.encoder.blocks:
        hidden = block(hidden, bias)
        found.append(ops.convert_to_numpy(hidden))
    return found


def batch():
    rng = np.random.default_rng(3)
    real = (np.arange(7) < np.array([7, 4, 2, 6])[:, None]).astype(np.int32)
    ids = rng.integers(1, 30, (4, 7)).astype(np.int32) * real
    return {"input_ids": ids, "token_type_ids": 0 * ids, "attention_mask": real}


def distance(teacher, student, real):
    """Token by token, in float64."""
    over = under = 0.0
    for sentence, other, mask in zip(teacher.astype(float), student.astype(float), real, strict=True):
        for token, its, there in zip(sentence, other, mask, strict=True):
            if there:
                over, under = over + ((token - its) ** 2).sum(), under + (token**2).sum()
    return over / under


@pytest.mark.parametrize("which", ["last", "all", "nearest"])
@pytest.mark.daily_every(3)
def test_the_loss_of_layers_is_that_of_the_formula(which):
    teacher, student, inputs = made(1, 6), made(2, 6), batch()
    layers = LayerDistillation(teacher, student, which, 0.5)
    wanted, given, real = states_of(teacher, inputs), states_of(student, inputs), inputs["attention_mask"]
    if which == "last":
        pairs = [(wanted[-1], given[-1])]
    elif which == "all":
        pairs = list(zip(wanted, given, strict=True))
    else:
        turned = np.eye(8) + 0.1 * np.random.default_rng(4).normal(size=(8, 8))
        layers.linear.kernel.assign(turned)
        mapped, first, pairs = [state @ turned for state in given], 0, []
        for layer in (wanted[1], wanted[2], wanted[4], wanted[5]):
            first = min(range(first, 6), key=lambda place: distance(layer, mapped[place], real))
            pairs.append((layer, mapped[first]))
    expected = 0.5 * np.mean([distance(*pair, real) for pair in pairs])
    student(inputs, training=False)
    assert float(layers(student, inputs)) == pytest.approx(expected, rel=1e-4)


def test_a_student_like_its_teacher_has_nothing_to_learn_of_its_layers():
    teacher, inputs = made(1, 3), batch()
    student = teacher.rebuilt()
    student.set_weights(teacher.get_weights())
    for which in ("last", "all", "nearest"):
        layers = LayerDistillation(teacher, student, which, 1.0)
        student(inputs, training=False)
        assert float(layers(student, inputs)) == pytest.approx(0, abs=1e-6)


def test_quarters_of_a_depth_are_cofis():
    assert [quarters(layers) for layers in (12, 6, 4, 3, 2, 1)] == [
        [2, 5, 8, 11], [1, 2, 4, 5], [0, 1, 2, 3], [0, 1, 2], [0, 1], [0]]  # fmt: skip


@pytest.mark.nightly
def test_weights_of_the_loss_are_trained_and_neither_rebuilt_nor_the_teachers_moved():
    teacher, student, inputs = made(1, 2), made(2, 2), batch()
    before = [np.array(weight) for weight in teacher.get_weights()]
    layers = LayerDistillation(teacher, student, "nearest", 1.0)
    plain = len(student.weights)
    student.train_on(Distillation("classification", 0.5, 2.0, layers), layers.linear)
    student.compile(keras.optimizers.SGD(0.1), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    told = {LABELS: np.zeros(4, np.int32), TEACHER_OUTPUTS: np.zeros((4, 2), np.float32)}
    history = student.fit(inputs, told, batch_size=4, epochs=8, verbose=0, shuffle=False).history["loss"]
    assert history[-1] < history[0]
    assert not np.allclose(layers.linear.kernel, np.eye(8), atol=1e-4)
    assert all(np.array_equal(*pair) for pair in zip(before, teacher.get_weights(), strict=True))
    assert len(student.weights) == plain + 1 and len(student.rebuilt().weights) == plain
    assert float(student.evaluate(inputs, told[LABELS], verbose=0)) == pytest.approx(
        float(student.evaluate(inputs, told, verbose=0)))  # fmt: skip


@pytest.mark.parametrize("kind", ["classification", "regression"])
def test_the_loss_of_any_model_reads_labels_with_and_without_a_teacher(kind):
    labels, teacher, student = drawn(kind)
    loss, told = DistillationLoss(kind, HARDNESS, TEMPERATURE), with_teacher(labels, teacher)
    expected = by_numpy(kind, labels, teacher, student, HARDNESS, TEMPERATURE)
    assert float(loss(told, student)) == pytest.approx(expected.mean(), rel=2e-5)
    plain = by_numpy(kind, labels, teacher, student, 0.0, TEMPERATURE).mean()
    for shape in (-1, (-1, 1)):
        assert float(loss(labels.reshape(shape), student)) == pytest.approx(plain, rel=2e-5)
    again = keras.losses.deserialize(keras.losses.serialize(loss))
    assert float(again(told, student)) == float(loss(told, student))


def test_any_model_learns_from_a_teacher_and_is_judged_by_its_labels():
    rng = np.random.default_rng(0)
    x, labels = rng.normal(size=(64, 4)).astype("float32"), rng.integers(0, 2, 64)
    # A teacher that contradicts the labels.
    told = with_teacher(labels, 5.0 * np.eye(2)[1 - labels])
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(128, "relu"), keras.layers.Dense(2)])
    model.compile(keras.optimizers.Adam(0.02), DistillationLoss(hardness=1.0),
                  metrics=[of_labels(keras.metrics.sparse_categorical_accuracy)])  # fmt: skip
    history = model.fit(x, told, epochs=40, validation_data=(x, labels), verbose=0).history
    assert history["loss"][-1] < 0.3 * history["loss"][0]
    assert history["sparse_categorical_accuracy"][-1] < 0.2 and history["val_sparse_categorical_accuracy"][-1] < 0.2
    assert history["val_loss"][-1] > 1


def test_what_is_no_loss_of_any_model_is_refused():
    for values in ({"kind": "span"}, {"hardness": 1.1}, {"temperature": 0}):
        with pytest.raises(ConfigError):
            DistillationLoss(**values)
    with pytest.raises(ValueError, match="with_teacher"):
        with_teacher(np.zeros((4, 2)), np.zeros((4, 2)))
    # A softmax of one logit is 1 whatever the logit, and of several targets but one would be learnt.
    for kind, outputs in (("classification", 1), ("regression", 3)):
        for told in (np.zeros(4), with_teacher(np.zeros(4), np.zeros((4, outputs)))):
            with pytest.raises(ValueError, match=rf"DistillationLoss: outputs \(4, {outputs}\) are refused; allowed"):
                DistillationLoss(kind)(told, np.zeros((4, outputs), np.float32))
