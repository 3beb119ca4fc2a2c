"""Parts of a study beside each other: what waits for what, what runs alone, what ends how."""

import json
import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from gated_bert.cli import main as cli
from gated_bert.cli.main import main
from gated_bert.experiments.runs.job_process import TOLD_TO_STOP
from gated_bert.experiments.studies import side_by_side
from gated_bert.experiments.studies.catalogue import STUDIES
from gated_bert.experiments.studies.part import Part, needs, with_needed
from gated_bert.experiments.studies.side_by_side import _startable, log_file, run_side_by_side
from gated_bert.experiments.studies.study import run_study
from gated_bert.support.checks import FlagError
from gated_bert.support.machine import Machine, thread_environment

SCRIPT = """
import json, os, signal, sys, time
folder, name, seconds, status = sys.argv[2:]
began = time.time()
signal.signal(signal.SIGTERM, signal.default_int_handler)
print("this is", name, flush=True)
try:
    time.sleep(float(seconds))
except KeyboardInterrupt:
    status = 130
told = [os.environ.get(name) for name in ("OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES")]
json.dump([began, time.time(), told], open(f"{folder}/{name}.json", "w"))
if int(status) < 0:
    os.kill(os.getpid(), -int(status))
sys.exit(int(status))
"""
PARTS = (
    Part("dense", "a"),
    Part("other", "a"),
    Part("family", "-pt {study}/dense/run/model", "compress"),
    Part("taught", "-pt {study}/dense/run/model"),
    Part("both", "{study}/taught {study}/other/run", "iou"),
)

THREADS, MACHINE = thread_environment(1), Machine(4, 2**34)


def wait_for(there, seconds: float = 60.0):
    until = time.monotonic() + seconds
    while not there():
        assert time.monotonic() < until, "it did not come"
        time.sleep(0.05)


@pytest.fixture
def beside(monkeypatch, tmp_path):
    """`beside(fails, …)` runs the parts, and returns the exit status and of each when it began and ended."""

    def run(fails: str = "", status: str = "1", at_a_time: int = 3, parts=PARTS, machine=MACHINE):
        monkeypatch.setattr(side_by_side, "python_command", lambda *words: (sys.executable, "-c", SCRIPT, *words))
        monkeypatch.setattr(side_by_side, "this_machine", lambda: machine)
        status = run_side_by_side(
            parts, lambda part: (str(tmp_path), [part.name, "0", status if part.name == fails else "0"]),
            tmp_path, at_a_time, 2,
        )  # fmt: skip
        return status, {file.stem: json.loads(file.read_text()) for file in tmp_path.glob("*.json")}

    return run


def test_a_part_waits_for_what_it_starts_from_and_one_that_measures_runs_alone(beside, capsys, tmp_path):
    status, found = beside()
    assert status == 0 and set(found) == {part.name for part in PARTS}
    for part in PARTS:
        assert all(found[other][1] <= found[part.name][0] for other in needs(part))
        assert log_file(tmp_path, part).read_text() == f"this is {part.name}\n"
    began, ended, _ = found["family"]
    assert all(end <= began or start >= ended for name, (start, end, _) in found.items() if name != "family")
    assert "taught: done" in capsys.readouterr().out


def test_what_may_begin():
    dense, other, family, taught, both = PARTS
    assert _startable(PARTS, [], 3) == [dense, other]
    assert _startable(PARTS, [], 1) == [dense]
    assert _startable([family, taught, both], [other], 3) == [taught]
    assert _startable([family, both], [], 3) == [family]
    assert _startable([both], [family], 3) == []


@pytest.mark.parametrize(("gpus", "seen"), [((), {None}), (tuple("01234567"), {"0,1,2,3", "4,5,6,7"})])
def test_parts_share_the_machine_and_one_that_measures_has_all(beside, monkeypatch, gpus, seen):
    for name in THREADS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    _, found = beside(at_a_time=2, machine=Machine(16, 2**34, gpus))
    told = {name: of for name, (_, _, of) in found.items()}
    assert told.pop("family") == [None, None]
    assert {threads for threads, _ in told.values()} == {"4"}, "16 cores, two parts of two jobs"
    assert {devices for _, devices in told.values()} == seen


@pytest.mark.parametrize(("ended", "why"), [("3", "exit status 3"), ("-9", "killed by SIGKILL (out of memory?)")])
def test_after_a_part_that_failed_no_other_begins(beside, capsys, ended, why):
    status, found = beside(fails="dense", status=ended)
    assert status == max(1, int(ended)) and set(found) == {"dense", "other"}
    told = capsys.readouterr().out
    assert f"dense: {why}; the end of" in told and "  this is dense" in told


PROGRAM = """
import pathlib, sys
from gated_bert.experiments.studies import side_by_side
from tests.experiments.test_side_by_side import PARTS, SCRIPT
side_by_side.python_command = lambda *words: (sys.executable, "-c", SCRIPT, *words)
folder = sys.argv[1]
side_by_side.run_side_by_side(PARTS, lambda part: (folder, [part.name, "60", "0"]), pathlib.Path(folder), 2, 1)
"""


