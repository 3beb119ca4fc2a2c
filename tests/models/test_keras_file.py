"""`.keras` files that lie about their arrays: refused before memory is taken, whoever reads them."""

import io
import json
import zipfile

import h5py
import keras
import numpy as np
import pytest

from gated_bert.cli.main import main
from gated_bert.models.architecture import BertConfig
from gated_bert.models.bert import BertClassifier
from gated_bert.models.folder import load_model, read_masks, save_model
from gated_bert.support.errors import UserError
from gated_bert.tasks.task import TASKS
from gated_bert.tasks.wordpiece import Tokenizer

KEY = "encoder/blocks/encoder_block/attention/key/vars"
TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "good", "bad"]


@pytest.fixture
def folder(tmp_path):
    model = BertClassifier(BertConfig.uniform(1, 8, 2, 16, vocab_size=7, max_position=8))
    gates = np.ones((8, 8), np.float32)
    gates[0] = 0
    model.encoder.blocks[0].attention.key.gates.assign(gates)
    save_model(tmp_path / "m", model, Tokenizer.from_vocab(TOKENS), TASKS["sst2"], {"row": {"loss": float("nan")}})
    return tmp_path / "m"


def rewrite(path, arrays=None, config=None, compression=zipfile.ZIP_STORED):
    """Changes the HDF5 file, or the configuration, in a `.keras` file."""
    with zipfile.ZipFile(path) as archive:
        members = {entry.filename: archive.read(entry) for entry in archive.infolist()}
    if arrays is not None:
        buffer = io.BytesIO(members["model.weights.h5"])
        with h5py.File(buffer, "r+") as file:
            arrays(file)
        members["model.weights.h5"] = buffer.getvalue()
    if config is not None:
        values = json.loads(members["config.json"])
        config(values)
        members["config.json"] = json.dumps(values).encode()
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in members.items():
            archive.writestr(name, data)


def declared_only(file):
    del file[f"{KEY}/2"]
    file.create_dataset(f"{KEY}/2", (60_000, 60_000), "f4")


def packed(file):
    del file[f"{KEY}/2"]
    file.create_dataset(f"{KEY}/2", (20_000, 20_000), "f4", chunks=(1000, 1000), compression="gzip", fillvalue=1)


def outside(file):
    del file[f"{KEY}/2"]
    file.create_dataset(f"{KEY}/2", (8, 8), "f4", external=[("/etc/hostname", 0, 256)])


def soft_link(file):
    del file[f"{KEY}/2"]
    file[f"{KEY}/2"] = h5py.SoftLink("/classifier/vars/0")


def external_link(file):
    del file[f"{KEY}/2"]
    file[f"{KEY}/2"] = h5py.ExternalLink("/etc/hostname", "/x")


def link_to_a_group(file):
    del file["encoder/pooler"]
    file["encoder/pooler"] = h5py.ExternalLink("other.h5", "/x")


def virtual(file):
    del file[f"{KEY}/2"]
    layout = h5py.VirtualLayout((8, 8), "f4")
    layout[:] = h5py.VirtualSource("other.h5", "x", (8, 8))
    file.create_virtual_dataset(f"{KEY}/2", layout)


def texts(file):
    del file[f"{KEY}/2"]
    file.create_dataset(f"{KEY}/2", data=["a"] * 8)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (declared_only, "declares 14,400,000,000 bytes, and 0 are there"),
        (packed, "is packed, or holds no numbers"),
        (outside, "is stored outside the file"),
        (virtual, "is stored outside the file"),
        (soft_link, "is a link"),
        (external_link, "is a link"),
        (link_to_a_group, "/encoder/pooler is a link"),
        (texts, "is packed, or holds no numbers"),
    ],
)
def test_arrays_are_in_the_file_and_as_large_as_they_say(folder, change, message):
    rewrite(folder / "model.keras", change)
    for read in (load_model, read_masks):
        with pytest.raises(UserError, match=message):
            read(folder)


def test_masks_of_another_shape_are_refused(folder):
    def change(file):
        del file[f"{KEY}/2"]
        file[f"{KEY}/2"] = np.zeros((4, 16), np.float32)

    rewrite(folder / "model.keras", change)
    with pytest.raises(UserError, match="config.json and model.keras do not belong together"):
        read_masks(folder)


def test_a_model_whose_file_is_packed_is_read(folder):
    before = read_masks(folder)
    rewrite(folder / "model.keras", compression=zipfile.ZIP_DEFLATED)
    after = read_masks(folder)
    assert all((before[name] == after[name]).all() for name in before) and after[0, "key"][0].all()
    load_model(folder)


