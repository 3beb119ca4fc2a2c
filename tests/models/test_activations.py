"""Activation functions of the feed-forward network: transformers' values, and whoever computes them once more."""

import json
import math
import shutil
import zipfile
from pathlib import Path

import keras
import numpy as np
import pytest
from scipy.special import erf, expit

from gated_bert.compression.onnx_tiled import tiled_graph
from gated_bert.compression.shrink import shrink
from gated_bert.compression.source import load_source
from gated_bert.config import GatedBertConfig
from gated_bert.models.architecture import ACTIVATIONS, BertConfig
from gated_bert.models.bert import BertClassifier
from gated_bert.models.build import build_model
from gated_bert.models.folder import load_model, save_model
from gated_bert.models.layers import ACTIVATION_FUNCTIONS
from gated_bert.models.pretrained import load_pretrained, read_pretrained_architecture
from gated_bert.pruning.activation_change import tracked_activations
from gated_bert.support.errors import UserError
from gated_bert.tasks.task import TASKS
from gated_bert.tasks.wordpiece import Tokenizer
from tests.compression.conftest import INPUTS, VOCAB, randomize
from tests.compression.test_tiles import pruned, run

FIXTURES = Path(__file__).resolve().parent.parent / "fixtures"
TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "good", "bad", "film", "##s"]
FORMULAS = {
    "gelu": lambda x: x * (1 + erf(x / math.sqrt(2))) / 2,
    "gelu_tanh": lambda x: x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))) / 2,
    "silu": lambda x: x * expit(x),
    "quick_gelu": lambda x: x * expit(1.702 * x),
    "relu": lambda x: np.maximum(x, 0),
}


def array(tensor):
    return keras.ops.convert_to_numpy(tensor)


def fixture_folder(place, hidden_act):
    folder = Path(shutil.copytree(FIXTURES / "bert", place))
    values = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(values | {"hidden_act": hidden_act}))
    return folder


def small_model(hidden_act, **options):
    sizes = BertConfig.uniform(2, 16, 4, 12, vocab_size=VOCAB, max_position=16, hidden_act=hidden_act, **options)
    model = BertClassifier(sizes)
    randomize(model, 0)
    return model


@pytest.mark.parametrize("name", sorted(ACTIVATIONS.keys() - {"gelu"}))
def test_logits_are_those_of_transformers(name, tmp_path):
    reference = np.load(FIXTURES / "activation_reference.npz")
    folder = fixture_folder(tmp_path / "bert", name)
    model = BertClassifier(read_pretrained_architecture(folder).replace(num_outputs=3))
    load_pretrained(model, folder)
    logits = array(model({key: reference[key] for key in INPUTS}))
    np.testing.assert_allclose(logits, reference[f"{name}/logits"], atol=1e-5)


@pytest.mark.parametrize("kind", FORMULAS)
def test_a_function_is_its_formula(kind):
    x = np.linspace(-9, 9, 2001)
    np.testing.assert_allclose(array(ACTIVATION_FUNCTIONS[kind](x.astype("float32"))), FORMULAS[kind](x), atol=2e-6)
    assert FORMULAS.keys() == ACTIVATION_FUNCTIONS.keys() == set(ACTIVATIONS.values())


def test_an_unknown_function_is_refused_by_name():
    with pytest.raises(UserError, match="hidden_act is 'tanh'; allowed: gelu, .*relu"):
        small_model("tanh")


def test_a_record_without_the_field_is_gelu():
    values = small_model("relu").bert_config.to_dict()
    assert BertConfig.from_dict(values).activation == "relu"
    del values["hidden_act"]
    assert BertConfig.from_dict(values).activation == "gelu"


def test_a_folder_saved_before_the_field_was_there_is_gelu(tmp_path):
    model = small_model("gelu")
    save_model(tmp_path / "model", model, Tokenizer.from_vocab(TOKENS), TASKS["sst2"], {})
    text = (tmp_path / "model" / "config.json").read_text()
    (tmp_path / "model" / "config.json").write_text(text.replace('"hidden_act": "gelu",', ""))
    weights = tmp_path / "model" / "model.keras"
    with zipfile.ZipFile(weights) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    assert b'"hidden_act": "gelu", ' in parts["config.json"] and '"hidden_act"' in text
    parts["config.json"] = parts["config.json"].replace(b'"hidden_act": "gelu", ', b"")
    with zipfile.ZipFile(weights, "w") as archive:
        for name, part in parts.items():
            archive.writestr(name, part)
    loaded = load_model(tmp_path / "model")
    assert loaded.config.activation == "gelu"
    assert np.array_equal(array(loaded.model(INPUTS)), array(model(INPUTS)))


