"""What a finished run is worth: kept by --resume, set aside by a new run, whole wherever it was killed."""

import contextlib
import dataclasses
import fcntl
import json
import math
import os
import re
import shutil
import time
from pathlib import Path

import numpy as np
import pytest

from gated_bert.cli.main import main
from gated_bert.config import ConfigError, GatedBertConfig
from gated_bert.experiments.reports.results import read_run
from gated_bert.experiments.reports.run_layout import LOG_FILE
from gated_bert.experiments.runs import job_process
from gated_bert.experiments.runs import run as run_module
from gated_bert.experiments.runs.run import train
from gated_bert.experiments.runs.run_state import newest_metadata, read_status
from gated_bert.models.folder import load_model
from gated_bert.support.errors import UserError
from tests.marks import nightly

SMALL = "-d embedded -m tiny --num-layers 1 --d-model 16 --num-heads 2 --dff 32 -ml 24 --train-examples 48"
FLAGS = f"{SMALL} -b 16 -l 1e-3 -p magnitude -e 2 -ps 1 -pe 2 -f 0.8".split()


def config_of(**options):
    sizes = {"model_size": "tiny", "num_layers": 1, "d_model": 16, "num_heads": 2, "dff": 32, "max_len": 24}
    plan = {"epochs": 2, "pruning_start_epoch": 1, "pruning_end_epoch": 2, "batch_size": 16, "train_examples": 48}
    return GatedBertConfig(pruning_method="magnitude", data="embedded", end_sparsity=0.8, sparsity_steps="auto",
                           **{"learning_rate": 1e-3, **sizes, **plan, **options})  # fmt: skip


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run."""
    return train(config_of(), tmp_path_factory.mktemp("finished") / "run")


@pytest.fixture
def copy(finished, tmp_path):
    """A copy of it that a test may change."""
    return Path(shutil.copytree(finished.folder, tmp_path / "run"))


def content(folder, but=(".lock",)):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*"))
            if path.is_file() and path.name not in but}  # fmt: skip


def weights(model):
    return [np.asarray(weight) for weight in load_model(model).model.weights]


def test_resuming_a_finished_run_leaves_it_alone_and_hands_out_its_results(finished, copy, capsys):
    before = content(copy)
    told = []
    again = train(config_of(), copy, resume=True, notify=told.append)
    assert content(copy) == before and told == [read_status(copy)] and told[0]["state"] == "finished"
    assert (again.rows, again.best, again.final) == (finished.rows, finished.best, finished.final)
    assert "is finished and stays as it is: val_accuracy" in capsys.readouterr().out
    with pytest.raises(UserError, match="--resume with epochs=3, but the run was begun with 2"):
        train(config_of(epochs=3, pruning_end_epoch=2), copy, resume=True)
    assert content(copy) == before


def test_the_command_does_so_too(copy, capsys):
    before = content(copy)
    assert main(["train", *FLAGS, "--run-dir", str(copy), "--resume"]) == 0
    assert content(copy) == before and "stays as it is" in capsys.readouterr().out
    assert main(["train", *FLAGS, "-b", "8", "--run-dir", str(copy), "--resume"]) == 2
    assert "batch_size=8, but the run was begun with 16" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["results_*.csv", "metadata_*.json"])
@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_text("{")], ids=["gone", "damaged"])
def test_a_finished_run_whose_record_cannot_be_read_is_not_trained_again(copy, name, damage):
    for file in (next(copy.glob(name)), copy / "status.json"):
        damage(file)
    before = content(copy)
    with pytest.raises(UserError, match=r"is finished, but its results_\*.csv or metadata_\*.json cannot be read"):
        train(config_of(), copy, resume=True)
    assert content(copy) == before


def test_a_run_of_other_settings_that_left_no_checkpoint_is_not_gone_on_with(copy):
    """Only its metadata are left, as where it failed in its first epoch."""
    for path in copy.iterdir():
        if not path.name.startswith("metadata_"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(UserError, match=r"--resume with seed=7, but the run was begun with 42"):
        train(config_of(seed=7), copy, resume=True)


def test_a_sweep_that_goes_on_compares_the_settings_of_a_run_that_train_made(copy, tmp_path, capsys, jobs_here):
    copy.rename(tmp_path / "results_magnitude_sst2")
    words = ["sweep", *FLAGS, "-o", str(tmp_path), "--resume"]
    assert main([*words, "-b", "8"]) == 2
    assert "was started with batch_size=16 (now 8)" in capsys.readouterr().err
    assert main(words) == 0 and "skipped" in capsys.readouterr().out


def test_a_new_run_sets_the_earlier_one_aside_and_says_where(copy, tmp_path, capsys, no_steps):
    before = content(copy)
    train(config_of(epochs=1, pruning_end_epoch=1), copy)
    (aside,) = (tmp_path / "saved_results").iterdir()
    assert content(aside / "run") == before
    assert f"now in {aside}; --resume would have gone on" in capsys.readouterr().out
    assert len(read_run(copy).rows) == 1 and len(list(copy.glob("results_*.csv"))) == 1
    assert main(["train", *FLAGS, "-e", "1", "-pe", "1", "--run-dir", str(copy)]) == 0
    assert len(list((tmp_path / "saved_results").iterdir())) == 2


def test_what_a_launcher_put_into_a_job_s_folder_is_no_run(tmp_path):
    for name in ("job.json", "status.json", LOG_FILE):
        (tmp_path / "job" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "job" / name).write_text("{}")
    with pytest.raises(ConfigError):
        train(config_of().replace(data="no such folder"), tmp_path / "job")
    assert not (tmp_path / "saved_results").exists() and (tmp_path / "job" / "job.json").exists()


@contextlib.contextmanager
def used(folder):
    with open(folder / ".lock", "w") as lock:
        lock.write("4711\n")
        lock.flush()
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@pytest.mark.parametrize("resume", [[], ["--resume"]])
@pytest.mark.parametrize("flag", ["--run-dir", "--config-file", "-o/--output-dir"])
def test_a_second_run_is_refused_at_once_by_the_name_of_the_flag_that_was_given(
    copy, tmp_path, capsys, monkeypatch, resume, flag
):
    words = [*FLAGS, "--run-dir", str(copy)]
    if flag == "--config-file":
        (copy / "job.json").write_text(json.dumps(dataclasses.asdict(config_of())))
        words = [flag, str(copy / "job.json")]
    elif flag != "--run-dir":
        copy = copy.rename(tmp_path / "results_magnitude_sst2")
        words = [*FLAGS, "-o", str(tmp_path)]
    monkeypatch.delenv(job_process.LAUNCHER_VARIABLE, raising=False)
    before = content(copy)
    with used(copy):
        began = time.monotonic()
        assert main(["train", *words, *resume]) == 2
        assert time.monotonic() - began < 5
    said = capsys.readouterr().err
    assert said.startswith(f"error: {flag}: {copy} is in use by another run (process 4711)")
    assert content(copy) == before


def test_a_sweep_does_not_move_a_run_that_is_going_on(copy, tmp_path, capsys, jobs_here):
    folder = copy.rename(tmp_path / "results_magnitude_sst2")
    with used(folder):
        assert main(["sweep", *FLAGS, "-o", str(tmp_path)]) == 2
    assert "in use by another run (process 4711)" in capsys.readouterr().err and (folder / "model").is_dir()


def test_a_launcher_s_job_says_that_it_waits(tmp_path, capsys):
    (tmp_path / "run").mkdir()
    with used(tmp_path / "run"):
        job_process.wait_for_folder(tmp_path / "run", patience=1.2)
    assert len(re.findall(r"process 4711.*this job waits up to 1.2 s for it", capsys.readouterr().out)) == 1


OPERATIONS = ("replace", "rename", "unlink", "remove", "mkdir", "rmdir", "link")


class Kills:
    """Copies of a run's folder as a kill before each file operation of its last part would leave it.

    Args:
        folder: the run's folder.
        place: where the copies go.
    """

    def __init__(self, folder, place, monkeypatch):
        self.folder, self.place, self.found = folder, place, {}
        self.at_work, self.synced = False, set()
        for name in OPERATIONS:
            monkeypatch.setattr(os, name, self._before(getattr(os, name)))
        sync = os.fsync
        monkeypatch.setattr(os, "fsync", lambda file: (self.synced.add(os.fstat(file).st_ino), sync(file))[1])
        whole = run_module._Run._finish
        monkeypatch.setattr(run_module._Run, "_finish", lambda run, seconds: self._watch(whole, run, seconds))

    def _watch(self, whole, run, seconds):
        self.at_work = True
        try:
            return whole(run, seconds)
        finally:
            self.at_work = False

    def _before(self, operation):
        def watched(*args, **options):
            if self.at_work:
                self.at_work = False
                state = tuple(sorted(content(self.folder).items()))
                if state not in self.found:
                    self.found[state] = shutil.copytree(self.folder, self.place / f"{len(self.found):03d}")
                    self._bury(self.found[state])
                if operation.__name__ == "unlink" and Path(args[0]).name == "checkpoint.npz":
                    self._check_on_disk()
                self.at_work = True
            return operation(*args, **options)

        return watched

    @staticmethod
    def _bury(folder):
        """Gives what is half-written to a process that is gone, as this one would be."""
        for path in folder.glob(".*.partial"):
            path.rename(path.with_name(path.name.replace(f"-{os.getpid()}-", f"-{2**22 + 1}-")))

    def _check_on_disk(self):
        """Before the checkpoint goes all that is needed without it is on the disk, and says that it is finished."""
        assert newest_metadata(self.folder)["status"] == "finished"
        needed = [*self.folder.glob("model*/*"), *self.folder.glob("results_*"), *self.folder.glob("metadata_*")]
        folders = [self.folder, *self.folder.glob("model*")]
        assert len(needed) > 8 and {path.stat().st_ino for path in (*needed, *folders)} <= self.synced


@pytest.mark.parametrize("accuracies", [nightly((0.6, 0.7)), (0.7, 0.6)], ids=["best_is_last", "best_is_earlier"])
@pytest.mark.nightly
def test_a_run_killed_at_any_file_operation_of_its_end_goes_on_to_the_same_results(
    tmp_path, monkeypatch, accuracies, no_steps
):
    """Also where the best model is an earlier epoch's, or the last one's, whose weights are linked."""
    config, found = config_of(pruning_end_epoch=1), iter(accuracies)
    with monkeypatch.context() as patch:
        patch.setattr(run_module, "evaluate_model", lambda *_: ({"loss": 1.0, "accuracy": next(found)}, None))
        kills = Kills(tmp_path / "run", tmp_path / "killed", patch)
        whole = train(config, tmp_path / "run")
    assert len(kills.found) > 8 and (whole.best is whole.final) == (accuracies[1] > accuracies[0])
    finals, bests = weights(whole.folder / "model"), weights(whole.folder / "model_best")
    went_on = 0
    for folder in kills.found.values():
        was_finished = newest_metadata(folder)["status"] == "finished"
        before = content(folder / "model") if was_finished else None
        again = train(config, folder, resume=True)
        assert (again.rows, again.best, again.final) == (whole.rows, whole.best, whole.final)
        if was_finished:
            assert content(folder / "model") == before
        for name, expected in (("model", finals), ("model_best", bests)):
            for found, wanted in zip(weights(folder / name), expected, strict=True):
                np.testing.assert_array_equal(found, wanted)
        assert read_status(folder)["state"] == "finished" and not (folder / "checkpoint.npz").exists()
        assert newest_metadata(folder)["final"] == newest_metadata(whole.folder)["final"]
        assert not [path.name for path in folder.glob(".*") if path.name != ".lock"]
        assert len(list(folder.glob("*.png"))) == len(list(whole.folder.glob("*.png")))
        went_on += not was_finished
    assert 0 < went_on < len(kills.found)


def test_what_fails_after_the_results_does_not_take_the_word_back(tmp_path, monkeypatch, no_steps):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(run_module.ResourceLog, "plot", stop)
    with pytest.raises(KeyboardInterrupt):
        train(config_of(), tmp_path)
    assert newest_metadata(tmp_path)["status"] == "finished"
    before = content(tmp_path / "model")
    assert train(config_of(), tmp_path, resume=True).final["epoch"] == 2
    assert content(tmp_path / "model") == before and read_status(tmp_path)["state"] == "finished"


def test_the_rows_of_a_finished_run_may_hold_no_numbers(copy):
    """An evaluation that was no number is an empty cell of the table and null in the record."""
    path = next(copy.glob("results_*.csv"))
    lines = path.read_text().splitlines()
    cells = lines[1].split(",")
    cells[lines[0].split(",").index("val_accuracy")] = ""
    path.write_text("\n".join([lines[0], ",".join(cells), *lines[2:]]) + "\n")
    metadata = next(copy.glob("metadata_*.json"))
    metadata.write_text(json.dumps(json.loads(metadata.read_text()) | {"best": None}))
    result = train(config_of(), copy, resume=True)
    assert math.isnan(result.rows[0]["val_accuracy"]) and result.best == result.final