def test_a_bomb_is_not_unpacked(folder):
    with zipfile.ZipFile(folder / "model.keras") as archive:
        config = archive.read("config.json")
    with zipfile.ZipFile(folder / "model.keras", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("config.json", config)
        archive.writestr("model.weights.h5", bytes(200_000_000))
    for read in (load_model, read_masks):
        with pytest.raises(UserError, match="200,000,000 bytes of arrays, and its sizes need"):
            read(folder)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("vocab_size", 10**12, "vocab_size is 1000000000000; it must be a whole number from 1 to 10,000,000"),
        ("vocab_size", 9_000_000, "model.keras do not belong together"),
        ("layers", None, "layers is null; allowed: a list"),
        ("hidden_size", "8", "hidden_size is a text; allowed: a whole number"),
        ("gate_trainable", 1, "gate_trainable is a whole number; allowed: true or false"),
        ("new", 1, "the architecture's field 'new' is unknown"),
    ],
)
def test_sizes_are_refused_before_anything_is_built(folder, field, value, message):
    path = folder / "config.json"
    record = json.loads(path.read_text())
    record["architecture"][field] = value
    path.write_text(json.dumps(record))
    with pytest.raises(UserError, match=message):
        load_model(folder)


def test_sizes_that_both_records_claim_are_held_against_the_file(folder):
    path = folder / "config.json"
    record = json.loads(path.read_text())
    record["architecture"]["vocab_size"] = 9_000_000
    path.write_text(json.dumps(record))
    rewrite(folder / "model.keras", config=lambda values: values["config"].update(bert_config=record["architecture"]))
    for read in (load_model, read_masks):
        with pytest.raises(UserError, match="bytes of arrays, and its sizes need"):
            read(folder)


def test_another_class_is_never_made(folder):
    rewrite(folder / "model.keras", config=lambda values: values.update(registered_name=None, class_name="Lambda"))
    with pytest.raises(UserError, match="holds 'None', not 'gated_bert>BertClassifier'"):
        load_model(folder)


@pytest.mark.parametrize("field", ["dtype", "name", "trainable", "bert_config"])
@pytest.mark.parametrize("kind", ["gated_bert>BertClassifier", "gated_bert>Student", None])
def test_nothing_is_made_inside_the_model_before_its_sizes_are_known(folder, monkeypatch, field, kind):
    def change(values):
        # As large as a table may be: the sizes of the model itself are right.
        inner = {**values["config"], "bert_config": {**values["config"]["bert_config"], "vocab_size": 9_000_000}}
        values["config"][field] = [{"class_name": "Lambda", "registered_name": kind, "config": inner}]

    rewrite(folder / "model.keras", config=change)
    monkeypatch.setattr(keras.saving, "load_model", lambda *_, **__: pytest.fail("Keras was asked"))
    with pytest.raises(UserError, match="holds an object .* within the model"):
        load_model(folder)


def test_types_of_numbers_are_the_only_objects_in_a_model(tmp_path):
    config = BertConfig.uniform(1, 8, 2, 16, vocab_size=7, max_position=8)
    model = BertClassifier(config, dtype=keras.DTypePolicy("mixed_bfloat16"))
    save_model(tmp_path / "m", model, Tokenizer.from_vocab(TOKENS), TASKS["sst2"], {})
    assert load_model(tmp_path / "m").model.dtype_policy.name == "mixed_bfloat16"


def test_a_tokeniser_of_another_model_is_refused_when_the_folder_is_read(folder):
    Tokenizer.from_vocab([*TOKENS, "film", "##s"]).save(folder / "tokenizer.json")
    with pytest.raises(UserError, match="tokenizer.json: ids up to 8, and the model's embedding has 7 rows"):
        load_model(folder)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([float("nan"), "b"], "NaN is no number of JSON"),
        ([None, "b"], r"task: labels\[0\] is null; allowed: a text"),
        ([["a"], "b"], r"task: labels\[0\] is a list; allowed: a text"),
        (["a", "a"], "'a' is no name of a class"),
        (["a", " "], "' ' is no name of a class"),
        (["a", "b", "c"], "2 outputs in the architecture, and 3 of the task"),
        ([], "0 classes, and kind is 'classification'"),
        ("ab", "task: labels is a text; allowed: a list"),
    ],
)
def test_class_names_are_texts_each_once(folder, labels, message):
    path = folder / "config.json"
    record = json.loads(path.read_text())
    record["task"]["labels"] = labels
    path.write_text(json.dumps(record))
    with pytest.raises(UserError, match=message):
        load_model(folder)


def test_weights_that_are_no_numbers_are_named(folder, tmp_path, capsys):
    def change(file):
        file["encoder/pooler/vars/0"][3, 3] = np.nan
        file["classifier/vars/1"][0] = np.inf

    other = tmp_path / "other"
    save_model(other, load_model(folder).model, Tokenizer.from_vocab(TOKENS), TASKS["sst2"], {})
    rewrite(folder / "model.keras", change)
    line = "NaN or infinite values in "
    assert main(["inspect", str(folder)]) == 0
    shown = [part for part in capsys.readouterr().out.splitlines() if line in part]
    assert len(shown) == 1 and "encoder/pooler/vars/0" in shown[0] and "classifier/vars/1" in shown[0]
    assert main(["iou", str(folder), str(other), "-o", str(tmp_path / "o")]) == 0
    assert f"m: {line}" in capsys.readouterr().out
    assert main(["quantize", str(folder), str(tmp_path / "q.onnx")]) == 2
    assert line in capsys.readouterr().err and not list(tmp_path.glob("q*"))
