"""What a family of models by speed is refused for before anything is made, and what its configuration shows."""

import dataclasses
import json
import os
import shutil

import numpy as np
import pytest

import gated_bert
from gated_bert.cli.main import main
from gated_bert.compression.latency import Conditions
from gated_bert.config import ConfigError
from gated_bert.experiments.studies.prune_to_speed import Effort
from gated_bert.models.folder import load_model, same_model, save_model
from gated_bert.support.errors import UserError
from tests.dense_model import dense_model
from tests.refused import refusal

pytest.importorskip("onnxruntime")
CONDITIONS = Conditions(length=16)


@pytest.fixture(scope="module")
def dense(tmp_path_factory):
    return dense_model(tmp_path_factory.mktemp("dense") / "model")


def words_of(dense, out, *more):
    words = "--speedups 2 -d embedded -e 0 --length 16 -o".split()
    return ["compress", str(dense), *words, str(out), *more]


@pytest.mark.parametrize(("changes", "said"), [
    ({"distill_layers": "foo"}, "distill_layers: 'foo' is refused"), ({"distill_foo": 1}, "distill_foo: is refused"),
    ({"num_layers": 1}, "distill_layers: 'all' is refused"),
    ({"max_len": 128}, "max_len: 128 is refused; allowed: 1 to 64"),
    ({"task": "mnli"}, "task: 'mnli' is refused; allowed: sst2"), ({"task": "mnli", "epochs": 0}, "allowed: sst2"),
    ({"texts": 64}, r"texts: is refused; .*; it belongs to effort=Effort\(texts=…\)"),
    ({"epoch": 1}, "epoch: is refused"),
    ({"effort": 5}, "effort: 5 is refused; allowed: an object of the class Effort"),
    ({"conditions": {"length": 16}}, "conditions: .* allowed: an object of the class Conditions"),
])  # fmt: skip
def test_what_no_target_could_be_trained_with_is_refused_before_anything_is_made(dense, tmp_path, changes, said):
    with pytest.raises((UserError, ConfigError), match=said):
        gated_bert.compress(dense, [2], tmp_path / "family", "embedded", **{"epochs": 1, **changes})
    assert not (tmp_path / "family").exists()


@pytest.mark.parametrize(("words", "said"), [
    (["--distill-layers", "foo"], "--distill-layers: 'foo' is refused"),
    (["-ml", "128"], "-ml/--max-len: 128 is refused"),
    (["--distill-hardness", "5"], "--distill-hardness: 5.0 is refused"),
    (["--train-precision", "foo"], "--train-precision: 'foo' is refused; allowed: float32"),
    (["--num-layers", "1"], "--distill-layers: 'all' is refused"),
])  # fmt: skip
def test_the_commands_dry_run_refuses_the_same(dense, tmp_path, capsys, words, said):
    assert said in refusal(capsys, *words_of(dense, tmp_path / "family", "-e", "1", "--dry-run", *words))


def test_the_configuration_is_of_what_is_done(dense, tmp_path, capsys):
    assert main(words_of(dense, tmp_path / "family", "--dry-run")) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "learning rate" not in shown and "precision" not in shown and "epochs" not in shown
    assert main(words_of(dense, tmp_path / "family", "-e", "1", "--dry-run")) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "--precision auto" not in shown and "1 after each target" in shown
    assert "longest text 64" in shown, "no more than the model takes"
    words = "compress -t sst2 -d embedded -m tiny --dense-epochs 4 -e 0 --speedups 2 --dry-run -o".split()
    assert main([*words, str(tmp_path / "family")]) == 0
    assert "4 of the dense model" in capsys.readouterr().out


def test_weights_that_are_no_numbers_are_refused_before_anything_is_made(dense, tmp_path):
    loaded = load_model(dense)
    loaded.model.gated_layers()[0].set_kernel(np.full((24, 24), np.nan))
    save_model(tmp_path / "nan", loaded.model, loaded.tokenizer, loaded.task, loaded.metadata)
    with pytest.raises(UserError, match="/nan: NaN or infinite values in .*; nothing was written"):
        gated_bert.compress(tmp_path / "nan", [2], tmp_path / "family", "embedded", epochs=0, conditions=CONDITIONS)
    with pytest.raises(UserError, match="/none: no such file or folder"):
        gated_bert.compress(tmp_path / "none", [2], tmp_path / "family", "embedded", epochs=0)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="/empty: no model folder; gated-bert train -pt FOLDER makes one"):
        gated_bert.compress(tmp_path / "empty", [2], tmp_path / "family", "embedded", epochs=0)
    assert not (tmp_path / "family").exists()


def test_where_the_dense_model_is_gone_its_copy_serves(dense, tmp_path, capsys):
    out = tmp_path / "family"
    shutil.copytree(dense, out / "models" / "dense")
    words = words_of(tmp_path / "gone", out, "--dry-run")
    assert "/gone: no such file or folder" in refusal(capsys, *words)
    assert main([*words, "--resume"]) == 0
    assert f"dense model {tmp_path / 'gone'}" in " ".join(capsys.readouterr().out.split())


def test_a_family_whose_record_is_broken_is_refused(dense, tmp_path):
    out = tmp_path / "family"
    (out / "models" / "pruned_2x").mkdir(parents=True)
    (out / "family.json").write_text('{"model"')
    with pytest.raises(UserError, match=r"family\.json, line 1: .*choose another folder"):
        gated_bert.compress(dense, [2], out, "embedded", epochs=0, conditions=CONDITIONS)


def test_an_older_model_in_the_dense_ones_place_is_refused(dense, tmp_path):
    out, model = tmp_path / "family", tmp_path / "model"
    same_model(dense, out / "models" / "dense")
    shutil.copytree(dense, model)
    (out / "models" / "pruned_2x").mkdir()
    asked = {"conditions": dataclasses.asdict(CONDITIONS), "effort": dataclasses.asdict(Effort())}
    record = {"model": str(model), "trained": False, "data": "embedded", **asked}
    (out / "family.json").write_text(json.dumps(record))
    loaded = load_model(model)
    loaded.model.gated_layers()[0].set_kernel(np.zeros((24, 24)))
    save_model(model, loaded.model, loaded.tokenizer, loaded.task, loaded.metadata)
    os.utime(model / "model.keras", (1, 1))
    with pytest.raises(UserError, match="holds a family of another model than .*/model is now"):
        gated_bert.compress(model, [2], out, "embedded", epochs=0, conditions=CONDITIONS)
