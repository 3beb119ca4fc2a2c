"""The log of what a run takes: wall time, memory, processor, GPU memory, as CSV and plot."""

from __future__ import annotations

import csv
import math
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from gated_bert.experiments.reports.drawing import png, tolerated
from gated_bert.pruning.callbacks import StepCallback
from gated_bert.support.backend import gpu_memory
from gated_bert.support.disk import own
from gated_bert.support.files import write_bytes_atomic
from gated_bert.support.machine import peak_memory

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CSV = "resources.csv"
COLUMNS = ("seconds", "event", "epoch", "memory_mb", "memory_peak_mb", "cpu_percent", "gpu_memory_mb",
           "gpu_memory_peak_mb", "time")  # fmt: skip
MB = 1e6
SHORTEST = 0.1
"""Seconds below which processor time, which is counted in hundredths of a second, says nothing."""


class ResourceLog:
    """Writes a reading at every event and at a fixed interval, from a thread of its own, while it is entered.

    A reading holds: seconds since the log began; `start`, `epoch begin`, `epoch end`, `interval` or `end`; the epoch;
    memory of the process (resident set) now and at most so far; processor time over wall time since the last reading in
    per cent of one core; GPU memory, where there is a GPU; and the time of day.

    Args:
        folder: where the CSV and, of the same name, the PNG go.
        interval: seconds between two readings; 0 writes nothing.
        going_on: whether to add to the log of a run that was stopped.
        name: name of the CSV.
    """

    def __init__(self, folder: Path, interval: float, going_on: bool = False, name: str = CSV):
        # Its thread reads on while a library is loaded from elsewhere.
        self.path, self.interval = Path(folder).absolute() / name, interval
        self._epoch = 0
        self._began = time.time()
        self._lock, self._stop = threading.Lock(), threading.Event()
        self._thread = threading.Thread(target=self._watch, name="resource log", daemon=True)
        self._process = psutil.Process()
        self._last: tuple[float, float] | None = None
        if interval and going_on and self.path.is_file():
            self._began = self._beginning() or self._began
        elif interval:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            own(self.path).write_text(",".join(COLUMNS) + "\n", encoding="utf-8")

    def __enter__(self) -> ResourceLog:
        if self.interval:
            self.read("start")
            self._thread.start()
        return self

    def __exit__(self, *error):
        if self.interval:
            self._stop.set()
            self._thread.join()
            self.read("end")

    def read(self, event: str, epoch: int | None = None):
        """Adds a reading, in `epoch` (from 1) and all that follow until the next one that names an epoch."""
        with self._lock:
            self._epoch = self._epoch if epoch is None else epoch
            now, used = time.time(), self._process.cpu_times()
            busy = used.user + used.system
            share = None
            if self._last is None or now - self._last[0] >= SHORTEST:
                share = self._last and 100 * (busy - self._last[1]) / (now - self._last[0])
                self._last = (now, busy)
            # Not before the backend is in use: asking for its devices starts it, and takes the GPU's memory.
            gpu = gpu_memory() if self._epoch else None
            held = self._process.memory_info().rss
            row = [f"{now - self._began:.6f}", event, self._epoch, f"{held / MB:.1f}",
                   f"{max(held, peak_memory()) / MB:.1f}", "" if share is None else f"{share:.1f}",
                   *([f"{value / MB:.1f}" for value in gpu] if gpu else ["", ""]), f"{now:.6f}"]  # fmt: skip
            with open(own(self.path), "a", newline="", encoding="utf-8") as file:
                csv.writer(file, lineterminator="\n").writerow(row)

    def plot(self, failed: list[str] | None = None):
        """Draws the log so far; nothing where none is kept. `failed` gets a line where it cannot be drawn."""
        if self.interval:
            path = self.path.with_suffix(".png")
            with tolerated(path, failed):
                write_bytes_atomic(path, png(resource_figure(self.path)))

    def _watch(self):
        while not self._stop.wait(self.interval):
            self.read("interval")

    def _beginning(self) -> float | None:
        try:
            with open(self.path, newline="", encoding="utf-8") as file:
                first = next(csv.DictReader(file), None)
            began = float(first["time"]) - float(first["seconds"]) if first and first.get("time") else None
        # The log goes on whatever stands in it.
        except (OSError, ValueError, TypeError, KeyError, csv.Error):
            return None
        return began if began is not None and math.isfinite(began) else None


class ResourceCallback(StepCallback):
    """Reads a `ResourceLog` at the beginning and the end of every epoch.

    Args:
        log: the log.
        steps_per_epoch: batches in an epoch.
    """

    def __init__(self, log: ResourceLog, steps_per_epoch: int):
        super().__init__(steps_per_epoch)
        self.log = log

    def on_epoch_begin(self, epoch, logs=None):
        super().on_epoch_begin(epoch)
        self.log.read("epoch begin", epoch + 1)

    def on_epoch_end(self, epoch, logs=None):
        self.log.read("epoch end")


def resource_figure(path: Path) -> Figure:
    """The log as panels over time: memory, processor and, where there is one, GPU memory; epochs are shaded."""
    import pandas as pd
    from matplotlib.figure import Figure

    rows = pd.read_csv(path)
    panels = [("memory of the process (GB)", "memory_mb", "memory_peak_mb", 1e-3), ("processor (% of a core)",
              "cpu_percent", None, 1.0)]  # fmt: skip
    if rows["gpu_memory_mb"].notna().any():
        panels.append(("GPU memory (GB)", "gpu_memory_mb", "gpu_memory_peak_mb", 1e-3))
    figure = Figure(figsize=(8, 2.4 * len(panels)), layout="constrained")
    every = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
    for axes, (title, now, peak, scale) in zip(every, panels, strict=True):
        known = rows[rows[now].notna()]
        axes.plot(known["seconds"], known[now] * scale, color="#0072B2", marker=".", label="now")
        if peak:
            axes.plot(rows["seconds"], rows[peak] * scale, color="#D55E00", linestyle="--", label="at most so far")
            axes.legend(frameon=False, loc="lower right")
        begins, ends = (rows.loc[rows["event"] == f"epoch {end}", "seconds"] for end in ("begin", "end"))
        for index, (begin, end) in enumerate(zip(begins, ends, strict=False)):
            axes.axvspan(begin, end, color=("0.94", "0.87")[index % 2], zorder=0, linewidth=0)
        axes.set_ylabel(title)
        highest = rows[peak or now].max() * scale
        axes.set_ylim(0, 1.1 * highest if highest > 0 else 1)
        axes.grid(alpha=0.3)
    shaded = "; epochs with their evaluation are shaded" if len(begins) else ""
    every[0].set_title(f"resources of a run{shaded}", fontsize="medium", color="0.25")
    every[-1].set_xlabel("wall time (s)")
    return figure
