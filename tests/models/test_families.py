"""What every family of encoders can do; one joins by a name in `family._MODULES` and a folder of fixtures."""

import dataclasses
import json

import numpy as np
import onnxruntime
import pytest
from in_transformers import logits, needs_transformers

from gated_bert import GatedBertConfig, UserError, load_model, save_model, shrink, train
from gated_bert.compression.export import export_hugging_face
from gated_bert.compression.onnx_export import export_onnx
from gated_bert.compression.onnx_fused import EMBEDDINGS
from gated_bert.compression.onnx_model import open_model
from gated_bert.compression.optimum_export import export_optimum
from gated_bert.compression.parity import check_inputs, largest_difference
from gated_bert.compression.quantize import quantize
from gated_bert.compression.source import load_source
from gated_bert.config import ConfigError
from gated_bert.config.space import ENCODER_ROLES
from gated_bert.models.family import _MODULES, get_family
from gated_bert.models.folder import LoadedModel, read_masks
from gated_bert.pruning.activation_change import activation_changes, close_units, kept_layers
from gated_bert.pruning.calibration import Calibration
from gated_bert.pruning.groups import BalancedGroup
from gated_bert.pruning.patterns import HEADS, NEURONS, QKV_ROWS, Block, HeadDims, Several
from gated_bert.pruning.structured import StructuredRemoval
from gated_bert.tasks.task import TASKS
from gated_bert.tasks.tokenizer import tokenizer_from_folder
from tests.models.family_models import FIXTURES, FOLDERS, load, predict

FAMILIES = sorted(_MODULES)
LENGTHS = (5, 11, 16)


def batch(reference, model, length):
    config = model.architecture
    return {name: reference[f"{config.model_type}/{length}/{name}"] for name in config.input_names}


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


@pytest.mark.daily_every(3)
@pytest.mark.parametrize("function", ["gelu", "gelu_new", "relu", "silu"])
def test_activation_functions_are_those_of_transformers(family, reference, function, tmp_path):
    config = json.loads((FOLDERS / family / "config.json").read_text())
    config[{"distilbert": "activation", "modernbert": "hidden_activation"}.get(family, "hidden_act")] = function
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "model.safetensors").symlink_to(FOLDERS / family / "model.safetensors")
    model = load(tmp_path, num_outputs=3)
    found = predict(model, batch(reference, model, LENGTHS[-1]))
    np.testing.assert_allclose(found, reference[f"{family}/{function}/logits"], atol=1e-4)


def test_start_and_end_logits_are_those_of_transformers(family, reference):
    if family == "modernbert":
        with pytest.raises(UserError, match="a ModernBERT with a head for spans is not supported"):
            load(FOLDERS / family, num_outputs=2, span_head=True)
        return
    with pytest.warns(UserWarning, match="its head is for classification .* starts from random values"):
        model = load(FOLDERS / family, num_outputs=2, span_head=True)
    model.classifier.raw_kernel.assign(reference[f"{family}/span_kernel"])
    model.classifier.bias.assign(reference[f"{family}/span_bias"])
    inputs = batch(reference, model, LENGTHS[-1])
    real = inputs["attention_mask"][:, None, :].repeat(2, axis=1) == 1
    np.testing.assert_allclose(predict(model, inputs)[real], reference[f"{family}/span/logits"][real], atol=1e-4)


def test_a_mean_over_tokens_is_that_of_transformers(reference, tmp_path):
    config = json.loads((FOLDERS / "modernbert" / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"classifier_pooling": "mean"}))
    (tmp_path / "model.safetensors").symlink_to(FOLDERS / "modernbert" / "model.safetensors")
    model = load(tmp_path, num_outputs=3)
    found = predict(model, batch(reference, model, LENGTHS[-1]))
    np.testing.assert_allclose(found, reference["modernbert/mean/logits"], atol=1e-4)


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


@pytest.mark.daily_every(6)
def test_a_run_trains_prunes_and_saves_it(family, trained):
    assert trained.config.model_type == family
    layers = trained.model.gated_layers()
    closed = {layer.name: float((np.asarray(layer.mask_variable) == 0).mean()) for layer in layers}
    # One head of three stays open where half would be one and a half.
    assert closed["encoder_0_query"] in (pytest.approx(1 / 3), pytest.approx(2 / 3))
    assert closed["encoder_1_ffn_intermediate"] == pytest.approx(6 / 13, abs=0.1) and closed["pooler"] == 0


@pytest.mark.daily_every(3)
def test_it_is_saved_with_its_masks_and_read_again(trained, tmp_path):
    save_model(tmp_path / "model", trained.model, trained.tokenizer, trained.task, {})
    masks = read_masks(tmp_path / "model")
    for layer in trained.model.gated_layers():
        assert np.array_equal(masks[layer.layer_index, layer.role], np.asarray(layer.mask_variable) == 0)
    assert largest_difference(trained.model, load_model(tmp_path / "model").model, check_inputs(trained)) == 0


