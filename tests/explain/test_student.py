"""Students: soft ranks, attributions, the loss between explanations, training, folders."""

import keras
import numpy as np
import pytest
from keras import ops
from scipy import special, stats

from gated_bert.explain.student import Student, explanation_loss, explanation_similarity, soft_ranks
from gated_bert.explain.student_training import (
    ExplainedDataset,
    TrainedStudent,
    Training,
    load_student,
    save_student,
    student_similarity,
    train_student,
)
from gated_bert.explain.tokens import TokenExplanations
from gated_bert.support.backend import with_gradients
from gated_bert.support.errors import UserError
from gated_bert.tasks.task import TASKS
from gated_bert.tasks.wordpiece import Tokenizer
from tests.explain.conftest import TOKENS

VOCAB, CLASSES = 30, 3
INPUTS = {
    "input_ids": np.random.default_rng(0).integers(5, VOCAB, (4, 7)).astype(np.int32),
    "attention_mask": (np.arange(7) < np.array([[7], [5], [2], [6]])).astype(np.int32),
}


def make_student(seed=0):
    """A student whose neurons are about half of them active."""
    keras.utils.set_random_seed(seed)
    student = Student(VOCAB, CLASSES, embedding_size=6, hidden_size=9)
    rng = np.random.default_rng(seed)
    for variable in student.trainable_variables:
        variable.assign(rng.normal(0, 0.7, variable.shape))
    return student


def ranks(values, temperature):
    column = np.array(values, np.float32)[None, :, None]
    found = soft_ranks(ops.convert_to_tensor(column), np.ones_like(column), temperature)
    return ops.convert_to_numpy(found)[0, :, 0]


def test_soft_ranks_by_hand():
    # Standard deviation of −1, 1 is 1, so that τ = 2: σ(0) + σ(∓1).
    assert ranks([-1, 1], 2) == pytest.approx([0.5 + 0.2689414, 0.5 + 0.7310586], abs=1e-6)
    # Of 0, 3, 6 it is √6, τ = √6: each step is 3/√6 = 1.2247.
    steps = special.expit([1.2247449, 2.4494897])
    assert ranks([0, 1, 0.5], 1) == pytest.approx([2.5 - steps.sum(), 0.5 + steps.sum(), 1.5], abs=1e-6)
    # Far apart: ranks less a half, equal ones with their mean.
    assert ranks([0.3, -1, 0.3, 0.9], 1e-3) == pytest.approx([2, 0.5, 2, 3.5], abs=1e-6)
    assert ranks([0.2, 0.2, 0.2], 0.1) == pytest.approx([1.5] * 3, abs=1e-6)


def soft_spearman(one, other, monkeypatch, temperature):
    """ρ of the loss: 2 − cosine − what it adds up to."""
    monkeypatch.setattr(soft_ranks, "__defaults__", (temperature,))
    loss = ops.convert_to_numpy(explanation_loss(one[None, :, None], ops.convert_to_tensor(other[None, :, None])))
    return 2 - float(one @ other / np.linalg.norm(one) / np.linalg.norm(other)) - float(loss[0])


def test_with_small_temperature_it_is_spearmans_coefficient(monkeypatch):
    rng = np.random.default_rng(1)
    for _ in range(5):
        one, other = rng.normal(size=(2, 12)).astype(np.float32)
        # Ties in one of them.
        other[3] = other[7] = other[1]
        assert soft_spearman(one, other, monkeypatch, 1e-5) == pytest.approx(stats.spearmanr(one, other)[0], abs=1e-4)
        assert soft_spearman(one, other, monkeypatch, 1e3) == pytest.approx(stats.pearsonr(one, other)[0], abs=1e-3)


def test_attributions_are_gradient_times_input():
    student = make_student()
    tokens = ops.take(student.embedding.embeddings, INPUTS["input_ids"], axis=0)
    mask = ops.cast(INPUTS["attention_mask"], "float32")
    found = ops.convert_to_numpy(student.attributions(INPUTS))
    for label in range(CLASSES):

        def logit(arrays, label=label):
            logits = student.from_embeddings(arrays[0], mask)
            return ops.sum(logits[:, label]), logits

        logits, [gradient] = with_gradients(logit, [tokens])
        expected = (ops.convert_to_numpy(gradient) * ops.convert_to_numpy(tokens)).sum(axis=2)
        assert found[:, :, label] == pytest.approx(expected, abs=1e-5) and np.abs(expected).max() > 0.1
    assert ops.convert_to_numpy(logits) == pytest.approx(ops.convert_to_numpy(student(INPUTS)), abs=1e-6)
    assert not found[INPUTS["attention_mask"] == 0].any()


