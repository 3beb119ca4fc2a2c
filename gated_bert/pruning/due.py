"""Whether a mask update would change anything."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from gated_bert.models.gated_dense import GatedLayer
from gated_bert.pruning.choice import Choice
from gated_bert.pruning.closed import OpenUnits, count_weights, layers_of
from gated_bert.pruning.output_scope import is_due_in_columns
from gated_bert.pruning.patterns import Pattern

if TYPE_CHECKING:
    from gated_bert.pruning.pruner import Pruner


class Due:
    """Whether an update of a pruner to a sparsity may change a mask, given what is open `now`; see `Pruner.due`.

    Args:
        pruner: the pruner.
        choice: how it chooses units.
    """

    def __init__(self, pruner: Pruner, choice: Choice):
        self._pruner, self._choice = pruner, choice
        self._settled: tuple[float, dict[GatedLayer, int]] | None = None

    def __call__(self, sparsity: float, now: OpenUnits) -> bool:
        pruner = self._pruner
        if pruner.criterion.reopens:
            return True
        if self._is_settled(sparsity, now):
            return False
        steps = pruner.pattern.steps(sparsity)
        if self._few_closed(steps, now):
            return True
        last, share = steps[-1]
        if last.closes(1, share) is not None:
            return False
        if pruner.scope == "output":
            opens = map(now.is_open, pruner.layers_of_groups())
            return any(is_due_in_columns(is_open, share, pruner.min_kept) for is_open in opens)
        for members in pruner.competitors(pruner.groups, "global" if last.restores else pruner.scope):
            groups = [pruner.groups[index] for index in members]
            floors = self._choice.floors(groups, now)
            gains = [now.least_closable(group, floor) for group, floor in zip(groups, floors, strict=True)]
            least = min((gain for gain in gains if gain), default=math.inf)
            layers = layers_of(groups)
            weights = count_weights(layers)
            missing = share * weights - (weights - now.weights_of(groups, layers))
            if missing >= 0.5 * (min(least, 1) if last.restores else least):
                return True
        return False

    def settle(self, sparsity: float) -> None:
        """Takes the gates as they are for what an update to `sparsity` leaves."""
        pruner = self._pruner
        # Of units that are partly open, or made of what is open, the gates alone do not say that nothing is left to do.
        if not pruner.criterion.reopens and any(group.unit_weights > 1 for group in pruner.groups):
            now = OpenUnits()
            self._settled = sparsity, {layer: now.weights([layer]) for layer in pruner.layers_of_groups()}

    def _is_settled(self, sparsity: float, now: OpenUnits) -> bool:
        if self._settled is None or self._settled[0] != sparsity:
            return False
        return all(now.weights([layer]) <= left for layer, left in self._settled[1].items())

    def _few_closed(self, steps: Sequence[tuple[Pattern, float]], now: OpenUnits) -> bool:
        """Whether a pattern that counts units has fewer of them closed than it would close."""
        pruner = self._pruner
        for pattern, share in steps:
            if pattern.closes(1, share) is None:
                continue
            groups = pruner.groups if len(steps) == 1 else pattern.groups(pruner.layers, pruner.num_heads)
            for members in pruner.competitors(groups, pruner.scope):
                ranked = [groups[index] for index in members]
                units, left = sum(group.num_units for group in ranked), sum(map(now.count, ranked))
                closed = pattern.closes(units, share) or 0
                if left > max(units - closed, sum(self._choice.floors(ranked, now))):
                    return True
        return False
