"""Which units of a scope a mask update closes: as many as its target asks for, and none below the floors."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from gated_bert.models.gated_dense import GatedLayer
from gated_bert.pruning.closed import Before, OpenUnits, count_weights, outside
from gated_bert.pruning.groups import BalancedGroup, Group
from gated_bert.pruning.output_scope import choose_in_columns
from gated_bert.pruning.patterns import Pattern
from gated_bert.pruning.selection import Pool, smallest_above_floors

Read = Callable[[int, Group, int], np.ndarray]
"""Scores of every so manyth unit (third argument) of a group (second; the first is its number)."""


@dataclass(frozen=True)
class Target:
    """How much one step of a mask update closes.

    Args:
        pattern: the step's pattern.
        sparsity: fraction of the weights of a scope.
        now: what is open before the step.
        limit: of a step whose sparsity counts whole units only, what may be closed of all weights.
        before: of a step that restores single weights, the gates before the update; they may be restored, no others.
    """

    pattern: Pattern
    sparsity: float
    now: OpenUnits
    limit: float | None = None
    before: dict[GatedLayer, Before] | None = None


@dataclass(frozen=True)
class Choice:
    """How units are chosen.

    Args:
        reopens: whether closed units may open again.
        min_kept: fraction of each group's units, or of each column's, that stays open.
        in_columns: whether every column of a matrix is ranked alone.
        choose: `Criterion.choose` of a criterion that chooses units itself.
    """

    reopens: bool
    min_kept: float
    in_columns: bool = False
    choose: Callable[[Sequence[int], Sequence[np.ndarray], float, Sequence[int]], list[np.ndarray]] | None = None

    def closed_units(
        self,
        groups: Sequence[Group],
        numbers: Sequence[int],
        layers: Sequence[GatedLayer],
        rng: np.random.Generator,
        target: Target,
        read: Read,
    ) -> list[np.ndarray]:
        """Bits, packed, 1 where a unit is closed."""
        if self.in_columns:
            ((number, group),) = zip(numbers, groups, strict=True)
            scores = read(number, group, 1).reshape(group.layers[0].mask_variable.shape)
            return [choose_in_columns(scores, target.sparsity, self.min_kept, rng, group.name)]
        floors, weights = self.floors(groups, target.now, target.before), count_weights(layers)
        if self.choose is not None:
            gains = [target.now.gains(group) for group in groups]
            missing = target.sparsity * weights - (weights - target.now.weights_of(groups, layers))
            closing = self.choose(numbers, gains, max(missing, 0), floors)
            return [np.packbits(closes | (gain == 0)) for closes, gain in zip(closing, gains, strict=True)]
        pools = [
            Pool(functools.partial(read, number, group), group.num_units, group.unit_weights, group.name)
            for number, group in zip(numbers, groups, strict=True)
        ]
        count = target.pattern.closes(sum(group.num_units for group in groups), target.sparsity)
        if count is not None:
            counted = [dataclasses.replace(pool, unit_weights=1) for pool in pools]
            return smallest_above_floors(counted, count, floors, rng, others_pay=False)
        if self.reopens:
            return smallest_above_floors(pools, target.sparsity * weights - outside(groups, layers), floors, rng)
        if target.before:
            closed = sum(target.before[layer].closed for layer in layers)
            return smallest_above_floors(pools, max(target.sparsity * weights, closed), floors, rng)
        return self._close_more(pools, groups, layers, floors, rng, target)

    def _close_more(
        self,
        pools: Sequence[Pool],
        groups: Sequence[Group],
        layers: Sequence[GatedLayer],
        floors: Sequence[int],
        rng: np.random.Generator,
        target: Target,
    ) -> list[np.ndarray]:
        """As `closed_units` where closed weights stay closed, and count wherever they are."""
        weights, beside = count_weights(layers), outside(groups, layers)
        closed = weights - target.now.weights_of(groups, layers)
        whole = sum((group.num_units - target.now.count(group)) * group.unit_weights for group in groups)
        sparsity = target.sparsity
        if target.limit is not None:
            found = smallest_above_floors(pools, max(sparsity * weights - beside, whole), floors, rng)
            added = sum(int(gain[np.unpackbits(bits, count=len(gain)) == 1].sum(dtype=np.int64))
                        for gain, bits in zip(map(target.now.gains, groups), found, strict=True))  # fmt: skip
            if closed + added <= target.limit * weights + groups[0].unit_weights / 2:
                return found
            sparsity = target.limit
        if whole + beside == closed and len({group.unit_weights for group in groups}) == 1:
            return smallest_above_floors(pools, max(sparsity * weights - beside, whole), floors, rng)
        pools = [
            dataclasses.replace(pool, gains=target.now.gains(group), ordered=isinstance(group, BalancedGroup))
            for pool, group in zip(pools, groups, strict=True)
        ]
        return smallest_above_floors(pools, max(sparsity * weights - closed, 0), floors, rng)

    def floors(
        self, groups: Sequence[Group], now: OpenUnits, before: dict[GatedLayer, Before] | None = None
    ) -> list[int]:
        """Units that each group keeps; of the groups of one matrix the first answers for it."""
        floors, seen = [], set()
        for group in groups:
            floor = 0 if group.layers in seen else max(1, math.ceil(self.min_kept * group.num_units))
            if floor and not self.reopens:
                # What is closed below the floor stays closed.
                floor = min(floor, group.num_units - before[group.layers[0]].closed if before else now.count(group))
            floors.append(floor)
            seen.add(group.layers)
        return floors
