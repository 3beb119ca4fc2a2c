"""Damaged files of every kind against every command that reads them.

GATED_BERT_FUZZ names how many examples are tried, forty by default; more than that are drawn anew every time.
"""

import itertools
import json
import os
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from hypothesis import HealthCheck, Phase, event, given, settings
from hypothesis import strategies as st

from tests.fuzz.mutations import mutate
from tests.fuzz.place import READERS, build

pytest.importorskip("onnxruntime")
pytestmark = pytest.mark.timeout(7200)

EXAMPLES = int(os.environ.get("GATED_BERT_FUZZ", "15"))
SECONDS = 120
"""Of processor time that a command may take."""
REPOSITORY = Path(__file__).resolve().parents[2]
NOISE = ("WARNING: All log", "I0000", "W0000", "E0000", "note: ", "warning: ")
"""How lines of TensorFlow's own start, and those that a command may say before it ends."""


class Worker:
    """The warm process, started again when one command has ended it; every command starts from a copy of `folder`."""

    def __init__(self, folder: Path, own: Path):
        self.folder, self._own, self.process = folder, own, None

    def run(self, cwd: Path, words: tuple[str, ...]) -> dict:
        if self.process is None:
            self._start()
        self.process.stdin.write(json.dumps({"cwd": str(cwd), "words": words}) + "\n")
        self.process.stdin.flush()
        ready = self._wait()
        line = self.answers.readline() if ready else ""
        if not line:
            self.stop()
            return {"status": "too slow" if not ready else "died", "out": "", "err": ""}
        return json.loads(line)

    def _wait(self) -> bool:
        """Whether an answer comes before the command has had its processor time: others may keep the machine busy."""
        process = psutil.Process(self.process.pid)
        before, began = sum(process.cpu_times()[:2]), time.monotonic()
        while sum(process.cpu_times()[:2]) - before < SECONDS and time.monotonic() - began < 20 * SECONDS:
            if select.select([self.answers], [], [], 1)[0]:
                return True
        return False

    def _start(self):
        read, write = os.pipe()
        environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("worker.py")), str(write)], cwd=self._own, text=True,
            env=environment, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            pass_fds=[write],
        )  # fmt: skip
        os.close(write)
        self.answers = os.fdopen(read)
        # What is imported once is no part of a command's time and memory.
        place = Path(shutil.copytree(self.folder, self._own / "warm", dirs_exist_ok=True))
        for warm in (("inspect", "m"), ("compare", "runs", "-o", "out")):
            assert self.run(place, warm)["status"] == 0

    def stop(self):
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


@pytest.fixture(scope="module")
def worker(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fuzz")
    build(folder / "whole")
    worker = Worker(folder / "whole", folder)
    yield worker
    worker.stop()


def contents(place: Path) -> set[str]:
    """Names of all that is in a folder but `out`, without what locks it."""
    return {str(path.relative_to(place)) for path in place.rglob("*") if path.relative_to(place).parts[0] != "out"}


def fault(answer: dict, before: set[str], after: set[str]) -> str | None:
    """What is wrong with how a command ended; None where it ended as documented."""
    shown = [line for line in answer["err"].splitlines() if line.strip() and not line.startswith(NOISE)]
    if answer["status"] not in (0, 1, 2):
        return f"ended with {answer['status']}"
    if "Traceback" in answer["err"] + answer["out"]:
        return "a traceback"
    if answer["status"] == 2 and (len(shown) != 1 or not shown[0].startswith("error: ")):
        return "a refusal that is not one line"
    if answer["status"] == 2 and len(shown[0]) > 2000:
        return "a refusal of more than 2,000 characters"
    return f"new: {sorted(after - before)}" if after - before else None


@pytest.mark.nightly
def test_whole_files_are_taken(worker, tmp_path):
    place = tmp_path / "checked"
    for words in dict.fromkeys(itertools.chain.from_iterable(READERS.values())):
        shutil.copytree(worker.folder, place)
        answer = worker.run(place, words)
        refused = words[0] in ("train", "activation-change")
        assert answer["status"] == (2 if refused else 0), (words, answer)
        shutil.rmtree(place)


@settings(
    max_examples=EXAMPLES, derandomize=EXAMPLES <= 100, deadline=None, database=None, print_blob=False,
    phases=[Phase.generate], suppress_health_check=list(HealthCheck), report_multiple_bugs=False,
)  # fmt: skip
@given(data=st.data())
def test_damaged_files_end_every_command_as_documented(worker, tmp_path, data):
    path = data.draw(st.sampled_from(sorted(READERS)))
    words = data.draw(st.sampled_from(READERS[path]))
    place = tmp_path / "checked"
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(worker.folder, place)
    mutate(data.draw, place / path)
    before = contents(place)
    answer = worker.run(place, words)
    event(f"status {answer['status']}")
    wrong = fault(answer, before, contents(place))
    assert wrong is None, f"{path}: {' '.join(words)}: {wrong}\n{answer['err'][-3000:]}"
