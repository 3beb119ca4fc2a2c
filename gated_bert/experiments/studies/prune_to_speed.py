"""A model folder pruned to a speed that was asked for: levels by table and search, then measured, then put right."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gated_bert.compression.benchmark import EVALUATION_BATCH
from gated_bert.compression.latency import Conditions, LatencyTable
from gated_bert.compression.latency_measure import prediction
from gated_bert.compression.model_statistics import take_turns
from gated_bert.compression.parity import in_float32, refuse_not_finite
from gated_bert.compression.predict import evaluation_config
from gated_bert.compression.shrink import shrink
from gated_bert.compression.source import load_source
from gated_bert.config.space import REMOVAL_ORDERS
from gated_bert.models.architecture import Architecture, LayerSizes
from gated_bert.models.backbone import EncoderClassifier
from gated_bert.models.folder import LoadedModel, save_model
from gated_bert.pruning.level_search import Found, Levels, best_levels, measured_weights, search_levels
from gated_bert.pruning.structured import HEADS, OBS, StructuredRemoval
from gated_bert.support.checks import choose, whole
from gated_bert.support.errors import UserError
from gated_bert.support.progress_bar import progress_bar
from gated_bert.tasks.evaluation import make_dataset
from gated_bert.tasks.examples import Examples

TOLERANCE = 0.03
"""How far the measured speed may be from the one asked for."""
CORRECTIONS = 8
REPEATS = 41
SHARES = 201
"""Shares of all units between all and none that are tried where all layers are to keep the same."""


@dataclass(frozen=True)
class Effort:
    """What a choice of levels costs.

    Args:
        texts: training examples that are looked at, without labels.
        judged: of these, those that the search judges by; 0: a quarter.
        steps: draws of the search.
        seed: of texts and search.
        order: which units go, one of `gated_bert.config.space.REMOVAL_ORDERS`; all but `obs` take the same share
            of every layer, without a search.
    """

    texts: int = 1024
    judged: int = 0
    steps: int = 100
    seed: int = 42
    order: str = OBS

    def __post_init__(self) -> None:
        for name, least in (("texts", 1), ("judged", 0), ("steps", 0)):
            whole(name, getattr(self, name), least)
        if not self.judged:
            object.__setattr__(self, "judged", max(1, self.texts // 4))
        choose("order", self.order, REMOVAL_ORDERS)


@dataclass(frozen=True)
class Reached:
    """What a pruned model has come to.

    Attributes:
        speedup: measured, over the dense fp32 model.
        predicted: the same by the table.
        layers: sizes of the layers.
        loss: how far the outputs are from those of the model that was pruned, as the search saw it.
        tried: choices that were evaluated.
        note: why another speed than the one asked for was reached; empty where it was.
    """

    speedup: float
    predicted: float
    layers: tuple[LayerSizes, ...]
    loss: float
    tried: int
    note: str = ""


class SpeedMeter:
    """Measures how many times as fast as the dense model in fp32 models are.

    Args:
        dense: the dense model.
        conditions: of a prediction; the dense one is always fp32.
    """

    def __init__(self, dense: EncoderClassifier, conditions: Conditions):
        self.dense, self.conditions = in_float32(dense), conditions
        self._reference = prediction(self.dense, dataclasses.replace(conditions, precision="fp32"))

    @functools.cached_property
    def gained(self) -> float:
        """The speed of the dense model itself under the conditions: in 8 bits it is faster before anything goes."""
        return 1.0 if self.conditions.precision == "fp32" else self.of(self.dense.architecture)

    def predicted(self, table: LatencyTable, architecture: Architecture) -> float:
        """The speed of a model of such sizes by a table of the dense one."""
        return self.gained * table.dense / table.predict(architecture)

    @functools.cached_property
    def most(self) -> float:
        """The speed of a model without any head or neuron."""
        sizes = self.dense.architecture
        return self.of(sizes.replace(layers=(LayerSizes(0, 0, 0, 0),) * sizes.num_layers))

    def refuse_unreachable(self, speedup: float) -> None:
        """Refuses a speed that nothing that is left of the model has.

        Raises:
            UserError: it is above `most`, and not by less than times are measured to.
        """
        if speedup > self.most * (1 + TOLERANCE):
            raise UserError(f"--speedups: {speedup:g} is refused; allowed: up to {self.most:.1f}, that of a model "
                            "without any head or neuron")  # fmt: skip

    def near(self, architecture: Architecture, speedup: float) -> float:
        """As `of`; where that is near a speed that is asked for, the mean of two: one alone may be so by chance."""
        found = self.of(architecture)
        return found if abs(found / speedup - 1) > TOLERANCE else (found + self.of(architecture)) / 2

    def of(self, architecture: Architecture) -> float:
        """The speed of a model of such sizes, whose weights do not matter."""
        model = self.dense.rebuilt(architecture, dtype="float32")
        taken = take_turns({"dense": self._reference, "model": prediction(model, self.conditions)}, REPEATS)
        return float(np.median(taken["dense"] / taken["model"]))


def prune_to_speed(
    source: Path, out: Path, speedup: float, table: LatencyTable, meter: SpeedMeter, examples: Examples, effort: Effort
) -> Reached:
    """Prunes heads and neurons of the model in a folder until it is so many times as fast as the dense one.

    Args:
        source: folder of the dense model, or of one that was pruned from it.
        out: the folder of the smaller model.
        speedup: over the dense model in fp32.
        table: of the dense model, under the same conditions.
        meter: measures.
        examples: training examples.
        effort: what it may cost.

    Raises:
        UserError: a model that cannot be read, or a speed that it does not reach with nothing left.
    """
    about = {"speedup": speedup, "conditions": dataclasses.asdict(meter.conditions)}
    loaded = load_source(source)
    refuse_not_finite(loaded.model)
    # What is closed already takes no time in what comes of it.
    model = shrink(in_float32(loaded.model))
    sizes = model.architecture
    speed = meter.near(sizes, speedup)
    if speed >= speedup:
        metadata = {**loaded.metadata, "pruned_to_speed": {**about, "measured": speed}}
        save_model(out, model, loaded.tokenizer, loaded.task, metadata)
        return Reached(speed, meter.predicted(table, sizes), sizes.layers, 0.0, 0,
                       f"{speed:.2f}× without removing anything")  # fmt: skip
    meter.refuse_unreachable(speedup)
    removal = StructuredRemoval(model, loaded.task.kind, list(_batches(loaded, examples, effort)),
                                -(-effort.judged // EVALUATION_BATCH), effort.order, effort.seed)  # fmt: skip
    with progress_bar("removing units", len(removal.sublayers)) as advance:
        for _ in removal.look():
            advance("", 1)
    search = _Search(removal, table, meter, sizes, speedup, effort)
    levels, reached = search.run()
    with progress_bar("pruning", len(removal.sublayers)) as advance:
        for _ in removal.prune(levels):
            advance("", 1)
    small = shrink(model)
    metadata = {**loaded.metadata, "pruned_to_speed": {**about, "measured": reached.speedup}}
    save_model(out, small, loaded.tokenizer, loaded.task, metadata)
    return dataclasses.replace(reached, layers=small.architecture.layers)


def _batches(loaded: LoadedModel, examples: Examples, effort: Effort) -> Iterator[tuple]:
    rows = np.random.default_rng(effort.seed).permutation(len(examples))[: effort.texts]
    config = evaluation_config(loaded, EVALUATION_BATCH)
    dataset = make_dataset(loaded.task, loaded.tokenizer, examples.take(np.sort(rows)), config)
    # Short texts and long ones are judged by.
    for index in np.random.default_rng(effort.seed).permutation(len(dataset)):
        yield dataset[int(index)]


class _Search:
    """Levels that are as fast as was asked for, and which of these lose least."""

    def __init__(self, removal: StructuredRemoval, table: LatencyTable, meter: SpeedMeter, architecture: Architecture,
                 speedup: float, effort: Effort):  # fmt: skip
        self.removal, self.table, self.meter, self.architecture = removal, table, meter, architecture
        self.speedup, self.effort = speedup, effort
        self.costs = [np.array([_cost(table, sublayer.kind, left) for left in sublayer.left])
                      for sublayer in removal.sublayers]  # fmt: skip
        self.least = sum(float(cost.min()) for cost in self.costs)

    def run(self) -> tuple[Levels, Reached]:
        """Searches once, then moves the budget until what is measured is what was asked for."""
        budget = self.table.dense * self.meter.gained / self.speedup - self.table.outside
        # That there is as fast a model has been measured, whatever the table says.
        found = self._searched(max(budget, self.least))
        levels, speed = found.levels, self.meter.near(self._sizes(found.levels), self.speedup)
        tried = {speed: levels}
        # The largest budget that was too small and the smallest that was too large, each with the time that it led to,
        # of the dense model's. No time at all is too small.
        small, large = (-self.table.outside, 0.0), None
        for _ in range(CORRECTIONS):
            if abs(speed / self.speedup - 1) <= TOLERANCE or (speed < self.speedup and self._none_left(levels)):
                break
            small, large = ((budget, 1 / speed), large) if speed > self.speedup else (small, (budget, 1 / speed))
            budget = _corrected(small, large, 1 / self.speedup, -self.table.outside)
            levels = self._within(budget, found.weights)
            speed = self.meter.near(self._sizes(levels), self.speedup)
            tried[speed] = levels
        speed = min(tried, key=lambda each: abs(each / self.speedup - 1))
        levels = tried[speed]
        off = abs(speed / self.speedup - 1) > TOLERANCE
        note = f"{speed:.2f}× is the nearest that was found to {self.speedup:g}×: " * off
        note += ("no fewer units are left to remove" if self._none_left(levels) else
                 "the machine's times vary by more than that, or no level lies between") * off  # fmt: skip
        return levels, self._reached(levels, speed, self.removal.loss(levels), found.tried, note)

    def _searched(self, budget: float) -> Found:
        if self.effort.order != OBS:
            levels = self._alike(budget)
            return Found(np.ones(len(levels)), levels, self.removal.loss(levels), 1)
        costs, errors, loss = self.costs, self.removal.errors, self.removal.loss
        weights = []
        with progress_bar("how much each layer counts", len(costs)) as advance:
            for weight in measured_weights(costs, errors, loss):
                weights.append(weight)
                advance("", 1)
        steps = search_levels(costs, errors, budget, loss, self.effort.steps, self.effort.seed, weights)
        with progress_bar(f"searching levels for {self.speedup:g}×", self.effort.steps + 1) as advance:
            for found in steps:
                advance(f"loss {max(found.loss, 0):.4f}", 1)
        return found

    def _within(self, budget: float, weights: np.ndarray) -> Levels:
        """The best levels by errors that are weighted so; the cheapest there are where the budget is below these."""
        if self.effort.order != OBS:
            return self._alike(budget)
        weighted = [weight * error for weight, error in zip(weights, self.removal.errors, strict=True)]
        return best_levels(self.costs, weighted, max(budget, self.least))

    def _alike(self, budget: float) -> Levels:
        """The same share of every layer: the largest that is within the budget."""
        for kept in np.linspace(1, 0, SHARES):
            levels = tuple(int(np.argmin(np.abs(np.array(sublayer.left) - kept * sublayer.units)))
                           for sublayer in self.removal.sublayers)  # fmt: skip
            if sum(float(cost[level]) for cost, level in zip(self.costs, levels, strict=True)) <= budget:
                break
        return levels

    def _none_left(self, levels: Levels) -> bool:
        return all(sublayer.left[level] == min(sublayer.left)
                   for sublayer, level in zip(self.removal.sublayers, levels, strict=True))  # fmt: skip

    def _sizes(self, levels: Levels) -> Architecture:
        """The architecture that pruning to these levels, and shrinking, leaves."""
        layers = list(self.architecture.layers)
        for sublayer, level in zip(self.removal.sublayers, levels, strict=True):
            left, sizes = sublayer.left[level], layers[sublayer.block]
            if sublayer.kind == HEADS:
                dims = (sizes.query_key_dim, sizes.value_dim) if left else (0, 0)
                layers[sublayer.block] = LayerSizes(left, *dims, sizes.intermediate_size)
            else:
                layers[sublayer.block] = dataclasses.replace(sizes, intermediate_size=left)
        return self.architecture.replace(layers=tuple(layers))

    def _reached(self, levels: Levels, speed: float, loss: float, tried: int, note: str) -> Reached:
        sizes = self._sizes(levels)
        return Reached(speed, self.meter.predicted(self.table, sizes), sizes.layers, loss, tried, note)


def _corrected(
    small: tuple[float, float], large: tuple[float, float] | None, wanted: float, none: float
) -> float:
    """The budget that leads to a time that is wanted, if time rises evenly between two budgets; a step away from these,
    since it jumps where a level does.

    Args:
        small: a budget and the time that it led to, which was too short.
        large: the same, too long; None where none was, and time is taken to rise as from `none` to `small`.
        wanted: time.
        none: the budget of no time.
    """
    if large is None:
        return none + (small[0] - none) * wanted / small[1]
    share = (wanted - small[1]) / (large[1] - small[1])
    return small[0] + min(max(share, 0.1), 0.9) * (large[0] - small[0])


def _cost(table: LatencyTable, kind: str, left: int) -> float:
    return table.attention_ms(left) if kind == HEADS else table.ffn_ms(left)
