"""Timing side by side: every repeat runs all sides, so that what else the machine does falls on all of them."""

from __future__ import annotations

import argparse
import ctypes
import os
import resource
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil

from benchmarks.figures import Figure, table, write_figures
from gated_bert.experiments.runs.environment import hardware, versions


@dataclass(frozen=True)
class Times:
    """Seconds of one side, an array with one entry per repeat each.

    Args:
        wall: on the clock.
        cpu: of all threads of this process and of those it waited for, which other programs disturb less.
    """

    wall: np.ndarray
    cpu: np.ndarray


def interleave(sides: dict[str, Callable[[], object]], repeats: int, warm_up: int = 1) -> dict[str, Times]:
    """Runs all sides in turn, in the opposite order in every second repeat.

    Args:
        sides: name → function.
        repeats: timed runs of every side.
        warm_up: runs of every side before, untimed.
    """
    clocks = {name: ([], []) for name in sides}
    for repeat in range(-warm_up, repeats):
        for name in list(sides)[:: -1 if repeat % 2 else 1]:
            wall, cpu = time.perf_counter(), _cpu_seconds()
            sides[name]()
            if repeat >= 0:
                clocks[name][0].append(time.perf_counter() - wall)
                clocks[name][1].append(_cpu_seconds() - cpu)
    return {name: Times(np.array(wall), np.array(cpu)) for name, (wall, cpu) in clocks.items()}


def _cpu_seconds() -> float:
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def ratio(above: Times, below: Times) -> tuple[float, str]:
    """The median over repeats of above/below on the clock, and a phrase with quartiles, CPU time and both sides."""
    ratios = above.wall / below.wall
    low, median, high = np.quantile(ratios, [0.25, 0.5, 0.75])
    cpu = np.median(above.cpu / np.maximum(below.cpu, 1e-9))
    sides = f"{_seconds(above.wall)} / {_seconds(below.wall)}"
    return float(median), f"quartiles {low:.2f}–{high:.2f} of {len(ratios)}, CPU time {cpu:.2f}×, {sides}"


def spread(values: np.ndarray) -> str:
    """Quartiles of seconds, as a phrase."""
    low, high = np.quantile(values, [0.25, 0.75])
    return f"quartiles {low:.3g}–{high:.3g} s of {len(values)}"


def _seconds(values: np.ndarray) -> str:
    median = float(np.median(values))
    return f"{median:.2f} s" if median >= 1 else f"{1000 * median:.1f} ms"


def extra_memory(function: Callable[[], object]) -> float:
    """Highest resident memory of this process while `function` runs, above that before, in MB (10⁶ bytes)."""
    process = psutil.Process()
    _give_back_freed_memory()
    before = peak = process.memory_info().rss
    done = threading.Event()

    def watch():
        nonlocal peak
        while not done.is_set():
            peak = max(peak, process.memory_info().rss)
            done.wait(5e-4)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        function()
    finally:
        done.set()
        thread.join()
    return (max(peak, process.memory_info().rss) - before) / 1e6


def _give_back_freed_memory():
    """What the allocator keeps of earlier calls would hide what the next one takes; glibc alone has a call for that."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def environment_line() -> str:
    """What the figures were measured on, in one line; the load tells whether other programs were running."""
    machine, packages = hardware(), versions()
    shown = ("tensorflow", "tensorflow-cpu", "jax", "keras", "numpy", "python")
    names = [f"{name} {packages[name]}" for name in shown if name in packages]
    cores = f"{machine['cores']} cores of {machine['processor']}, {machine['memory_gib']} GiB"
    devices = ", ".join(machine["accelerators"]) or "no accelerator"
    return f"{cores}, {devices}; load {os.getloadavg()[0]:.1f}; backend {packages['backend']}; {', '.join(names)}"


def main(name: str, measure: Callable[[argparse.Namespace], Sequence[Figure]], words: Sequence[str] | None = None):
    """Runs one benchmark from its command line, prints and writes its figures."""
    options = make_parser(f"python -m benchmarks.{name}", measure.__doc__.splitlines()[0]).parse_args(words)
    line = environment_line()
    figures = measure(options)
    write_figures(Path(options.output_dir), name, figures, line)
    print(table(figures), line, sep="\n")


def make_parser(prog: str, text: str) -> argparse.ArgumentParser:
    """The flags of a benchmark."""
    parser = argparse.ArgumentParser(prog=prog, description=text)
    parser.add_argument("--quick", action="store_true", help="few repeats, small sizes: to see that it runs")
    parser.add_argument("-o", "--output-dir", default="results/benchmarks", help="folder of the JSON and CSV files")
    parser.add_argument("-d", "--data", default="embedded", help="embedded, or a folder in the GLUE layout")
    return parser
