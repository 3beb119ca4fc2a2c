"""What TensorBoard, MLflow and W&B hold of a run, read by TensorBoard's own reader, a client of MLflow, W&B's file."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import os
import socket
import subprocess
import sys
import time

import pandas as pd
import pytest

from gated_bert.cli.main import main
from gated_bert.config import ConfigError, GatedBertConfig
from gated_bert.config import tracker_names as names
from gated_bert.experiments.reports.results import read_run
from gated_bert.experiments.runs import run as run_module
from gated_bert.experiments.runs import tracking as tracking_module
from gated_bert.experiments.runs.run import train
from gated_bert.experiments.runs.same_record import config_changes
from gated_bert.experiments.runs.tracking import Tracking, tracked_sweep
from gated_bert.experiments.sweeps import jobs
from gated_bert.experiments.sweeps import sweep as sweep_module
from gated_bert.support.paths import MOVED_VARIABLE
from tests.experiments.tracked import events, history, of_wandb, rows_of_wandb, scalars, store, tracked
from tests.refused import refusal

ALL = ("tensorboard", "mlflow", "wandb")
SIZES = {"model_size": "tiny", "num_layers": 1, "d_model": 8, "num_heads": 2, "dff": 16}
ROWS = [{"epoch": epoch, "sparsity": 0.25 * epoch, "val_accuracy": 0.5 + 0.1 * epoch} for epoch in (1, 2, 3)]


def config_of(**options):
    plan = {"epochs": 3, "pruning_start_epoch": 2, "pruning_end_epoch": 3, "batch_size": 16, "train_examples": 48}
    return GatedBertConfig(pruning_method="magnitude", data="embedded", **{**SIZES, **plan, **options})


@pytest.fixture(autouse=True, scope="module")
def own_place(tmp_path_factory):
    """No server, no login and no settings of whoever runs the tests."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith(("MLFLOW_", "WANDB_"))]:
            patch.delenv(name)
        home = tmp_path_factory.mktemp("home")
        for name in ("HOME", "NETRC", "WANDB_CONFIG_DIR"):
            patch.setenv(name, str(home))
        patch.setenv("WANDB_MODE", "offline")
        patch.setenv("VERBOSE", "0")
        # A busy machine takes its time to make a store.
        for name in ("ANSWER_SECONDS", "_AT_A_STOP"):
            patch.setattr(tracking_module, name, 120)
        yield


@pytest.fixture(scope="module")
def followed(tmp_path_factory):
    """A run that all three follow, stopped after its last epoch and gone on with."""
    for name in ALL:
        pytest.importorskip(name)
    folder = tmp_path_factory.mktemp("it's a # place") / "run"
    config = config_of(track=ALL)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_module._Run, "_finish", lambda self, seconds: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            train(config, folder)
    before = tracked(folder)
    result = train(config, folder, resume=True)
    return folder, result, before


@pytest.mark.nightly
def test_a_run_that_goes_on_does_so_in_the_same_tracked_runs(followed):
    folder, _, before = followed
    assert set(before["runs"]) == set(ALL) and tracked(folder) == before
    assert before["sent"] == dict.fromkeys(ALL, 3), "all rows had been told"


def test_tensorboards_reader_finds_the_columns_the_configuration_and_the_plots(followed):
    folder, result, _ = followed
    found, rows = scalars(folder), pd.DataFrame(result.rows).set_index("epoch")
    assert set(found.columns) == set(rows.columns)
    pd.testing.assert_frame_equal(found[list(rows.columns)], rows, check_names=False, check_dtype=False, rtol=1e-6)
    read = events(folder)
    texts = {tag: read.Tensors(tag)[0].tensor_proto.string_val[0].decode() for tag in read.Tags()["tensors"]}
    assert "| pruning_method | magnitude |" in texts["configuration"]
    assert texts["model folder"] == str(folder / "model")
    assert set(read.Tags()["images"]) == {"accuracy_sparsity", "loss_sparsity"}
    image = read.Images("loss_sparsity")[0]
    assert image.encoded_image_string.startswith(b"\x89PNG") and image.width > image.height > 0


def test_a_client_of_mlflow_finds_them_in_the_store_beside_the_run(followed):
    folder, result, before = followed
    client = store(folder.parent)
    run = client.get_run(before["runs"]["mlflow"])
    assert (run.info.status, run.data.tags["model_folder"]) == ("FINISHED", str(folder / "model"))
    assert run.data.params["pruning_method"] == "magnitude" and run.data.params["end_sparsity"] == "0.99"
    rows = pd.DataFrame(result.rows).set_index("epoch")
    assert set(run.data.metrics) == set(rows.columns)
    for column in rows:
        assert history(client, run.info.run_id, column) == pytest.approx(rows[column].to_dict())
    held = {each.path for each in client.list_artifacts(run.info.run_id)}
    assert held == {"metadata.json", *(path.name for path in folder.glob("*.png"))}


