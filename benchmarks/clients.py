"""A small model of every family: trained, pruned by heads and neurons, shrunk, exported, and run by optimum and by
transformers.js in Node and in Chromium."""

from __future__ import annotations

import shlex
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnxruntime
from keras import ops

from benchmarks import small_models
from benchmarks.client_programs import CLIENTS, FILES, Missing
from benchmarks.figures import Figure
from benchmarks.timing import main
from gated_bert import load_model
from gated_bert.cli.main import main as gated_bert
from gated_bert.models.folder import LoadedModel
from gated_bert.tasks.embedded import embedded_examples

COMMANDS = (
    "gated-bert train -d embedded -t sst2 -pt small -ml 64 -e 4 -b 32 -l 1e-3 -p movement --pattern head_neuron "
    "--scope layer --schedule linear -ps 2 -pe 3 -f 0.5 -o run",
    "gated-bert shrink run/results_movement-head_neuron-layer-linear_sst2/model shrunk",
    "gated-bert export shrunk web --format optimum",
)
"""What docs/families.md tells to type, after `python -m benchmarks.small_models FAMILY small`."""
SENTENCES = 200
GOALS = {"fp32": 1e-5, "q8": 1e-3}
"""Precision → how far probabilities may be from those of the model, or of the same file in Python."""


def make(family: str, place: Path, shrunk: bool = True) -> tuple[Path, LoadedModel]:
    """Types the commands in a folder.

    Args:
        family: which one.
        place: the folder, which is there and empty.
        shrunk: whether the model is shrunk, else what training left of it is exported.

    Returns:
        The exported folder, and the model that it holds.
    """
    small_models.make(family, place / "small")
    train, shrink, export = ([*map(_inside(place), shlex.split(line)[1:])] for line in COMMANDS)
    source = Path(shrink[1])
    _type(train)
    if shrunk:
        _type(shrink)
    else:
        export[1] = str(source)
    _type(export)
    return place / "web", load_model(export[1])


def _inside(place: Path) -> Callable[[str], str]:
    names = ("small", "run", "shrunk", "web")
    return lambda word: str(place / word) if word.partition("/")[0] in names else word


def _type(words: list[str]):
    if gated_bert(words):
        raise RuntimeError(f"gated-bert {shlex.join(words)} failed")


def sentences(count: int) -> list[str]:
    """The first embedded development sentences."""
    return embedded_examples("sst2")[1]["dev"].texts[:count]


def expected(folder: Path, loaded: LoadedModel, texts: Sequence[str], precision: str) -> np.ndarray:
    """Probabilities [texts, classes] here, a text at a time: of the Keras model, or of the file in 8 bits."""
    session = onnxruntime.InferenceSession(folder / "onnx" / FILES[precision])
    rows = []
    for text in texts:
        encoded = loaded.tokenizer.encode([text], max_len=loaded.config.max_position)
        inputs = {**encoded.inputs, "attention_mask": np.ones_like(encoded.input_ids)}
        wide = {name: inputs[name][None].astype(np.int64) for name in loaded.config.input_names}
        found = ops.convert_to_numpy(loaded.model(wide)) if precision == "fp32" else session.run(None, wide)[0]
        rows.append(found[0])
    logits = np.array(rows, np.float64)
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def measure(options) -> list[Figure]:
    """Classes and probabilities of every family in every client that is installed."""
    figures = []
    for family in ("bert", "modernbert") if options.quick else small_models.known_families():
        with tempfile.TemporaryDirectory() as place:
            folder, loaded = make(family, Path(place))
            figures += _compared(family, folder, loaded, 20 if options.quick else SENTENCES)
    return figures


def _compared(family: str, folder: Path, loaded: LoadedModel, count: int) -> list[Figure]:
    texts, figures = sentences(count), []
    for precision in FILES:
        known = expected(folder, loaded, texts, precision)
        for name, client in CLIENTS.items():
            try:
                found = client(folder, texts, precision)
            except Missing as error:
                print(f"{name} is left out: {error}", file=sys.stderr)
                continue
            same, most = int((found.argmax(1) == known.argmax(1)).sum()), float(np.abs(found - known).max())
            figures += [
                Figure(f"{family}, {precision}, {name}: same classes", same, f"of {count}", f"≥ {count}"),
                Figure(f"{family}, {precision}, {name}: largest difference of a probability", most, "",
                       f"≤ {GOALS[precision]}"),
            ]  # fmt: skip
    return figures


if __name__ == "__main__":
    main("clients", measure)
