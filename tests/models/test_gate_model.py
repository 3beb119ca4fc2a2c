"""`gate` and `ungate` on models that know nothing of this package."""

import keras
import numpy as np
import pytest
from any_models import IMAGES, ROWS, array, mlp, subclassed, vit
from keras import layers

import gated_bert
from gated_bert import ConfigError, UserError
from gated_bert.models.gated_einsum import GatedEinsumDense, matrix_view

MODELS = {"mlp": (mlp, ROWS), "vit": (vit, IMAGES), "subclassed": (subclassed, ROWS)}
COUNTS = {"mlp": 2, "vit": 2 * 6 + 1, "subclassed": 4}


def close(model, seed=0, share=0.5):
    """Closes weights at random, at least one in every layer."""
    rng = np.random.default_rng(seed)
    for layer in gated_bert.gated_layers(model):
        layer.mask_variable.assign((rng.random(layer.mask_variable.shape) > share).astype("float32"))


@pytest.mark.daily_every(2)
@pytest.mark.parametrize("method", ["magnitude", "movement", "taylor", "soft_movement"])
@pytest.mark.parametrize("name", MODELS)
def test_gates_change_no_prediction_until_something_closes(name, method):
    make, inputs = MODELS[name]
    model = make()
    before = array(model(inputs))
    assert gated_bert.gate(model, method) is model
    assert len(gated_bert.gated_layers(model)) == COUNTS[name]
    assert np.array_equal(array(model(inputs)), before)
    if method != "soft_movement":
        close(model)
        assert not np.array_equal(array(model(inputs)), before)


def test_predictions_traced_before_are_traced_again():
    model = mlp()
    before = model.predict(ROWS, verbose=0)
    gated_bert.gate(model)
    assert np.array_equal(model.predict(ROWS, verbose=0), before)
    close(model)
    pruned = model.predict(ROWS, verbose=0)
    assert not np.array_equal(pruned, before)
    assert np.array_equal(gated_bert.ungate(model).predict(ROWS, verbose=0), pruned)


def test_mixed_precision():
    model = mlp("mixed_bfloat16")
    before = array(model(ROWS))
    assert np.array_equal(array(gated_bert.gate(model)(ROWS)), before)
    assert {layer.gates.dtype for layer in gated_bert.gated_layers(model)} == {"float32"}


def test_gates_of_l0_begin_where_the_paper_has_them():
    model = gated_bert.gate(mlp(), "l0")
    for layer in gated_bert.gated_layers(model):
        np.testing.assert_allclose(array(layer.effective_gates()), 0.98, atol=1e-3)


