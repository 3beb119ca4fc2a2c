"""What every family of encoders can do; one joins by a name in `family._MODULES` and a folder of fixtures."""

import dataclasses
import json
from pathlib import Path

import keras
import numpy as np
import pytest
from in_transformers import logits, needs_transformers

from gated_bert import GatedBertConfig, load_model, save_model, shrink, train
from gated_bert.compression.export import export_hugging_face
from gated_bert.compression.onnx_export import export_onnx
from gated_bert.compression.onnx_model import open_model
from gated_bert.compression.parity import check_inputs, largest_difference
from gated_bert.compression.quantize import quantize
from gated_bert.compression.source import load_source
from gated_bert.models.family import _MODULES, get_family
from gated_bert.models.folder import LoadedModel, read_masks
from gated_bert.models.pretrained import load_pretrained, read_pretrained_architecture

FIXTURES = Path(__file__).resolve().parent.parent / "fixtures"
FOLDERS = FIXTURES / "families"
FAMILIES = sorted(_MODULES)
LENGTHS = (5, 11, 16)


def load(folder, **changes):
    config = read_pretrained_architecture(str(folder)).replace(**changes)
    model = get_family(config.model_type).model()(config)
    load_pretrained(model, str(folder))
    return model


def batch(reference, model, length):
    config = model.architecture
    return {name: reference[f"{config.model_type}/{length}/{name}"] for name in config.input_names}


def predict(model, inputs):
    return keras.ops.convert_to_numpy(model(inputs))


@pytest.fixture(scope="module")
def reference():
    return dict(np.load(FIXTURES / "family_reference.npz"))


@pytest.fixture(scope="module", params=FAMILIES)
def family(request):
    assert (FOLDERS / request.param).is_dir(), "tests/fixtures/make_family_reference.py makes no such family"
    return request.param


@pytest.fixture(scope="module")
def trained(tmp_path_factory, family):
    """The model of a run from the family's checkpoint, half of its heads and neurons pruned."""
    folder = tmp_path_factory.mktemp(family) / "run"
    with pytest.warns(UserWarning, match="starts from random values"):
        train(GatedBertConfig(
            model_size="tiny", pretrained=str(FOLDERS / family), task="rte", data="embedded", epochs=2, batch_size=8,
            max_len=16, train_examples=16, pruning_method="movement", pattern="head_neuron", scope="layer",
            schedule="linear", end_sparsity=0.5, pruning_start_epoch=1, pruning_end_epoch=2,
        ), folder)  # fmt: skip
    return load_model(folder / "model")


def test_logits_are_those_of_transformers(family, reference):
    model = load(FOLDERS / family, num_outputs=3)
    for length in LENGTHS:
        found = predict(model, batch(reference, model, length))
        np.testing.assert_allclose(found, reference[f"{family}/{length}/logits"], atol=1e-4)


@pytest.mark.parametrize("function", ["gelu", "gelu_new", "relu", "silu"])
def test_activation_functions_are_those_of_transformers(family, reference, function, tmp_path):
    config = json.loads((FOLDERS / family / "config.json").read_text())
    config["activation" if family == "distilbert" else "hidden_act"] = function
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "model.safetensors").symlink_to(FOLDERS / family / "model.safetensors")
    model = load(tmp_path, num_outputs=3)
    found = predict(model, batch(reference, model, LENGTHS[-1]))
    np.testing.assert_allclose(found, reference[f"{family}/{function}/logits"], atol=1e-4)


def test_start_and_end_logits_are_those_of_transformers(family, reference):
    with pytest.warns(UserWarning, match="its head is for classification .* starts from random values"):
        model = load(FOLDERS / family, num_outputs=2, span_head=True)
    model.classifier.raw_kernel.assign(reference[f"{family}/span_kernel"])
    model.classifier.bias.assign(reference[f"{family}/span_bias"])
    inputs = batch(reference, model, LENGTHS[-1])
    real = inputs["attention_mask"][:, None, :].repeat(2, axis=1) == 1
    np.testing.assert_allclose(predict(model, inputs)[real], reference[f"{family}/span/logits"][real], atol=1e-4)


