"""What each gate rule computes, in small numbers."""

import keras
import numpy as np
import pytest

from gated_bert.models.gate_rules import GATE_RULES
from gated_bert.models.gated_dense import GatedDense

X = np.random.default_rng(0).normal(size=(8, 6)).astype("float32")
Y = np.random.default_rng(1).normal(size=(8, 4)).astype("float32")
MASK = np.eye(6, 4, dtype="float32")


def array(tensor) -> np.ndarray:
    return keras.ops.convert_to_numpy(tensor)


def built(gate_rule, shape=(6, 4), **kwargs):
    layer = GatedDense(shape[1], gate_rule=gate_rule, **kwargs)
    layer.build((None, shape[0]))
    return layer


def score_gradient(layer):
    """∂L/∂scores of the mean squared error, as one step of plain SGD with learning rate 1 shows it."""
    before = array(layer.scores)
    model = keras.Sequential([keras.Input((6,)), layer])
    model.compile(keras.optimizers.SGD(1.0), "mse", run_eagerly=True)
    model.fit(X, Y, batch_size=8, verbose=0)
    return before - array(layer.scores)


def gate_gradient(kernel, gates):
    """∂L/∂gates by hand."""
    residual = X @ (kernel * gates) - Y
    return X.T @ (2 * residual / residual.size) * kernel


@pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16", "mixed_float16"])
def test_straight_through_is_exactly_the_mask(dtype):
    layer = built("straight_through", dtype=dtype)
    layer.mask_variable.assign(MASK)
    layer.scores.assign(np.random.default_rng(2).normal(0, 100, (6, 4)))
    assert np.array_equal(array(layer.effective_gates(training=True)).astype("float32"), MASK)


def test_straight_through_scores_get_the_gradient_of_open_and_closed_gates():
    layer = built("straight_through")
    layer.mask_variable.assign(MASK)
    expected = gate_gradient(array(layer.raw_kernel), MASK)
    gradient = score_gradient(layer)
    np.testing.assert_allclose(gradient, expected, atol=1e-6)
    assert (gradient[MASK == 0] != 0).all()


def test_soft_threshold_opens_where_sigmoid_of_the_score_exceeds_the_threshold():
    layer = built("soft_threshold", (1, 3))
    layer.scores.assign([[-1.0, 0.0, 1.0]])  # sigmoid: 0.269, 0.5, 0.731
    for threshold, gates in ((0.0, [1, 1, 1]), (0.3, [0, 1, 1]), (0.5, [0, 0, 1])):
        layer.threshold.assign(threshold)
        assert array(layer.effective_gates()).tolist() == [gates]


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("gate_rule, gate", [("soft_threshold", 1.0), ("hard_concrete", 0.5)])
@pytest.mark.parametrize("min_kept, kept", [(0.0, 1), (0.005, 1), (0.1, 3), (0.5, 12)])
def test_where_scores_would_close_more_the_best_of_a_layer_stay(gate_rule, gate, min_kept, kept, training):
    layer = built(gate_rule, min_kept=min_kept)
    scores = np.random.default_rng(6).permutation(24).reshape(6, 4)
    best = scores >= 24 - kept
    layer.scores.assign(scores - 100.0)
    if gate_rule == "soft_threshold":
        layer.threshold.assign(0.5)
    assert np.array_equal(array(layer.effective_gates(training)), gate * best)
    # As many and no more where all are alike, and no matter what the floor is where enough are open.
    layer.scores.assign(np.full((6, 4), -100.0))
    assert np.count_nonzero(array(layer.effective_gates(training))) == kept
    layer.scores.assign(np.full((6, 4), 100.0))
    assert (array(layer.effective_gates(training)) == 1).all()
    assert GatedDense.from_config(layer.get_config()).min_kept == min_kept


def test_soft_threshold_passes_the_gradient_of_the_gates_unchanged():
    layer = built("soft_threshold")
    layer.scores.assign(np.where(MASK, 1.0, -1.0))
    layer.threshold.assign(0.5)
    expected = gate_gradient(array(layer.raw_kernel), MASK)
    np.testing.assert_allclose(score_gradient(layer), expected, atol=1e-6)


