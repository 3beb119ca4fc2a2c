"""Loading pretrained weights: from every kind of source, and what is refused."""

import json
import shutil
from pathlib import Path

import keras
import numpy as np
import pytest
from huggingface_hub import constants
from safetensors.numpy import load_file, save_file

from gated_bert.config import GatedBertConfig
from gated_bert.models.architecture import LayerSizes
from gated_bert.models.bert import BertClassifier
from gated_bert.models.folder import save_model
from gated_bert.models.pretrained import load_pretrained, read_pretrained_architecture
from gated_bert.pruning.pruner import Pruner, sparsity
from gated_bert.support.errors import UserError
from gated_bert.tasks.task import TASKS
from gated_bert.tasks.wordpiece import Tokenizer

FIXTURE = Path(__file__).resolve().parent.parent / "fixtures" / "bert"
INPUTS = {
    "input_ids": np.array([[2, 7, 150, 3, 9, 3], [2, 8, 3, 0, 0, 0]], dtype="int32"),
    "token_type_ids": np.array([[0, 0, 0, 0, 1, 1], [0] * 6], dtype="int32"),
    "attention_mask": np.array([[1] * 6, [1, 1, 1, 0, 0, 0]], dtype="int32"),
}
SMALL = (LayerSizes(4, 8, 8, 64), LayerSizes(4, 8, 8, 64))


def load(path, num_layers=None, num_outputs=3, **options):
    config = read_pretrained_architecture(path, num_layers).replace(num_outputs=num_outputs, **options)
    model = BertClassifier(config)
    load_pretrained(model, path)
    return model


def logits(model):
    return keras.ops.convert_to_numpy(model(INPUTS))


@pytest.fixture
def folder(tmp_path):
    return Path(shutil.copytree(FIXTURE, tmp_path / "bert"))


def rewrite(folder, change):
    """Rewrites the tensors of `folder` as `change` returns them."""
    path = folder / "model.safetensors"
    save_file({name: np.ascontiguousarray(array) for name, array in change(load_file(path)).items()}, path)


def test_sizes_are_those_of_config_json():
    config = read_pretrained_architecture(FIXTURE)
    assert (config.vocab_size, config.hidden_size, config.max_position) == (200, 32, 64)
    assert config.layers == SMALL and config.original_head_dim == 8


def test_num_layers_keeps_the_first_layers():
    whole, first = load(FIXTURE), load(FIXTURE, num_layers=1)
    assert first.bert_config.layers == SMALL[:1]
    names = {variable.path: keras.ops.convert_to_numpy(variable) for variable in whole.weights}
    for variable in first.weights:
        assert np.array_equal(keras.ops.convert_to_numpy(variable), names[variable.path])


@pytest.mark.parametrize(
    "change",
    [
        lambda tensors: {name.removeprefix("bert."): array for name, array in tensors.items()},
        lambda tensors: {
            name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): array
            for name, array in tensors.items()
        },
    ],
    ids=["without bert.", "gamma and beta"],
)
def test_other_tensor_names_are_understood(folder, change):
    rewrite(folder, change)
    assert np.array_equal(logits(load(folder)), logits(load(FIXTURE)))


def test_a_head_of_another_shape_stays_new():
    with pytest.warns(UserWarning, match="its head has the classes .* starts from random values"):
        model = load(FIXTURE, num_outputs=2)
    assert model.classifier.raw_kernel.shape == (32, 2)
    pooler = load_file(FIXTURE / "model.safetensors")["bert.pooler.dense.weight"]
    assert np.array_equal(keras.ops.convert_to_numpy(model.encoder.pooler.raw_kernel), pooler.T)


def test_a_checkpoint_without_pooler_is_loaded_with_a_warning(folder):
    rewrite(folder, lambda tensors: {name: array for name, array in tensors.items() if "pooler" not in name})
    with pytest.warns(UserWarning, match="no pooler in it; the pooler starts from random values"):
        load(folder)


def truncate(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-5000])


def set_field(name, value):
    def change(folder):
        path = folder / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), name: value}))

    return change