def test_the_file_of_wandb_holds_them(followed):
    folder, result, before = followed
    found = of_wandb(folder)
    assert {message.run_id for message in found["run"]} == {before["runs"]["wandb"]}
    values = {item.key: json.loads(item.value_json) for message in found["config"] for item in message.update}
    assert values["pruning_method"] == "magnitude" and values["pruning_end_epoch"] == 3
    rows = rows_of_wandb(found)
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    for row, expected in zip(rows, result.rows, strict=True):
        assert {name: row[name] for name in expected} == pytest.approx(expected)
    told = {item.key: item.value_json for message in found["summary"] for item in message.update if item.key}
    assert json.loads(told["model_folder"]) == str(folder / "model")
    assert {path.name.partition("_sparsity")[0] for path in folder.rglob("media/images/*.png")} == {"accuracy", "loss"}


def test_a_tracker_gets_the_rows_that_it_has_not_got(tmp_path):
    """It was away before the stop, or the run was killed between writing a row and telling it."""
    first = Tracking(["tensorboard"], tmp_path, resume=False)
    first.begin({}, {}, ())
    first.row(ROWS[0])
    first.end("stopped")
    again = Tracking(["tensorboard"], tmp_path, resume=True)
    again.begin({}, {}, ROWS[:2])
    again.row(ROWS[1])
    again.row(ROWS[2])
    again.end("finished")
    expected = pd.DataFrame(ROWS).set_index("epoch")
    pd.testing.assert_frame_equal(scalars(tmp_path), expected, check_names=False, check_dtype=False, rtol=1e-6)
    read = events(tmp_path)
    assert [event.step for event in read.Scalars("sparsity")] == [1, 2, 3] and not again.faults


def test_nothing_is_written_where_links_in_the_folder_lead(tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    folder = tmp_path / "run"
    folder.mkdir()
    for name in ("tensorboard", "wandb", "mlflow.db", "tracking.json"):
        (folder / name).symlink_to(elsewhere / name)
    for name in ALL:
        tracking = Tracking([name], folder, resume=False, home=folder)
        tracking.begin({}, {}, ROWS)
        tracking.end("finished")
        assert len(tracking.faults) == 1 and f"{name}" in tracking.faults[0] and "is a link" in tracking.faults[0]
    assert list(elsewhere.iterdir()) == []


def test_tensorboards_files_are_written_where_tensorflow_is_not(tmp_path):
    """As under JAX alone, and where it is, it is not loaded: that would take seconds, and a GPU's memory."""
    code = """import sys
from pathlib import Path
sys.modules["tensorflow"] = None
from gated_bert.experiments.runs.trackers import Followed, TensorBoard
tracker, folder = TensorBoard(), Path(sys.argv[1])
tracker.begin(Followed(folder, folder, {"seed": 1}))
tracker.log({"epoch": 1, "sparsity": 0.5})
tracker.end("finished", [], folder)
"""
    environment = os.environ | {"KERAS_BACKEND": "jax"}
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, env=environment)
    assert scalars(tmp_path).loc[1, "sparsity"] == 0.5


def test_without_resume_another_tracked_run_is_begun(tmp_path):
    for count in (1, 2):
        tracking = Tracking(["tensorboard"], tmp_path, resume=False)
        tracking.begin({}, {}, ())
        tracking.row(ROWS[0])
        tracking.end("finished")
        assert len(events(tmp_path).Scalars("sparsity")) == count


@pytest.fixture(scope="module")
def below_a_sweep(tmp_path_factory):
    """Two runs, followed by MLflow and W&B, below one sweep that is stopped after the first and gone on with."""
    for name in ALL:
        pytest.importorskip(name)
    output = tmp_path_factory.mktemp("sweep")
    seen = []
    for number, resume in ((1, False), (2, True)):
        with tracked_sweep(ALL, output, resume) as tracking:
            folder = output / f"run{number}"
            jobs.write_job(jobs.Job("a", config_of(track=ALL), folder, ()))
            run = Tracking(ALL[1:], folder, resume=False)
            run.begin({"seed": number}, {}, ())
            run.row(ROWS[0] | {"loss": math.nan})
            run.end("finished")
            table = output / "comparison.csv"
            table.write_text("a\n")
            tracking.end("finished", [table])
        seen.append((tracked(output), tracked(folder)))
        assert not tracking.faults and not run.faults
    return output, seen


