"""Resume points that outlive their machine: what is stored, what a kill or a failing store leaves, who reads it."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import threading
import time
from pathlib import Path

import fsspec
import numpy as np
import pandas as pd
import pytest

from gated_bert.config import ConfigError, GatedBertConfig
from gated_bert.config.later_fields import LATER
from gated_bert.experiments.runs import resume_store
from gated_bert.experiments.runs.checkpoint import read_place
from gated_bert.experiments.runs.epochs import EpochCallback
from gated_bert.experiments.runs.resume_store import ResumeStore, check_place, store_of
from gated_bert.experiments.runs.run import train
from gated_bert.experiments.runs.run_files import CHECKPOINT, Snapshot, arriving, run_files
from gated_bert.support.errors import UserError
from tests.refused import refusal

TIMED = ["seconds", "examples_per_second"]
SMALL = {"model_size": "tiny", "num_layers": 1, "d_model": 16, "num_heads": 2, "dff": 32, "data": "embedded",
         "train_examples": 96, "batch_size": 16, "epochs": 3, "pruning_start_epoch": 2, "pruning_end_epoch": 3,
         "learning_rate": 1e-3, "checkpoint_steps": 2}  # fmt: skip


@pytest.fixture(params=["memory", "folder", "file"])
def url(request, tmp_path) -> str:
    """A place for resume points, of each kind."""
    where = {"memory": f"memory://{tmp_path.name}/points", "folder": str(tmp_path / "points"),
             "file": f"file://{tmp_path}/points"}  # fmt: skip
    return where[request.param]


def keys(url: str) -> set[str]:
    fs, root = fsspec.core.url_to_fs(url)
    return {path.partition("/run/")[2] for path in fs.find(root)}


def write_run(folder: Path, epoch: int, batches: int = 0) -> Path:
    """A run's files, whose contents name the place they are from."""
    folder.mkdir(parents=True, exist_ok=True)
    np.savez(folder / CHECKPOINT, place=np.array(json.dumps({"epoch": epoch, "batches": batches})))
    (folder / "rows.csv").write_text(f"{epoch} {batches}")
    (folder / "model_best").mkdir(exist_ok=True)
    (folder / "model_best" / "model.keras").write_text(f"best of {epoch}")
    for name in ("log.txt", "status.json", ".lock"):
        (folder / name).write_text("of this machine")
    return folder


def fetched(store: ResumeStore, folder: Path) -> dict[str, str]:
    folder.mkdir()
    store.fetch(folder)
    assert not [name for name in os.listdir(folder) if name.startswith(".")]
    return {name: (folder / name).read_text() for name in run_files(folder) if name != CHECKPOINT}


def test_nothing_is_fetched_from_where_nothing_is(url, tmp_path):
    (tmp_path / "there").mkdir()
    with pytest.raises(UserError, match="no whole resume point is there"):
        ResumeStore(url, "run").fetch(tmp_path / "there")
    assert not os.listdir(tmp_path / "there")


def test_the_last_of_several_states_comes_back(url, tmp_path):
    store = ResumeStore(url, "run")
    assert store.place() is None and not keys(url)
    for epoch, batches in ((0, 4), (1, 0), (2, 3)):
        store.put(write_run(tmp_path / "run", epoch, batches))
    assert len(keys(url)) == 4, "what is replaced goes: three files and the pointer"
    other = ResumeStore(url, "run")
    assert other.place() == (2, 3)
    assert fetched(other, tmp_path / "there") == {"rows.csv": "2 3", "model_best/model.keras": "best of 2"}
    assert read_place(tmp_path / "there" / CHECKPOINT) == (2, 3)
    other.clear()
    assert store.place() is None and not keys(url)


def test_what_did_not_change_is_not_sent_again(url, tmp_path):
    store = ResumeStore(url, "run")
    store.put(write_run(tmp_path / "run", 1))
    before = keys(url)
    np.savez(tmp_path / "run" / CHECKPOINT, place=np.array(json.dumps({"epoch": 2, "batches": 0})))
    store.put(tmp_path / "run")
    assert {key.rpartition("/")[2] for key in keys(url) & before} == {"rows.csv", "model.keras"}
    assert store.place() == (2, 0)


