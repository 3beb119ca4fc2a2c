"""Time and memory of a training step by size, by method and by length, each in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np

from benchmarks.figures import Figure
from benchmarks.timing import main
from gated_bert.config import GatedBertConfig
from gated_bert.experiments.sweeps.resources import job_memory
from gated_bert.start import python_command
from gated_bert.support.machine import peak_memory

BATCH, LENGTH = 4, 128
METHODS = ("plain", "baseline", "movement", "spt")
"""`plain` is the baseline's BERT out of Keras's own `Dense`."""
SIZES = ("tiny", "small", "base", "large")
LENGTHS = (32, 512)
"""Beside `LENGTH`, for the baseline of base width."""


def record(size: str, method: str, batch: int, length: int) -> GatedBertConfig:
    """The record of the run that is measured."""
    method = "baseline" if method == "plain" else method
    return GatedBertConfig(model_size=size, pruning_method=method, batch_size=batch, max_len=length)


def train_here(size: str, method: str, batch: int, length: int, steps: int) -> dict[str, float]:
    """Trains in this process, with the callback that users have; median seconds of a step, and bytes held at most."""
    from benchmarks.spt_step import Batches, Side, StepClock
    from benchmarks.training_step import compile_model, make_model

    config, batches = record(size, method, batch, length), Batches(steps + 1, batch, length)
    if method == "plain":
        model, callbacks = make_model(config, gated=False), []
        compile_model(model, config)
    else:
        side = Side(config, batches)
        model, callbacks = side.model, side.callbacks
    clock = StepClock()
    model.fit(batches, epochs=1, callbacks=[*callbacks, clock], verbose=0, shuffle=False)
    # The first step compiles; the time from its end on is that of the others.
    return {"seconds": float(np.median(np.diff(clock.wall))), "bytes": peak_memory()}


def train_apart(*place: str | int) -> dict[str, float]:
    """`train_here` in a process of its own.

    Raises:
        RuntimeError: the process failed.
    """
    command = python_command("benchmarks.scale", "--here", *map(str, place))
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {(done.stderr.strip().splitlines() or ['no message'])[-1]}")
    return json.loads(done.stdout.splitlines()[-1])


def measure(options) -> list[Figure]:
    """Seconds and bytes of a training step, tiny to large, gated and plain, movement and SPT, and by length."""
    batch, length, steps = (2, 16, 2) if options.quick else (BATCH, LENGTH, 4)
    sizes, lengths = (("tiny",), (8,)) if options.quick else (SIZES, LENGTHS)
    places = [(size, method, batch, length) for size in sizes for method in METHODS]
    places += [("tiny" if options.quick else "base", "baseline", batch, other) for other in lengths]
    figures = []
    for place in places:
        found = train_apart(*place, steps)
        size, method, _, tokens = place
        where = f"{size}, {method}, batch {batch} × {tokens} tokens"
        figures.append(Figure(f"step, {where}", found["seconds"], "s", "", f"median of {steps}"))
        estimate = job_memory(record(*place), on_gpu=False) / 1e9
        details = f"highest resident memory; the launcher reckons with {estimate:.1f} GB"
        figures.append(Figure(f"memory, {where}", found["bytes"] / 1e9, "GB", f"≤ {estimate:.1f}", details))
    return figures


if __name__ == "__main__":
    if sys.argv[1:2] == ["--here"]:
        print(json.dumps(train_here(*sys.argv[2:4], *map(int, sys.argv[4:]))))
    else:
        main("scale", measure)
