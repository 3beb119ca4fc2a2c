"""Heads for tags of words in every family: counted, saved, shrunk, exported, and as transformers computes them."""

import json
import warnings

import numpy as np
import onnxruntime
import pytest
from in_transformers import logits, needs_transformers

from gated_bert import UserError, save_model, shrink
from gated_bert.compression.export import export_hugging_face
from gated_bert.compression.model_statistics import macs, open_macs
from gated_bert.compression.onnx_export import export_onnx
from gated_bert.compression.onnx_fused import EMBEDDINGS
from gated_bert.compression.onnx_model import open_model
from gated_bert.compression.optimum_export import export_optimum
from gated_bert.compression.parity import check_inputs, largest_difference
from gated_bert.compression.quantize import quantize
from gated_bert.compression.source import load_source
from gated_bert.models.family import _MODULES, get_family
from gated_bert.models.folder import LoadedModel, load_model
from gated_bert.models.pretrained import load_pretrained, read_pretrained_architecture
from gated_bert.pruning.patterns import HEADS, NEURONS, Several
from gated_bert.tasks.kinds import MULTI_LABEL, TOKENS
from gated_bert.tasks.task import TASKS, Task, entity_tags, usual_metrics
from gated_bert.tasks.tokenizer import tokenizer_from_folder
from tests.models.family_models import FOLDERS
from tests.models.test_families import close

FAMILIES = sorted(_MODULES)
TAGS = entity_tags(("LOC", "PER"))
OWN = Task("own", "own", TOKENS, TAGS, usual_metrics(TOKENS, TAGS))


@pytest.fixture(scope="module", params=FAMILIES)
def loaded(request):
    """The family's checkpoint with a new head for tags, and some of its heads and neurons closed."""
    folder = FOLDERS / request.param
    family, rng = get_family(request.param), np.random.default_rng(0)
    model = family.model()(read_pretrained_architecture(str(folder)).for_task(OWN))
    with pytest.warns(UserWarning, match="its head is for classification .*own needs tags of words .*random values"):
        load_pretrained(model, str(folder), OWN)
    model.classifier.raw_kernel.assign(rng.normal(size=model.classifier.raw_kernel.shape))
    model.classifier.bias.assign(rng.normal(size=model.classifier.bias.shape))
    close(model, Several((HEADS, NEURONS)))
    return LoadedModel(model, tokenizer_from_folder(folder, kind=family.tokenizer), OWN, model.architecture, {})


def test_sizes_are_counted(loaded):
    model, config = loaded.model, loaded.config
    assert sum(int(np.prod(each.shape)) for each in model.trainable_weights) == config.num_parameters
    assert config.head == "token" and (model.encoder.pooler is None) == (config.model_type != "modernbert")
    inputs = check_inputs(loaded)[0]
    rows, length = inputs["input_ids"].shape
    assert model.predict_on_batch(inputs).shape == (rows, length, 5)
    head = sum(int(np.prod(layer.raw_kernel.shape)) for layer in model.gated_layers(("pooler", "classifier")))
    assert macs(config, 16).head == open_macs(model, 16).head == head
    assert type(config).from_json(config.to_json()) == config


@pytest.mark.daily_every(3)
def test_it_is_saved_and_shrunk(loaded, tmp_path):
    save_model(tmp_path / "model", loaded.model, loaded.tokenizer, loaded.task, {})
    again = load_model(tmp_path / "model")
    assert again.task == OWN and largest_difference(loaded.model, again.model, check_inputs(loaded)) == 0
    small = shrink(loaded.model)
    assert small.architecture.num_parameters < loaded.config.num_parameters
    assert largest_difference(loaded.model, small, check_inputs(loaded)) < 1e-5


@pytest.fixture(scope="module")
def hugging_face(loaded, tmp_path_factory):
    folder = tmp_path_factory.mktemp("hf") / "hf"
    export_hugging_face(folder, loaded)
    return folder


def test_a_folder_for_transformers_comes_back_with_its_head(loaded, hugging_face):
    fields = json.loads((hugging_face / "config.json").read_text())
    assert fields["architectures"] == [f"{get_family(loaded.config.model_type).class_prefix}ForTokenClassification"]
    assert list(fields["id2label"].values()) == list(TAGS) and "problem_type" not in fields
    with pytest.warns(UserWarning, match="are zeros, which count as closed"):
        again = load_source(hugging_face)
    assert again.task.kind == TOKENS and again.task.labels == TAGS and again.task.metrics == OWN.metrics
    assert largest_difference(loaded.model, again.model, check_inputs(loaded)) < 1e-6
    # Its tokeniser cuts the first word of a text as the model reads it.
    ids = loaded.tokenizer.words([["film", "film"]])[0]
    assert again.tokenizer.encode(["film film"]).row(0)[1:-1].tolist() == ids.tolist()


