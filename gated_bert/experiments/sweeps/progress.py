"""What a sweep shows while it runs: live bars on a terminal, plain lines elsewhere, and the jobs' logs."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol, TypeGuard

from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from gated_bert.experiments.reports.run_layout import LOG_FILE
from gated_bert.experiments.sweeps.jobs import Job
from gated_bert.experiments.sweeps.overview import clock
from gated_bert.support.errors import printable
from gated_bert.support.inside import open_inside
from gated_bert.support.quiet import without_library_lines

ENDED = ("finished", "failed", "stopped", "skipped")
_MOST_BYTES = 2**24
"""Of a log's new lines that are read at once."""
_STYLES = {"finished": "green", "skipped": "green", "failed": "bold red", "stopped": "yellow", "waiting": "dim"}


class View(Protocol):
    """A job as a display sees it: `JobView`, or a run that another process has started."""

    state: str
    status: dict
    seconds: float | None

    @property
    def name(self) -> str:
        """How people see it."""

    @property
    def folder(self) -> Path:
        """Where it writes."""

    @property
    def root(self) -> Path:
        """The folder outside of which nothing is read."""

    @property
    def silent(self) -> float | None:
        """Seconds since it last said anything, where that may mean that it is no more."""

    @property
    def fraction(self) -> float:
        """How much of it is done, 0 to 1."""


@dataclass
class JobView:
    """A job as its launcher sees it.

    Attributes:
        job: the job.
        state: waiting, starting, running, finished, skipped, failed or stopped.
        status: what the job last wrote of itself.
        seconds: how long it has run.
    """

    job: Job
    state: str = "waiting"
    status: dict = field(default_factory=dict)
    seconds: float | None = None
    silent: None = None

    @property
    def name(self) -> str:
        return self.job.name

    @property
    def folder(self) -> Path:
        return self.job.folder

    @property
    def root(self) -> Path:
        return self.job.folder

    @property
    def fraction(self) -> float:
        """How much of the run is done, 0 to 1."""
        return share_done(self.state, self.status)


def share_done(state: str, status: Mapping) -> float:
    """How much of a run is done, 0 to 1, by what it wrote of itself."""
    if state in ("finished", "skipped"):
        return 1.0
    epoch, epochs, step, steps = (_count(status.get(name)) for name in ("epoch", "epochs", "step", "steps"))
    if not epochs or not epoch:
        return 0.0
    return max(0.0, min(1.0, (epoch - 1 + (min(step / steps, 1.0) if steps else 0.0)) / epochs))


def _count(value: object) -> float:
    return value if _is_number(value) else 0


def _is_number(value: object) -> TypeGuard[float]:
    # A status may be anybody's.
    return isinstance(value, int | float) and math.isfinite(value)


def _epoch(view: View) -> str:
    status = view.status
    return f"{status['epoch']}/{status.get('epochs', '?')}" if status.get("epoch") else "–"


def _step(view: View) -> str:
    return f"{view.status['step']}/{view.status.get('steps', '?')}" if view.status.get("steps") else "–"


def _metric(view: View) -> str:
    value = view.status.get("metric")
    return f"{value:.3f}" if _is_number(value) else "–"


def _sparsity(view: View) -> str:
    value = view.status.get("sparsity")
    return f"{100 * value:.1f} %" if _is_number(value) else "–"


def _left(view: View) -> str:
    left = view.status.get("seconds_left")
    if view.state == "running" and view.silent is not None:
        return f"silent for {clock(view.silent)}"
    if view.state == "running":
        return clock(left) if _is_number(left) else "…"
    told = view.status.get("message") if view.state == "starting" else None
    return printable(str(told)) if told else view.state


def numbers(view: View) -> dict[str, str]:
    """What there is to say of a job beside its name and bar, as text: epoch, step, metric, sparsity and time left."""
    return {"epoch": _epoch(view), "step": _step(view), "metric": _metric(view), "sparsity": _sparsity(view),
            "left": _left(view)}  # fmt: skip


def metric_name(views: Sequence[View]) -> str:
    """The metric of all jobs, or "metric" where they have several."""
    names = {view.status.get("metric_name") for view in views} - {None}
    return str(names.pop()) if len(names) == 1 else "metric"


class LogLines:
    """Follows the logs of all jobs and hands out what is new, line by line.

    Args:
        views: the jobs.
        all_lines: whether to keep what TensorFlow's own library writes, which no setting of it silences.
    """

    def __init__(self, views: Sequence[View], all_lines: bool = False):
        self._all_lines = all_lines
        # A log that is there before the job starts is an earlier run's, which --resume goes on with.
        self._offsets = {view.folder: _size(view) for view in views}

    def new(self, views: Sequence[View]) -> list[str]:
        """`[job] line` for every complete line that was written since the last call."""
        lines = []
        for view in views:
            start = self._offsets.get(view.folder, 0)
            text = _after(view, start)
            end = len(text) if view.state in ENDED or len(text) == _MOST_BYTES else text.rfind(b"\n") + 1
            self._offsets[view.folder] = start + end
            for line in text[:end].decode("utf-8", "replace").split("\n"):
                # Of a line that was overwritten in place, the last state counts.
                line = line.rstrip().rpartition("\r")[2]
                if line and (self._all_lines or without_library_lines(line)):
                    lines.append(f"[{view.name}] {printable(line)}")
        return lines