def test_the_runs_of_a_sweep_stand_below_one_of_mlflow(below_a_sweep):
    output, seen = below_a_sweep
    client = store(output)
    (first, run1), (second, run2) = seen
    assert first["runs"] == second["runs"] == run1["parents"] == run2["parents"]
    experiment = client.get_experiment_by_name("gated_bert").experiment_id
    found = {run.info.run_id: run for run in client.search_runs([experiment])}
    parent = first["runs"]["mlflow"]
    assert set(found) == {parent, run1["runs"]["mlflow"], run2["runs"]["mlflow"]}
    assert {run.data.tags.get("mlflow.parentRunId") for name, run in found.items() if name != parent} == {parent}
    assert [each.path for each in client.list_artifacts(parent)] == ["comparison.csv"]
    assert {run.info.status for run in found.values()} == {"FINISHED"}


def test_the_runs_of_a_sweep_are_one_group_of_wandb(below_a_sweep):
    output, seen = below_a_sweep
    groups = {message.run_group for number in (1, 2) for message in of_wandb(output / f"run{number}")["run"]}
    assert groups == {seen[0][0]["group"]} and groups != {""}


class Failing:
    """A tracker that fails where it is told to."""

    def __init__(self, where, error):
        self.where, self.error = where, error
        self.rows = []

    def _reach(self, where):
        if where == self.where:
            raise self.error

    def begin(self, run):
        self._reach("begin")
        return "a"

    def log(self, row):
        self._reach("log")
        self.rows.append(row)

    def end(self, state, files, model):
        self._reach("end")


@pytest.mark.parametrize("error", [RuntimeError("no\nroute"), SystemExit(3), KeyboardInterrupt()], ids=repr)
@pytest.mark.parametrize("where", ["begin", "log", "end"])
def test_a_tracker_that_fails_is_told_once_and_left_alone(tmp_path, monkeypatch, capsys, where, error):
    monkeypatch.setenv("VERBOSE", "1")
    broken, sound = Failing(where, error), Failing(None, None)
    monkeypatch.setattr(tracking_module, "MAKERS", {"mlflow": lambda: broken, "wandb": lambda: sound})
    tracking = Tracking(["mlflow", "wandb"], tmp_path, resume=False)
    tracking.begin({}, {}, ())
    for row in ROWS:
        tracking.row(row)
    tracking.end("finished")
    assert sound.rows == ROWS and len(tracking.faults) == 1
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1 and said[0].startswith("warning: --track mlflow: ")


def test_a_tracker_that_does_not_answer_holds_a_run_up_for_a_moment_alone(tmp_path, monkeypatch, capsys):
    class Silent(Failing):
        def log(self, row):
            time.sleep(60)

    monkeypatch.setattr(tracking_module, "MAKERS", {"mlflow": lambda: Silent(None, None)})
    monkeypatch.setattr(tracking_module, "ANSWER_SECONDS", 0.2)
    tracking, began = Tracking(["mlflow"], tmp_path, resume=False), time.monotonic()
    tracking.begin({}, {}, ROWS)
    tracking.end("finished")
    assert time.monotonic() - began < 5
    assert tracking.faults == ["--track mlflow: no answer in time; it follows this run no further"]


def test_a_run_goes_on_where_no_server_answers(tmp_path, monkeypatch, no_steps):
    pytest.importorskip("mlflow")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{free.getsockname()[1]}")
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        train(config_of(track=("mlflow",), epochs=1, pruning_start_epoch=1, pruning_end_epoch=1), tmp_path / "run")
    assert read_run(tmp_path / "run").finished
    status = json.loads((tmp_path / "run/status.json").read_text())
    assert status["state"] == "finished" and status["note"].startswith("--track mlflow: ")
    assert (tmp_path / "run/log.txt").read_text().count("--track mlflow") == 1


@pytest.mark.parametrize("command", ["train", "sweep", "sweep --slurm job.sh"])
def test_a_tracker_that_is_not_installed_is_refused_before_the_start(command, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(names.importlib.util, "find_spec", lambda name: None)
    line = refusal(capsys, *command.split(), "-d", "embedded", "-m", "tiny", "-p", "spt", "--track", "tensorboard")
    assert "--track: 'tensorboard'" in line and "pip install 'gated_bert[tensorboard]'" in line
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ConfigError, match="wandb is not: pip install"):
        train(config_of(track=("wandb",)), tmp_path / "run")


def test_an_unknown_tracker_is_refused(capsys):
    line = refusal(capsys, "train", "-d", "embedded", "--track", "mlfow")
    assert "--track" in line and "tensorboard, mlflow, wandb" in line and "did you mean mlflow?" in line
    with pytest.raises(ConfigError):
        config_of(track=("tensorbord",))


