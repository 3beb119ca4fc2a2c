"""The peak memory of a process of its own that loads a model and predicts."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from gated_bert.compression.preconditions import session_source
from gated_bert.start import import_path, python_command
from gated_bert.support.errors import UserError
from gated_bert.support.machine import peak_memory, thread_environment
from gated_bert.support.quiet import quieten
from gated_bert.support.records import read_record
from gated_bert.support.schemas import OnnxRecord


def measure_peak_memory(source: Path, batch: int, length: int, threads: int) -> int:
    """Bytes of main memory that a fresh process holds at most while it loads a model and predicts twice.

    An ONNX file is run by ONNX Runtime alone, without Keras and its backend, as where it is deployed.

    Args:
        source: a model folder or an ONNX file.
        batch: sequences of the predictions.
        length: tokens of each.
        threads: threads of one product.

    Raises:
        UserError: the process failed.
    """
    arguments = (str(source.resolve()), str(batch), str(length), str(threads))
    program = python_command("gated_bert.experiments.models.memory_probe", *arguments)
    environment = {**os.environ, **thread_environment(threads), "PYTHONPATH": import_path()}
    child = subprocess.run(program, capture_output=True, text=True, errors="replace", env=environment)
    if child.returncode:
        last = (child.stderr.strip().splitlines() or ["no message"])[-1]
        raise UserError(f"{source}: the process that measures its memory failed ({last})")
    return int(child.stdout.split()[-1])


def _predict_onnx(path: Path, batch: int, length: int, threads: int):
    import numpy as np
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(session_source(path), options, providers=["CPUExecutionProvider"])
    architecture = read_record(path.with_suffix(".json"), OnnxRecord, nan=True)["architecture"]
    ids = np.random.default_rng(0).integers(0, architecture["vocab_size"], (batch, length), dtype=np.int64)
    arrays = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
    # What else a model reads, as segments, is 0 in a text without a second one.
    feeds = {each.name: arrays.get(each.name, np.zeros_like(ids)) for each in session.get_inputs()}
    for _ in range(2):
        session.run(None, feeds)


def _predict_keras(folder: Path, batch: int, length: int):
    from gated_bert.compression.model_statistics import random_inputs
    from gated_bert.models.folder import load_model

    loaded = load_model(folder)
    for _ in range(2):
        loaded.model.predict_on_batch(random_inputs(loaded.config, batch, length))


if __name__ == "__main__":
    quieten()
    place, sizes = Path(sys.argv[1]), [int(word) for word in sys.argv[2:]]
    if place.is_dir():
        _predict_keras(place, *sizes[:2])
    else:
        _predict_onnx(place, *sizes)
    print(peak_memory())