def drop_layer(folder):
    rewrite(folder, lambda tensors: {name: array for name, array in tensors.items() if "layer.1" not in name})


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (truncate, "model.safetensors: not a whole safetensors file"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"x"), "not a whole safetensors file"),
        (lambda folder: (folder / "config.json").unlink(), "no config.json in it; a pretrained folder holds"),
        (lambda folder: (folder / "model.safetensors").unlink(), "no model.safetensors in it"),
        (lambda folder: (folder / "config.json").write_text('{"vocab'), "config.json, line 1: malformed JSON"),
        (lambda folder: (folder / "config.json").write_text("{}"), "config.json: no field 'num_hidden_layers'"),
        (set_field("vocab_size", 300), "word_embeddings has the shape 200x32, the model needs 300x32"),
        (set_field("intermediate_size", 48), "intermediate/dense/kernel has the shape 32x64, the model needs 32x48"),
        (set_field("num_hidden_layers", 3), "no encoder/layer_2/attention/self/query/kernel in it"),
        (set_field("num_attention_heads", 5), "num_heads: 5 does not divide the hidden size 32"),
        (set_field("hidden_act", "mish"), "config.json: architecture: hidden_act is 'mish'; allowed: gelu, "),
        (set_field("hidden_act", None), "config.json: architecture: hidden_act is None; allowed: gelu, "),
        (set_field("model_type", "gpt2"), "model_type is 'gpt2'; known: bert"),
        (set_field("hidden_size", "32"), "config.json: "),
        (drop_layer, "no encoder/layer_1/attention/self/query/kernel in it"),
    ],
)
def test_a_damaged_folder_is_refused_in_one_line(folder, damage, message):
    damage(folder)
    with pytest.raises(UserError, match=message) as caught:
        load(folder)
    assert "\n" not in str(caught.value) and str(folder) in str(caught.value)


def test_more_layers_than_there_are_is_refused():
    with pytest.raises(UserError, match="num_layers: 5 is refused; .*bert has layers 1 to 2"):
        read_pretrained_architecture(FIXTURE, 5)


def test_a_folder_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(UserError, match="nowhere: no such folder; give a folder, a checkpoint prefix or a Hugging"):
        read_pretrained_architecture(str(tmp_path / "nowhere"))


@pytest.fixture
def hub_cache(tmp_path, monkeypatch):
    """A hub that is switched off, with `someone/small-bert` in its cache."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    commit = "0" * 40
    repository = tmp_path / "models--someone--small-bert"
    shutil.copytree(FIXTURE, repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)


def test_a_hub_id_is_read_through_the_hubs_cache(hub_cache):
    assert np.array_equal(logits(load("someone/small-bert")), logits(load(FIXTURE)))


def test_a_hub_id_that_is_not_cached_is_refused_without_a_network(hub_cache):
    with pytest.raises(
        UserError, match=r"config.json of someone/large-bert is not cached .* give -pt FOLDER"
    ) as caught:
        read_pretrained_architecture("someone/large-bert")
    assert "\n" not in str(caught.value)


@pytest.fixture
def google(tmp_path):
    """The weights of the fixture as Google's original code would have saved them."""
    tf = pytest.importorskip("tensorflow")
    tensors = load_file(FIXTURE / "model.safetensors")
    official = {"classifier.weight": "output_weights", "classifier.bias": "output_bias"}
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        tf.compat.v1.get_variable("global_step", initializer=np.int64(3), use_resource=False)
        for name, array in tensors.items():
            if "dense.weight" in name or "self." in name and name.endswith("weight"):
                name, array = name.replace("weight", "kernel"), array.T
            name = name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")
            name = name.replace("_embeddings.weight", "_embeddings").replace("layer.", "layer_")
            name = official.get(name, name.replace(".", "/"))
            tf.compat.v1.get_variable(name, initializer=array, use_resource=False)
        names = {variable.op.name for variable in tf.compat.v1.global_variables()}
        assert {
            "bert/embeddings/word_embeddings",
            "bert/embeddings/LayerNorm/gamma",
            "bert/encoder/layer_0/attention/self/query/kernel",
            "bert/encoder/layer_1/attention/output/LayerNorm/beta",
            "bert/encoder/layer_1/intermediate/dense/bias",
            "bert/encoder/layer_0/output/dense/kernel",
            "bert/pooler/dense/kernel",
            "output_weights",
        } <= names
        session.run(tf.compat.v1.global_variables_initializer())
        tf.compat.v1.train.Saver().save(session, str(tmp_path / "bert_model.ckpt"), write_meta_graph=False)
    config = json.loads((FIXTURE / "config.json").read_text())
    known = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "vocab_size",
             "max_position_embeddings", "type_vocab_size", "hidden_act")  # fmt: skip
    (tmp_path / "bert_config.json").write_text(json.dumps({name: config[name] for name in known}))
    return tmp_path