def test_the_losss_gradient_is_that_of_finite_differences():
    rng = np.random.default_rng(2)
    weights = rng.normal(size=(2, 6, 2)).astype(np.float32)
    weights[1, 4:] = 0
    point = rng.normal(size=weights.shape).astype(np.float32)

    def loss(arrays):
        return ops.sum(explanation_loss(weights, arrays[0])), arrays[0]

    _, [gradient] = with_gradients(loss, [ops.convert_to_tensor(point)])
    gradient = ops.convert_to_numpy(gradient)
    # The size of a column of attributions does not matter, so that the gradient has no part along it.
    assert (gradient * point).sum(axis=1) == pytest.approx(0, abs=1e-4) and not gradient[1, 4:].any()
    direction = rng.normal(size=point.shape).astype(np.float32)
    step = 1e-2
    ahead, behind = (float(loss([ops.convert_to_tensor(point + sign * step * direction)])[0]) for sign in (1, -1))
    assert (ahead - behind) / (2 * step) == pytest.approx(float((gradient * direction).sum()), rel=0.02)


def test_loss_of_known_explanations():
    weights = np.array([[[3.0, 1.0], [2.0, 1.0], [-4.0, 1.0], [0.0, 0.0]]], np.float32)
    same = weights * [2.0, 7.0] + [[[0], [0], [0], [9]]]
    # The second class gives all tokens one weight: cosine 1 and no ranks.
    value = ops.convert_to_numpy(explanation_loss(weights, ops.convert_to_tensor(same.astype(np.float32))))
    assert value == pytest.approx([0.5], abs=1e-5)
    value = ops.convert_to_numpy(explanation_loss(weights, ops.convert_to_tensor(-same.astype(np.float32))))
    assert value == pytest.approx([(4 + 3) / 2], abs=1e-5)


@pytest.mark.parametrize("values", [np.zeros((1, 4, 2)), np.ones((1, 4, 2)), np.full((1, 4, 2), 1e-30)])
def test_equal_values_have_a_finite_loss_and_gradient(values):
    weights = np.random.default_rng(3).normal(size=(1, 4, 2)).astype(np.float32)
    for one, other in ((weights, values), (values, weights), (values, values)):
        one, other = one.astype(np.float32), ops.convert_to_tensor(other.astype(np.float32))
        loss, [gradient] = with_gradients(lambda arrays: [ops.sum(explanation_loss(one, arrays[0]))] * 2, [other])  # noqa: B023
        assert np.isfinite(float(loss)) and np.isfinite(ops.convert_to_numpy(gradient)).all()


def test_padding_changes_nothing():
    student = make_student()
    rng = np.random.default_rng(4)
    weights = rng.normal(size=(4, 7, CLASSES)) * INPUTS["attention_mask"][:, :, None]
    longer = {"input_ids": np.pad(INPUTS["input_ids"], ((0, 0), (0, 5)), constant_values=9),
              "attention_mask": np.pad(INPUTS["attention_mask"], ((0, 0), (0, 5)))}  # fmt: skip
    padded = np.pad(weights, ((0, 0), (0, 5), (0, 0))).astype(np.float32)
    short, long = (ops.convert_to_numpy(student.attributions(each)) for each in (INPUTS, longer))
    assert long[:, :7] == pytest.approx(short, abs=1e-6) and not long[:, 7:].any()
    logits = [ops.convert_to_numpy(student(each)) for each in (INPUTS, longer)]
    assert logits[0] == pytest.approx(logits[1], abs=1e-6)
    losses = [explanation_loss(*pair) for pair in ((weights.astype(np.float32), short), (padded, long))]
    assert ops.convert_to_numpy(losses[0]) == pytest.approx(ops.convert_to_numpy(losses[1]), abs=1e-5)
    assert explanation_similarity(padded[1], long[1]) == pytest.approx(explanation_similarity(weights[1], short[1]))


