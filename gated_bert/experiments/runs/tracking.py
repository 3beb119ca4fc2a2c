"""What trackers are told of a run, from threads of their own: one that fails or hangs stops nothing else."""

from __future__ import annotations

import logging
import os
import queue
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gated_bert.experiments.reports.run_layout import TRACKING
from gated_bert.experiments.runs.lifecycle import FAILED, STOPPED
from gated_bert.experiments.runs.trackers import ANSWER_SECONDS, MAKERS, Followed, Tracker
from gated_bert.support.environ import LAUNCHER_VARIABLE, verbosity
from gated_bert.support.errors import one_line, printable
from gated_bert.support.files import write_json_atomic
from gated_bert.support.records import read_record
from gated_bert.support.schemas import TrackedRun

LOGGER = logging.getLogger("gated_bert")
_AT_A_STOP = 10
"""Seconds that a stopped run waits for its trackers: it is killed soon after it was told to stop."""


class Tracking:
    """The trackers that follow one run, or one sweep.

    The folder's `tracking.json` holds what each of them calls it and the last epoch that it was told, so that a run
    that goes on does so in the same tracked run, without a row twice.

    Args:
        names: the trackers.
        folder: the folder of the run or sweep.
        resume: whether it goes on.
        home: the folder of the sweep, where a tracker without a server keeps its files; by default the one above.

    Attributes:
        faults: one sentence for each tracker that failed.
    """

    def __init__(self, names: Sequence[str], folder: Path, resume: bool, home: Path | None = None):
        self.folder = folder.absolute()
        self._home = (home or folder.parent).absolute()
        before = read_record(folder / TRACKING, TrackedRun, tolerant=True) or {}
        anew: dict[str, Any] = {"runs": {}, "sent": {}}
        self.known: dict[str, Any] = {"group": None, "parents": {}, **anew, **before, **({} if resume else anew)}
        self.faults: list[str] = []
        self._lock = threading.Lock()
        self._workers = [_Worker(name, self) for name in names]

    def begin(self, fields: Mapping[str, Any], about: Mapping[str, Any], rows: Sequence[Mapping[str, float]]) -> None:
        """Opens the tracked runs.

        Args:
            fields: the configuration.
            about: the metadata.
            rows: those of the epochs before it was stopped; a tracker gets what it has not got yet.
        """
        for worker in self._workers:
            run, parent = (self.known[what].get(worker.name) for what in ("runs", "parents"))
            worker.begin(Followed(self.folder, self._home, fields, about, run, parent, self.known["group"]))
        for row in rows:
            self.row(row)

    def wait_until_open(self) -> None:
        """Waits until every tracker has opened its run, or has failed, and no longer than a while."""
        deadline = time.monotonic() + ANSWER_SECONDS
        for worker in self._workers:
            worker.opened.wait(max(0.0, deadline - time.monotonic()))

    def row(self, row: Mapping[str, float]) -> None:
        """Tells an epoch's row."""
        for worker in self._workers:
            worker.row(dict(row))

    def end(self, state: str, files: Sequence[Path] = (), model: Path | None = None) -> None:
        """Closes the tracked runs, and waits for it no longer than a while.

        Args:
            state: how it ended.
            files: pictures, tables and pages.
            model: the model folder.
        """
        deadline = time.monotonic() + (_AT_A_STOP if state == STOPPED else ANSWER_SECONDS)
        for worker in self._workers:
            worker.end(state, files, model and model.absolute())
        for worker in self._workers:
            worker.wait(deadline)

    def note(self, **fields: Mapping[str, Any]) -> None:
        """Adds to what the folder's `tracking.json` holds of one of the trackers."""
        with self._lock:
            for name, values in fields.items():
                self.known[name] = {**self.known[name], **values}
            write_json_atomic(self.folder / TRACKING, self.known)

    def fail(self, name: str, why: str) -> None:
        """Says that a tracker is left alone from now on."""
        fault = printable(f"--track {name}: {why}; it follows this run no further")
        self.faults.append(fault)
        # Not as a warning, which is printed besides where no log is open.
        LOGGER.info("%s", fault)
        if LAUNCHER_VARIABLE not in os.environ and verbosity(os.environ):
            print(f"warning: {fault}", file=sys.stderr, flush=True)


class _Worker:
    """One tracker, and the thread that talks to it."""

    def __init__(self, name: str, tracking: Tracking):
        self.name, self._tracking = name, tracking
        self._tracker: Tracker = MAKERS[name]()
        self._tasks: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name=f"track {name}", daemon=True)
        self._off = False
        self.opened = threading.Event()

    def begin(self, run: Followed):
        def open_it():
            self._tracking.note(runs={self.name: self._tracker.begin(run)})
            self.opened.set()

        self._tasks.put(open_it)
        self._thread.start()

    def row(self, row: Mapping[str, float]):
        def send():
            if row["epoch"] > self._tracking.known["sent"].get(self.name, -1):
                self._tracker.log(row)
                self._tracking.note(sent={self.name: row["epoch"]})

        self._tasks.put(send)

    def end(self, state: str, files: Sequence[Path], model: Path | None):
        self._tasks.put(lambda: self._tracker.end(state, files, model))
        self._tasks.put(None)

    def wait(self, deadline: float):
        if self._thread.ident is None:
            return
        self._thread.join(max(0.0, deadline - time.monotonic()))
        if self._thread.is_alive() and not self._off:
            self._off = True
            self._tracking.fail(self.name, "no answer in time")

    def _work(self):
        try:
            while (task := self._tasks.get()) is not None and not self._off:
                task()
        # Whatever a tracker's library raises, an exit of the process among it: training is worth more.
        except BaseException as error:
            if not self._off:
                self._off = True
                self._tracking.fail(self.name, one_line(error))
        finally:
            self.opened.set()


@contextmanager
def tracked_sweep(names: Sequence[str], output: Path, resume: bool) -> Iterator[Tracking]:
    """Follows a sweep while the block runs its jobs: what their tracked runs stand below is in `output`.

    Args:
        names: the trackers of its runs.
        output: the folder of the sweep.
        resume: whether the sweep goes on.

    Yields:
        What is to be told how it ended.
    """
    # Of the others, W&B knows groups by a name, and TensorBoard by the folder that the runs are in.
    tracking = Tracking([name for name in names if name == "mlflow"], output, resume, home=output)
    if names:
        if not (resume and tracking.known["group"]):
            tracking.known["group"] = f"{tracking.folder.name}-{uuid.uuid4().hex[:8]}"
        tracking.note()
        tracking.begin({}, {}, ())
        tracking.wait_until_open()
    try:
        yield tracking
    except BaseException:
        tracking.end(FAILED)
        raise
