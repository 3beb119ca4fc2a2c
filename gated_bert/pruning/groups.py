"""Groups: matrices whose units are removed together, and where each unit lies in them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from gated_bert.models.gated_dense import GatedLayer


@dataclass(frozen=True, eq=False)
class Group:
    """Matrices whose units are removed together; base class, of one weight count per unit.

    Args:
        layers: the gated layers.
        role: role that a `role` scope and reports file the group under.
        num_units: units in the group.
        unit_weights: weights in one unit, over all layers.
        name: for errors and tables.
    """

    layers: tuple[GatedLayer, ...]
    role: str
    num_units: int
    unit_weights: int
    name: str

    def pool(self, scores: Sequence[np.ndarray], how: str = "mean") -> np.ndarray:
        """Scores of the units.

        Args:
            scores: one array [in, out] per layer.
            how: `mean`, `l1` (mean of the absolute values), `l2` (root mean square) or `published` (L2 norm over the
                number of weights, as TileSparsity's code has it, which favours short units).

        Returns:
            Array [num_units].
        """
        powers: dict[str, Callable] = {"mean": np.asarray, "l1": np.abs}
        power = powers.get(how, np.square)
        total = functools.reduce(np.add, (self._sums(place, power(array)) for place, array in enumerate(scores)))
        if how == "published":
            return np.sqrt(total) / self._divisor()
        mean = total / self._divisor()
        return np.sqrt(mean) if how == "l2" else mean

    def _divisor(self):
        """Weights of the units as pooling counts them: a number, or an array [num_units]."""
        return self.unit_weights

    def expand(self, units: np.ndarray, xp: Any = np) -> list:
        """What multiplies each layer's gates, given a value per unit; 1 outside the group's units.

        Args:
            units: array [num_units].
            xp: `numpy`, or `keras.ops` inside a compiled function.

        Returns:
            Per layer an array that broadcasts against [in, out].
        """
        raise NotImplementedError

    def _sums(self, place: int, array: np.ndarray) -> np.ndarray:
        """Sums of `array` [in, out], which belongs to layer number `place`, over each unit."""
        raise NotImplementedError

    def __str__(self) -> str:
        return f"{self.name}: {self.num_units} × {self._unit()} ({self.unit_weights:,} weights each)"

    def _unit(self) -> str:
        raise NotImplementedError


@dataclass(frozen=True, eq=False)
class BlockGroup(Group):
    """Units are the blocks of `height` × `width` of one matrix, row by row."""

    height: int = 1
    width: int = 1

    def pool(self, scores: Sequence[np.ndarray], how: str = "mean") -> np.ndarray:
        return scores[0].ravel() if self.unit_weights == 1 else super().pool(scores, how)

    def _blocks(self) -> tuple[int, int]:
        rows, columns = self.layers[0].mask_variable.shape
        return rows // self.height, columns // self.width

    def _sums(self, place, array):
        rows, columns = self._blocks()
        return array.reshape(rows, self.height, columns, self.width).sum((1, 3)).ravel()

    def expand(self, units: np.ndarray, xp: Any = np) -> list:
        rows, columns = self._blocks()
        blocks = xp.reshape(units, (rows, columns))
        if self.height > 1 and rows > 1:
            blocks = xp.repeat(blocks, self.height, axis=0)
        if self.width > 1 and columns > 1:
            blocks = xp.repeat(blocks, self.width, axis=1)
        return [blocks]

    def _unit(self):
        return "weight" if self.unit_weights == 1 else f"block of {self.height} rows × {self.width} columns"


@dataclass(frozen=True, eq=False)
class TiedGroup(Group):
    """Units run through several matrices of an encoder block: `axes[i]` is the axis of layer i along which they lie."""

    axes: tuple[int, ...] = ()

    def _sums(self, place, array):
        return array.sum(1 - self.axes[place]).reshape(self.num_units, -1).sum(1)

    def expand(self, units: np.ndarray, xp: Any = np) -> list:
        factors = []
        for layer, axis in zip(self.layers, self.axes, strict=True):
            length = int(layer.mask_variable.shape[axis])
            factors.append(xp.expand_dims(xp.repeat(units, length // self.num_units, axis=0), 1 - axis))
        return factors

    def _unit(self):
        parts = []
        for layer, axis in zip(self.layers, self.axes, strict=True):
            count = int(layer.mask_variable.shape[axis]) // self.num_units
            parts.append(f"{count} {('row', 'column')[axis]}{'s' * (count > 1)} of {layer.role}")
        return "(" + " + ".join(parts) + ")"


@dataclass(frozen=True, eq=False)
class TileGroup(Group):
    """Units are the rows inside tiles of `width` columns; `columns` [tiles · width] says which, tile after tile."""

    columns: np.ndarray
    width: int = 1

    def _sums(self, place, array):
        chosen = array if len(self.columns) == array.shape[1] else array[:, self.columns]
        return chosen.reshape(len(array), -1, self.width).sum(2).ravel()

    def expand(self, units: np.ndarray, xp: Any = np) -> list:
        rows, total = (int(size) for size in self.layers[0].mask_variable.shape)
        values = xp.repeat(xp.reshape(units, (rows, -1)), self.width, axis=1)
        place = np.full(total, len(self.columns))
        place[self.columns] = np.arange(len(self.columns))
        return [xp.take(xp.concatenate([values, xp.ones((rows, 1), values.dtype)], axis=1), place, axis=1)]

    def _unit(self):
        return f"row inside a tile of {self.width} columns"


@dataclass(frozen=True, eq=False)
class BalancedGroup(Group):
    """Units take one member of every set of `base`'s units: unit r the r-th least important of each.

    So every set (a head, a run of weights, a tile) loses equally many, whatever competes with what.

    Args:
        base: the group whose units fall into sets.
        shape: shape that lays out `base`'s units so that `axis` counts the members of a set.
        axis: that axis.
        order: the ranking, int array `shape`; None before `sorted_by`.
    """

    base: Group
    shape: tuple[int, ...] = ()
    axis: int = 0
    order: np.ndarray | None = None

    @classmethod
    def of(cls, base: Group, shape: tuple[int, ...], axis: int) -> BalancedGroup:
        """The balanced group of `base`'s units laid out in `shape`."""
        members = shape[axis]
        weights = base.num_units * base.unit_weights // members
        return cls(base.layers, base.role, members, weights, base.name, base, shape, axis)

    def sorted_by(self, scores: np.ndarray, rng: np.random.Generator) -> BalancedGroup:
        """This group with the ranking of `scores` [units of base]; ties fall at random."""
        scores = scores.reshape(self.shape)
        order = np.argsort(scores, axis=self.axis)
        ranked = np.take_along_axis(scores, order, self.axis)
        with np.errstate(invalid="ignore"):
            ties = np.diff(ranked, axis=self.axis) == 0
        if ties.any():
            order = np.lexsort((rng.random(self.shape, np.float32), scores), axis=self.axis)
        return replace(self, order=order.astype(np.int16 if self.num_units < 2**15 else np.int32))

    def _ranking(self) -> np.ndarray:
        if self.order is None:
            raise ValueError(f"{self.name}: its units are not ranked yet; sorted_by ranks them")
        return self.order

    def pool(self, scores: Sequence[np.ndarray], how: str = "mean") -> np.ndarray:
        units = np.take_along_axis(self.base.pool(scores, how).reshape(self.shape), self._ranking(), self.axis)
        ranked = np.moveaxis(units, self.axis, 0).reshape(self.num_units, -1)
        return np.sqrt(np.square(ranked).mean(1)) if how in ("l2", "published") else ranked.mean(1)

    def expand(self, units: np.ndarray, xp: Any = np) -> list:
        along = [1] * len(self.shape)
        along[self.axis] = self.num_units
        kept = np.empty(self.shape, units.dtype)
        np.put_along_axis(kept, self._ranking(), np.broadcast_to(units.reshape(along), self.shape), self.axis)
        return self.base.expand(kept.ravel())

    def _unit(self):
        sets = self.base.num_units // self.num_units
        return f"one {self.base._unit()} of each of {sets:,} sets"
