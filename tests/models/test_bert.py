"""BERT: the outputs of transformers, saving, precision, and layers of any size."""

import dataclasses
from pathlib import Path

import keras
import numpy as np
import pytest

from gated_bert.config.presets import PRESETS
from gated_bert.models.architecture import BertConfig, LayerSizes
from gated_bert.models.bert import BertClassifier
from gated_bert.models.pretrained import load_pretrained, read_pretrained_architecture

FIXTURES = Path(__file__).resolve().parent.parent / "fixtures"
INPUTS = ("input_ids", "token_type_ids", "attention_mask")
ROLES = ("query", "key", "value", "attention_output", "ffn_intermediate", "ffn_output")
UNEVEN = (LayerSizes(1, 3, 5, 7), LayerSizes(0, 0, 0, 6), LayerSizes(3, 4, 2, 0), LayerSizes(0, 0, 0, 0))


def array(tensor) -> np.ndarray:
    return keras.ops.convert_to_numpy(tensor)


def example_batch(length=9):
    rng = np.random.default_rng(length)
    mask = (np.arange(length) < np.array([[length], [3], [length - 1], [1]])).astype("int32")
    return {
        "input_ids": rng.integers(5, 50, (4, length)).astype("int32") * mask,
        "token_type_ids": rng.integers(0, 2, (4, length)).astype("int32") * mask,
        "attention_mask": mask,
    }


def small_model(layers=2, dtype="float32", **options):
    return BertClassifier(BertConfig.uniform(layers, 32, 4, 64, vocab_size=50, **options), dtype=dtype)


def fit_step(model, jit_compile=None):
    """One training step; eager, which is the fastest for a single one, unless `jit_compile` is set."""
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    options = {"run_eagerly": True} if jit_compile is None else {"jit_compile": jit_compile}
    model.compile(keras.optimizers.Adam(1e-3), loss, **options)
    return model.fit(example_batch(), np.array([0, 1, 1, 0]), verbose=0).history["loss"][0]


def check_against(model, reference, prefix=""):
    for length in (5, 17, 64):
        inputs = {name: reference[f"{prefix}{length}/{name}"] for name in INPUTS}
        _, pooled = model.encoder(inputs)
        np.testing.assert_allclose(array(pooled), reference[f"{prefix}{length}/pooled"], atol=1e-4)
        np.testing.assert_allclose(array(model(inputs)), reference[f"{prefix}{length}/logits"], atol=1e-4)


def test_random_weights_give_the_outputs_of_transformers():
    config = read_pretrained_architecture(FIXTURES / "bert").replace(num_outputs=3)
    model = BertClassifier(config)
    load_pretrained(model, FIXTURES / "bert")
    check_against(model, np.load(FIXTURES / "bert_reference.npz"))


@pytest.mark.parametrize("num_layers", [6, 3])
def test_minilm_gives_the_outputs_of_transformers(num_layers, minilm):
    reference = np.load(FIXTURES / "minilm_reference.npz")
    model = BertClassifier(read_pretrained_architecture(minilm, num_layers).replace(num_outputs=3))
    load_pretrained(model, minilm)
    model.classifier.raw_kernel.assign(reference["head_weight"].T)
    model.classifier.bias.assign(reference["head_bias"])
    check_against(model, reference, f"{num_layers}/")


def test_padding_and_default_inputs_change_nothing():
    model = small_model()
    short = {"input_ids": np.array([[2, 7, 8, 3]])}
    padded = {
        "input_ids": np.array([[2, 7, 8, 3, 0, 0]]),
        "token_type_ids": np.zeros((1, 6), "int32"),
        "attention_mask": np.array([[1, 1, 1, 1, 0, 0]]),
    }
    np.testing.assert_allclose(array(model(short)), array(model(padded)), atol=1e-6)