def test_similarity_is_over_explained_tokens_and_classes():
    weights = np.array([[0, 0], [1, 2], [2, 2], [4, 2], [0, 0]])
    attributions = np.array([[9, 9], [2, 1], [1, 1], [5, -1], [9, -9]])
    found = explanation_similarity(weights, attributions)
    # Second class: no ranks, and cosine 2 / (√12 √3).
    assert found["cosine"] == pytest.approx((24 / (21 * 30) ** 0.5 + 1 / 3) / 2)
    assert found["spearman"] == pytest.approx(0.5)
    nothing = explanation_similarity(np.zeros((3, 2)), np.ones((3, 2)))
    assert np.isnan([nothing["cosine"], nothing["spearman"]]).all()


def explained(documents=60, seed=0):
    """Documents of two kinds of tokens; the more frequent kind is the class, and to LIME some tokens matter more."""
    rng = np.random.default_rng(seed)
    ids, weights, labels = [], [], []
    for length in rng.integers(4, 12, documents):
        kinds = rng.integers(0, 2, length)
        labels.append(int(kinds.mean() > 0.5))
        words = rng.integers(0, 8, length)
        ids.append([2, *(5 + 10 * kinds + words), 3])
        inside = ((2 * kinds - 1) * 0.6**words)[:, None] * [-1, 1]
        weights.append(np.pad(inside, ((1, 1), (0, 0))))
    none = np.zeros((documents, 2), np.float32)
    return TokenExplanations(
        np.arange(1, documents + 1), np.array(labels, np.int32), np.cumsum([0, *map(len, ids)]),
        np.concatenate(ids).astype(np.int32), np.concatenate(weights).astype(np.float32), none, none, none,
    )  # fmt: skip


def datasets(seed=0):
    parts = (np.arange(45), seed), (np.arange(45, 60), None)
    return [ExplainedDataset(explained(), rows, batch_size=8, max_len=16, seed=order) for rows, order in parts]


def test_batches_hold_the_weights_of_their_tokens():
    train, _ = datasets()
    source, seen = explained(), 0
    by_ids = {tuple(source.input_ids[a:b]): source.weights[a:b] for a, b in zip(source.offsets, source.offsets[1:])}  # noqa: B905
    for index in range(len(train)):
        inputs, targets = train[index]
        for ids, mask, weights in zip(
            inputs["input_ids"], inputs["attention_mask"], targets["attributions"], strict=True
        ):
            assert np.array_equal(weights[: mask.sum()], by_ids[tuple(ids[: mask.sum()])])
            assert not weights[mask.sum() :].any()
            seen += 1
    assert seen == 45


@pytest.mark.nightly
def test_the_loss_draws_explanations_to_limes():
    train, held = datasets()
    steps = []
    training = Training(epochs=6, batch_size=8, learning_rate=3e-3)
    vanilla = train_student(train, VOCAB, 0.0, training, 1, steps.append)
    assert sum(steps) == 6 * len(train)
    drawn, again = (train_student(train, VOCAB, 0.7, training, 1) for _ in range(2))
    for one, other in zip(drawn.weights, again.weights, strict=True):
        assert np.array_equal(ops.convert_to_numpy(one), ops.convert_to_numpy(other))
    plain, close = student_similarity(vanilla, held), student_similarity(drawn, held)
    assert close["explained_documents"] == 15
    assert close["cosine"] > plain["cosine"] + 0.1 and close["spearman"] > plain["spearman"] + 0.05, (plain, close)


def test_a_student_is_read_back(tmp_path):
    student = make_student()
    trained = TrainedStudent(student, Tokenizer.from_vocab(TOKENS), TASKS["sst2"], {"seed": 3})
    save_student(tmp_path / "s", trained)
    found = load_student(tmp_path / "s")
    assert np.array_equal(ops.convert_to_numpy(found.model(INPUTS)), ops.convert_to_numpy(student(INPUTS)))
    assert (found.record, found.task) == ({"seed": 3}, TASKS["sst2"])
    assert found.tokenizer.encode(["good film"]).input_ids.tolist() == [2, 5, 7, 3]
    (tmp_path / "s" / "student.keras").write_bytes(b"PK")
    with pytest.raises(UserError, match=r"student.keras: not a whole model"):
        load_student(tmp_path / "s")
    (tmp_path / "s" / "tokenizer.json").unlink()
    with pytest.raises(UserError, match=r"s: no tokenizer.json in it; a student's folder holds"):
        load_student(tmp_path / "s")


def test_a_loss_that_is_no_number_is_told():
    train, _ = datasets()
    with pytest.raises(UserError, match="-l/--learning-rate: with 1e"):
        train_student(train, VOCAB, 0.3, Training(epochs=2, batch_size=8, learning_rate=1e30), 0)