@pytest.mark.daily_every(3)
def test_it_shrinks_to_what_computes_the_same(trained):
    small = shrink(trained.model)
    assert small.architecture.num_parameters < trained.config.num_parameters
    assert all(sizes.num_heads < 3 for sizes in small.architecture.layers)
    assert largest_difference(trained.model, small, check_inputs(trained)) < 1e-5


@pytest.mark.daily_every(3)
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


@pytest.fixture(scope="module")
def shrunk(family):
    """The family's checkpoint without some of its heads and neurons, in smaller matrices."""
    found = load_source(FOLDERS / family)
    close(found.model, Several((HEADS, NEURONS)))
    model = shrink(found.model)
    return dataclasses.replace(found, model=model, config=model.architecture)


def close(model, pattern, share=0.4):
    """Closes units that are drawn."""
    rng, layers = np.random.default_rng(0), model.gated_layers(ENCODER_ROLES)
    for group in pattern.groups(layers, model.architecture.num_heads):
        if isinstance(group, BalancedGroup):
            group = group.sorted_by(rng.random(group.base.num_units), rng)
        open_units = (rng.random(group.num_units) >= share).astype(np.float32)
        for layer, factor in zip(group.layers, group.expand(open_units), strict=True):
            layer.gates.assign(np.asarray(layer.gates) * factor)


@pytest.mark.daily_every(6)
@pytest.mark.parametrize("graph", ["standard", "fused"])
def test_it_is_exported_and_quantised(family, shrunk, graph, tmp_path):
    if graph == "fused" and family not in EMBEDDINGS:
        with pytest.raises(UserError, match="is no family whose fused graph is known"):
            export_onnx(tmp_path / "model.onnx", shrunk, graph)
        return
    assert export_onnx(tmp_path / "model.onnx", shrunk, graph) < 1e-4
    opened = open_model(tmp_path / "model.onnx")
    assert [each.name for each in opened.model.session.get_inputs()] == list(shrunk.config.input_names)
    assert type(opened.tokenizer) is type(shrunk.tokenizer)
    small = quantize(tmp_path / "model.onnx", tmp_path / "int8.onnx", "int8").model
    inputs = check_inputs(shrunk)[0]
    expected, found = shrunk.model.predict_on_batch(inputs), small.predict_on_batch(inputs)
    assert np.abs(expected - found).mean() < 0.1 * np.abs(expected).mean()


@pytest.mark.daily_every(3)
def test_a_folder_for_optimum_holds_what_it_is_made_of(family, shrunk, tmp_path):
    export_optimum(tmp_path / "optimum", shrunk)
    folder = tmp_path / "optimum"
    fields, known = (json.loads((each / "config.json").read_text()) for each in (folder, FOLDERS / family))
    assert [fields[name] for name in ("model_type", "architectures", "id2label")] == [
        known[name] for name in ("model_type", "architectures", "id2label")]  # fmt: skip
    # What other tools check of sizes holds, whatever was removed.
    again = get_family(family).read_config(fields, "config.json")
    assert again.hidden_size == 18 and {sizes.num_heads for sizes in again.layers} == {3}
    assert fields["gated_bert"]["layers"] == shrunk.config.to_dict()["layers"]
    tokenizer = tokenizer_from_folder(folder, kind=get_family(family).tokenizer)
    assert tokenizer.encode(["a film"]).input_ids.tolist() == shrunk.tokenizer.encode(["a film"]).input_ids.tolist()
    inputs = {name: array.astype(np.int64) for name, array in check_inputs(shrunk)[0].items()}
    session = onnxruntime.InferenceSession(folder / "onnx" / "model.onnx")
    assert [each.name for each in session.get_outputs()] == ["logits"]
    assert np.abs(session.run(None, inputs)[0] - shrunk.model.predict_on_batch(inputs)).max() < 1e-4
    assert (folder / "onnx" / "model_quantized.onnx").is_file()
    card = (folder / "README.md").read_text()
    assert "license: # fill in" in card and get_family(family).title in card


def test_what_comes_into_layers_is_the_same_in_order_and_at_once(family, reference):
    model = load(FOLDERS / family, num_outputs=3)
    batches = [(batch(reference, model, length), None) for length in LENGTHS]
    layers = model.gated_layers(ENCODER_ROLES)
    whole = Calibration(model, layers, batches, products=True).at_once()
    parts = list(Calibration(model, layers, batches, products=True, reference=True).in_order())
    assert sorted(layer.name for part in parts for layer in part) == sorted(layer.name for layer in layers)
    for part in parts:
        for layer, moments in part.items():
            assert moments.rows == whole[layer].rows == sum(int(each["attention_mask"].sum()) for each, _ in batches)
            np.testing.assert_allclose(moments.products(), whole[layer].products(), rtol=1e-4, atol=1e-4)
            np.testing.assert_allclose(moments.products(), moments.cross(), rtol=1e-4, atol=1e-4)