@pytest.mark.parametrize("name", ["relu", "gelu_new"])
def test_a_saved_folder_and_a_run_from_it_keep_the_function(name, tmp_path):
    model = small_model(name)
    save_model(tmp_path / "model", model, Tokenizer.from_vocab(TOKENS), TASKS["sst2"], {})
    assert load_model(tmp_path / "model").config.hidden_act == name
    config = GatedBertConfig(pretrained=str(tmp_path / "model"), max_len=16)
    again = build_model(config, TASKS["sst2"], len(TOKENS))
    assert np.array_equal(array(again(INPUTS)), array(model(INPUTS)))


def test_weights_of_another_function_are_refused(tmp_path):
    save_model(tmp_path / "model", small_model("relu"), Tokenizer.from_vocab(TOKENS), TASKS["sst2"], {})
    with pytest.raises(UserError, match="its hidden_act is 'relu', the model's is 'gelu'"):
        load_pretrained(small_model("gelu"), tmp_path / "model")
    folder = fixture_folder(tmp_path / "bert", "gelu_new")
    sizes = read_pretrained_architecture(folder).replace(num_outputs=3)
    with pytest.raises(UserError, match="its hidden_act is 'gelu_new', the model's is 'gelu'"):
        load_pretrained(BertClassifier(sizes.replace(hidden_act="gelu")), folder)
    load_pretrained(BertClassifier(sizes.replace(hidden_act="gelu_fast")), folder)


@pytest.mark.parametrize("name", ["relu", "gelu_new", "silu", "quick_gelu"])
def test_shrinking_folds_the_constants_that_the_function_gives(name):
    model = small_model(name)
    for block in model.encoder.blocks:
        gates = np.ones(tuple(block.ffn.intermediate.gates.shape), np.float32)
        gates[:, ::2] = 0
        block.ffn.intermediate.gates.assign(gates)
    small = shrink(model)
    assert [sizes.intermediate_size for sizes in small.bert_config.layers] == [6, 6]
    np.testing.assert_allclose(array(small(INPUTS)), array(model(INPUTS)), atol=1e-5)


@pytest.mark.parametrize("name", ["relu", "gelu_new"])
def test_tracked_activations_are_those_of_the_model(name):
    model = small_model(name)
    tracked = tracked_activations(model, INPUTS)
    hidden, pooled = model.encoder(INPUTS)
    np.testing.assert_allclose(tracked[2, "pooler"], array(pooled), atol=1e-5)


@pytest.mark.parametrize(("name", "operator"), [("relu", "Relu"), ("gelu_new", "FastGelu"), ("gelu", "BiasGelu"),
                                                ("silu", "QuickGelu"), ("quick_gelu", "QuickGelu")])  # fmt: skip
@pytest.mark.parametrize("graph", ["fused", "standard"])
@pytest.mark.daily_every(3)
def test_an_onnx_file_computes_the_function(name, operator, graph, tmp_path):
    onnx = pytest.importorskip("onnx")
    from gated_bert.compression.onnx_export import export_onnx
    from gated_bert.models.folder import LoadedModel

    model = small_model(name)
    loaded = LoadedModel(model, Tokenizer.from_vocab(TOKENS), TASKS["sst2"], model.bert_config, {})
    assert export_onnx(tmp_path / "m.onnx", loaded, graph) < 1e-5
    operators = [node.op_type for node in onnx.load(tmp_path / "m.onnx").graph.node]
    assert operators.count(operator) == (2 if graph == "fused" or name == "relu" else 0)


@pytest.mark.parametrize("name", ["relu", "gelu_new", "silu"])
def test_a_tiled_graph_computes_the_function(name):
    model = pruned(hidden_act=name, pattern="row", scope="layer")
    difference = run(tiled_graph(model), INPUTS) - model.predict_on_batch(INPUTS)
    assert np.abs(difference).max() < 1e-5


@pytest.mark.parametrize("name", ["relu", "gelu_new", "gelu_pytorch_tanh", "silu"])
def test_an_exported_folder_names_the_function(name, tmp_path):
    from gated_bert.compression.export import export_hugging_face
    from gated_bert.models.folder import LoadedModel

    model = small_model(name)
    loaded = LoadedModel(model, Tokenizer.from_vocab(TOKENS), TASKS["sst2"], model.bert_config, {})
    export_hugging_face(tmp_path / "hf", loaded)
    assert load_source(tmp_path / "hf").config.hidden_act == name
