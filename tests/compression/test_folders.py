"""The commands `shrink` and `export`, as a user types them."""

import shutil

import numpy as np
import pytest

from gated_bert.cli.main import main
from gated_bert.compression import folders
from gated_bert.models.architecture import BertConfig
from gated_bert.models.bert import BertClassifier
from gated_bert.models.folder import load_model, save_model
from gated_bert.tasks.task import TASKS
from gated_bert.tasks.wordpiece import Tokenizer
from tests.compression.conftest import randomize
from tests.refused import refusal

TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "good", "bad", "film", "##s"]
QUICK = ("--batch", "1", "--length", "8")


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A model folder of two layers, in the first of which a third of the neurons is closed."""
    model = BertClassifier(BertConfig.uniform(2, 16, 4, 12, vocab_size=40, max_position=16))
    randomize(model, 0)
    model.encoder.blocks[0].ffn.intermediate.gates.assign(np.repeat([[0, 1, 1]], 16, axis=0).repeat(4, axis=1))
    place = tmp_path_factory.mktemp("saved") / "model"
    save_model(place, model, Tokenizer.from_vocab(TOKENS), TASKS["sst2"], {"method": "magnitude"})
    return place


@pytest.fixture
def folder(saved, tmp_path, monkeypatch):
    """The working directory, with `saved` in it as `model`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(folders, "CHECKED", 4)
    shutil.copytree(saved, "model")
    return tmp_path


def test_shrink_writes_a_model_folder_and_says_what_it_saved(folder, inputs, capsys):
    assert main(["shrink", "model", "small", *QUICK]) == 0
    shown = capsys.readouterr().out
    assert "layer 0: 4 heads of 4, 8 neurons\nlayer 1: 4 heads of 4, 12 neurons" in shown
    for part in (
        "parameters ",
        "MACs per token (length 8) ",
        "model.keras",
        "latency, ms (batch 1 × 8)",
        "largest diff",
    ):
        assert part in shown
    before, after = load_model("model"), load_model("small")
    difference = before.model.predict(inputs, verbose=0) - after.model.predict(inputs, verbose=0)
    assert np.abs(difference).max() < 1e-5
    record = after.metadata["shrunk_from"]
    assert after.metadata["method"] == "magnitude" and record["folder"] == "model" and record["round_to"] == 1
    assert [sizes["intermediate_size"] for sizes in record["layers"]] == [12, 12]
    assert record["before"]["latency_seconds"] > 0 and record["largest_logit_difference"] < 1e-5
    assert record["after"]["parameters"] == record["before"]["parameters"] - 4 * (16 + 1 + 16)

    assert main(["shrink", "small", "again", *QUICK]) == 0
    assert "nothing to shrink: no weight of the encoder is closed or zero" in capsys.readouterr().out
    assert load_model("again").metadata["shrunk_from"]["shrunk_from"] == record


@pytest.mark.nightly
def test_shrink_says_why_there_is_nothing_to_shrink(folder, capsys):
    assert main(["shrink", "model", "same", "--round-to", "12", *QUICK]) == 0
    assert "nothing to shrink: closed units do not reach down to a multiple of 12" in capsys.readouterr().out
    loaded = load_model("model")
    gates = np.ones((16, 12))
    gates[0, 0] = 0
    loaded.model.encoder.blocks[0].ffn.intermediate.gates.assign(gates)
    save_model("single", loaded.model, loaded.tokenizer, loaded.task, {})
    assert main(["shrink", "single", "same_too", *QUICK]) == 0
    assert "nothing to shrink: 0.0 % of the encoder's weights are closed or zero, but no" in capsys.readouterr().out


def test_export_writes_a_folder_that_shrinks(folder, capsys):
    assert main(["export", "model", "hf", "--format", "hf"]) == 0
    assert "written to hf; 2.3 % of the encoder's weights are zero" in capsys.readouterr().out
    assert main(["shrink", "hf", "small", *QUICK]) == 0
    assert "layer 0: 4 heads of 4, 8 neurons" in capsys.readouterr().out
    line = refusal(capsys, "export", "small", "hf2", "--format", "hf")
    assert "layer 1 has 4 heads of 4, 12 neurons and layer 0 4 heads of 4, 8 neurons" in line


def test_a_model_that_computes_something_else_is_not_written(folder, capsys, monkeypatch):
    monkeypatch.setattr(folders, "largest_difference", lambda *_: float("nan"))
    assert "logits differ by nan, more than 1e-04; nothing was written" in refusal(capsys, "shrink", "model", "small")
    assert not (folder / "small").exists()


def test_sixteen_bit_models_are_compared_in_float32(make_model, inputs):
    model = make_model(dtype="mixed_float16")
    other = make_model(dtype="mixed_float16")
    assert folders.largest_difference(model, other, [inputs]) == 0
    other.classifier.bias.assign(np.asarray(other.classifier.bias) + np.float32(1e-3))
    assert folders.largest_difference(model, other, [inputs]) == pytest.approx(1e-3, rel=1e-2)


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        ("shrink model", ["needs the folder of a model and a new folder"]),
        ("shrink nowhere small", ["nowhere: no such folder"]),
        ("shrink run small", ["run: the folder of a run; give its model, run/model"]),
        ("shrink model full", ["full: not empty"]),
        ("shrink model file/small", ["'file/small' is refused ("]),
        ("shrink empty small", ["empty: no config.json in it"]),
        ("shrink model small --round-to 0", ["--round-to: 0", "whole number from 1 up"]),
        ("shrink model small --batch many", ["--batch: 'many'"]),
        ("shrink model small --length 17", ["--length: 17", "1 to 16"]),
        ("shrink model small --round 8", ["--round: unknown flag", "did you mean --round-to?"]),
        ("export model hf", ["needs a model and a file ending in .onnx (or, with --format, a folder)"]),
        ("export model hf --format tflite", ["--format: 'tflite'", "hf"]),
        ("export nowhere hf --format hf", ["nowhere: no such folder"]),
    ],
)
def test_nonsense_is_refused_in_one_line(folder, capsys, words, parts):
    (folder / "full").mkdir()
    (folder / "full" / "paper").touch()
    (folder / "file").touch()
    (folder / "empty").mkdir()
    (folder / "run" / "model").mkdir(parents=True)
    (folder / "run" / "model" / "model.keras").touch()
    line = refusal(capsys, *words.split())
    assert all(part in line for part in parts), line
    assert not (folder / "small").exists()