@pytest.mark.parametrize("options", [{}, {"gate_rule": "soft_threshold"}, {"gate_trainable": True}])
@pytest.mark.daily_every(3)
def test_a_keras_file_predicts_bit_for_bit_the_same(options, tmp_path):
    model = small_model(1, dropout_rate=0.1, **options)
    fit_step(model)
    model.compile()
    for index, layer in enumerate(model.gated_layers()):
        layer.mask_variable.assign(np.random.default_rng(index).integers(0, 2, layer.gates.shape))
    model.save(tmp_path / "model.keras")
    reloaded = keras.saving.load_model(tmp_path / "model.keras", compile=False)
    assert reloaded.bert_config == model.bert_config
    for length in (9, 14):
        batch = example_batch(length)
        assert np.array_equal(reloaded.predict(batch, verbose=0), model.predict(batch, verbose=0))


@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision_trains_and_predicts_close_to_float32(precision, tmp_path):
    model = small_model(1, dtype=precision, gate_rule="straight_through")
    full = small_model(1, gate_rule="straight_through")
    for source, target in zip(model.weights, full.weights, strict=True):
        target.assign(array(source))
    predicted = array(model(example_batch()))
    assert predicted.dtype == np.float32
    np.testing.assert_allclose(predicted, array(full(example_batch())), atol=0.02)
    assert np.isfinite(fit_step(model))
    model.save(tmp_path / "model.keras")
    reloaded = keras.saving.load_model(tmp_path / "model.keras", compile=False)
    assert np.array_equal(array(reloaded(example_batch())), array(model(example_batch())))


@pytest.mark.nightly
def test_jit_compiled_training_gives_the_loss_of_eager_training():
    losses = []
    for jit_compile in (None, True):
        keras.utils.set_random_seed(5)
        losses.append(fit_step(small_model(1), jit_compile))
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)


def test_layers_of_any_size_save_train_and_predict(tmp_path):
    config = BertConfig(50, 32, UNEVEN, original_head_dim=8, dropout_rate=0.1)
    model = BertClassifier(config)
    assert np.isfinite(fit_step(model))
    names = [layer.name for layer in model.gated_layers(ROLES)]
    assert names == [
        *(f"encoder_0_{role}" for role in ROLES),
        "encoder_1_ffn_intermediate", "encoder_1_ffn_output",
        *(f"encoder_2_{role}" for role in ROLES[:4]),
    ]  # fmt: skip
    assert model.gated_layers()[2].raw_kernel.shape == (32, 5)
    model.save(tmp_path / "model.keras")
    reloaded = keras.saving.load_model(tmp_path / "model.keras", compile=False)
    assert np.array_equal(array(reloaded(example_batch())), array(model(example_batch())))


def test_a_layer_without_heads_and_neurons_computes_what_closed_gates_leave():
    full = small_model(1)
    empty = BertClassifier(full.bert_config.replace(layers=(LayerSizes(0, 0, 0, 0),)))
    rng = np.random.default_rng(0)
    for role in ("attention_output", "ffn_output"):
        (layer,) = full.gated_layers((role,))
        layer.gates.assign(np.zeros(layer.gates.shape))
        layer.bias.assign(rng.normal(size=32))
    source = {variable.path: variable for variable in full.weights}
    for variable in empty.weights:
        variable.assign(array(source[variable.path]))
    np.testing.assert_allclose(array(empty(example_batch())), array(full(example_batch())), atol=1e-6)


def test_gated_layers_come_in_order_and_by_role():
    model = small_model()
    expected = [f"encoder_{index}_{role}" for index in (0, 1) for role in ROLES] + ["pooler", "classifier"]
    assert [layer.name for layer in model.gated_layers()] == expected
    assert [layer.layer_index for layer in model.gated_layers(("value",))] == [0, 1]
    assert [layer.role for layer in model.gated_layers()[-2:]] == ["pooler", "classifier"]


def test_dropout_acts_in_training_only():
    model = small_model(dropout_rate=0.5)
    batch = example_batch()
    assert np.array_equal(array(model(batch)), array(model(batch)))
    assert not np.array_equal(array(model(batch, training=True)), array(model(batch, training=True)))


@pytest.mark.parametrize(("preset", "parameters"), [("bert-tiny", 4_386_178), ("bert-small", 28_764_674)])
def test_presets_have_their_published_number_of_parameters(preset, parameters):
    sizes = dataclasses.astuple(PRESETS[preset])
    model = BertClassifier(BertConfig.uniform(*sizes, vocab_size=30522))
    assert sum(np.prod(variable.shape) for variable in model.weights if variable.name != "gates") == parameters