def test_sizes_are_counted_and_written_down(family):
    model = load(FOLDERS / family, num_outputs=3)
    config = model.architecture
    assert sum(int(np.prod(each.shape)) for each in model.trainable_weights) == config.num_parameters
    shapes = {(layer.layer_index, layer.role): layer.raw_kernel.shape for layer in model.gated_layers()}
    assert shapes == config.matrix_shapes()
    counts = dict.fromkeys(config.weight_counts(), 0)
    for (_, role), shape in shapes.items():
        counts[role] += int(np.prod(shape))
    assert counts == config.weight_counts()
    assert type(config).from_json(config.to_json()) == config
    written = json.loads(json.dumps(get_family(family).write_config(config)))
    assert get_family(family).read_config(written, "written") == dataclasses.replace(config, num_outputs=2)


def test_a_run_trains_prunes_and_saves_it(family, trained):
    assert trained.config.model_type == family
    layers = trained.model.gated_layers()
    closed = {layer.name: float((np.asarray(layer.mask_variable) == 0).mean()) for layer in layers}
    # One head of three stays open where half would be one and a half.
    assert closed["encoder_0_query"] in (pytest.approx(1 / 3), pytest.approx(2 / 3))
    assert closed["encoder_1_ffn_intermediate"] == pytest.approx(6 / 13, abs=0.1) and closed["pooler"] == 0


def test_it_is_saved_with_its_masks_and_read_again(trained, tmp_path):
    save_model(tmp_path / "model", trained.model, trained.tokenizer, trained.task, {})
    masks = read_masks(tmp_path / "model")
    for layer in trained.model.gated_layers():
        assert np.array_equal(masks[layer.layer_index, layer.role], np.asarray(layer.mask_variable) == 0)
    assert largest_difference(trained.model, load_model(tmp_path / "model").model, check_inputs(trained)) == 0


def test_it_shrinks_to_what_computes_the_same(trained):
    small = shrink(trained.model)
    assert small.architecture.num_parameters < trained.config.num_parameters
    assert all(sizes.num_heads < 3 for sizes in small.architecture.layers)
    assert largest_difference(trained.model, small, check_inputs(trained)) < 1e-5


def test_a_folder_of_it_comes_back_the_same(family, trained, tmp_path):
    export_hugging_face(tmp_path / "hf", trained)
    with pytest.warns(UserWarning, match="of the weights are zeros, which count as closed"):
        again = load_source(tmp_path / "hf")
    assert largest_difference(trained.model, again.model, check_inputs(trained)) < 1e-6
    fields = json.loads((tmp_path / "hf" / "config.json").read_text())
    known = json.loads((FOLDERS / family / "config.json").read_text())
    same = {name for name in fields if name in known and name not in ("id2label", "label2id")}
    kept = {name: fields[name] for name in same if "drop" not in name}
    assert kept == {name: known[name] for name in kept}


@needs_transformers
@pytest.mark.nightly
def test_transformers_computes_the_same_of_a_folder_of_it(family, trained, tmp_path):
    export_hugging_face(tmp_path / "hf", trained)
    inputs = check_inputs(trained)[0]
    kind = f"{get_family(family).class_prefix}ForSequenceClassification"
    (found,) = logits(kind, tmp_path / "hf", inputs, tmp_path)
    assert np.abs(found - trained.model.predict_on_batch(inputs)).max() < 1e-4


@pytest.mark.parametrize("graph", ["standard", "fused"])
def test_it_is_exported_and_quantised(trained, graph, tmp_path):
    loaded = LoadedModel(shrink(trained.model), trained.tokenizer, trained.task, trained.config, {})
    loaded = dataclasses.replace(loaded, config=loaded.model.architecture)
    assert export_onnx(tmp_path / "model.onnx", loaded, graph) < 1e-4
    opened = open_model(tmp_path / "model.onnx")
    assert [each.name for each in opened.model.session.get_inputs()] == list(trained.config.input_names)
    assert type(opened.tokenizer) is type(trained.tokenizer)
    small = quantize(tmp_path / "model.onnx", tmp_path / "int8.onnx", "int8")
    assert largest_difference(small.model, trained.model, check_inputs(trained)) < 0.2
