"""Runs with a teacher: what it says is computed once, resumed exactly, and is no part of what is saved."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import pytest

from gated_bert.compression.export import export_hugging_face
from gated_bert.config import ConfigError, GatedBertConfig
from gated_bert.experiments.reports.results import read_run
from gated_bert.experiments.runs import teacher as teacher_module
from gated_bert.experiments.runs.run import train
from gated_bert.experiments.runs.teacher import Teacher
from gated_bert.experiments.runs.teacher_folder import check_teacher
from gated_bert.models.build import build_model
from gated_bert.models.folder import load_model, save_model
from gated_bert.models.run_family import run_tokenizer
from gated_bert.support.errors import UserError
from gated_bert.tasks.data import load_task_data
from gated_bert.tasks.evaluation import make_dataset
from gated_bert.tasks.task import get_task
from gated_bert.tasks.taught import LABELS, TEACHER_OUTPUTS

KINDS = {"sst2": {}, "mrpc": {}, "stsb": {}, "squad": {"max_len": 64, "train_examples": 24}}
TIMED = ["seconds", "examples_per_second"]


def config_of(method="magnitude", task="sst2", **options):
    sizes = {"model_size": "tiny", "num_layers": 2, "d_model": 8, "num_heads": 2, "dff": 16, "max_len": 16}
    plan = {"epochs": 2, "pruning_start_epoch": 1, "pruning_end_epoch": 2, "batch_size": 16, "train_examples": 96}
    usual = {**sizes, **plan, "learning_rate": 1e-2, **KINDS[task]}
    return GatedBertConfig(pruning_method=method, task=task, data="embedded", **{**usual, **options})


def rows(folder):
    return read_run(folder).rows.drop(columns=TIMED)


@pytest.fixture(scope="module", autouse=True)
def _cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


class _Dense:
    """Folders of runs, each made when it is first asked for, of models as they begin: nobody asks what they know."""

    def __init__(self, folder: Path):
        self.place = folder

    def __truediv__(self, part: str) -> Path:
        task = part.partition("/")[0]
        if not (self.place / task).exists():
            config = config_of("baseline", task)
            keras.utils.set_random_seed(7)
            learnt, tokenizer = get_task(task), run_tokenizer(config)
            model = build_model(config, learnt, tokenizer.vocab_size)
            # Outputs that differ between examples.
            for layer in model.gated_layers():
                layer.raw_kernel.assign(20.0 * layer.raw_kernel)
            save_model(self.place / task / "model", model, tokenizer, learnt, {})
        return self.place / part


@pytest.fixture(scope="module")
def dense(tmp_path_factory) -> _Dense:
    """Teachers of a task of each kind; nothing is written into their folders."""
    return _Dense(tmp_path_factory.mktemp("dense"))


def taught_batches(config):
    """The batches that a run trains on, with what its teacher says."""
    data, tokenizer = load_task_data(config), run_tokenizer(config)
    dataset = make_dataset(data.task, tokenizer, data.train, config, seed=config.seed)
    return Teacher(config, data.task, tokenizer).taught(dataset)


@pytest.mark.parametrize("task", KINDS)
@pytest.mark.daily_every(4)
def test_the_outputs_in_a_batch_are_the_teachers_of_these_examples(dense, task):
    batches = taught_batches(config_of(task=task, teacher=str(dense / task)))
    model = load_model(dense / task / "model").model
    batches.dataset.set_epoch(1, 1)
    for index in range(len(batches)):
        inputs, told = batches[index]
        np.testing.assert_allclose(told[TEACHER_OUTPUTS], model.predict_on_batch(inputs), rtol=2e-4, atol=2e-5)
        np.testing.assert_array_equal(told[LABELS], batches.dataset[index][1])


def test_a_run_learns_from_its_teacher(dense, tmp_path):
    """All of the loss is the teacher's: what is trained comes closer to that."""
    train(config_of("baseline", "stsb", teacher=str(dense / "stsb"), distill_hardness=1.0, epochs=4), tmp_path)
    losses = rows(tmp_path)["train_loss"]
    assert losses.iloc[-1] < losses.iloc[0]
    assert read_run(tmp_path).metadata["label"] == "baseline-distilled"


