"""Writing a resume point of BERT base with movement's scores, against `np.savez` of all its arrays at once."""

from __future__ import annotations

import io
import os
import tempfile
from functools import partial
from pathlib import Path

import numpy as np
from keras import ops

from benchmarks.figures import Figure
from benchmarks.timing import extra_memory, interleave, main, ratio, spread
from benchmarks.training_step import compile_model, make_batch, make_model
from gated_bert.config import GatedBertConfig
from gated_bert.experiments.runs.checkpoint import write_checkpoint


def write_at_once(path: Path, model):
    """The plain way: copies of all variables, a file of them in memory, and that to disk."""
    variables = [*model.variables, *model.optimizer.variables]
    content = io.BytesIO()
    np.savez(content, *(ops.convert_to_numpy(variable) for variable in variables))
    with open(path, "wb") as file:
        file.write(content.getbuffer())
        file.flush()
        os.fsync(file.fileno())


def measure(options) -> list[Figure]:
    """Seconds and memory of a resume point, and its ratio to the plain way."""
    size = "tiny" if options.quick else "base"
    config = GatedBertConfig(model_size=size, pruning_method="movement")
    model = make_model(config, gate_rule="straight_through")
    compile_model(model, config)
    model.train_on_batch(*make_batch(4, 16))
    with tempfile.TemporaryDirectory(dir=".") as folder:
        path = Path(folder) / "checkpoint.npz"
        sides = {
            "own": partial(write_checkpoint, path, model, None, {"epoch": 0, "batches": 0}),
            "plain": partial(write_at_once, path, model),
        }
        times = interleave(sides, 2 if options.quick else 5)
        gigabytes = path.stat().st_size / 1e9
        extra = {name: extra_memory(side) for name, side in sides.items()}
    seconds = float(np.median(times["own"].wall))
    value, details = ratio(times["own"], times["plain"])
    return [
        Figure(f"resume point, {size}", seconds, "s", "", f"{spread(times['own'].wall)}, {gigabytes:.2f} GB on disk"),
        Figure(f"resume point / np.savez at once, {size}", value, "×", "≤ 1.0", details),
        Figure(f"extra memory, resume point, {size}", extra["own"], "MB", "", "highest resident above that before"),
        Figure(f"extra memory, np.savez at once, {size}", extra["plain"], "MB", "", "for comparison"),
    ]


if __name__ == "__main__":
    main("checkpoint", measure)