@pytest.mark.skipif(os.name == "nt", reason="Windows tells all processes of a terminal itself")
@pytest.mark.parametrize("number", [signal.SIGINT, *TOLD_TO_STOP])
def test_a_signal_ends_the_parts_tidily(tmp_path, number):
    process = subprocess.Popen([sys.executable, "-c", PROGRAM, tmp_path], stderr=subprocess.PIPE)
    try:
        for name in ("dense", "other"):
            wait_for(lambda log=tmp_path / f"{name}.log": log.exists() and log.read_text())
        process.send_signal(number)
        assert b"KeyboardInterrupt" in process.communicate(timeout=60)[1]
    finally:
        process.kill()
    assert sorted(file.stem for file in tmp_path.glob("*.json")) == ["dense", "other"], "they ended by themselves"


def test_a_log_that_cannot_be_written_leaves_no_part_behind(beside, tmp_path, monkeypatch):
    started = []
    start = side_by_side.start_process

    def starting(command, log, variables):
        if started:
            raise OSError("No space left on device")
        started.append(start((*command[:-2], "60", "0"), log, variables))
        wait_for(lambda: log.read_text())
        return started[0]

    monkeypatch.setattr(side_by_side, "start_process", starting)
    with pytest.raises(OSError, match="No space left"):
        beside()
    assert started[0].poll() is not None


LAUNCHER = """
import pathlib, sys, time
from gated_bert.experiments.sweeps.backends import start_process
folder = pathlib.Path(sys.argv[1])
start_process([sys.executable, folder / "part.py", folder], folder / "log", {})
time.sleep(120)
"""
PART = """
import os, sys, time
from gated_bert.cli import main
main._run_command = lambda *words: print(os.getpid(), flush=True) or time.sleep(120)
sys.exit(main.main(["study", "embedded", "--scale", "smoke", "-o", sys.argv[1]]))
"""


def test_a_part_stops_when_the_study_is_gone(tmp_path):
    """Also one that was killed: every command that has a launcher looks for it, as jobs do."""
    (tmp_path / "part.py").write_text(PART)
    process = subprocess.Popen([sys.executable, "-c", LAUNCHER, tmp_path])
    try:
        wait_for(lambda: (tmp_path / "log").exists() and (tmp_path / "log").read_text())
    finally:
        process.kill()
        process.wait()
    number = int((tmp_path / "log").read_text().split()[0])
    wait_for(lambda: not psutil.pid_exists(number) or psutil.Process(number).status() == psutil.STATUS_ZOMBIE)
    assert "stopped" in (tmp_path / "log").read_text(), "it was told so, and not killed"


def test_chosen_parts_bring_what_they_start_from(tmp_path):
    assert [part.name for part in with_needed(PARTS, ["both"])] == ["dense", "other", "taught", "both"]
    with pytest.raises(FlagError, match="--parts: 'taugt' is refused; allowed: dense, other.* .did you mean taught"):
        with_needed(PARTS, ["taugt"])
    calls = []
    run_study("accuracy", "smoke", tmp_path, lambda command, words: calls.append(words[-1]) or len(calls) - 1,
              data="hub", pretrained="x", names=["sst2-trained-1"])  # fmt: skip
    assert [call.rsplit("/")[-1] for call in calls] == ["sst2-dense", "sst2-trained-1"]


def test_parts_are_named_on_the_command_line(tmp_path, monkeypatch, capsys):
    calls = []
    monkeypatch.setattr(cli, "_run_command", lambda command, words: calls.append(words) or len(calls) - 1)
    words = ["study", "patterns", "--scale", "smoke", "-o", str(tmp_path), "--parts"]
    last, first = (STUDIES["patterns"].parts["smoke"][place].name for place in (-1, 0))
    assert main([*words, f"{last},{first}"]) == 1
    assert [call[-1].rsplit("/")[-1] for call in calls] == [first, last]
    assert main([*words, ","]) == main([*words, "nope"]) == 2
    told = capsys.readouterr().err
    assert "--parts" in told and "'nope' is refused; allowed: " in told


@pytest.mark.parametrize("name", STUDIES)
def test_what_the_parts_of_a_study_need_comes_before_them(name):
    for parts in STUDIES[name].parts.values():
        for place, part in enumerate(parts):
            assert needs(part) <= {before.name for before in parts[:place]}


@pytest.mark.nightly
def test_a_study_beside_each_other(tmp_path):
    words = ["study", "embedded", "--scale", "smoke", "-o", str(tmp_path / "study"), "--parts-at-a-time", "2"]
    assert main(words) == 0
    assert (tmp_path / "study" / "comparison.csv").exists()
    assert all((tmp_path / "study" / f"{part.name}.log").exists() for part in STUDIES["embedded"].parts["smoke"])
