"""What is closed already, as the gates say: of layers, and of the units of groups."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from gated_bert.models.gated_dense import GatedLayer
from gated_bert.pruning.groups import BalancedGroup, BlockGroup, Group
from gated_bert.support.backend import view

IsOpen = Callable[[GatedLayer], np.ndarray]
"""Which weights of a layer are open, bool [in, out]."""
_TINY = np.finfo(np.float32).tiny


def open_weights(layer: GatedLayer) -> np.ndarray:
    """Where neither the gate nor the mask beside a trained one is zero, bool [in, out]."""
    found = view(layer.mask_variable) != 0
    return found & (view(layer.gates) != 0) if layer.gate_trainable else found


def count_weights(layers: Iterable[GatedLayer]) -> int:
    """Weights of all layers together."""
    return sum(math.prod(layer.mask_variable.shape) for layer in layers)


def layers_of(groups: Iterable[Group]) -> list[GatedLayer]:
    """The layers of groups, each once."""
    return list(dict.fromkeys(layer for group in groups for layer in group.layers))


def outside(groups: Sequence[Group], layers: Sequence[GatedLayer]) -> int:
    """Weights of `layers` in none of the groups: columns that an earlier step closed."""
    return count_weights(layers) - sum(group.num_units * group.unit_weights for group in groups)


def openness(group: Group, is_open: IsOpen = open_weights) -> np.ndarray:
    """Share of each unit's weights that is open, float32 [num_units]."""
    return group.pool([is_open(layer).astype(np.float32) for layer in group.layers])


class OpenUnits:
    """What of layers and groups is open, each looked up once; the gates must not change meanwhile.

    Args:
        is_open: which weights of a layer count as open.
    """

    def __init__(self, is_open: IsOpen = open_weights):
        self.is_open = is_open
        self._weights: dict[GatedLayer, int] = {}
        self._shares: dict[Group, np.ndarray] = {}

    def weights(self, layers: Iterable[GatedLayer]) -> int:
        """How many weights of all layers together are open."""
        layers = list(layers)
        for layer in layers:
            if layer not in self._weights:
                self._weights[layer] = int(np.count_nonzero(self.is_open(layer)))
        return sum(self._weights[layer] for layer in layers)

    def weights_of(self, groups: Sequence[Group], layers: Sequence[GatedLayer]) -> int:
        """Open weights of `layers`, told from the groups where these are all of them."""
        return self.weights(layers) if outside(groups, layers) else sum(map(self.weights_in, groups))

    def share(self, group: Group) -> np.ndarray:
        """The group's `openness`."""
        if is_of_weights(group):
            # Not kept: of a large model no more than one matrix' should be in memory at once.
            return openness(group, self.is_open)
        if group not in self._shares:
            self._shares[group] = openness(group, self.is_open)
        return self._shares[group]

    def ceiling(self, group: Group, every: int) -> np.ndarray:
        """Of every so manyth unit +∞ where a weight of it is open, −∞ where none is, float32."""
        if not is_of_weights(group):
            found = self.share(group)[::every] - _TINY
        else:
            layer = group.layers[0]
            if self.is_open is open_weights and not layer.gate_trainable:
                # The mask itself is above 0 where it is open: no need to compare first.
                found = np.abs(view(layer.mask_variable).ravel()[::every])
            else:
                found = self.is_open(layer).ravel()[::every].astype(np.float32)
            found -= _TINY
        # Not np.where: it branches, and masks are random, which no processor predicts.
        found *= np.float32(np.inf)
        return found

    def in_part(self, group: Group) -> bool:
        """Whether single weights inside a unit are closed."""
        share = self.share(group)
        return bool(np.any((share > 0) & (share < 1)))

    def gains(self, group: Group) -> np.ndarray:
        """Open weights of each unit, which closing it would add to the closed ones: int [num_units]."""
        if is_of_weights(group):
            return self.is_open(group.layers[0]).ravel().view(np.int8)
        return np.rint(self.share(group) * group.unit_weights).astype(np.int64)

    def weights_in(self, group: Group) -> int:
        """How many weights of a group's units are open."""
        if is_of_weights(group):
            return self.count(group)
        return self.weights_in(group.base) if isinstance(group, BalancedGroup) else int(self.gains(group).sum())

    def count(self, group: Group) -> int:
        """Units with an open weight; of a balanced group, as many as the set that has most."""
        if is_of_weights(group):
            return self.weights(group.layers)
        if isinstance(group, BalancedGroup) and group.order is None:
            return int(self._per_set(group).max())
        return int(np.count_nonzero(self.share(group)))

    def least_closable(self, group: Group, floor: int) -> int:
        """The fewest weights that closing one more unit adds; 0 where no more than `floor` units are open.

        Of a balanced group, whose next unit depends on scores, it is at most that.
        """
        if self.count(group) <= floor:
            return 0
        if is_of_weights(group):
            return 1
        if isinstance(group, BalancedGroup):
            per_set = self._per_set(group)
            return int(np.count_nonzero(per_set == per_set.max())) * self.least_closable(group.base, 0)
        gains = self.gains(group)
        return int(gains[gains > 0].min())

    def _per_set(self, group: BalancedGroup) -> np.ndarray:
        base = group.base
        is_open = self.is_open(base.layers[0]) if is_of_weights(base) else self.share(base) > 0
        return np.count_nonzero(is_open.reshape(group.shape), axis=group.axis)


def is_of_weights(group: Group) -> bool:
    """Whether the units of a group are the single weights of a matrix."""
    return isinstance(group, BlockGroup) and group.unit_weights == 1


class Before:
    """The gates of a layer before a mask update.

    Attributes:
        closed: how many were zero.
    """

    def __init__(self, layer: GatedLayer):
        values, found = view(layer.mask_variable), open_weights(layer)
        self._shape = values.shape
        # Bits, where they say all: of a large model more than the scores of one matrix should not be in memory at once.
        self._bits, self._fill = np.packbits(found), 1.0 if layer.gate_trainable else layer.gate_init_value
        self._values = None if np.all((values == 0) | (values == self._fill)) else values.copy()
        self.closed = found.size - int(np.count_nonzero(found))

    @property
    def open(self) -> np.ndarray:
        """Where weights were open, bool [in, out]."""
        return np.unpackbits(self._bits, count=math.prod(self._shape)).reshape(self._shape).astype(bool)

    @property
    def values(self) -> np.ndarray:
        """The gates, or the mask beside trained ones, float32 [in, out]."""
        return self.open * np.float32(self._fill) if self._values is None else self._values
