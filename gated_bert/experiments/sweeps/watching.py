"""Runs that other processes started, here, on a cluster or by Slurm, seen by the files that they write."""

from __future__ import annotations

import csv
import hashlib
import math
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gated_bert.experiments.reports.run_layout import JOB_FILE, LOG_FILE, METADATA, ROWS, STATUS_FILE, SWEEP_FILE
from gated_bert.experiments.runs.lifecycle import FINISHED
from gated_bert.experiments.runs.output_folder import SAVED
from gated_bert.experiments.sweeps.progress import ENDED, Display, share_done, wait_a_moment
from gated_bert.support.errors import UserError, printable
from gated_bert.support.inside import open_inside
from gated_bert.support.quiet import last_lines
from gated_bert.support.records import parse_record
from gated_bert.support.schemas import JobStatus, PlannedSweep, RunState

SILENT_SECONDS = 60.0
"""A run that says nothing for so long may evaluate, or be gone: what it said last does not tell."""
_STATES = ("waiting", "starting", "running", *ENDED)
_LOOK_SECONDS = 2.0
_MOST_BYTES, _TAIL_BYTES, _MOST_POINTS = 2**24, 2**16, 400


@dataclass
class WatchedRun:
    """A run of a watched folder.

    Attributes:
        name: how people see it.
        folder: where it writes.
        key: what it is called by in addresses.
        root: the folder outside of which nothing is read.
        state: waiting, starting, running, finished, failed or stopped.
        status: what it last wrote of itself.
        silent: seconds since then, where it runs and these are many.
    """

    name: str
    folder: Path
    key: str
    root: Path
    state: str = "waiting"
    status: dict = field(default_factory=dict)
    seconds: float | None = None
    silent: float | None = None

    @property
    def fraction(self) -> float:
        """How much of the run is done, 0 to 1."""
        return share_done(self.state, self.status)


class Watch:
    """The runs in and below a folder. Nothing outside of it is read, wherever links in it lead.

    Args:
        folder: a run's, a sweep's, or one above several.

    Raises:
        UserError: no folder, or one without runs.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        if not folder.is_dir():
            raise UserError(f"watch: {str(folder)!r} is refused; allowed: an existing folder of runs")
        self.root = folder.resolve()
        self._looked = -math.inf
        self._found: dict[Path, str] = {}
        self._rows: dict[Path, tuple[tuple, list[dict[str, float]]]] = {}
        if not self.look():
            raise UserError(f"watch: no runs in {folder}; give the folder of a sweep (-o) or of one run")

    def look(self) -> list[WatchedRun]:
        """The runs as they are now."""
        if time.monotonic() - self._looked > _LOOK_SECONDS:
            self._found, self._looked = dict(self._runs()), time.monotonic()
        runs = [WatchedRun(name, folder, _key(folder.relative_to(self.root)), self.root)
                for folder, name in self._found.items()]  # fmt: skip
        for run in runs:
            self._take_status(run)
        return runs

    def rows(self, run: WatchedRun) -> list[dict[str, float]]:
        """The rows of a run's epochs so far, thinned out where they are many; what is no number is left out."""
        try:
            path = max(run.folder.glob(ROWS), key=lambda each: each.stat().st_mtime_ns)
            about = path.stat()
            stamp = (path, about.st_mtime_ns, about.st_size)
            if self._rows.get(run.folder, (None,))[0] != stamp:
                text = self._read(path, _MOST_BYTES)[0]
                rows = [_numbers(row) for row in csv.DictReader(text.splitlines())]
                self._rows[run.folder] = stamp, rows[:: max(1, math.ceil(len(rows) / _MOST_POINTS))]
        except (OSError, ValueError, csv.Error):
            return []
        return self._rows[run.folder][1]

    def log(self, run: WatchedRun, lines: int = 40) -> str:
        """The last lines of a run's log; "" where there is none."""
        try:
            text, cut = self._read(run.folder / LOG_FILE, _TAIL_BYTES, end=True)
            return last_lines(text, lines, cut)
        except (OSError, ValueError):
            return ""

    def _runs(self) -> Iterator[tuple[Path, str]]:
        """Folder and name of every run, those first whose order a launcher wrote down."""
        found: dict[Path, str] = {}
        for here, below, files in os.walk(self.root):
            folder = Path(here)
            planned = self._record(folder / SWEEP_FILE, PlannedSweep).get("runs", []) if SWEEP_FILE in files else []
            for run in planned:
                if run["folder"] == Path(run["folder"]).name:
                    found[folder / run["folder"]] = run["name"]
            if {STATUS_FILE, JOB_FILE} & set(files) or any(folder.glob(ROWS)):
                place = folder.relative_to(self.root).as_posix()
                found.setdefault(folder, (folder.name if place == "." else place).replace("results_", ""))
                below.clear()
            below[:] = sorted(name for name in below if name != SAVED and not name.startswith("."))
        for folder, name in found.items():
            yield folder, printable(name.encode("utf-8", "backslashreplace").decode())

    def _take_status(self, run: WatchedRun):
        run.status = self._record(run.folder / STATUS_FILE, JobStatus)
        state = run.status.get("state")
        if state is None:
            written = [self._record(path, RunState).get("status") for path in sorted(run.folder.glob(METADATA))]
            state = FINISHED if written[-1:] == [FINISHED] else "waiting"
        run.state = state if state in _STATES else "waiting"
        updated = run.status.get("updated")
        if run.state == "running" and isinstance(updated, int | float) and math.isfinite(updated):
            passed = time.time() - updated
            run.silent = passed if passed > SILENT_SECONDS else None

    def _record(self, path: Path, schema: type) -> dict[str, Any]:
        try:
            text, _ = self._read(path, _MOST_BYTES)
            return parse_record(text, schema, where=path.name, nan=True)
        except (OSError, ValueError, UserError):
            return {}

    def _read(self, path: Path, most: int, end: bool = False) -> tuple[str, bool]:
        """A file's text, or its end, and whether something before it was left out.

        Raises:
            OSError: as of `open_inside`, or too large a file.
        """
        with open_inside(path, self.root) as file:
            size = os.fstat(file.fileno()).st_size
            if size > most and not end:
                raise OSError(f"{path} is no file of up to {most} bytes")
            start = max(0, size - most)
            file.seek(start)
            return file.read(most).decode("utf-8", "replace"), bool(start)


def _key(folder: Path) -> str:
    return hashlib.sha256(os.fsencode(folder)).hexdigest()[:16]


def _numbers(row: dict) -> dict[str, float]:
    found = {}
    for name, cell in row.items():
        try:
            value = float(cell)
        except (TypeError, ValueError):
            continue
        if isinstance(name, str) and math.isfinite(value):
            found[name] = value
    return found


def follow(watch: Watch, display: Display) -> None:
    """Shows the runs until all have ended."""
    runs = watch.look()
    display.start(runs)
    try:
        while any(run.state not in ENDED for run in runs):
            wait_a_moment()
            runs = watch.look()
            display.update(runs)
    finally:
        display.stop()
