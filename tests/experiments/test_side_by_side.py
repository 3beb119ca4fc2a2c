"""Parts of a study beside each other: what waits for what, what runs alone, what ends how."""

import json
import signal
import subprocess
import sys
import time

import pytest

from gated_bert.cli.main import main
from gated_bert.experiments.studies import side_by_side
from gated_bert.experiments.studies.catalogue import STUDIES
from gated_bert.experiments.studies.part import Part, needs, with_needed
from gated_bert.experiments.studies.side_by_side import log_file, run_side_by_side
from gated_bert.experiments.studies.study import run_study
from gated_bert.support.checks import FlagError

SCRIPT = """
import json, sys, time
folder, name, seconds, status = sys.argv[2:]
began = time.time()
print("this is", name)
try:
    time.sleep(float(seconds))
except KeyboardInterrupt:
    status = 130
json.dump([began, time.time(), int(status)], open(f"{folder}/{name}.json", "w"))
sys.exit(int(status))
"""
PARTS = (
    Part("dense", "a"),
    Part("other", "a"),
    Part("family", "-pt {study}/dense/run/model", "compress"),
    Part("taught", "-pt {study}/dense/run/model"),
    Part("both", "{study}/taught {study}/other/run", "iou"),
)


@pytest.fixture
def beside(monkeypatch, tmp_path):
    """`beside(seconds, fails, …)` runs the parts, and returns the exit status and of each when it began and ended."""

    def run(seconds: float = 0.3, fails: str = "", at_a_time: int = 3, parts=PARTS):
        monkeypatch.setattr(side_by_side, "python_command", lambda *words: (sys.executable, "-c", SCRIPT, *words))
        status = run_side_by_side(
            parts, lambda part: [str(tmp_path), part.name, str(seconds), "1" if part.name == fails else "0"],
            tmp_path, at_a_time,
        )  # fmt: skip
        return status, {file.stem: json.loads(file.read_text()) for file in tmp_path.glob("*.json")}

    return run


def test_a_part_waits_for_what_it_starts_from_and_one_that_measures_runs_alone(beside, capsys, tmp_path):
    status, found = beside()
    assert status == 0 and set(found) == {part.name for part in PARTS}
    for part in PARTS:
        assert all(found[other][1] <= found[part.name][0] for other in needs(part))
        assert log_file(tmp_path, part).read_text() == f"this is {part.name}\n"
    assert found["other"][0] < found["dense"][1], "these two need nothing, and run at once"
    began, ended, _ = found.pop("family")
    assert all(end <= began or start >= ended for start, end, _ in found.values())
    assert "taught: done" in capsys.readouterr().out


def test_no_more_than_asked_for_run_at_once(beside):
    _, found = beside(at_a_time=2, seconds=0.2, parts=[Part(f"part{number}", "") for number in range(5)])
    starts = [start for start, _, _ in found.values()]
    assert max(sum(start <= moment < end for start, end, _ in found.values()) for moment in starts) == 2


def test_after_a_part_that_failed_no_other_begins(beside, capsys):
    status, found = beside(fails="dense")
    assert status == 1 and set(found) == {"dense", "other"}
    told = capsys.readouterr().out
    assert "dense: exit status 1; the end of" in told and "  this is dense" in told


def test_ctrl_c_reaches_the_parts_and_waits_for_them(tmp_path):
    program = f"""
import sys
from gated_bert.experiments.studies import side_by_side
from tests.experiments.test_side_by_side import PARTS, SCRIPT
side_by_side.python_command = lambda *words: (sys.executable, "-c", SCRIPT, *words)
side_by_side.run_side_by_side(PARTS, lambda part: [{str(tmp_path)!r}, part.name, "60", "0"],
                              __import__("pathlib").Path({str(tmp_path)!r}), 2)
"""
    process = subprocess.Popen([sys.executable, "-c", program], start_new_session=True, stderr=subprocess.PIPE)
    waited = time.monotonic() + 60
    while not all((tmp_path / f"{name}.log").exists() for name in ("dense", "other")) and time.monotonic() < waited:
        time.sleep(0.05)
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    assert b"KeyboardInterrupt" in process.communicate(timeout=60)[1]
    assert sorted(file.stem for file in tmp_path.glob("*.json")) == ["dense", "other"]
    assert all(json.loads(file.read_text())[2] == 130 for file in tmp_path.glob("*.json"))


def test_chosen_parts_bring_what_they_start_from(tmp_path):
    assert [part.name for part in with_needed(PARTS, ["both"])] == ["dense", "other", "taught", "both"]
    with pytest.raises(FlagError, match="--parts: 'taugt' is refused; allowed: dense, other.* .did you mean taught"):
        with_needed(PARTS, ["taugt"])
    calls = []
    run_study("accuracy", "smoke", tmp_path, lambda command, words: calls.append(words[-1]) or len(calls) - 1,
              data="hub", pretrained="x", names=["sst2-trained-1"])  # fmt: skip
    assert [call.rsplit("/")[-1] for call in calls] == ["sst2-dense", "sst2-trained-1"]


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
