"""Names of what is not whole yet, and what a later process makes of those that a killed one left."""

from __future__ import annotations

import ast
import fcntl
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gated_bert.support import partial
from gated_bert.support.partial import (
    partial_folder,
    previous,
    remove_leftovers,
    remove_leftovers_in,
    surviving,
    temporary_folder,
)

FOREIGN = ".{}.0123abcd-4711-99-89abcdef.{}"


@pytest.fixture(autouse=True)
def _not_seen(monkeypatch):
    monkeypatch.setattr(partial, "_seen", set())


def in_another_process(code: str, *arguments: object) -> list[str]:
    """What a process prints that is killed before it could tidy up; it is gone on return."""
    around = ("import os, sys\nfrom pathlib import Path\nfrom gated_bert.support.partial import *\n{}\n"
              "os.kill(os.getpid(), 9)")  # fmt: skip
    words = [sys.executable, "-c", around.format(code), *map(str, arguments)]
    done = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=False)
    assert done.returncode == -signal.SIGKILL
    return done.stdout.splitlines()


def killed(target: Path, kind: str = "partial", content: str = "half") -> Path:
    """What a killed process leaves of `target`: a file, or a folder for what has no ending."""
    (name,) = in_another_process(f"print({kind}(Path(sys.argv[1])), flush=True)", target)
    path = Path(name)
    if target.suffix:
        path.write_text(content)
    else:
        path.mkdir()
        (path / "file").write_text(content)
    return path


def names(folder: Path) -> set[str]:
    return set(os.listdir(folder))


def test_only_what_dead_processes_left_of_the_same_target_goes(tmp_path):
    for target in ("a.onnx", "model"):
        killed(tmp_path / target)
    mine = partial.partial(tmp_path / "a.onnx")
    mine.touch()
    kept = {"a.onnx", ".a.onnx.tmp", ".a.onnx.x.partial", ".hidden", "b.onnx", ".a.onnx.zip.1-2-3.partial", mine.name}
    for name in kept:
        (tmp_path / name).touch()
    other = killed(tmp_path / "b.onnx").name
    remove_leftovers(tmp_path / "a.onnx")
    remove_leftovers(tmp_path / "model")
    assert names(tmp_path) == kept | {other}
    remove_leftovers_in(tmp_path)
    assert names(tmp_path) == kept


def test_a_living_process_keeps_what_it_writes(tmp_path):
    code = ("import sys, time\nfrom pathlib import Path\nfrom gated_bert.support.partial import partial\n"
            "print(partial(Path(sys.argv[1])), flush=True)\ntime.sleep(60)")  # fmt: skip
    process = subprocess.Popen([sys.executable, "-c", code, tmp_path / "a.npz"], stdout=subprocess.PIPE, text=True)
    path = Path(process.stdout.readline().strip())
    path.touch()
    remove_leftovers_in(tmp_path, held=True)
    assert path.exists()
    process.kill()
    process.wait()
    remove_leftovers_in(tmp_path, held=True)
    assert not path.exists()


def test_the_number_of_a_dead_process_may_have_gone_to_another(tmp_path):
    node, pid, start = partial._node(), os.getpid(), int(partial._start(os.getpid()))
    of_before = tmp_path / f".a.npz.{node}-{pid}-{start - 1}-00000000.partial"
    mine = tmp_path / f".a.npz.{node}-{pid}-{start}-00000000.partial"
    of_before.touch()
    mine.touch()
    remove_leftovers_in(tmp_path)
    assert names(tmp_path) == {mine.name}


def test_another_nodes_files_go_by_the_lock_or_by_age(tmp_path):
    young, old = (tmp_path / FOREIGN.format(name, "partial") for name in ("young.npz", "old.npz"))
    record = tmp_path / FOREIGN.format("status.json", "partial")
    for path in (young, old, record):
        path.touch()
    os.utime(old, (time.time() - 90_000,) * 2)
    remove_leftovers_in(tmp_path)
    assert names(tmp_path) == {young.name, record.name}
    remove_leftovers_in(tmp_path, held=True, shared=("status.json",))
    assert names(tmp_path) == {record.name}, "its launcher may be writing it without the lock"


def test_the_only_version_returns_and_of_several_the_last(tmp_path):
    first, last = (killed(tmp_path / "model", "previous", content) for content in ("first", "last"))
    os.utime(first, (1e9, 1e9))
    assert surviving(tmp_path / "model") == last
    remove_leftovers_in(tmp_path, held=True)
    assert names(tmp_path) == {"model"} and (tmp_path / "model/file").read_text() == "last"
    killed(tmp_path / "model", "previous", "older")
    remove_leftovers(tmp_path / "model")
    assert names(tmp_path) == {"model"} and (tmp_path / "model/file").read_text() == "last"


def test_a_version_that_a_living_process_set_aside_stays(tmp_path):
    aside = previous(tmp_path / "model")
    aside.mkdir()
    remove_leftovers(tmp_path / "model")
    assert names(tmp_path) == {aside.name} and surviving(tmp_path / "model") == aside


@pytest.mark.parametrize("name", ["x" * 250, "ü" * 125, "a.b.partial", "new\nline", "\udcff", ".hidden", "[a]*?"])
def test_any_name_that_a_disk_takes_has_a_temporary_one(tmp_path, name):
    target, other = tmp_path / name, tmp_path / (name[:-1] + "z")
    with partial_folder(target) as folder:
        assert folder.parent == tmp_path
    for each in (target, other):
        for kind in ("partial", "previous"):
            (path,) = in_another_process(f"print(os.fsencode({kind}(Path(sys.argv[1]))), flush=True)", each)
            Path(os.fsdecode(ast.literal_eval(path))).mkdir()
    partial._seen.clear()
    remove_leftovers(target)
    assert target.is_dir() and len(names(tmp_path)) == 3, "of its own: the previous version is back"
    remove_leftovers(other)
    assert names(tmp_path) == {target.name, other.name}


def test_temporary_folders_of_dead_processes_go_with_the_next(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(partial.tempfile, "tempdir", None)
    (left,) = in_another_process("print(make_temporary_folder(), flush=True)")
    job = Path(left, "results_spt_sst2")
    job.mkdir()
    with open(job / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with temporary_folder() as folder:
            assert {left, str(folder)} == {str(path) for path in tmp_path.iterdir()}, "its job still ends there"
    rebooted = tmp_path / FOREIGN.format(f"gated_bert-{os.getuid()}", "partial")
    rebooted.mkdir()
    (rebooted / ".lock").touch()
    with temporary_folder() as folder:
        assert set(tmp_path.iterdir()) == {folder, rebooted}
    os.utime(rebooted, (time.time() - 100,) * 2)
    with temporary_folder() as folder:
        assert set(tmp_path.iterdir()) == {folder}
    assert not names(tmp_path)