def test_soft_threshold_penalty_is_the_weighted_mean_of_sigmoid():
    layer = built("soft_threshold", (1, 2))
    layer.scores.assign([[0.0, np.log(3.0)]])  # sigmoid: 0.5, 0.75
    layer.penalty_weight.assign(4.0)
    layer(np.ones((1, 1)), training=True)
    assert float(layer.losses[0]) == pytest.approx(4 * 0.625)


def test_hard_concrete_starts_almost_open_and_is_clipped():
    layer = built("hard_concrete", (1, 3))
    assert array(layer.effective_gates())[0, 0] == pytest.approx(0.98, abs=1e-4)  # 0.9 * 1.2 - 0.1
    layer.scores.assign([[-10.0, 0.0, 10.0]])
    np.testing.assert_allclose(array(layer.effective_gates()), [[0.0, 0.5, 1.0]], atol=1e-6)


def test_hard_concrete_gates_are_open_as_often_as_the_penalty_expects():
    layer = built("hard_concrete", (400, 400))
    layer.scores.assign(np.full((400, 400), -0.5))
    layer.penalty_weight.assign(1.0)
    first, second = (array(layer.effective_gates(training=True)) for _ in range(2))
    assert not np.array_equal(first, second)
    assert first.min() == 0 and first.max() == 1
    layer(np.ones((1, 400)), training=True)
    expected = 1 / (1 + np.exp(0.5 + 2 / 3 * np.log(0.1 / 1.1)))
    assert float(layer.losses[0]) == pytest.approx(expected, abs=1e-5)
    assert (first > 0).mean() == pytest.approx(expected, abs=0.005)


@pytest.mark.parametrize("gate_rule", ["soft_threshold", "hard_concrete"])
def test_the_penalty_counts_in_training_only(gate_rule):
    layer = built(gate_rule)
    layer.penalty_weight.assign(1000.0)
    model = keras.Sequential([keras.Input((6,)), layer])
    model.compile(keras.optimizers.SGD(0.0), "mse", run_eagerly=True)
    assert model.evaluate(X, Y, verbose=0) < 100
    assert model.fit(X, Y, verbose=0).history["loss"][0] > 400


@pytest.mark.parametrize("gate_trainable", [False, True])
@pytest.mark.parametrize("gate_rule", ["fixed", "straight_through", "soft_threshold", "hard_concrete"])
def test_finalized_gates_predict_the_same_in_a_fixed_layer(gate_rule, gate_trainable):
    layer = built(gate_rule, gate_trainable=gate_trainable)
    fixed = built("fixed", gate_trainable=gate_trainable)
    if gate_trainable:
        layer.gates.assign(np.full((6, 4), 0.7))
    layer.mask_variable.assign(MASK)
    if layer.scores is not None:
        layer.scores.assign(np.random.default_rng(5).normal(0, 3, (6, 4)))
    if gate_rule == "soft_threshold":
        layer.threshold.assign(0.4)
    before = array(layer(X))
    layer.mask_variable.assign(array(layer.rule.gates(layer, training=False)))
    for name in ("raw_kernel", "bias", "gates", "mask_variable"):
        getattr(fixed, name).assign(array(getattr(layer, name)))
    assert np.array_equal(array(fixed(X)), before)
    assert np.array_equal(array(layer(X)), before)


@pytest.mark.skipif(keras.backend.backend() != "jax", reason="TensorFlow compiles nothing outside a function")
@pytest.mark.parametrize("gate_rule", GATE_RULES)
def test_looking_at_gates_again_compiles_nothing_anew(gate_rule, caplog):
    import jax

    layer = built(gate_rule)
    array(layer.effective_gates())
    with jax.log_compiles():
        array(layer.effective_gates())
        assert "ompil" not in caplog.text
        array(keras.ops.cond(keras.ops.ones(()) > 0, lambda: keras.ops.ones(3), lambda: keras.ops.zeros(3)))
        assert "ompil" in caplog.text