def test_a_google_checkpoint_gives_the_same_logits(google):
    expected = logits(load(FIXTURE))
    assert np.array_equal(logits(load(google)), expected)
    assert np.array_equal(logits(load(str(google / "bert_model.ckpt"))), expected)
    assert load(google, num_layers=1).bert_config.num_layers == 1


def test_a_damaged_google_checkpoint_is_refused_in_one_line(google):
    data = google / "bert_model.ckpt.data-00000-of-00001"
    data.write_bytes(data.read_bytes()[:1000])
    with pytest.raises(UserError, match="bert_model.ckpt: not a whole TensorFlow checkpoint") as caught:
        load(google)
    assert "\n" not in str(caught.value)
    data.unlink()
    with pytest.raises(UserError, match="bert_model.ckpt: not a whole TensorFlow checkpoint"):
        load(google)
    index = google / "bert_model.ckpt.index"
    index.write_bytes(index.read_bytes()[:100])
    with pytest.raises(UserError, match="bert_model.ckpt: not a whole TensorFlow checkpoint"):
        load(google)
    (google / "bert_config.json").unlink()
    with pytest.raises(UserError, match="bert_config.json: no such file; a BERT configuration belongs beside the"):
        load(google)


@pytest.fixture
def model_folder(tmp_path):
    """A model folder with half of every matrix closed, and its model."""
    model = load(FIXTURE)
    for layer in model.gated_layers():
        layer.gates.assign(np.arange(np.prod(layer.gates.shape)).reshape(layer.gates.shape) % 2)
    save_model(tmp_path / "model", model, Tokenizer.from_vocab(FIXTURE / "vocab.txt"), TASKS["mnli"], {})
    return tmp_path / "model", model


def test_a_model_folder_is_taken_over_with_its_closed_gates(model_folder):
    path, model = model_folder
    assert np.array_equal(logits(load(path)), logits(model))
    with pytest.warns(UserWarning, match="its head has the classes .* starts from random values"):
        assert load(path, num_layers=1, num_outputs=2).bert_config.layers == SMALL[:1]
    scored = load(path, gate_rule="straight_through")
    assert np.array_equal(logits(scored), logits(model))


def test_closed_gates_stay_closed_where_gates_are_trained(model_folder):
    path, model = model_folder
    trained = load(path, gate_trainable=True)
    assert np.array_equal(logits(trained), logits(model))
    layer = trained.gated_layers()[0]
    assert keras.ops.convert_to_numpy(layer.mask_variable)[0, :4].tolist() == [0, 1, 0, 1]


def test_a_model_folder_of_other_sizes_is_refused(model_folder):
    path, model = model_folder
    other = BertClassifier(model.bert_config.replace(vocab_size=100))
    with pytest.raises(UserError, match="its vocab_size is 200, the model's is 100"):
        load_pretrained(other, path)


@pytest.mark.parametrize("options", [{}, {"gate_trainable": True}, {"gate_init_value": 0.5}], ids=str)
def test_weights_that_another_tool_pruned_to_zeros_stay_closed(folder, options):
    def prune(tensors):
        return {name: np.where(np.abs(array) < 0.13, 0, array) if "encoder" in name and array.ndim == 2 else array
                for name, array in tensors.items()}  # fmt: skip

    rewrite(folder, prune)
    with pytest.warns(UserWarning, match=r"bert: \d+.\d% of the weights are zeros, which count as closed"):
        model = load(folder, **options)
    for layer in model.gated_layers():
        kernel = keras.ops.convert_to_numpy(layer.raw_kernel)
        assert np.array_equal(keras.ops.convert_to_numpy(layer.effective_gates()) == 0, kernel == 0), layer.name
    config = GatedBertConfig(pruning_method="magnitude", end_sparsity=0.3)
    closed = sparsity(model.gated_layers(config.prunable_roles))
    assert closed > 0.35
    Pruner.from_config(config, model.gated_layers(config.prunable_roles)).update(0.3, 0)
    assert sparsity(model.gated_layers(config.prunable_roles)) == closed


def test_a_few_zeros_are_weights_like_others(folder):
    def round_some(tensors):
        name = "bert.encoder.layer.0.attention.self.query.weight"
        return tensors | {name: np.where(np.abs(tensors[name]) < 0.002, 0, tensors[name])}

    rewrite(folder, round_some)
    model = load(folder)
    assert any((keras.ops.convert_to_numpy(layer.raw_kernel) == 0).any() for layer in model.gated_layers())
    assert sparsity(model.gated_layers()) == 0