def test_one_run_asks_and_the_others_read(dense, tmp_path, monkeypatch):
    config, asked = config_of(teacher=str(dense / "sst2")), []
    whole = teacher_module.Teacher._computed
    monkeypatch.setattr(teacher_module.Teacher, "_computed", lambda *words: asked.append(words) or whole(*words))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    first = np.array(taught_batches(config).outputs)
    (kept,) = (tmp_path / "cache").rglob("outputs.npy")
    # The same model elsewhere, in another method's run with batches of another size.
    shutil.copytree(dense / "sst2/model", tmp_path / "copy")
    again = taught_batches(config_of("random", teacher=str(tmp_path / "copy"), batch_size=32)).outputs
    assert len(asked) == 1 and isinstance(again, np.memmap)
    np.testing.assert_array_equal(again, first)
    taught_batches(config_of(teacher=str(dense / "sst2"), max_len=12))
    assert len(asked) == 2
    kept.write_bytes(kept.read_bytes()[:-100])
    np.testing.assert_array_equal(taught_batches(config).outputs, first)
    assert len(asked) == 3
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    np.testing.assert_array_equal(taught_batches(config).outputs, first)
    assert len(asked) == 4, "where nothing can be kept"


@pytest.mark.nightly
@pytest.mark.parametrize("options", [{}, {"distill_layers": "nearest"}], ids=["logits", "nearest"])
def test_a_run_stopped_inside_an_epoch_goes_on_as_if_it_had_not_been(dense, tmp_path, stopped, options):
    config = config_of("movement", teacher=str(dense / "sst2"), dropout_rate=0.1, checkpoint_steps=1, **options)
    train(config, tmp_path / "whole")
    stopped(config, tmp_path / "broken", 1, 4)
    train(config, tmp_path / "broken", resume=True)
    assert "going on at epoch 2, step" in (tmp_path / "broken/log.txt").read_text()
    pd.testing.assert_frame_equal(rows(tmp_path / "broken"), rows(tmp_path / "whole"), check_exact=True)
    whole, broken = (load_model(tmp_path / name / "model").model.get_weights() for name in ("whole", "broken"))
    assert all(np.array_equal(*pair) for pair in zip(whole, broken, strict=True))


def test_a_run_does_not_go_on_with_a_teacher_whose_files_have_changed(dense, tmp_path, stopped):
    teacher = tmp_path / "teacher"
    shutil.copytree(dense / "sst2/model", teacher)
    stopped(config_of(teacher=str(teacher), checkpoint_steps=1), tmp_path / "run", 1, 4)
    kept = load_model(teacher)
    kept.model.classifier.bias.assign([1.0, 0.0])
    save_model(teacher, kept.model, kept.tokenizer, kept.task, {})
    with pytest.raises(UserError, match="run: --resume with a teacher whose files have changed since"):
        train(config_of(teacher=str(teacher), checkpoint_steps=1), tmp_path / "run", resume=True)
    shutil.rmtree(teacher)
    shutil.copytree(dense / "sst2/model", teacher)
    train(config_of(teacher=str(teacher), checkpoint_steps=1), tmp_path / "run", resume=True)
    assert "going on at epoch 2, step" in (tmp_path / "run/log.txt").read_text()


@pytest.mark.nightly
def test_it_compiles_with_the_layers_and_takes_16_bits_and_saved_models_hold_no_teacher(dense, tmp_path):
    policy, teacher = keras.config.dtype_policy(), str(dense / "sst2")
    options = {"jit_compile": True, "precision": "mixed_bfloat16", "distill_layers": "nearest", "epochs": 1}
    try:
        train(config_of("l0", teacher=teacher, **options), tmp_path)
    finally:
        keras.config.set_dtype_policy(policy)
    assert np.isfinite(rows(tmp_path)["train_loss"]).all()
    plain, saved = load_model(dense / "sst2/model"), load_model(tmp_path / "model")
    assert [w.shape for w in saved.model.weights] == [w.shape for w in plain.model.weights]
    assert read_run(tmp_path).metadata["parameters"]["total"] == plain.model.architecture.num_parameters
    with zipfile.ZipFile(tmp_path / "model/model.keras") as archive:
        assert b"layer_map" not in archive.read("config.json")
    assert saved.metadata["config"]["teacher"] == teacher


def checked(config):
    return check_teacher(config, load_task_data(config).task, run_tokenizer(config))


def test_a_teacher_that_cannot_teach_this_run_is_refused_in_one_line(dense, tmp_path):
    model = shutil.copytree(dense / "sst2/model", tmp_path / "model")
    record = json.loads((model / "config.json").read_text())

    def changed(place, **task):
        folder = shutil.copytree(model, tmp_path / place)
        (folder / "config.json").write_text(json.dumps({**record, "task": {**record["task"], **task}}))
        return folder

    refused = {
        (): "nowhere",
        ("a model of SST-2, classification (negative, positive)", "MRPC"): dense / "mrpc",
        ("a regression",): dense / "stsb",
        ("answers as spans",): dense / "squad",
        ("this one is of SST-2, classification (bad, good)",): changed("labels", labels=["bad", "good"]),
        ("of QNLI",): changed("other", name="qnli", title="QNLI"),
    }
    for words, place in refused.items():
        with pytest.raises(ConfigError) as refusal:
            checked(config_of(teacher=str(place)))
        assert refusal.value.field == "teacher" and "\n" not in str(refusal.value)
        assert all(word in str(refusal.value) for word in words), refusal.value
    with pytest.raises(ConfigError, match="self is for gated-bert sweep"):
        checked(config_of(teacher="self"))


