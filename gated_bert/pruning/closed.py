"""What is closed already, as the gates say: of layers, and of the units of groups."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import numpy as np

from gated_bert.backend import view
from gated_bert.models.gated_dense import GatedLayer
from gated_bert.pruning.groups import BalancedGroup, BlockGroup, Group

IsOpen = Callable[[GatedLayer], np.ndarray]
"""Which weights of a layer are open, bool [in, out]."""


def open_weights(layer: GatedLayer) -> np.ndarray:
    """Where neither the gate nor the mask beside a trained one is zero, bool [in, out]."""
    found = view(layer.mask_variable) != 0
    return found & (view(layer.gates) != 0) if layer.gate_trainable else found


def count_weights(layers: Iterable[GatedLayer]) -> int:
    """Weights of all layers together."""
    return sum(math.prod(layer.mask_variable.shape) for layer in layers)


def openness(group: Group, is_open: IsOpen = open_weights) -> np.ndarray:
    """Share of each unit's weights that is open, float32 [num_units]."""
    return group.pool([is_open(layer).astype(np.float32) for layer in group.layers])


def unit_gains(group: Group) -> np.ndarray:
    """Open weights of each unit, which closing it would add to the closed ones: int [num_units]."""
    if isinstance(group, BlockGroup) and group.unit_weights == 1:
        return open_weights(group.layers[0]).ravel().view(np.int8)
    return np.rint(openness(group) * group.unit_weights).astype(np.int64)


def open_units(group: Group) -> int:
    """Units with an open weight; of a balanced group, as many as the set that has most."""
    if isinstance(group, BalancedGroup):
        return int(_open_per_set(group).max())
    return int(np.count_nonzero(unit_gains(group)))


def least_closable(group: Group, floor: int) -> int:
    """The fewest weights that closing one more unit of `group` adds; 0 where no more than `floor` units are open.

    Of a balanced group, whose next unit depends on scores, it is at most that.
    """
    if open_units(group) <= floor:
        return 0
    if isinstance(group, BalancedGroup):
        per_set, gains = _open_per_set(group), unit_gains(group.base)
        return int(np.count_nonzero(per_set == per_set.max()) * gains[gains > 0].min())
    gains = unit_gains(group)
    return int(gains[gains > 0].min())


def _open_per_set(group: BalancedGroup) -> np.ndarray:
    return np.count_nonzero(unit_gains(group.base).reshape(group.shape), axis=group.axis)


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
