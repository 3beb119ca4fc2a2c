"""The pruner: criterion + pattern + scope → masks."""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from keras import ops

from gated_bert.backend import view
from gated_bert.config import GatedBertConfig
from gated_bert.models.gated_dense import GatedLayer
from gated_bert.pruning.criteria import criterion_class
from gated_bert.pruning.groups import BalancedGroup, Group
from gated_bert.pruning.patterns import Pattern, get_pattern
from gated_bert.pruning.selection import Pool, smallest

Read = Callable[[int, Group, int], np.ndarray]
"""Scores of every so manyth unit (third argument) of a group (second; the first is its number)."""


class Pruner:
    """Closes the least important units of a model's gated layers.

    Args:
        config: the run's record; what says how to prune is read, and the seed.
        layers: the prunable layers.
        num_heads: attention heads of each encoder block; only patterns made of heads read it.
    """

    def __init__(self, config: GatedBertConfig, layers: Sequence[GatedLayer], num_heads: Sequence[int] = ()):
        self.config, self.layers, self.num_heads = config, list(layers), num_heads
        self.pattern = get_pattern(config)
        self.groups = self.pattern.groups(layers, num_heads)
        self.criterion = criterion_class(config)(config, self.groups)
        self._asked = 0.0

    def layers_of_groups(self) -> list[GatedLayer]:
        """The layers that the pattern prunes, each once."""
        return list(dict.fromkeys(layer for group in self.groups for layer in group.layers))

    def competitors(self, groups: Sequence[Group], scope: str) -> list[list[int]]:
        """Numbers of the groups that are ranked together, scope by scope."""
        keys = {
            "global": lambda group: 0,
            "layer": lambda group: tuple(id(layer) for layer in group.layers),
            "role": lambda group: group.role,
        }
        scopes: dict[object, list[int]] = {}
        for index, group in enumerate(groups):
            scopes.setdefault(keys[scope](group), []).append(index)
        return list(scopes.values())

    def update(self, sparsity: float, step: int):
        """Sets the masks so that `sparsity` of the groups' weights are closed, to within one unit of every scope.

        A lower sparsity than before changes nothing, unless the criterion opens units again. Patterns of several
        steps choose afresh every time, with weights closed before as the least important.

        Args:
            sparsity: fraction of the weights.
            step: steps done so far; with the seed it decides how ties are broken.
        """
        if sparsity < self._asked and not self.criterion.reopens:
            return
        self._asked = sparsity
        rng = np.random.default_rng([self.config.seed, step])
        steps = self.pattern.steps(sparsity)
        if len(steps) == 1:
            groups = self._arranged(self.groups, rng, self._ranked)
            # A mask of single weights from before stays inside the larger units that stay.
            on_top = not self.criterion.reopens and any(group.unit_weights > 1 for group in groups)
            self._prune(self.pattern, groups, steps[0][1], rng, self._ranked, on_top=on_top)
        else:
            self._prune_afresh(steps, rng)
        self.criterion.after_update()

    def _arranged(self, groups: Sequence[Group], rng: np.random.Generator, read: Read) -> list[Group]:
        return [
            group.sorted_by(read(index, group.base, 1), rng) if isinstance(group, BalancedGroup) else group
            for index, group in enumerate(groups)
        ]

    def _prune_afresh(self, steps: list[tuple[Pattern, float]], rng: np.random.Generator):
        # Bits, packed: of a large model more than the scores of one matrix should not be in memory at once.
        open_before = {layer: np.packbits(view(layer.mask_variable) != 0) for layer in self.layers}

        def scores(layer: GatedLayer) -> np.ndarray:
            values = self.criterion.scores(layer)
            if self.criterion.reopens:
                return values
            return values * np.unpackbits(open_before[layer], count=values.size).reshape(values.shape)

        for pattern, sparsity in steps:
            if pattern.restores:
                groups, scope, read = pattern.groups(self.layers), "global", self._kept_open(scores)
            else:
                read, scope = self._pooled(scores), self.config.scope
                groups = self._arranged(pattern.groups(self.layers, self.num_heads), rng, read)
            self._prune(pattern, groups, sparsity, rng, read, scope, on_top=pattern.on_top)

    def _pooled(self, scores: Callable[[GatedLayer], np.ndarray]) -> Read:
        return lambda index, group, every: self._normalized(
            group.pool([scores(layer) for layer in group.layers], self.criterion.pooling)
        )[::every]

    def _kept_open(self, scores: Callable[[GatedLayer], np.ndarray]) -> Read:
        return lambda index, group, every: np.where(
            group.pool([view(layer.mask_variable) for layer in group.layers]) != 0,
            np.float32(np.inf),
            self._pooled(scores)(index, group, 1),
        )[::every]

    def _prune(
        self,
        pattern: Pattern,
        groups: Sequence[Group],
        sparsity: float,
        rng: np.random.Generator,
        read: Read,
        scope: str = "",
        on_top: bool = False,
    ):
        chosen: dict[int, list[tuple[Group, int, np.ndarray]]] = {}
        scopes = self.competitors(groups, scope or self.config.scope)
        # Scopes are independent, and NumPy lets other threads run meanwhile.
        with ThreadPoolExecutor(_threads()) as workers:
            found = workers.map(
                lambda members, own: self._choose(pattern, groups, members, sparsity, own, read),
                scopes,
                rng.spawn(len(scopes)),
            )
            for members, choices in zip(scopes, found, strict=True):
                for index, closed in zip(members, choices, strict=True):
                    for place, layer in enumerate(groups[index].layers):
                        chosen.setdefault(id(layer), []).append((groups[index], place, closed))
        for layer in self.layers:
            if id(layer) in chosen:
                self._write(layer, chosen[id(layer)], on_top)

    def _choose(
        self,
        pattern: Pattern,
        groups: Sequence[Group],
        members: list[int],
        sparsity: float,
        rng: np.random.Generator,
        read: Read,
    ) -> list[np.ndarray]:
        """Bits, packed, 1 where a unit is closed; a group under its floor gets its best units back, others pay for
        them unless units are counted."""
        members_of = [groups[index] for index in members]
        target = pattern.closes(sum(group.num_units for group in members_of), sparsity)
        counted = target is not None
        if not counted:
            target = self._weights_to_close(members_of, sparsity)
        floors = self._floors(members_of)
        protected: dict[int, np.ndarray] = {}

        def reader(place: int):
            def scores(every: int) -> np.ndarray:
                found = read(members[place], members_of[place], every)
                if place in protected:
                    found = np.where(protected[place][::every], np.float32(np.inf), found)
                return found

            return scores

        while True:
            pools = [
                Pool(reader(place), group.num_units, 1 if counted else group.unit_weights, group.name)
                for place, group in enumerate(members_of)
            ]
            closed: list[np.ndarray] = [None] * len(pools)
            kept = [0] * len(pools)

            def keep(place: int, part: np.ndarray, closed=closed, kept=kept):
                # Packed: under global scope all groups' choices are in memory at once.
                closed[place], kept[place] = np.packbits(part), len(part) - np.count_nonzero(part)

            smallest(pools, max(target, 0), rng, keep)
            poor = [place for place in range(len(pools)) if kept[place] < floors[place]]
            fresh = set(poor) - protected.keys()
            for place in fresh:
                best = np.argpartition(pools[place].scores(), -floors[place])[-floors[place] :]
                protected[place] = np.zeros(members_of[place].num_units, bool)
                protected[place][best] = True
            if counted or not fresh:
                # Floors win over a target that leaves less than all of them together, and over a quantile, which
                # stays where it is.
                for place in poor:
                    closed[place] &= ~np.packbits(protected[place])
                return closed

    def _weights_to_close(self, groups: Sequence[Group], sparsity: float) -> float:
        layers = {id(layer): layer for group in groups for layer in group.layers}
        weights = sum(math.prod(layer.mask_variable.shape) for layer in layers.values())
        # Columns that an earlier step closed belong to no group, and count as closed.
        return sparsity * weights - (weights - sum(group.num_units * group.unit_weights for group in groups))

    def _floors(self, groups: Sequence[Group]) -> list[int]:
        """Units that each group keeps; of the groups of one matrix the first answers for it."""
        floors, seen = [], set()
        for group in groups:
            floors.append(0 if group.layers in seen else max(1, math.ceil(self.config.min_kept * group.num_units)))
            seen.add(group.layers)
        return floors

    def _ranked(self, index: int, group: Group, every: int) -> np.ndarray:
        scores = self._normalized(self.criterion.unit_scores(index, group))[::every]
        if self.criterion.reopens:
            return scores
        # −inf where closed. Not np.where: it branches, and masks are random, which no processor predicts.
        ceiling = self._openness(group)[::every] - np.finfo(np.float32).tiny
        ceiling *= np.float32(np.inf)
        return np.minimum(scores, ceiling, out=ceiling)

    def _normalized(self, scores: np.ndarray) -> np.ndarray:
        if not self.config.normalize_scores:
            return scores
        size = float(np.sqrt(np.mean(np.square(scores), dtype=np.float64)))
        return scores / np.float32(size) if size else scores

    def closed(self, group: Group) -> np.ndarray:
        """Which units of `group` are closed now, bool [num_units]."""
        return self._openness(group) == 0

    def _openness(self, group: Group) -> np.ndarray:
        return group.pool([view(layer.mask_variable) for layer in group.layers])

    def _write(self, layer: GatedLayer, chosen: list[tuple[Group, int, np.ndarray]], on_top: bool):
        value = 1.0 if layer.gate_trainable else layer.gate_init_value
        factors = [
            group.expand(np.logical_not(np.unpackbits(closed, count=group.num_units)))[place]
            for group, place, closed in chosen
        ]
        if on_top:
            factors.append(view(layer.mask_variable) != 0)
        factor = functools.reduce(np.logical_and, factors)
        # As one byte a weight to the backend, which widens them faster than NumPy would.
        kept = ops.convert_to_tensor(np.broadcast_to(factor, tuple(layer.mask_variable.shape)))
        gates = ops.cast(kept, layer.mask_variable.dtype)
        layer.mask_variable.assign(gates if value == 1.0 else gates * value)


def _threads() -> int:
    """Threads that this process should use: parallel jobs share the cores through this variable."""
    words = os.environ.get("OMP_NUM_THREADS", "")
    return max(1, min(int(words) if words.isdecimal() else os.cpu_count() or 1, 8))


def sparsity(layers: Sequence[GatedLayer]) -> float:
    """Closed weights of `layers` as a fraction of all their weights."""
    closed = sum(int(np.count_nonzero(ops.convert_to_numpy(layer.effective_gates()) == 0)) for layer in layers)
    return closed / sum(math.prod(layer.mask_variable.shape) for layer in layers)
