"""Weights and configurations of other tools that lie: refused before a model of their sizes is made."""

import json

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from gated_bert.compression.export import export_hugging_face
from gated_bert.compression.source import load_source
from gated_bert.models.architecture import BertConfig
from gated_bert.models.bert import BertClassifier
from gated_bert.models.folder import LoadedModel
from gated_bert.models.pretrained import read_pretrained_architecture
from gated_bert.support.errors import UserError
from gated_bert.tasks.task import TASKS
from gated_bert.tasks.wordpiece import Tokenizer

TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "good", "bad"]
QUERY = "bert.encoder.layer.0.attention.self.query.weight"


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("written") / "hf"
    config = BertConfig.uniform(1, 8, 2, 16, vocab_size=len(TOKENS), max_position=8)
    tokenizer = Tokenizer.from_vocab(TOKENS)
    export_hugging_face(folder, LoadedModel(BertClassifier(config), tokenizer, TASKS["sst2"], config, {}))
    return folder


@pytest.fixture
def folder(written, tmp_path):
    for path in written.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path


def change(folder, **fields):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def test_what_was_written_is_read(folder):
    assert load_source(folder).config.num_layers == 1


@pytest.mark.parametrize("kind", [np.int64, np.uint8, bool, np.int8])
def test_weights_of_whole_numbers_are_refused(folder, kind):
    arrays = load_file(folder / "model.safetensors")
    save_file(arrays | {QUERY: np.ones((8, 8), kind)}, folder / "model.safetensors")
    with pytest.raises(UserError, match=rf"{QUERY} holds \w+; allowed: F32, F16, BF16, F64"):
        load_source(folder)


@pytest.mark.parametrize("shape", [(64,), (8, 8, 1), (4, 16), ()])
def test_weights_of_another_shape_are_refused(folder, shape):
    arrays = load_file(folder / "model.safetensors")
    save_file(arrays | {QUERY: np.ones(shape, np.float32)}, folder / "model.safetensors")
    with pytest.raises(UserError, match=r"attention/self/query/kernel has the shape"):
        load_source(folder)


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("classifier.weight", (), "classifier.weight is no matrix"),
        ("classifier.weight", (16,), "classifier.weight is no matrix"),
        ("classifier.weight", (2, 8, 1), "classifier.weight is no matrix"),
        ("classifier.weight", (2, 4), "output_weights has the shape 4x2"),
        ("classifier.bias", (), "shapes 2x8 and a single number, the model needs 2 outputs"),
        ("classifier.bias", (3,), "shapes 2x8 and 3, the model needs 2 outputs"),
    ],
)
def test_a_head_of_another_shape_is_refused(folder, name, shape, message):
    arrays = load_file(folder / "model.safetensors")
    save_file(arrays | {name: np.ones(shape, np.float32)}, folder / "model.safetensors")
    with pytest.raises(UserError, match=message):
        load_source(folder)


@pytest.mark.parametrize("outputs", [1, 3])
def test_a_span_head_of_another_number_of_outputs_is_refused(folder, outputs):
    arrays = load_file(folder / "model.safetensors")
    head = {"qa_outputs.weight": np.ones((outputs, 8), np.float32), "qa_outputs.bias": np.ones(outputs, np.float32)}
    save_file(arrays | head, folder / "model.safetensors")
    with pytest.raises(UserError, match="the model needs 2 outputs of both"):
        load_source(folder)


@pytest.mark.parametrize("kind", [np.float16, np.float64])
def test_weights_of_other_precisions_are_read(folder, kind):
    arrays = load_file(folder / "model.safetensors")
    save_file({name: array.astype(kind) for name, array in arrays.items()}, folder / "model.safetensors")
    load_source(folder)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"num_hidden_layers": 10**9}, "num_layers is 1000000000"),
        ({"vocab_size": 10**12}, "vocab_size is 1000000000000"),
        ({"vocab_size": 5_000_000}, "the sizes beside it need at least"),
        ({"num_hidden_layers": 900}, "the sizes beside it need at least"),
        ({"intermediate_size": 900_000}, "the sizes beside it need at least"),
        ({"hidden_size": None}, "hidden_size is null; allowed: a whole number"),
        ({"num_attention_heads": "2"}, "num_attention_heads is a text; allowed: a whole number"),
        ({"layer_norm_eps": True}, "layer_norm_eps is true or false; allowed: a number"),
        ({"is_decoder": "no"}, "is_decoder is a text; allowed: true or false or null"),
        ({"id2label": ["a", "b"]}, "id2label is a list; allowed: an object or null"),
        ({"id2label": {"0": None, "1": "b"}}, "is null; allowed: a text"),
        ({"id2label": {"0": "b", "1": "b"}}, r"id2label gives two classes one name \(b, b\)"),
    ],
)
def test_configurations_are_held_against_types_and_file(folder, fields, message):
    change(folder, **fields)
    with pytest.raises(UserError, match=message):
        read_pretrained_architecture(str(folder))
        load_source(folder)


def test_a_tokeniser_of_another_model_is_refused(folder):
    Tokenizer.from_vocab([*TOKENS, "more"]).save(folder / "tokenizer.json")
    with pytest.raises(UserError, match="tokenizer.json: ids up to 7, and the model's embedding has 7 rows"):
        load_source(folder)


@pytest.mark.parametrize("identifier", [2**31, 2**32 - 1])
def test_ids_that_no_embedding_has_are_refused(folder, identifier):
    path = folder / "tokenizer.json"
    record = json.loads(path.read_text())
    record["model"]["vocab"]["good"] = identifier
    path.write_text(json.dumps(record))
    with pytest.raises(UserError, match=f"tokenizer.json: an id of {identifier:,}; allowed: below 10,000,000"):
        Tokenizer.from_file(path)