@pytest.mark.parametrize("at", range(6))
def test_an_upload_that_breaks_anywhere_leaves_the_state_before(url, tmp_path, monkeypatch, at):
    """Broken off at each write, in the middle of it: what was stored is whole, and the next upload tidies up."""
    store = ResumeStore(url, "run")
    store.put(write_run(tmp_path / "run", 1))
    writes, original = [], type(store._fs).open

    def breaking(fs, path, mode="rb", **options):
        file = original(fs, path, mode, **options)
        if "w" in mode:
            writes.append(path)
            if len(writes) == at + 1:
                file.write(b"{")
                file.close()
                raise OSError("the network is down")
        return file

    monkeypatch.setattr(type(store._fs), "open", breaking)
    again = ResumeStore(url, "run")
    broken = contextlib.nullcontext() if at >= 4 else pytest.raises(OSError, match="network")
    with broken:
        again.put(write_run(tmp_path / "run", 2))
    assert ResumeStore(url, "run").place() == ((2, 0) if at >= 4 else (1, 0))
    expected = "best of 2" if at >= 4 else "best of 1"
    assert fetched(ResumeStore(url, "run"), tmp_path / "there")["model_best/model.keras"] == expected
    monkeypatch.undo()
    again.put(write_run(tmp_path / "run", 3))
    assert ResumeStore(url, "run").place() == (3, 0) and len(keys(url)) == 4


def test_of_two_writers_neither_takes_the_other_ones_files(url, tmp_path):
    """A node that was believed lost goes on for a while: its uploads spoil nothing."""
    lost, new = ResumeStore(url, "run"), ResumeStore(url, "run")
    lost.put(write_run(tmp_path / "lost", 1))
    new.put(write_run(tmp_path / "new", 2))
    np.savez(tmp_path / "lost" / CHECKPOINT, place=np.array(json.dumps({"epoch": 1, "batches": 4})))
    lost.put(tmp_path / "lost")
    assert ResumeStore(url, "run").place() == (2, 0), "what the lost one left out as known is not there"
    new.put(write_run(tmp_path / "new", 3))
    assert ResumeStore(url, "run").place() == (3, 0)
    assert fetched(ResumeStore(url, "run"), tmp_path / "there")["rows.csv"] == "3 0"


@pytest.mark.parametrize("content", [
    "", "{", "[1]", "null", '{"place": [1]}', '{"place": [9, 0], "files": {}}', '{"place": null, "files": null}',
    '{"place": [9, 0], "files": {"checkpoint.npz": {"key": 1, "size": 0}}}', "[" * 100_000,
    '{"place": [9, 0], "files": {"checkpoint.npz": {"key": "k", "size": 0}, "../../evil": {"key": "k", "size": 0}}}',
    '{"place": [9, 0], "files": {"checkpoint.npz": {"key": "k", "size": 0}, "/evil": {"key": "k", "size": 0}}}',
    '{"place": [9, 0], "files": {"checkpoint.npz": {"key": "not there", "size": 3}}}',
    '{"place": [9, 0, 0], "files": {"checkpoint.npz": {"key": "k", "size": 0}}}',
    '{"place": [9, 0], "place": [8, 0], "files": {"checkpoint.npz": {"key": "k", "size": 0}}}',
    '{"place": [9, 0], "files": {"checkpoint.npz": {"key": "k", "size": true}}}',
    *(json.dumps({"place": [9, 0], "files": {CHECKPOINT: {"key": "k", "size": 0}, name: {"key": "k", "size": 0}}})
      for name in ("a/../../evil", r"..\evil", r"a\b", "a\0b", "", "a//b", ".lock")),
])  # fmt: skip
def test_a_pointer_that_is_none_is_passed_over(tmp_path, content):
    store = ResumeStore(str(tmp_path / "points"), "run")
    store.put(write_run(tmp_path / "run", 1))
    (tmp_path / "points/run/k").write_text("")
    (tmp_path / "points/run/resume-0123456789ab-000009.json").write_text(content)
    assert ResumeStore(str(tmp_path / "points"), "run").place() == (1, 0)


def test_a_snapshot_is_of_one_moment(tmp_path):
    """What the run writes while its files are on their way does not mix with them."""
    folder = write_run(tmp_path / "run", 1)
    snapshot = Snapshot(folder, {})
    np.savez(folder / "new.npz", place=np.array("later"))
    (folder / "new.npz").replace(folder / CHECKPOINT)
    shutil.rmtree(folder / "model_best")
    with open(folder / "rows.csv", "a") as file:
        file.write(" and more")
    parts = {name: snapshot.read(name, 0, 2**20) for name in snapshot.files}
    assert parts["rows.csv"] == b"1 0" and parts["model_best/model.keras"] == b"best of 1"
    (tmp_path / "copy.npz").write_bytes(parts[CHECKPOINT])
    assert read_place(tmp_path / "copy.npz") == (1, 0)
    snapshot.close()


