"""Runs transformers in a process of its own: with TensorFlow in the same one, torch may bring it down."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

needs_transformers = pytest.mark.skipif(
    not all(importlib.util.find_spec(name) for name in ("torch", "transformers")),
    reason="torch and transformers are not installed",
)

_LOGITS = """
import sys
import numpy as np, torch, transformers
kind, folder, inputs, out = sys.argv[1:]
model, info = getattr(transformers, kind).from_pretrained(folder, output_loading_info=True)
assert not info["missing_keys"] and not info["unexpected_keys"], info
batch = {name: torch.tensor(values.astype(np.int64)) for name, values in np.load(inputs).items()}
with torch.no_grad():
    answer = model.eval()(**batch)
names = ("logits",) if "logits" in answer else ("start_logits", "end_logits")
np.save(out, np.stack([answer[name].numpy() for name in names]))
"""


def run(code: str, *words: object) -> str:
    """What a program prints."""
    command = [sys.executable, "-c", code, *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def logits(kind: str, folder: Path, inputs: dict[str, np.ndarray], place: Path) -> np.ndarray:
    """Logits [1 or start and end, batch, …] of the transformers class `kind` read from a folder, all of whose tensors
    it knows."""
    np.savez(place / "inputs.npz", **inputs)
    run(_LOGITS, kind, folder, place / "inputs.npz", place / "logits.npy")
    return np.load(place / "logits.npy")