@pytest.mark.daily_every(3)
def test_rows_are_taken_by_the_names_of_their_tags(loaded, hugging_face):
    other = Task("own", "own", TOKENS, TAGS[::-1], OWN.metrics)
    config = read_pretrained_architecture(str(hugging_face)).for_task(other)
    model = get_family(loaded.config.model_type).model()(config)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        load_pretrained(model, str(hugging_face), other)
    inputs = check_inputs(loaded)[0]
    wanted = loaded.model.predict_on_batch(inputs)[:, :, ::-1]
    np.testing.assert_allclose(model.predict_on_batch(inputs), wanted, atol=1e-5)


@pytest.mark.nightly
@needs_transformers
def test_transformers_computes_the_same(loaded, hugging_face, tmp_path):
    kind = f"{get_family(loaded.config.model_type).class_prefix}ForTokenClassification"
    inputs = check_inputs(loaded)[0]
    (found,) = logits(kind, hugging_face, inputs, tmp_path)
    real = inputs["attention_mask"] == 1
    assert np.abs(found - loaded.model.predict_on_batch(inputs))[real].max() < 1e-4


@pytest.mark.daily_every(8)
@pytest.mark.parametrize("graph", ["standard", "fused"])
def test_it_is_exported_and_quantised(loaded, graph, tmp_path):
    if graph == "fused" and loaded.config.model_type not in EMBEDDINGS:
        with pytest.raises(UserError, match="is no family whose fused graph is known"):
            export_onnx(tmp_path / "model.onnx", loaded, graph)
        return
    assert export_onnx(tmp_path / "model.onnx", loaded, graph) < 1e-4
    opened = open_model(tmp_path / "model.onnx")
    assert opened.model.session.get_outputs()[0].shape == ["batch", "length", 5]
    small = quantize(tmp_path / "model.onnx", tmp_path / "int8.onnx", "int8").model
    inputs = check_inputs(loaded)[0]
    expected, found = loaded.model.predict_on_batch(inputs), small.predict_on_batch(inputs)
    assert np.abs(expected - found).mean() < 0.1 * np.abs(expected).mean()


@pytest.mark.daily_every(6)
def test_a_folder_for_optimum_names_its_pipeline(loaded, tmp_path):
    export_optimum(tmp_path / "optimum", loaded)
    assert "pipeline_tag: token-classification" in (tmp_path / "optimum" / "README.md").read_text()
    inputs = {name: array.astype(np.int64) for name, array in check_inputs(loaded)[0].items()}
    session = onnxruntime.InferenceSession(tmp_path / "optimum" / "onnx" / "model.onnx")
    differences = session.run(None, inputs)[0] - loaded.model.predict_on_batch(inputs)
    assert np.abs(differences[inputs["attention_mask"] == 1]).max() < 1e-4


@pytest.fixture(scope="module")
def several(tmp_path_factory):
    """A model of several classes at once, and its folder for transformers."""
    folder = tmp_path_factory.mktemp("several") / "hf"
    task, family = TASKS["topics"], get_family("bert")
    model = family.model()(read_pretrained_architecture(str(FOLDERS / "bert")).for_task(task))
    tokenizer = tokenizer_from_folder(FOLDERS / "bert", kind=family.tokenizer)
    loaded = LoadedModel(model, tokenizer, task, model.architecture, {})
    export_hugging_face(folder, loaded)
    return loaded, folder


def test_several_classes_at_once_are_a_problem_type_of_transformers(several):
    loaded, folder = several
    fields = json.loads((folder / "config.json").read_text())
    assert fields["problem_type"] == "multi_label_classification" and fields["id2label"]["3"] == "Sci/Tech"
    again = load_source(folder)
    assert again.task.kind == MULTI_LABEL and again.task.labels == loaded.task.labels
    assert largest_difference(loaded.model, again.model, check_inputs(loaded)) < 1e-6


@pytest.mark.nightly
@needs_transformers
def test_transformers_computes_the_same_of_several_classes(several, tmp_path):
    loaded, folder = several
    inputs = check_inputs(loaded)[0]
    (found,) = logits("BertForSequenceClassification", folder, inputs, tmp_path)
    assert np.abs(found - loaded.model.predict_on_batch(inputs)).max() < 1e-4
