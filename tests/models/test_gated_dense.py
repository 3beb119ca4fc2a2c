"""The layer: the shared battery, and that gates of 1 leave Dense as it is."""

import keras
import numpy as np
import pytest

from gated_bert.models.gate_rules import GATE_RULES
from gated_bert.models.gated_dense import GatedDense

PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16")
X = np.random.default_rng(0).normal(size=(8, 5, 6)).astype("float32")
Y = np.random.default_rng(1).normal(size=(8, 5, 4)).astype("float32")


def array(tensor) -> np.ndarray:
    return keras.ops.convert_to_numpy(tensor)


def one_layer_model(layer, **options):
    """A model trained eagerly, which is the fastest for a single step, unless `options` say otherwise."""
    model = keras.Sequential([keras.Input(X.shape[1:]), layer])
    model.compile(keras.optimizers.SGD(0.1), "mse", **(options or {"run_eagerly": True}))
    return model


def make_layer(gate_rule, gate_trainable, dtype="float32"):
    return GatedDense(4, role="query", layer_index=3, gate_trainable=gate_trainable, gate_rule=gate_rule, dtype=dtype)


@pytest.mark.parametrize("gate_trainable", [False, True])
@pytest.mark.parametrize("gate_rule", GATE_RULES)
def test_battery(gate_rule, gate_trainable, tmp_path):
    layer = make_layer(gate_rule, gate_trainable)
    model = one_layer_model(layer)
    assert tuple(layer(X).shape) == layer.compute_output_shape(X.shape) == Y.shape
    assert layer.raw_kernel.shape == layer.gates.shape == layer.mask_variable.shape == (6, 4)
    assert layer.gates.trainable == gate_trainable
    assert (layer.scores is None) == (gate_rule == "fixed")

    before = array(layer.raw_kernel)
    assert np.isfinite(model.fit(X, Y, verbose=0).history["loss"][0])
    assert not np.array_equal(before, array(layer.raw_kernel))

    assert GatedDense.from_config(layer.get_config()).get_config() == layer.get_config()
    mask = np.eye(6, 4, dtype="float32")
    layer.mask_variable.assign(mask)
    model.save(tmp_path / "layer.keras")
    reloaded = keras.saving.load_model(tmp_path / "layer.keras")
    assert np.array_equal(array(reloaded(X)), array(model(X)))
    restored = reloaded.layers[0]
    assert np.array_equal(array(restored.mask_variable), mask)
    assert len(layer.weights) == len(restored.weights)
    for variable, copy in zip(layer.weights, restored.weights, strict=True):
        assert np.array_equal(array(variable), array(copy)), variable.path


@pytest.mark.parametrize("precision", PRECISIONS[1:])
@pytest.mark.parametrize("gate_rule", GATE_RULES)
def test_mixed_precision_trains_and_keeps_scores_in_float32(gate_rule, precision):
    layer = make_layer(gate_rule, gate_trainable=False, dtype=precision)
    model = one_layer_model(layer)
    assert np.isfinite(model.fit(X, Y, verbose=0).history["loss"][0])
    assert keras.backend.standardize_dtype(layer(X).dtype) == precision.removeprefix("mixed_")
    assert all(variable.dtype in ("float32", "uint32", "int64") for variable in layer.variables)


@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.daily_every(3)
def test_open_gates_predict_and_train_as_dense_bit_for_bit(precision, jit_compile):
    outcomes = []
    for make in (keras.layers.Dense, GatedDense):
        keras.utils.set_random_seed(3)
        model = one_layer_model(make(4, activation="tanh", dtype=precision), jit_compile=jit_compile)
        losses = model.fit(X, Y, verbose=0, shuffle=False, epochs=2).history["loss"]
        outcomes.append(
            (losses, array(model.layers[0].bias), array(model.layers[0].kernel), model.predict(X, verbose=0))
        )
    for of_dense, of_gated in zip(*outcomes, strict=True):
        assert np.array_equal(of_dense, of_gated)


def test_open_trainable_gates_predict_as_dense_bit_for_bit():
    layer, dense = GatedDense(4, gate_trainable=True), keras.layers.Dense(4)
    layer.build(X.shape)
    dense.build(X.shape)
    dense.kernel.assign(array(layer.raw_kernel))
    assert np.array_equal(array(layer(X)), array(dense(X)))


def test_a_closed_gate_removes_its_weight():
    layer = GatedDense(2, use_bias=False)
    layer.build((None, 3))
    layer.raw_kernel.assign([[1, 2], [3, 4], [5, 6]])
    layer.gates.assign([[1, 0], [0, 1], [1, 1]])
    assert array(layer(np.array([[1.0, 10.0, 100.0]]))).tolist() == [[501.0, 640.0]]


def test_a_closed_mask_stays_closed_while_gates_train():
    layer = make_layer("fixed", gate_trainable=True)
    model = one_layer_model(layer)
    layer.mask_variable.assign(np.zeros((6, 4)))
    model.fit(X, Y, verbose=0)
    assert np.array_equal(array(layer.gates), np.ones((6, 4)))
    assert not array(layer.effective_gates()).any()
    assert np.allclose(array(model(X)), array(layer.bias))


def test_trainable_gates_are_trained():
    layer = make_layer("fixed", gate_trainable=True)
    one_layer_model(layer).fit(X, Y, verbose=0)
    assert not np.array_equal(array(layer.gates), np.ones((6, 4)))


def test_gates_start_at_gate_init_value():
    layer = GatedDense(2, gate_init_value=0.5)
    layer.build((None, 3))
    assert array(layer.gates).tolist() == [[0.5, 0.5]] * 3


def test_lora_goes_through_the_gates():
    layer = GatedDense(4, use_bias=False)
    layer.build((None, 6))
    layer.enable_lora(2)
    layer.lora_kernel_b.assign(np.ones((2, 4)))
    layer.gates.assign(np.zeros((6, 4)))
    assert not array(layer(X)).any()


def test_unknown_rule_is_refused():
    with pytest.raises(ValueError, match="gate_rule: 'open' is refused; allowed: fixed, straight_through"):
        GatedDense(2, gate_rule="open")
