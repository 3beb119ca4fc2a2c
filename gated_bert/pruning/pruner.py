"""The pruner: criterion + pattern + scope → masks."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from keras import ops

from gated_bert.backend import view
from gated_bert.config import GatedBertConfig
from gated_bert.models.gated_dense import GatedDense
from gated_bert.pruning.criteria import criterion_class
from gated_bert.pruning.patterns import Group, get_pattern
from gated_bert.pruning.selection import Pool, smallest


class Pruner:
    """Closes the least important units of a model's gated layers.

    Args:
        config: the run's record; `criterion`, `pattern`, `scope`, `min_kept` and `seed` are read.
        layers: the prunable layers.
        num_heads: attention heads of each encoder block; only patterns made of heads read it.
    """

    def __init__(self, config: GatedBertConfig, layers: Sequence[GatedDense], num_heads: Sequence[int] = ()):
        self.config = config
        self.pattern = get_pattern(config.pattern)
        self.groups = self.pattern.groups(layers, num_heads)
        self.criterion = criterion_class(config)(config, self.groups, self.pattern)
        self._scopes = self._competitors()
        self._asked = 0.0

    def _competitors(self) -> list[list[int]]:
        keys = {"global": lambda i: 0, "layer": lambda i: i, "role": lambda i: self.groups[i].role}
        scopes: dict[object, list[int]] = {}
        for index in range(len(self.groups)):
            scopes.setdefault(keys[self.config.scope](index), []).append(index)
        return list(scopes.values())

    def update(self, sparsity: float, step: int):
        """Sets the masks so that `sparsity` of the groups' weights are closed, to within one unit of every scope.

        A lower sparsity than before changes nothing, unless the criterion opens units again.

        Args:
            sparsity: fraction of the weights.
            step: steps done so far; with the seed it decides how ties are broken.
        """
        if sparsity < self._asked and not self.criterion.reopens:
            return
        self._asked = sparsity
        rng = np.random.default_rng([self.config.seed, step])
        for members in self._scopes:
            for index, closed in zip(members, self._choose(members, sparsity, rng), strict=True):
                self._write(self.groups[index], closed)

    def _choose(self, members: list[int], sparsity: float, rng: np.random.Generator) -> list[np.ndarray]:
        """Bits, packed, 1 where a unit is closed; a group under its floor gets its best units back, others pay."""
        groups = [self.groups[index] for index in members]
        target = sparsity * sum(group.num_units * group.unit_weights for group in groups)
        floors = [max(1, math.ceil(self.config.min_kept * group.num_units)) for group in groups]
        protected: dict[int, np.ndarray] = {}
        while True:
            pools = [
                Pool(
                    lambda every, i=i, place=place: self._ranked(i, protected.get(place), every),
                    group.num_units,
                    group.unit_weights,
                    group.name,
                )
                for place, (i, group) in enumerate(zip(members, groups, strict=True))
            ]
            closed: list[np.ndarray] = [None] * len(groups)
            kept = [0] * len(groups)

            def keep(place: int, part: np.ndarray, closed=closed, kept=kept):
                # Packed: under global scope all groups' choices are in memory at once.
                closed[place], kept[place] = np.packbits(part), len(part) - np.count_nonzero(part)

            smallest(pools, target, rng, keep)
            poor = [place for place in range(len(groups)) if kept[place] < floors[place]]
            if all(place in protected for place in poor):
                # A target that leaves less than the floors of all groups together: the floors win.
                for place in poor:
                    closed[place] &= ~np.packbits(protected[place])
                return closed
            for place in set(poor) - protected.keys():
                best = np.argpartition(pools[place].scores(), -floors[place])[-floors[place] :]
                protected[place] = np.zeros(groups[place].num_units, bool)
                protected[place][best] = True

    def _ranked(self, index: int, protected: np.ndarray | None, every: int) -> np.ndarray:
        group = self.groups[index]
        scores = self.criterion.unit_scores(index, group)[::every]
        if not self.criterion.reopens:
            # −inf where closed. Not np.where: it branches, and masks are random, which no processor predicts.
            ceiling = self._openness(group)[::every] - np.finfo(np.float32).tiny
            ceiling *= np.float32(np.inf)
            scores = np.minimum(scores, ceiling, out=ceiling)
        if protected is not None:
            scores = np.where(protected[::every], np.float32(np.inf), scores)
        return scores

    def closed(self, group: Group) -> np.ndarray:
        """Which units of `group` are closed now, bool [num_units]."""
        return self._openness(group) == 0

    def _openness(self, group: Group) -> np.ndarray:
        return self.pattern.pool(group, [view(layer.mask_variable) for layer in group.layers], signed=True)

    def _write(self, group: Group, closed: np.ndarray):
        kept = np.logical_not(np.unpackbits(closed, count=group.num_units)).astype(np.float32)
        for layer, factor in zip(group.layers, self.pattern.expand(group, kept), strict=True):
            value = 1.0 if layer.gate_trainable else layer.gate_init_value
            factor = factor if value == 1.0 else factor * np.float32(value)
            layer.mask_variable.assign(np.broadcast_to(factor, tuple(layer.raw_kernel.shape)))


def sparsity(layers: Sequence[GatedDense]) -> float:
    """Closed weights of `layers` as a fraction of all their weights."""
    closed = sum(int(np.count_nonzero(ops.convert_to_numpy(layer.effective_gates()) == 0)) for layer in layers)
    return closed / sum(_weights(layer) for layer in layers)


def _weights(layer: GatedDense) -> int:
    return int(np.prod(layer.raw_kernel.shape))