@pytest.mark.daily_every(3)
def test_heads_and_neurons_go_with_the_update_of_what_stays(family, reference):
    model = load(FOLDERS / family, num_outputs=3)
    batches = [(batch(reference, model, length), None) for length in LENGTHS]
    removal = StructuredRemoval(model, "classification", batches)
    assert len(removal.sublayers) == len(list(removal.look())) == 2 * model.architecture.num_layers
    levels = tuple(min(2, len(sublayer.left) - 1) for sublayer in removal.sublayers)
    whole = [predict(model, inputs) for inputs, _ in batches]
    assert removal.loss(levels) > 0
    removal.restore()
    for before, (inputs, _) in zip(whole, batches, strict=True):
        np.testing.assert_array_equal(predict(model, inputs), before)
    for _ in removal.prune(levels):
        pass
    small = shrink(model)
    sizes = [(layer.num_heads, layer.intermediate_size) for layer in small.architecture.layers]
    wanted = iter(sublayer.left[level] for sublayer, level in zip(removal.sublayers, levels, strict=True))
    assert sizes == list(zip(wanted, wanted, strict=True))
    for inputs, _ in batches:
        np.testing.assert_allclose(predict(small, inputs), predict(model, inputs), atol=1e-5)


def test_units_by_how_activations_change_are_closed_and_shrink(family, reference):
    model = load(FOLDERS / family, num_outputs=3)
    changes = activation_changes(model, [batch(reference, model, length) for length in LENGTHS])
    kept = kept_layers(changes, [0.4] * len(changes.layers), [0.5] * len(changes.layers), "quantile")
    assert [len(layer.heads) for layer in kept] == [3] * len(kept)
    assert [len(layer.neurons) for layer in kept] == [13] * len(kept)
    close_units(model, kept)
    small = shrink(model)
    assert [(sizes.num_heads, sizes.intermediate_size) for sizes in small.architecture.layers] == [
        (int(layer.heads.sum()), int(layer.neurons.sum())) for layer in kept]  # fmt: skip
    inputs = batch(reference, model, LENGTHS[-1])
    np.testing.assert_allclose(predict(small, inputs), predict(model, inputs), atol=1e-5)


def test_a_layer_can_lose_all(family, reference, tmp_path):
    model = load(FOLDERS / family, num_outputs=3)
    block = model.encoder.blocks[1]
    for layer in (block.attention.output_dense, block.ffn.output_dense):
        layer.gates.assign(np.zeros(layer.gates.shape))
    small, inputs = shrink(model), batch(reference, model, LENGTHS[-1])
    assert (small.architecture.layers[1].num_heads, small.architecture.layers[1].intermediate_size) == (0, 0)
    assert sum(int(np.prod(each.shape)) for each in small.trainable_weights) == small.architecture.num_parameters
    np.testing.assert_allclose(predict(small, inputs), predict(model, inputs), atol=1e-5)


UNITS = {"weights": Block(), "heads": HEADS, "neurons": NEURONS, "QKV rows": QKV_ROWS, "dimensions": HeadDims(),
         "columns": Block(0, 1), "rows": Block(1, 0)}  # fmt: skip


@pytest.mark.daily_every(4)
@pytest.mark.parametrize("pattern", UNITS.values(), ids=UNITS)
def test_single_weights_and_units_shrink_to_what_computes_the_same(family, reference, pattern):
    model = load(FOLDERS / family, num_outputs=3)
    if family == "modernbert" and isinstance(pattern, HeadDims):
        with pytest.raises(ConfigError, match="pattern: 'head_dim' is refused; allowed: head: queries and keys"):
            close(model, pattern)
        return
    close(model, pattern)
    inputs = batch(reference, model, LENGTHS[-1])
    np.testing.assert_allclose(predict(shrink(model), inputs), predict(model, inputs), atol=1e-5)


@pytest.mark.daily_every(3)
def test_tiles_are_exported_where_a_fused_graph_is_known(family, tmp_path):
    """On wider matrices: of narrow ones tiles save nothing."""
    kind = get_family(family)
    config = kind.architecture.uniform(1, 64, 2, 64, vocab_size=320, max_position=16)
    model = kind.model()(config)
    for layer in model.gated_layers(("query", "ffn_intermediate")):
        layer.gates.assign(np.repeat([[1.0], [0.0]], 32, axis=0) * np.ones(layer.gates.shape))
    loaded = LoadedModel(model, tokenizer_from_folder(FOLDERS / family, kind=kind.tokenizer), TASKS["sst2"], config, {})
    if family not in EMBEDDINGS:
        with pytest.raises(UserError, match="is no family whose fused graph is known"):
            export_onnx(tmp_path / "model.onnx", loaded, "tiled")
        return
    assert export_onnx(tmp_path / "model.onnx", loaded, "tiled") < 1e-4