def _size(view: View) -> int:
    """Bytes of a job's log; 0 where there is none that may be read."""
    try:
        with open_inside(view.folder / LOG_FILE, view.root) as file:
            return os.fstat(file.fileno()).st_size
    except OSError:
        return 0


def _after(view: View, start: int) -> bytes:
    """What stands in a job's log from a place on, up to `_MOST_BYTES`."""
    try:
        with open_inside(view.folder / LOG_FILE, view.root) as file:
            file.seek(start)
            return file.read(_MOST_BYTES)
    except OSError:
        return b""


class Display:
    """Shows the state of all jobs.

    Args:
        mode: "bars", "logs" or "both".
        live: whether bars are redrawn in place (a terminal) or told as plain lines at every tenth.
        verbosity: 0 shows nothing, 2 also TensorFlow's own log lines.
        console: where to; by default the standard output.
    """

    def __init__(self, mode: str, live: bool, verbosity: int = 1, console: Console | None = None):
        self.console = console or Console()
        self._bars = verbosity > 0 and mode in ("bars", "both")
        self._logs = verbosity > 0 and mode in ("logs", "both")
        self._all_lines = verbosity > 1
        self._live = (
            Live(console=self.console, auto_refresh=False, vertical_overflow="crop") if live and self._bars else None
        )
        self._lines: LogLines | None = None
        self._told: dict[Path, tuple[str, int]] = {}

    def start(self, views: Sequence[View]) -> None:
        """Begins to show `views`."""
        self._lines = LogLines(views, self._all_lines)
        if self._live:
            self._live.start()
        self.update(views)

    def update(self, views: Sequence[View]) -> None:
        """Shows what has changed."""
        if self._logs and self._lines is not None:
            for line in self._lines.new(views):
                self.console.print(line, markup=False, emoji=False, highlight=False, soft_wrap=True)
        if self._live:
            self._live.update(self.table(views), refresh=True)
        elif self._bars:
            for view in views:
                self._tell(view)

    def stop(self) -> None:
        """Ends the live part and leaves its last state on the screen."""
        if self._live:
            self._live.stop()

    def table(self, views: Sequence[View]) -> Table:
        """The bars as a table that fits the window: what runs and what failed first, the rest counted."""
        room = max(3, self.console.height - 5)
        table = Table(box=None, padding=(0, 1, 0, 0), caption=summed_up(views), caption_justify="left", expand=False)
        heads = (
            "job",
            "progress",
            "",
            "epoch",
            "step",
            metric_name(views),
            "sparsity",
            "left",
        )
        widest = max(26, self.console.width - 84)
        for head in heads:
            justify: Literal["left", "right"] = "left" if head in ("job", "progress", "left") else "right"
            table.add_column(Text(printable(head)), no_wrap=True, justify=justify, overflow="ellipsis",
                             max_width=widest if head == "job" else None)  # fmt: skip
        for view in _most_telling(views, room):
            style = _STYLES.get(view.state, "")
            bar = ProgressBar(total=1.0, completed=view.fraction, width=max(6, min(30, self.console.width - 74)))
            percent = f"{100 * view.fraction:.0f}%"
            *cells, left = numbers(view).values()
            table.add_row(Text(view.name), bar, percent, *cells, Text(left, style=style))
        return table

    def _tell(self, view: View):
        tenth = int(10 * view.fraction + 1e-9)
        before = self._told.get(view.folder, ("waiting", 0))
        if (view.state, tenth) == before:
            return
        self._told[view.folder] = (view.state, tenth)
        if view.state in ENDED:
            took = "" if view.seconds is None else f" after {clock(view.seconds)}"
            line = f"[{view.name}] {view.state}{took}"
        elif view.state == "running" and tenth:
            line = (f"[{view.name}] {100 * view.fraction:.0f} %: epoch {_epoch(view)}, step {_step(view)}, "
                    f"{view.status.get('metric_name') or 'metric'} {_metric(view)}, sparsity {_sparsity(view)}, "
                    f"{_left(view)} left")  # fmt: skip
        elif view.state == "starting" and before[0] == "waiting":
            line = f"[{view.name}] starting"
        else:
            return
        self.console.print(line, markup=False, emoji=False, highlight=False, soft_wrap=True)


def _most_telling(views: Sequence[View], room: int) -> list[View]:
    order = ("running", "starting", "failed", "stopped", "waiting", "finished", "skipped")
    chosen = sorted(range(len(views)), key=lambda number: order.index(views[number].state))[:room]
    return [views[number] for number in sorted(chosen)]


def summed_up(views: Sequence[View]) -> str:
    """How many of the jobs are in which state."""
    counts: dict[str, int] = {}
    for view in views:
        counts[view.state] = counts.get(view.state, 0) + 1
    total = counts.pop("finished", 0) + counts.pop("skipped", 0)
    return f"{total} of {len(views)} finished" + "".join(f", {number} {state}" for state, number in counts.items())


def make_views(jobs: Sequence[Job], skipped: set[Job]) -> list[JobView]:
    """A view for every job, in order."""
    return [JobView(job, "skipped" if job in skipped else "waiting") for job in jobs]


def wait_a_moment() -> None:
    """The pause between two looks at the jobs: short enough for a bar to move, long enough to cost nothing."""
    time.sleep(0.2)
