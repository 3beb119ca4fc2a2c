"""One run: its files, its exact resumption after kill -9, and what it says when the loss is lost."""

import json
import math
import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import pytest

from gated_bert.config import GatedBertConfig
from gated_bert.experiments.reports import drawing
from gated_bert.experiments.reports.results import read_run
from gated_bert.experiments.reports.run_record import next_order
from gated_bert.experiments.runs import checkpoint, run_folder
from gated_bert.experiments.runs import run as run_module
from gated_bert.experiments.runs.checkpoint import Checkpoint, read_place, write_checkpoint
from gated_bert.experiments.runs.run import train
from gated_bert.experiments.runs.same_record import refuse_other_config
from gated_bert.models.folder import load_model
from gated_bert.support.errors import UserError
from tests.marks import nightly

TIMED = ["seconds", "examples_per_second"]


def config_of(method, **options):
    sizes = {"model_size": "tiny", "num_layers": 1, "d_model": 16, "num_heads": 2, "dff": 32}
    plan = {"epochs": 3, "pruning_start_epoch": 2, "pruning_end_epoch": 3, "batch_size": 16, "train_examples": 150}
    return GatedBertConfig(
        pruning_method=method, data="embedded", learning_rate=1e-3, **{**sizes, **plan, "end_sparsity": 0.8, **options}
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run of magnitude pruning."""
    statuses = []
    result = train(config_of("magnitude"), tmp_path_factory.mktemp("run"), notify=statuses.append)
    return result, statuses


def test_a_run_leaves_its_files(finished):
    result, statuses = finished
    run = read_run(result.folder)
    assert run.finished and run.method == "magnitude" and run.data_label
    assert list(run.rows.columns[:5]) == ["epoch", "target_sparsity", "sparsity", "train_loss", "train_accuracy"]
    np.testing.assert_allclose(run.rows["sparsity"], [0.0, 0.0, 0.8], atol=2e-3)
    assert {path.suffix for path in result.folder.iterdir() if path.is_file()} >= {".csv", ".json", ".png", ".txt"}
    assert not list(result.folder.glob("*.tmp")) and not (result.folder / "checkpoint.npz").exists()
    assert run.metadata["parameters"]["remaining"] < run.metadata["parameters"]["total"]
    assert statuses[-1]["state"] == "finished"


def test_the_saved_model_predicts_what_the_last_row_says(finished):
    result, _ = finished
    loaded = load_model(result.folder / "model")
    from gated_bert.tasks.data import load_task_data

    data = load_task_data(config_of("magnitude"))
    dev = data.dev["dev"]
    encoded = loaded.tokenizer.encode(dev.texts, dev.pairs, 128)
    from gated_bert.tasks.pipeline import BucketedDataset

    batches = BucketedDataset(encoded, None, 64, 128)
    outputs = loaded.model.predict(batches, verbose=0)
    accuracy = np.mean(outputs.argmax(1) == dev.labels[batches.row_order()])
    assert accuracy == pytest.approx(result.final["val_accuracy"])
    layers = loaded.model.gated_layers(("query", "ffn_output"))
    closed = [float(np.mean(np.asarray(layer.gates) == 0)) for layer in layers]
    np.testing.assert_allclose(closed, 0.8, atol=5e-3)


def test_the_parameters_are_those_of_the_model(finished):
    result, _ = finished
    metadata = read_run(result.folder).metadata
    prunable = 4 * 16 * 16 + 2 * 16 * 32
    assert metadata["parameters"]["prunable"] == prunable
    removed = metadata["parameters"]["total"] - metadata["parameters"]["remaining"]
    assert removed == round(result.final["sparsity"] * prunable)
    assert result.final["sparsity"] == pytest.approx(0.8, abs=1e-3)


KILLED = textwrap.dedent(
    """
    import os, sys, traceback
    from gated_bert.config import GatedBertConfig
    from gated_bert.experiments.runs import checkpoint, run_folder
    from gated_bert.experiments.runs.run import train

    def train_until(folder, kill_at):
        seen, whole = 0, checkpoint.CheckpointCallback.on_train_batch_end

        def on_train_batch_end(self, batch, logs=None):
            nonlocal seen
            whole(self, batch, logs)
            seen += 1
            if seen == kill_at:
                os.kill(os.getpid(), 9)

        checkpoint.CheckpointCallback.on_train_batch_end = on_train_batch_end
        train(GatedBertConfig.from_json(sys.argv[1]), folder, resume=True)

    # Of a process that has imported the frameworks and not started them.
    for folder, kill_at in zip(sys.argv[2::2], sys.argv[3::2]):
        child = os.fork()
        if not child:
            try:
                train_until(folder, int(kill_at))
                os._exit(0)
            except BaseException:
                traceback.print_exc()
                os._exit(1)
        print("ended:", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
    """
)


def run_in_processes(config, *folders_and_kills):
    """How each ended: trains `config` in a process for every folder, which is killed after so many steps but for 0."""
    words = [word for each in folders_and_kills for word in map(str, each)]
    done = subprocess.run([sys.executable, "-c", KILLED, config.to_json(), *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return [int(line.split()[1]) for line in done.stdout.splitlines() if line.startswith("ended:")], done.stderr


def rows_of(folder):
    return read_run(folder).rows.drop(columns=TIMED)


@pytest.mark.slow
@pytest.mark.nightly
@pytest.mark.parametrize("method", ["spt", "movement", "smooth_grad", "sparsegpt", "obert"])
def test_a_run_killed_at_random_steps_ends_with_the_rows_of_an_unbroken_one(tmp_path, method):
    """Three kills, also in the middle of an epoch; dropout and the criterion's own state go on where they were."""
    frequent = {"checkpoint_steps": 3, "movement_pruning_frequency_steps": 4}
    data = {"score_batches": 2, "smooth_passes": 2, "calibration_texts": 32, "obert_gradients": 4}
    config = config_of(method, dropout_rate=0.1, **data, **frequent)
    kills = np.random.default_rng().integers(4, 12, 2)
    broken, whole = tmp_path / "broken", tmp_path / "whole"
    ended, said = run_in_processes(config, *((broken, int(kill_at)) for kill_at in kills), (broken, 0), (whole, 0))
    assert ended == [-9, -9, 0, 0], said
    pd.testing.assert_frame_equal(rows_of(tmp_path / "broken"), rows_of(tmp_path / "whole"), check_exact=True)


@pytest.mark.parametrize("batches", [0, nightly(2)])
@pytest.mark.nightly
def test_masks_whose_target_is_reached_stay_over_a_stop(tmp_path, stopped, batches):
    """Tiles made of open columns: more would close, were an update to the same sparsity done again."""
    options = {"pruning_type": 8, "tilesparsity_variant": "code", "granularity": 4, "epochs": 4}
    plan = {"schedule": "one_shot", "pruning_start_epoch": 1, "pruning_end_epoch": 1, "end_sparsity": 0.6}
    config = config_of("magnitude", **options | plan, batch_size=16, train_examples=64, checkpoint_steps=2)
    stopped(config, tmp_path, 2, batches)
    rows = train(config, tmp_path, resume=True).rows
    assert f"going on at epoch 3, step {batches}" in (tmp_path / "log.txt").read_text()
    assert len({row["sparsity"] for row in rows}) == 1 and rows[0]["sparsity"] > 0.6


@pytest.mark.parametrize(("takes", "written"), [(0.5, [2, 4, 6, 8, 10, 12]), (2.0, [2, 6, 10])])
def test_checkpoints_take_no_more_than_a_twentieth_of_the_time(monkeypatch, takes, written):
    """Of twelve steps of 10 s, one due after every second."""
    now, steps = [0.0], []

    def write(path, model, criterion, place):
        steps.append(place["batches"])
        now[0] += takes

    monkeypatch.setattr(checkpoint.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(checkpoint, "write_checkpoint", write)
    callback = checkpoint.CheckpointCallback(Path(), None, 100, 2, lambda done: True, None, dict)
    callback.set_model(None)
    for batch in range(12):
        now[0] += 10
        callback.on_train_batch_end(batch)
    assert steps == written


def test_another_record_is_not_resumed(tmp_path):
    config = config_of("baseline", epochs=1, train_examples=40)
    refuse_other_config(tmp_path, json.loads(config.to_json()), config)
    with pytest.raises(UserError, match="--resume with learning_rate=0.5, but the run was begun with 0.001"):
        refuse_other_config(tmp_path, json.loads(config.to_json()), config.replace(learning_rate=0.5))


def test_a_nan_loss_stops_the_run_and_keeps_the_rows(tmp_path, monkeypatch):
    class Poisoned(run_module.EpochCallback):
        def on_epoch_begin(self, epoch, logs=None):
            super().on_epoch_begin(epoch)
            if epoch == 1:
                self.model.gated_layers()[0].bias.assign(np.full(16, math.nan))

    monkeypatch.setattr(run_module, "EpochCallback", Poisoned)
    with pytest.raises(UserError, match=r"training loss became nan at epoch 2, step 1; the rows so far are kept"):
        train(config_of("baseline"), tmp_path)
    assert len(read_run(tmp_path).rows) == 1
    assert json.loads((tmp_path / "status.json").read_text())["state"] == "failed"


def test_a_folder_in_use_is_refused(tmp_path):
    import fcntl

    with open(tmp_path / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(UserError, match="is in use by another run"):
            train(config_of("baseline"), tmp_path)


PLACE = {"epoch": 0, "batches": 0, "seconds": 0.0, "rows": [], "one_shot": {}, "stamp": "20250102-030405", "config": {}}


def _array(path, **arrays):
    with open(path, "wb") as file:
        np.savez(file, **arrays)


@pytest.mark.parametrize("write", [
    lambda path: path.write_bytes(b"PK\x03\x04 not all of it"),
    lambda path: path.write_bytes(b""),
    lambda path: path.write_text("{}"),
    lambda path: _array(path, other=np.zeros(3)),
    lambda path: _array(path, place=np.array("[1, 2]")),
    lambda path: _array(path, place=np.array('{"epoch": 1}')),
    *(lambda path, values=values: _array(path, place=np.array(json.dumps(PLACE | values))) for values in (
        {"stamp": "../../elsewhere"}, {"stamp": "/etc/x"}, {"stamp": ""}, {"epoch": -1}, {"epoch": 2**40},
        {"batches": -3}, {"seconds": -1.0}, {"seconds": 1e300}, {"epoch": True})),
])  # fmt: skip
@pytest.mark.daily_every(3)
def test_a_damaged_checkpoint_is_set_aside_and_the_run_starts_afresh(tmp_path, write, no_steps):
    write(tmp_path / "checkpoint.npz")
    damaged = (tmp_path / "checkpoint.npz").read_bytes()
    config = config_of("baseline", epochs=1, pruning_start_epoch=1, train_examples=20)
    assert len(train(config, tmp_path, resume=True).rows) == 1
    assert (tmp_path / "checkpoint.npz.damaged").read_bytes() == damaged
    note = json.loads((tmp_path / "status.json").read_text())["note"]
    assert "checkpoint.npz: damaged checkpoint" in note and "is checkpoint.npz.damaged now" in note
    assert note in (tmp_path / "log.txt").read_text()


def test_a_pipe_in_place_of_a_checkpoint_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "checkpoint.npz")
    assert read_place(tmp_path / "checkpoint.npz") is None
    with pytest.raises(UserError, match="damaged checkpoint"):
        Checkpoint(tmp_path / "checkpoint.npz")


def test_what_a_criterion_first_remembers_in_training_comes_back(tmp_path):
    class Criterion:
        def __init__(self, **arrays):
            self.arrays = arrays

        def state(self):
            return self.arrays

        def load_state(self, state):
            self.arrays = state

    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    model.compile("sgd", "mse")
    model.optimizer.build(model.trainable_variables)
    write_checkpoint(tmp_path / "checkpoint.npz", model, Criterion(means=np.arange(3.0)), PLACE)
    resumed = Criterion()
    Checkpoint(tmp_path / "checkpoint.npz").restore(model, resumed)
    np.testing.assert_array_equal(resumed.arrays["means"], [0, 1, 2])


@pytest.mark.parametrize("damage", [
    lambda arrays: arrays.pop("model/0"),
    lambda arrays: arrays.pop("optimizer/1"),
    lambda arrays: arrays.pop("criterion/q0"),
    lambda arrays: arrays.update({"criterion/q0": arrays["criterion/q0"][:-1]}),
    lambda arrays: arrays.update({"criterion/n0": np.full(arrays["criterion/n0"].shape, "x")}),
    lambda arrays: arrays.update({"model/0": arrays["model/0"].T[:-1]}),
    lambda arrays: arrays.update({"model/0": arrays["model/0"].astype("U8")}),
    lambda arrays: arrays.update({"model/0": arrays["model/0"].astype(complex)}),
    lambda arrays: arrays.pop("metrics/0"),
    lambda arrays: arrays.update({"metrics/1": np.zeros((2, 2))}),
])  # fmt: skip
@pytest.mark.daily_every(3)
def test_a_checkpoint_whose_arrays_are_others_is_one_sentence(tmp_path, damage):
    def model():
        keras.utils.set_random_seed(1)
        made = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
        made.compile(keras.optimizers.Adam(), "mse")
        made.train_on_batch(np.ones((2, 3)), np.ones((2, 2)))
        return made

    class Criterion:
        def __init__(self):
            self.arrays = {"q0": np.zeros(3), "n0": np.zeros(3)}

        def state(self):
            return self.arrays

        def load_state(self, state):
            for name, array in self.arrays.items():
                array[:] = state[name]

    path = tmp_path / "checkpoint.npz"
    write_checkpoint(path, model(), Criterion(), PLACE)
    Checkpoint(path).restore(model(), Criterion())
    with np.load(path) as stored:
        arrays = dict(stored)
    damage(arrays)
    _array(path, **arrays)
    with pytest.raises(UserError, match="was written by another model or run; remove this file, and --resume starts"):
        found, into = Checkpoint(path), model()
        found.restore(into, Criterion())
        found.restore_metrics(into)


@pytest.mark.parametrize(
    "place", [{"epoch": 4, "rows": [{}] * 4}, {"batches": 10}, {"epoch": 1}, {"rows": [{"x": {}}]}]
)
def test_a_checkpoint_of_a_longer_run_is_one_sentence(tmp_path, place):
    path = tmp_path / "checkpoint.npz"
    _array(path, place=np.array(json.dumps(PLACE | {"epoch": 3, "rows": [{}] * 3})))
    Checkpoint(path).check_within(epochs=3, steps=10)
    _array(path, place=np.array(json.dumps(PLACE | place)))
    with pytest.raises(UserError, match="was written by another model or run"):
        Checkpoint(path).check_within(epochs=3, steps=10)


def test_a_run_is_later_than_those_before_it_though_the_clock_went_back(tmp_path, monkeypatch, no_steps):
    config = config_of("baseline", epochs=1, pruning_start_epoch=1, train_examples=20)
    first = train(config, tmp_path / "results_a")
    (metadata,) = (tmp_path / "results_a").glob("metadata_*.json")
    monkeypatch.setattr(run_folder, "next_order", lambda folder, now: next_order(folder, 1e9))
    # One that failed, and whose files stay where it is begun again.
    metadata.write_text(json.dumps(json.loads(metadata.read_text()) | {"status": "failed"}))
    for model in ("model", "model_best"):
        shutil.rmtree(tmp_path / "results_a" / model)
    train(config, tmp_path / "results_a", resume=True)
    train(config, tmp_path / "results_b")
    newest = read_run(tmp_path / "results_a")
    assert len(list((tmp_path / "results_a").glob("metadata_*.json"))) == 2
    before = json.loads(metadata.read_text())["order"]
    assert before < newest.order < read_run(tmp_path / "results_b").order < before + 10
    assert newest.csv != first.folder / metadata.name.replace("metadata_", "results_").replace(".json", ".csv")


def test_a_batch_larger_than_the_data(tmp_path):
    result = train(config_of("baseline", epochs=1, pruning_start_epoch=1, batch_size=512, train_examples=20), tmp_path)
    assert len(result.rows) == 1


def own_data(path, rows=80):
    path.write_text("text\tlabel\n" + "".join(f"a {('good', 'bad')[i % 2]} film {i}\t{i % 2}\n" for i in range(rows)))
    return str(path)


def test_a_files_name_is_no_markup_and_a_plot_that_fails_ends_no_run(tmp_path, monkeypatch, capfd, no_steps):
    vocab = tmp_path / "vocab.txt"
    vocab.write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "good", "bad", "film"]) + "\n")
    plan = {"epochs": 1, "pruning_start_epoch": 1, "pruning_end_epoch": 1, "resource_seconds": 5.0, "vocab": str(vocab)}
    for name in ("a$b$c.tsv", r"_[red]$\frac{%s{0}[x].tsv"):
        config = config_of("magnitude", **plan).replace(data=own_data(tmp_path / name))
        folder = train(config, tmp_path / f"run{len(name)}").folder
        assert len(list(folder.glob("*.png"))) == 3 and "plots_failed" not in read_run(folder).metadata
        assert name in read_run(folder).data_label and "could not be drawn" not in capfd.readouterr().err
    monkeypatch.setattr(drawing, "_make_literal", lambda figure: figure.no_such_thing)
    statuses = []
    folder = train(config, tmp_path / "other", notify=statuses.append).folder
    run = read_run(folder)
    assert run.finished and statuses[-1]["state"] == "finished" and not list(folder.glob("*.png"))
    assert [line.split(" could")[0].split("_")[0] for line in run.metadata["plots_failed"]] == [
        "accuracy", "loss", "resources.png",
    ]  # fmt: skip
    assert capfd.readouterr().err.count("could not be drawn (AttributeError") == 3
    assert (folder / "log.txt").read_text().count("Traceback") == 3
    assert load_model(folder / "model").task.title == name