def test_a_snapshot_takes_a_folder_as_a_whole_and_nothing_hidden(tmp_path):
    folder = write_run(tmp_path / "run", 1)
    (folder / "model_best" / "config.json").write_text("{}")
    (folder / ".model.partial").mkdir()
    (folder / ".model.partial" / "model.keras").write_text("half")
    with contextlib.closing(Snapshot(folder, {})) as first:
        known = first.stamps
    assert not [name for name in known if name.startswith(".")]
    (folder / "model_best" / "config.json").write_text("{ }")
    with contextlib.closing(Snapshot(folder, known)) as second:
        assert set(second.files) == {"model_best/config.json", "model_best/model.keras"}


def test_files_that_arrive_take_their_places_at_the_end(tmp_path):
    folder = write_run(tmp_path / "run", 1)
    with contextlib.suppress(RuntimeError), arriving(folder) as new:
        (new / CHECKPOINT).write_text("half")
        raise RuntimeError
    assert read_place(folder / CHECKPOINT) == (1, 0)
    with arriving(folder) as new:
        shutil.copy(folder / CHECKPOINT, new)
        (new / "model_best").mkdir()
        (new / "model_best" / "model.keras").write_text("best of 2")
        assert (folder / "model_best" / "model.keras").read_text() == "best of 1"
    assert (folder / "model_best" / "model.keras").read_text() == "best of 2"
    assert not [name for name in os.listdir(folder) if name.startswith(".arr") or name.endswith("previous")]


class Stopped(Exception):
    """In place of a machine that is gone."""


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory) -> pd.DataFrame:
    return rows(train(GatedBertConfig(pruning_method="movement", **SMALL), tmp_path_factory.mktemp("unbroken")).folder)


def rows(folder: Path) -> pd.DataFrame:
    (table,) = folder.glob("results_*.csv")
    return pd.read_csv(table).drop(columns=TIMED)


def stop_in_the_second_epoch(monkeypatch, stored):
    """Ends a run at the fifth step of its second epoch, once the checkpoint of the fourth is stored."""
    original = EpochCallback.on_train_batch_end

    def stop(callback, batch, logs=None):
        original(callback, batch, logs)
        if callback.epoch == 1 and callback.batches_done(batch) == 5:
            deadline = time.monotonic() + 60
            while stored() != (1, 4):
                assert time.monotonic() < deadline, f"stored is {stored()}"
                time.sleep(0.05)
            raise Stopped

    monkeypatch.setattr(EpochCallback, "on_train_batch_end", stop)


@pytest.mark.nightly
@pytest.mark.parametrize("url", ["folder", "memory", "file"], indirect=True)
def test_a_run_goes_on_elsewhere_with_the_rows_of_an_unbroken_one(url, tmp_path, monkeypatch, unbroken):
    config = GatedBertConfig(pruning_method="movement", checkpoint_dir=url, **SMALL)
    store = store_of(config, tmp_path / "lost" / "run")
    monkeypatch.setattr(resume_store, "_LOOK_SECONDS", 0.05)
    with monkeypatch.context() as patch:
        stop_in_the_second_epoch(patch, lambda: ResumeStore(url, store._root.rpartition("/")[2]).place())
        with pytest.raises(Stopped):
            train(config, tmp_path / "lost" / "run")
    shutil.rmtree(tmp_path / "lost")
    result = train(config, tmp_path / "elsewhere" / "run", resume=True)
    assert "going on at epoch 2, step 4" in (result.folder / "log.txt").read_text()
    pd.testing.assert_frame_equal(rows(result.folder), unbroken)
    assert store.place() is None and not keys(url), "a finished run needs no resume point"
    assert not [thread for thread in threading.enumerate() if thread.name == "resume store"]


def test_what_is_further_wins_and_a_run_begun_anew_forgets(tmp_path, monkeypatch):
    config = GatedBertConfig(checkpoint_dir=str(tmp_path / "points"), **SMALL)
    folder = tmp_path / "run"
    for here, there, wanted in (((1, 2), (1, 3), (1, 3)), ((2, 0), (1, 3), (2, 0)), (None, (0, 1), (0, 1))):
        store_of(config, folder).put(write_run(tmp_path / "other", *there))
        shutil.rmtree(folder, ignore_errors=True)
        if here:
            write_run(folder, *here)
        else:
            folder.mkdir()
            (folder / CHECKPOINT).write_text("damaged")
        with contextlib.suppress(Stopped), resume_store.kept_elsewhere(config, folder, resume=True):
            assert read_place(folder / CHECKPOINT) == wanted
            raise Stopped
        assert store_of(config, folder).place() == wanted
    monkeypatch.setattr(resume_store, "_LOOK_SECONDS", 0.05)
    shutil.rmtree(folder)
    with contextlib.suppress(Stopped), resume_store.kept_elsewhere(config, folder, resume=False):
        time.sleep(0.2)
        assert store_of(config, folder).place() == (0, 1), "nothing to put in its place yet"
        write_run(folder, 0, 0)
        raise Stopped
    assert store_of(config, folder).place() == (0, 0), "less far, but of the run that was begun last"