def test_what_follows_a_run_decides_nothing_of_what_it_computes():
    """So a run is gone on with, and compared, whoever follows it."""
    assert config_changes(dataclasses.asdict(config_of(track=ALL)), config_of()) == {}


def test_runs_that_slurm_starts_stand_below_a_tracked_run_that_is_there_before(tmp_path, monkeypatch):
    monkeypatch.setattr(tracking_module, "MAKERS", {"mlflow": lambda: Failing(None, None)})
    monkeypatch.setattr(sweep_module, "check_trackers", lambda trackers: None)
    sizes = ("-m", "tiny", "-e", "1", "-d", "embedded", "--track", "mlflow", "-o", str(tmp_path / "out"))
    assert main(["sweep", "-p", "baseline,magnitude", *sizes, "--slurm", str(tmp_path / "job.sh")]) == 0
    above = tracked(tmp_path / "out")
    assert above["runs"] == {"mlflow": "a"} and above["group"].startswith("out-")
    for method in ("baseline", "magnitude"):
        below = tracked(tmp_path / f"out/results_{method}_sst2")
        assert below == {"group": above["group"], "parents": above["runs"]}
        assert json.loads((tmp_path / f"out/results_{method}_sst2/job.json").read_text())["track"] == ["mlflow"]


def test_a_node_of_ray_is_sent_what_its_run_stands_below(tmp_path):
    ray_backend = pytest.importorskip("gated_bert.experiments.sweeps.ray_backend")
    sent = [ray_backend._first_files(jobs.Job("a", config_of(track=track), tmp_path, ())) for track in ((), ALL)]
    assert sent == [["job.json"], ["job.json", "tracking.json"]]


def test_a_node_without_a_shared_disk_needs_a_server(tmp_path, monkeypatch):
    monkeypatch.setenv(MOVED_VARIABLE, json.dumps(["/a", "/b"]))
    tracking = Tracking(["mlflow"], tmp_path, resume=False)
    tracking.begin({}, {}, ROWS)
    tracking.end("finished")
    assert len(tracking.faults) == 1 and "MLFLOW_TRACKING_URI has to name a server" in tracking.faults[0]


@pytest.mark.nightly
def test_jobs_side_by_side_are_followed_by_a_server_of_mlflow(tmp_path, monkeypatch):
    """A server on a port of this machine, with an SQLite store."""
    mlflow = pytest.importorskip("mlflow")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    uri = f"http://127.0.0.1:{port}"
    place = ["--backend-store-uri", f"sqlite:///{tmp_path}/store.db", "--artifacts-destination", f"{tmp_path}/files"]
    words = [sys.executable, "-m", "mlflow", "server", "--port", str(port), "--workers", "1", *place]
    with open(tmp_path / "server.txt", "w") as output, subprocess.Popen(words, stdout=output, stderr=output) as server:
        try:
            client = mlflow.MlflowClient(uri)
            deadline = time.monotonic() + 120
            while True:
                with contextlib.suppress(OSError):
                    socket.create_connection(("127.0.0.1", port), timeout=1).close()
                    break
                assert server.poll() is None and time.monotonic() < deadline, (tmp_path / "server.txt").read_text()
                time.sleep(0.5)
            monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
            monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "my study")
            sizes = ("-m", "tiny", "--num-layers", "1", "--d-model", "8", "--num-heads", "2", "--dff", "16")
            plan = ("-e", "2", "-ps", "1", "-pe", "2", "-b", "16", "--train-examples", "48", "-d", "embedded")
            sweep = ["sweep", "-p", "magnitude,random", *sizes, *plan, "--track", "mlflow", "-o", str(tmp_path / "out")]
            assert main([*sweep, "-max-parallel-jobs", "2"]) == 0
            runs = client.search_runs([client.get_experiment_by_name("my study").experiment_id])
            children = [run for run in runs if "mlflow.parentRunId" in run.data.tags]
            parent, = (run for run in runs if run not in children)
            assert {run.data.params["pruning_method"] for run in children} == {"magnitude", "random"}
            assert {run.data.tags["mlflow.parentRunId"] for run in children} == {parent.info.run_id}
            for run in children:
                rows = read_run(run.data.tags["folder"]).rows.set_index("epoch")
                assert history(client, run.info.run_id, "sparsity") == pytest.approx(rows["sparsity"].to_dict())
            held = {each.path for each in client.list_artifacts(parent.info.run_id)}
            assert {"report.html", "comparison.csv"} <= held
        finally:
            server.terminate()
