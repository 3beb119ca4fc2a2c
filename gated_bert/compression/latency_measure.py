"""Measures a latency table: models whose layers are all alike, taking turns."""

from __future__ import annotations

import contextlib
import itertools
import platform
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import keras
import numpy as np
import scipy.optimize

from gated_bert.compression.latency import Conditions, LatencyTable
from gated_bert.compression.model_statistics import random_inputs, take_turns
from gated_bert.compression.onnx_export import GRAPHS
from gated_bert.compression.onnx_file import save_onnx
from gated_bert.compression.onnx_model import session_options
from gated_bert.compression.preconditions import session_source
from gated_bert.compression.quantize import needs_reduced_range, quantize_dynamically
from gated_bert.models.architecture import Architecture, LayerSizes
from gated_bert.models.backbone import EncoderClassifier
from gated_bert.models.widths import RATIO, widths
from gated_bert.support.errors import UserError
from gated_bert.support.machine import this_machine
from gated_bert.support.partial import temporary_folder

VOCABULARY = 1000
"""Rows of the token embedding of measured models: looking up a row takes as long in any number of them."""
TURNS = 7
"""Models that take turns with the whole one: each is held in memory."""
REPEATS, TRIES = 31, 3
NOISE = 0.02
"""Share of the time by which a larger part may seem faster without a doubt of the table."""
EVERY_SECOND = RATIO**2
"""Of the widths that models are pruned to every second is measured; between them times are interpolated."""

Run = Callable[[], object]
Tell = Callable[[int], None]
Sizes = tuple[int, int]
"""Heads and neurons of every layer."""


def measure_table(
    model: EncoderClassifier, conditions: Conditions, repeats: int = REPEATS, tell: Tell | None = None
) -> LatencyTable:
    """Measures the parts of a model of these sizes.

    Heads go in every layer at once, beside half of the neurons, and neurons beside half of the heads, so that a layer's
    time is its share of what the model takes more; each is taken as a share of the time of the whole model, which takes
    turns with it, so that what else the machine does falls on both.

    Args:
        model: any model of the sizes; its weights do not matter.
        conditions: of what prediction.
        repeats: timed predictions of each.
        tell: is told how many models were measured since it was called last, of `sizes_to_measure`.

    Raises:
        UserError: layers that are not alike, or times that do not rise with the size, after measuring anew.
    """
    architecture = model.architecture
    rows = sizes_to_measure(architecture)
    whole = architecture.layers[0]
    full, beside = (whole.num_heads, whole.intermediate_size), next(each for each in rows[0] if each in rows[1])
    wanted = list(dict.fromkeys([*rows[0], *rows[1]]))
    timing = _Timing(model, conditions, full, repeats)
    shares: dict[Sizes, np.ndarray] = {}
    for place in range(0, len(wanted), TURNS):
        shares |= timing.measure(wanted[place : place + TURNS])
        if tell is not None:
            tell(len(wanted[place : place + TURNS]))
    for attempt in range(TRIES):
        doubtful, why = _doubtful(shares, rows[0]) | _doubtful(shares, rows[1]), "do not rise with the size"
        if not doubtful and _outside(shares, rows, beside) <= 0:
            # What the rest takes is told from these alone.
            doubtful, why = {beside, rows[0][0], rows[1][0]}, "of heads and neurons leave nothing for the rest"
        if not doubtful:
            break
        if attempt == TRIES - 1:
            named = ", ".join(f"{heads} heads and {neurons} neurons" for heads, neurons in sorted(doubtful))
            raise UserError(f"latency table: times {why} ({named}; quartiles {_noise(shares):.0%} apart): the machine "
                            "is busy; measure again when it is not, more at a time (--batch, --length), with more "
                            "latency-table --repeats, or take a table measured before (--table)")  # fmt: skip
        again = sorted(doubtful)
        for place in range(0, len(again), TURNS):
            for sizes, found in timing.measure(again[place : place + TURNS]).items():
                shares[sizes] = np.concatenate([shares[sizes], found])
    dense, layers = 1e3 * timing.whole(), architecture.num_layers
    attention, ffn = (_parts(shares, row, axis, dense / layers) for axis, row in enumerate(rows))
    outside = _outside(shares, rows, beside) * dense
    return LatencyTable(
        conditions, architecture.hidden_size, whole.value_dim, layers, outside, attention, ffn, dense,
        _noise(shares), f"{platform.machine()}, {this_machine().describe()}", _versions(conditions),
    )  # fmt: skip


def sizes_to_measure(architecture: Architecture) -> tuple[list[Sizes], list[Sizes]]:
    """Rising numbers of heads beside half of the neurons, and rising numbers of neurons beside half of the heads.

    Raises:
        UserError: layers that are not alike.
    """
    whole = _uniform_sizes(architecture)
    neurons = sorted(widths(whole.intermediate_size, EVERY_SECOND))
    beside = whole.num_heads // 2, neurons[np.searchsorted(neurons, whole.intermediate_size / 2)]
    return [(each, beside[1]) for each in range(whole.num_heads + 1)], [(beside[0], each) for each in neurons]


