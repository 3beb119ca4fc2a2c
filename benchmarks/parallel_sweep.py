"""A sweep of four methods on embedded data, one job after another against two at a time."""

from __future__ import annotations

import os
import subprocess
import tempfile
import time

import numpy as np

from benchmarks.figures import Figure
from benchmarks.timing import main
from gated_bert.start import python_command

METHODS = "baseline,magnitude,movement,spt"


def sweep(words: list[str], folder: str) -> float:
    """Seconds that the launcher needs for the sweep."""
    command = [*python_command("gated_bert", *"sweep -d embedded -t sst2 -m tiny".split()), *words, "-o", folder]
    environment = {**os.environ, "VERBOSE": "0"}
    began = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, env=environment, stdin=subprocess.DEVNULL)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed: {(done.stderr or done.stdout).strip().splitlines()[-1]}")
    return time.perf_counter() - began


def measure(options) -> list[Figure]:
    """Wall time of the launcher's sweep, sequential against two jobs at a time."""
    methods, epochs, examples = ("baseline,magnitude", 1, 192) if options.quick else (METHODS, 3, 2000)
    words = ["-p", methods, "-e", str(epochs), "-ps", "1", "-ml", "64", "--train-examples", str(examples), "-l", "5e-4"]
    sequential, parallel = [], []
    for repeat in range(1 if options.quick else 2):
        sides = ((sequential, []), (parallel, ["-parallel", "-max-parallel-jobs", "2"]))
        for seconds, extra in sides[:: -1 if repeat % 2 else 1]:
            with tempfile.TemporaryDirectory() as folder:
                seconds.append(sweep([*words, *extra], folder))
    ratios = np.array(sequential) / np.array(parallel)
    both = f"{np.median(sequential):.0f} s / {np.median(parallel):.0f} s"
    jobs = f"{len(methods.split(','))} jobs of {epochs} epochs on {examples} examples"
    details = f"{ratios.min():.2f}–{ratios.max():.2f} of {len(ratios)}, {both}; {jobs}"
    return [Figure("sequential / parallel sweep, 2 jobs at a time", float(np.median(ratios)), "×", "", details)]


if __name__ == "__main__":
    main("parallel_sweep", measure)