def test_a_start_that_is_refused_leaves_what_is_stored(tmp_path):
    config = GatedBertConfig(checkpoint_dir=str(tmp_path / "points"), **SMALL | {"data": "no such folder"})
    for resume in (False, True):
        store_of(config, tmp_path / "run").put(write_run(tmp_path / "other", 1, 2))
        with pytest.raises((ConfigError, UserError), match="no such folder"):
            train(config, tmp_path / "run", resume=resume)
        assert store_of(config, tmp_path / "run").place() == (1, 2)
        shutil.rmtree(tmp_path / "run", ignore_errors=True)


@pytest.mark.parametrize("resume", [False, True])
def test_a_place_that_cannot_be_read_is_refused_before_the_run(tmp_path, monkeypatch, resume):
    def down(*words, **options):
        raise OSError("no route to host")

    config = GatedBertConfig(checkpoint_dir=str(tmp_path / "points"), **SMALL)
    monkeypatch.setattr(ResumeStore, "_listing", down)
    with pytest.raises(UserError, match="--checkpoint-dir: .*no route to host"):
        with resume_store.kept_elsewhere(config, tmp_path / "run", resume=resume):
            pytest.fail("it was begun")


def test_a_store_that_fails_does_not_stop_training(tmp_path, monkeypatch, caplog):
    config = GatedBertConfig(pruning_method="baseline", checkpoint_dir=str(tmp_path / "points"), **SMALL)
    monkeypatch.setattr(resume_store, "_LOOK_SECONDS", 0.01)

    def down(*arguments):
        raise RuntimeError("503 Slow Down")

    monkeypatch.setattr(ResumeStore, "_send", down)
    result = train(config, tmp_path / "run")
    assert len(result.rows) == 3
    log = (result.folder / "log.txt").read_text()
    assert "this resume point was not stored (503 Slow Down)" in log and "Traceback" not in log


def test_the_same_run_has_the_same_place_wherever_its_folder_is(tmp_path):
    config = GatedBertConfig(checkpoint_dir=str(tmp_path), **SMALL)
    place = store_of(config, tmp_path / "a" / "run")._root
    assert store_of(config.replace(checkpoint_steps=7), tmp_path / "b" / "run")._root == place
    assert store_of(config.replace(seed=7), tmp_path / "a" / "run")._root != place
    assert store_of(config, tmp_path / "a" / "walk")._root != place


def test_what_an_earlier_version_stored_is_found(tmp_path):
    config = GatedBertConfig(checkpoint_dir=str(tmp_path), **SMALL)
    fields = json.loads(config.to_json())
    # As a version before any of these fields, and before these defaults, wrote it.
    for name in ("checkpoint_steps", "checkpoint_dir", "plugins", "track", *LATER):
        del fields[name]
    fields |= {"soft_movement_penalty": 25.0, "l0_penalty": 25.0, "movement_pruning_frequency_steps": 100}
    digest = hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()[:12]
    assert store_of(config, tmp_path / "run")._root.endswith(f"run-{digest}")


def test_places_that_cannot_be_used_are_refused_in_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    (tmp_path / "points").mkdir()
    check_place(str(tmp_path / "points"))
    assert not os.listdir(tmp_path / "points")
    for place in ("nosuch://bucket/folder", "http://127.0.0.1:9/points", str(tmp_path / "file" / "points")):
        with pytest.raises(UserError, match=r"--checkpoint-dir: .* cannot be used \(.*s3://bucket/folder$") as error:
            check_place(place)
        assert "\n" not in str(error.value)
    words = ("sweep", "-p", "baseline", "-d", "embedded", "-m", "tiny", "-o", "out", "--checkpoint-dir")
    monkeypatch.setenv("VERBOSE", "0")
    line = refusal(capsys, *words, "nosuch://bucket")
    assert "--checkpoint-dir: nosuch://bucket cannot be used (Protocol not known: nosuch)" in line
    assert not Path("out").exists()
    assert "--checkpoint-dir: 'file' is refused" in refusal(capsys, *words, "file")
    for value in (5, "", "simplecache::s3://x", "sftp://me:secret@host/x"):
        with pytest.raises(ConfigError) as error:
            GatedBertConfig(checkpoint_dir=value)
        assert "secret" not in str(error.value)