def _parts(shares: Mapping[Sizes, np.ndarray], row: Sequence[Sizes], axis: int, scale: float) -> dict[int, float]:
    """Size → what a layer's part of that size takes more than one of none."""
    rising = scipy.optimize.isotonic_regression([float(np.median(shares[each])) * scale for each in row]).x
    return {each[axis]: float(time - rising[0]) for each, time in zip(row, rising, strict=True)}


def _outside(shares: Mapping[Sizes, np.ndarray], rows: Sequence[Sequence[Sizes]], beside: Sizes) -> float:
    """What is no layer's part, as a share of the whole model's time."""
    attention, ffn = (_parts(shares, row, axis, 1.0) for axis, row in enumerate(rows))
    return float(np.median(shares[beside])) - attention[beside[0]] - ffn[beside[1]]


def _noise(shares: Mapping[Sizes, np.ndarray]) -> float:
    quartiles = [np.quantile(each, (0.25, 0.5, 0.75)) for each in shares.values()]
    return float(np.median([(high - low) / middle for low, middle, high in quartiles]))


def _uniform_sizes(architecture: Architecture) -> LayerSizes:
    """The sizes of the first layer, which are those of all.

    Raises:
        UserError: layers of different sizes.
    """
    found = set(architecture.layers)
    if len(found) > 1:
        raise UserError("latency-table: layers of different sizes; give the model that it was shrunk from")
    return found.pop()


def _doubtful(shares: Mapping[Sizes, np.ndarray], row: Sequence[Sizes]) -> set[Sizes]:
    """Of sizes that rise, pairs of which the larger one is faster beyond the noise."""
    found: set[Sizes] = set()
    for smaller, larger in itertools.combinations(row, 2):
        low, high = shares[smaller], shares[larger]
        faster = np.median(high) < (1 - NOISE) * np.median(low)
        if faster and np.quantile(high, 0.75) < np.quantile(low, 0.25):
            found |= {smaller, larger}
    return found


class _Timing:
    """Times models of given sizes beside the whole one.

    Args:
        model: gives the family and the sizes.
        conditions: of what prediction.
        full: sizes of the whole model.
        repeats: timed predictions of each.
    """

    def __init__(self, model: EncoderClassifier, conditions: Conditions, full: Sizes, repeats: int):
        self.model, self.conditions, self.repeats = model, conditions, repeats
        self._run = self._made(full)
        self._seconds: list[np.ndarray] = []

    def measure(self, sizes: Sequence[Sizes]) -> dict[Sizes, np.ndarray]:
        """Each one's times as shares of the whole model's just before or after, float [repeats]."""
        found = take_turns({"whole": self._run} | {str(each): self._made(each) for each in sizes}, self.repeats)
        self._seconds.append(found["whole"])
        return {each: found[str(each)] / found["whole"] for each in sizes}

    def whole(self) -> float:
        """Seconds of the whole model."""
        return float(np.median(np.concatenate(self._seconds)))

    def _made(self, sizes: Sizes) -> Run:
        return prediction(self.model.rebuilt(self._sized(sizes), dtype="float32"), self.conditions)

    def _sized(self, sizes: Sizes) -> Architecture:
        architecture = self.model.architecture
        layer = architecture.layers[0]
        heads, neurons = sizes
        dims = (layer.query_key_dim, layer.value_dim) if heads else (0, 0)
        layers = (LayerSizes(heads, *dims, neurons),) * architecture.num_layers
        rows = min(architecture.vocab_size, VOCABULARY)
        return architecture.replace(layers=layers, vocab_size=rows)


def prediction(model: EncoderClassifier, conditions: Conditions) -> Run:
    """One prediction of a model under given conditions, as a function without arguments."""
    inputs = random_inputs(model.architecture, conditions.batch, conditions.length)
    if conditions.runtime == "keras":
        return lambda: model.predict_on_batch(inputs)
    session = _session(model, conditions)
    names = [each.name for each in session.get_inputs()]
    arrays = {name: inputs[name].astype(np.int64) for name in names}
    return lambda: session.run(None, arrays)


def _session(model: EncoderClassifier, conditions: Conditions):
    import onnxruntime

    proto = GRAPHS[conditions.graph](model)
    options = session_options(conditions.threads)
    with temporary_folder() as folder:
        source, out = Path(folder) / "fp32.onnx", Path(folder) / "int8.onnx"
        save_onnx(proto, source)
        if conditions.precision != "fp32":
            quantize_dynamically(source, out, needs_reduced_range())
        served = source if conditions.precision == "fp32" else out
        return onnxruntime.InferenceSession(session_source(served), options, providers=["CPUExecutionProvider"])


def _versions(conditions: Conditions) -> dict[str, str]:
    import importlib.metadata

    names = ("onnxruntime", "numpy") if conditions.runtime == "onnx" else ("keras", keras.backend.backend(), "numpy")
    found = {}
    for name in names:
        # A backend may come from a package of another name.
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found