@pytest.mark.parametrize(
    "equation, shape, output_shape, matrix",
    [
        ("abc,cde->abde", (2, 3, 5), (None, 2, 4), (5, 8)),
        ("abcd,cde->abe", (2, 3, 2, 4), (None, 5), (8, 5)),
        ("ab,cb->ac", (3, 5), 4, (5, 4)),
        ("...x,xy->...y", (2, 3, 5), 4, (5, 4)),
        ("...xy,zyx->...z", (2, 3, 5), 4, (15, 4)),
        ("ab...,bc->ac...", (2, 3, 5), (4, 5), (3, 4)),
        ("abcd,ebf->acdef", (2, 3, 4, 5), (4, 5, 2, 3), (3, 6)),
    ],
)
def test_an_einsum_is_a_product_with_the_matrix_of_its_view(equation, shape, output_shape, matrix):
    """Features of the inputs times W ⊙ G by NumPy, for gates drawn at random."""
    layer = GatedEinsumDense(equation, output_shape)
    inputs = np.random.default_rng(0).normal(size=shape).astype("float32")
    plain = layers.EinsumDense(equation, output_shape)
    plain.build(shape)
    layer.build(shape)
    plain.kernel.assign(layer._kernel)
    assert np.array_equal(array(layer(inputs)), array(plain(inputs)))
    gates = np.random.default_rng(1).random(matrix).astype("float32")
    layer.gates.assign(gates)
    assert layer.raw_kernel.shape == matrix
    expected = array(layer.input_features(inputs)) @ (array(layer.raw_kernel) * gates)
    np.testing.assert_allclose(array(layer.output_features(layer(inputs))), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("equation", ["abc,bcd->abd", "abc,c->ab", "ab,c->abc", "ab,bcd->ac"])
def test_no_matrix_no_view(equation):
    with pytest.raises(ValueError, match=equation):
        matrix_view(equation)


def test_layers_that_cannot_have_gates_are_left_with_the_reason():
    class Doubled(layers.Dense):
        def call(self, inputs, training=None):
            return 2 * super().call(inputs)

    inputs = keras.Input((4, 6))
    lora = layers.Dense(5, name="lora")
    outputs = Doubled(3, name="doubled")(layers.EinsumDense("abc,bcd->abd", (4, 5), name="each")(inputs))
    outputs = layers.Dense(2, name="head")(lora(outputs))
    model = keras.Model(inputs, outputs)
    lora.enable_lora(2)
    x = np.random.default_rng(0).normal(size=(3, 4, 6)).astype("float32")
    before = array(model(x))
    with pytest.warns(UserWarning) as found:
        gated_bert.gate(model)
    assert str(found[0].message) == (
        "gate: no gates on each (the kernel of equation 'abc,bcd->abd' is not one matrix from inputs to outputs), "
        "doubled (class Doubled has a call of its own), lora (its kernel is that of LoRA)"
    )
    assert [layer.label for layer in gated_bert.gated_layers(model)] == ["head"]
    assert np.array_equal(array(model(x)), before)


def test_excluded_layers_stay_as_they_are():
    model = gated_bert.gate(vit(), exclude=["head", "attention_?/attention_output", "up_*"])
    labels = {layer.label for layer in gated_bert.gated_layers(model)}
    projections = {f"attention_{block}/{name}" for block in range(2) for name in ("query", "key", "value")}
    assert labels == projections | {"down_0", "down_1"}
    assert type(model.get_layer("head")) is layers.Dense


@pytest.mark.parametrize(
    "make, options, message",
    [
        (lambda: keras.Sequential([layers.Dense(2)]), {}, "is not built"),
        (lambda: gated_bert.gate(mlp()), {}, "has gates already"),
        (lambda: keras.Sequential([keras.Input((4, 4, 1)), layers.Conv2D(2, 2)]), {}, "has no Dense or EinsumDense"),
        (mlp, {"exclude": ["hidden", "haed"]}, "'haed' is no Dense or EinsumDense layer; there are hidden, head"),
        (mlp, {"method": "magnitde"}, "method: 'magnitde' is refused.*did you mean magnitude"),
        (mlp, {"method": "baseline"}, "method: 'baseline' is refused"),
        (mlp, {"pattern": "row"}, "option: 'pattern' is refused; allowed: taylor_variant, spt_reward"),
    ],
)
def test_refusals(make, options, message):
    with pytest.raises((UserError, ConfigError), match=message):
        gated_bert.gate(make(), **options)


def test_a_layer_never_called_is_refused_and_nothing_changes():
    model = subclassed()
    model._tracker.unlock()
    model.never = layers.Dense(2, name="never")
    with pytest.raises(UserError, match="layer never of subclassed.* is not built"):
        gated_bert.gate(model)
    assert not gated_bert.gated_layers(model)


def test_a_compiled_model_must_be_compiled_again():
    model = mlp()
    model.compile("adam", "mse")
    with pytest.raises(ValueError, match="compile"):
        gated_bert.gate(model).fit(ROWS, ROWS[:, :2], verbose=0)


def test_a_file_holds_gates_and_scores(tmp_path):
    model = gated_bert.gate(mlp(), "movement")
    close(model)
    model.layers[0].scores.assign(np.arange(12 * 16).reshape(12, 16))
    model.save(tmp_path / "gated.keras")
    loaded = keras.saving.load_model(tmp_path / "gated.keras")
    assert np.array_equal(array(loaded(ROWS)), array(model(ROWS)))
    for variable, copy in zip(model.weights, loaded.weights, strict=True):
        assert np.array_equal(array(variable), array(copy)), variable.path


# Keras says it or not by the names that layers were given before in the process.
@pytest.mark.filterwarnings("ignore:Skipping nested container")
def test_inside_other_layers_gates_are_read_by_load_weights_and_never_lost_in_silence(tmp_path):
    model = gated_bert.gate(vit(), "movement")
    close(model)
    model.save(tmp_path / "gated.keras")
    model.save_weights(tmp_path / "gated.weights.h5")
    with pytest.raises(ValueError, match="variables"):
        keras.saving.load_model(tmp_path / "gated.keras")
    with pytest.raises(ValueError, match="variables"):
        vit().load_weights(tmp_path / "gated.weights.h5")
    for name in ("gated.keras", "gated.weights.h5"):
        again = gated_bert.gate(vit(), "movement")
        again.load_weights(tmp_path / name)
        for variable, copy in zip(model.weights, again.weights, strict=True):
            assert np.array_equal(array(variable), array(copy)), variable.path


@pytest.mark.parametrize("name, method", [("mlp", "magnitude"), ("mlp", "l0"), ("vit", "movement")])
def test_ungate_leaves_a_plain_model_with_zeros(name, method, tmp_path):
    make, inputs = MODELS[name]
    plain = make()
    model = gated_bert.gate(make(), method)
    if method == "l0":
        for layer in gated_bert.gated_layers(model):
            layer.scores.assign(np.random.default_rng(0).normal(size=layer.scores.shape) * 5)
    else:
        close(model)
    before = array(model(inputs))
    zeros = [np.count_nonzero(array(layer.effective_gates()) == 0) for layer in gated_bert.gated_layers(model)]
    kernels = [layer._kernel for layer in gated_bert.gated_layers(model)]
    assert gated_bert.ungate(model) is model
    assert min(zeros) > 0
    assert [np.count_nonzero(array(kernel) == 0) for kernel in kernels] == zeros
    assert [variable.shape for variable in model.variables] == [variable.shape for variable in plain.variables]
    assert all(type(layer).__module__.startswith("keras.") for layer in model._flatten_layers())
    assert np.array_equal(array(model(inputs)), before)
    model.save(tmp_path / "plain.keras")
    assert "gated" not in model.to_json()
    assert np.array_equal(array(keras.saving.load_model(tmp_path / "plain.keras")(inputs)), before)
    plain.load_weights(tmp_path / "plain.keras")


def test_ungate_needs_gates_of_gate():
    with pytest.raises(UserError, match="has no gates"):
        gated_bert.ungate(mlp())


@pytest.mark.parametrize("name", ["BertBackbone", "DistilBertBackbone"])
def test_a_backbone_of_keras_hub(name):
    keras_hub = pytest.importorskip("keras_hub", reason="keras-hub is not installed")
    sizes = {"num_layers": 2, "num_heads": 2, "hidden_dim": 8, "intermediate_dim": 16, "max_sequence_length": 6}
    model = getattr(keras_hub.models, name)(vocabulary_size=20, **sizes)
    ids = np.random.default_rng(0).integers(1, 20, (3, 6)).astype("int32")
    inputs = {"token_ids": ids, "padding_mask": np.ones_like(ids), "segment_ids": np.zeros_like(ids)}
    inputs = {tensor.name: inputs[tensor.name] for tensor in model.inputs}

    def outputs():
        return [array(tensor) for tensor in keras.tree.flatten(model(inputs))]

    before = outputs()
    gated_bert.gate(model)
    inside = ("query", "key", "value", "attention_output")
    assert {layer.label for layer in gated_bert.gated_layers(model)} == {
        f"transformer_layer_{block}/{path}"
        for block in range(2)
        for path in [*(f"self_attention_layer/{each}" for each in inside), "feedforward_intermediate_dense",
                     "feedforward_output_dense"]
    }  # fmt: skip
    for tensor, same in zip(outputs(), before, strict=True):
        assert np.array_equal(tensor, same)
    for layer in gated_bert.gated_layers(model):
        layer.gates.assign(np.zeros(layer.gates.shape))
    assert not np.array_equal(outputs()[0], before[0])