def test_classes_in_another_order_are_put_in_that_of_the_task(dense, tmp_path):
    model = shutil.copytree(dense / "sst2/model", tmp_path / "model")
    record = json.loads((model / "config.json").read_text())
    record["task"]["labels"] = record["task"]["labels"][::-1]
    (model / "config.json").write_text(json.dumps(record))
    turned, plain = (taught_batches(config_of(teacher=str(path))).outputs for path in (model, dense / "sst2"))
    np.testing.assert_array_equal(turned, plain[:, ::-1])


@pytest.mark.parametrize("task", ["sst2", "squad"])
def test_a_folder_of_transformers_with_a_head_teaches_as_the_model_it_was_made_of(dense, tmp_path, task):
    export_hugging_face(tmp_path / "exported", load_model(dense / task / "model"))
    theirs, ours = (taught_batches(config_of(task=task, teacher=str(path))).outputs
                    for path in (tmp_path / "exported", dense / task))  # fmt: skip
    np.testing.assert_allclose(theirs, ours, rtol=1e-4, atol=1e-6)


def test_a_teacher_whose_outputs_are_not_finite_is_refused(dense, tmp_path):
    loaded = load_model(dense / "sst2/model")
    loaded.model.classifier.bias.assign([np.nan, 0.0])
    save_model(tmp_path / "model", loaded.model, loaded.tokenizer, loaded.task, {})
    with pytest.raises(UserError, match="gives outputs that are not finite"):
        taught_batches(config_of(teacher=str(tmp_path)))


@pytest.mark.parametrize("name", ["model.keras", "config.json", "tokenizer.json"])
def test_a_damaged_or_half_teacher_is_refused(dense, tmp_path, name):
    model = shutil.copytree(dense / "sst2/model", tmp_path / "model")
    whole = (model / name).read_bytes()
    flipped = whole[: len(whole) // 2] + bytes([whole[len(whole) // 2] ^ 255]) + whole[len(whole) // 2 + 1 :]
    for content in (whole[:-200], b"", *([flipped] if name == "model.keras" else [])):
        (model / name).write_bytes(content)
        with pytest.raises((UserError, ConfigError)) as refusal:
            checked(config_of(teacher=str(model)))
        assert "\n" not in str(refusal.value)
    (model / name).unlink()
    with pytest.raises((UserError, ConfigError)):
        checked(config_of(teacher=str(model)))


def test_another_tokeniser_is_refused(dense, tmp_path):
    model = shutil.copytree(dense / "sst2/model", tmp_path / "model")
    record = json.loads((model / "tokenizer.json").read_text())
    record["normalizer"]["lowercase"] = not record["normalizer"]["lowercase"]
    (model / "tokenizer.json").write_text(json.dumps(record))
    with pytest.raises(ConfigError, match="tokeniser is that of the run"):
        checked(config_of(teacher=str(model)))


def test_layers_of_another_size_are_refused(dense):
    teacher = str(dense / "sst2")
    with pytest.raises(ConfigError, match="hidden size 16, that of the run's model; this one has 8"):
        checked(config_of(teacher=teacher, d_model=16, distill_layers="last"))
    with pytest.raises(ConfigError, match="'all' is refused.*the teacher has 2 layers, the run's model 3"):
        checked(config_of(teacher=teacher, num_layers=3, distill_layers="all"))
    assert checked(config_of(teacher=teacher, num_layers=3, d_model=16)).path == dense / "sst2/model"


def test_a_run_that_has_no_model_yet_says_so(tmp_path):
    (tmp_path / "status.json").write_text('{"state": "failed"}')
    for place in (tmp_path, tmp_path / "model"):
        with pytest.raises(UserError, match="holds no model to learn from: its run is failed"):
            checked(config_of(teacher=str(place)))


def test_a_teacher_and_a_loss_of_ones_own_are_not_together(dense, tmp_path):
    with pytest.raises(UserError, match="training_loss: not together with a teacher"):
        train(config_of(teacher=str(dense / "sst2")), tmp_path / "run", training_loss=lambda *words: 0.0)
    assert not (tmp_path / "run").exists()


@pytest.mark.nightly
def test_under_jax():
    pytest.importorskip("jax")
    if keras.backend.backend() == "jax":
        pytest.skip("this is JAX")
    environment = os.environ | {"KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"}
    chosen = "inside_an_epoch or teachers_of_these or hold_no_teacher"
    words = [sys.executable, "-m", "pytest", "-q", "-x", str(Path(__file__)), "-k", chosen]
    done = subprocess.run(words, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
