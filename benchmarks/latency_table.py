"""How well a latency table predicts random smaller MiniLMs, and how long one takes, of BERT base too."""

from __future__ import annotations

import time

import numpy as np

from benchmarks.figures import Figure
from benchmarks.timing import main
from gated_bert.compression.latency import Conditions, LatencyTable
from gated_bert.compression.latency_measure import REPEATS, TURNS, measure_table, prediction
from gated_bert.compression.model_statistics import take_turns
from gated_bert.models.architecture import BertConfig, LayerSizes
from gated_bert.models.bert import BertClassifier

MODELS = 10
SIZES, QUICK, BASE = (6, 384, 12, 1536), (2, 32, 2, 64), (12, 768, 12, 3072)


def measure(options) -> list[Figure]:
    """Predicted against measured latency of random shrunk models, in 32 and in 8 bits."""
    model, base = _model(QUICK if options.quick else SIZES), _model(QUICK if options.quick else BASE)
    repeats, figures = (3 if options.quick else REPEATS), []
    for precision in ("fp32", "int8"):
        conditions = Conditions(length=16 if options.quick else 128, precision=precision)
        table, cost = _table(model, conditions, repeats, precision, "≤ 300")
        errors = _errors(model, table, repeats)
        details = f"{MODELS} random models; {conditions}; quartiles of a time {100 * table.noise:.1f} % apart"
        figures += [
            Figure(f"latency table, median error, {precision}", 100 * float(np.median(errors)), "%", "≤ 5", details),
            Figure(f"latency table, worst error, {precision}", 100 * float(errors.max()), "%", "≤ 10", details),
            cost,
            _table(base, conditions, repeats, f"BERT base, {precision}", "≤ 900")[1],
        ]
    return figures


def _model(sizes: tuple[int, int, int, int]) -> BertClassifier:
    return BertClassifier(BertConfig.uniform(*sizes, vocab_size=1000, max_position=128))


def _table(
    model: BertClassifier, conditions: Conditions, repeats: int, name: str, goal: str
) -> tuple[LatencyTable, Figure]:
    """A model's table, and how long it took."""
    began = time.perf_counter()
    table = measure_table(model, conditions, repeats)
    seconds = time.perf_counter() - began
    return table, Figure(f"latency table, measuring it, {name}", seconds, "s", goal, f"model {table.dense:.1f} ms")


def _errors(model: BertClassifier, table: LatencyTable, repeats: int) -> np.ndarray:
    """Of random smaller models, how far the predicted time is from the measured one, as shares of the latter."""
    rng, whole, found = np.random.default_rng(0), prediction(model, table.conditions), []
    architectures = [_shrunk(model.architecture, rng) for _ in range(MODELS)]
    for place in range(0, MODELS, TURNS):
        some = architectures[place : place + TURNS]
        runs = {str(index): prediction(model.rebuilt(each), table.conditions) for index, each in enumerate(some)}
        taken = take_turns({"whole": whole} | runs, repeats)
        for index, each in enumerate(some):
            measured = table.dense * float(np.median(taken[str(index)] / taken["whole"]))
            found.append(abs(table.predict(each) / measured - 1))
    return np.array(found)


def _shrunk(architecture: BertConfig, rng: np.random.Generator) -> BertConfig:
    """Any number of heads and of neurons in every layer."""
    whole = architecture.layers[0]
    layers = []
    for _ in architecture.layers:
        heads, neurons = int(rng.integers(0, whole.num_heads + 1)), int(rng.integers(0, whole.intermediate_size + 1))
        dims = (whole.query_key_dim, whole.value_dim) if heads else (0, 0)
        layers.append(LayerSizes(heads, *dims, neurons))
    return architecture.replace(layers=tuple(layers))


if __name__ == "__main__":
    main("latency_table", measure)
