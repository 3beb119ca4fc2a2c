"""Patterns: what is removed at once. A pattern knows no criterion."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from gated_bert.models.gated_dense import GatedDense


@dataclass(frozen=True)
class Group:
    """Matrices whose units are removed together.

    Args:
        layers: the gated layers.
        role: role that a `role` scope and reports file the group under.
        num_units: units in the group.
        unit_weights: weights in one unit, over all layers.
        name: for errors and tables.
    """

    layers: tuple[GatedDense, ...]
    role: str
    num_units: int
    unit_weights: int
    name: str


@dataclass(frozen=True)
class Pattern:
    """Base class: one group per matrix, cut into blocks of `height` × `width` weights.

    Args:
        height: rows (inputs) of a block; 0 means all.
        width: columns (outputs) of a block; 0 means all.
    """

    height: int = 1
    width: int = 1

    def groups(self, layers: Sequence[GatedDense], num_heads: Sequence[int] = ()) -> list[Group]:
        """The groups of `layers`.

        Args:
            layers: gated layers of one model.
            num_heads: attention heads of each encoder block; only patterns made of heads read it.

        Raises:
            ValueError: a matrix that the pattern does not divide.
        """
        return [self._matrix_group(layer) for layer in layers]

    def _matrix_group(self, layer: GatedDense) -> Group:
        rows, columns = (int(size) for size in layer.raw_kernel.shape)
        height, width = self.height or rows, self.width or columns
        if rows % height or columns % width:
            raise ValueError(f"{layer.name} is {rows} × {columns}: blocks of {height} × {width} do not divide it")
        units = (rows // height) * (columns // width)
        return Group((layer,), layer.role, units, height * width, layer.name)

    def pool(self, group: Group, scores: Sequence[np.ndarray], signed: bool) -> np.ndarray:
        """Scores of the units.

        Args:
            group: the group.
            scores: one array [in, out] per layer of the group.
            signed: pool by the mean; else by the root mean square.

        Returns:
            Array [num_units].
        """
        if group.unit_weights == 1:
            return scores[0].ravel()
        powers = scores if signed else [np.square(array) for array in scores]
        total = sum(self._sum(group, layer, array) for layer, array in zip(group.layers, powers, strict=True))
        mean = total / group.unit_weights
        return mean if signed else np.sqrt(mean)

    def _sum(self, group: Group, layer: GatedDense, array: np.ndarray) -> np.ndarray:
        rows, columns = array.shape
        height, width = self.height or rows, self.width or columns
        return array.reshape(rows // height, height, columns // width, width).sum((1, 3)).ravel()

    def expand(self, group: Group, units, xp=np) -> list:
        """What multiplies each layer's gates, given a value per unit.

        Args:
            group: the group.
            units: array [num_units].
            xp: `numpy`, or `keras.ops` inside a compiled function.

        Returns:
            Per layer an array that broadcasts against [in, out].
        """
        rows, columns = (int(size) for size in group.layers[0].raw_kernel.shape)
        height, width = self.height or rows, self.width or columns
        blocks = xp.reshape(units, (rows // height, columns // width))
        if height not in (1, rows):
            blocks = xp.repeat(blocks, height, axis=0)
        if width not in (1, columns):
            blocks = xp.repeat(blocks, width, axis=1)
        return [blocks]


@dataclass(frozen=True)
class _AcrossLayers(Pattern):
    """Units that run through several matrices of an encoder block: columns of some, rows of others."""

    def _members(self) -> dict[str, int]:
        """Role → axis of the kernel along which its units lie."""
        raise NotImplementedError(f"{type(self).__name__} does not say which matrices it ties")

    def _units(self, layers: dict[str, GatedDense], num_heads: int) -> int:
        raise NotImplementedError(f"{type(self).__name__} does not say how many units a block has")

    def groups(self, layers, num_heads=()):
        blocks: dict[int, dict[str, GatedDense]] = {}
        for layer in layers:
            if layer.role in self._members():
                blocks.setdefault(layer.layer_index, {})[layer.role] = layer
        found = []
        for index, members in sorted(blocks.items()):
            missing = self._members().keys() - members.keys()
            if missing:
                raise ValueError(
                    f"encoder block {index}: {', '.join(sorted(missing))} not prunable, but the pattern ties it"
                )
            tied = tuple(members[role] for role in self._members())
            units = self._units(members, num_heads[index] if num_heads else 0)
            weights = sum(int(np.prod(layer.raw_kernel.shape)) for layer in tied)
            if units:
                found.append(
                    Group(
                        tied, tied[0].role, units, weights // units, f"encoder_{index} {type(self).__name__.lower()}s"
                    )
                )
        if not found:
            raise ValueError(f"no prunable matrices with the roles {', '.join(self._members())}")
        return found

    def _sum(self, group: Group, layer: GatedDense, array: np.ndarray) -> np.ndarray:
        axis = self._members()[layer.role]
        return array.sum(1 - axis).reshape(group.num_units, -1).sum(1)

    def expand(self, group: Group, units, xp=np) -> list:
        factors = []
        for layer in group.layers:
            axis = self._members()[layer.role]
            length = int(layer.raw_kernel.shape[axis])
            factors.append(xp.expand_dims(xp.repeat(units, length // group.num_units, axis=0), 1 - axis))
        return factors


@dataclass(frozen=True)
class Head(_AcrossLayers):
    """A head: its columns of query, key and value, its rows of the attention output."""

    def _members(self):
        return {"query": 1, "key": 1, "value": 1, "attention_output": 0}

    def _units(self, layers, num_heads):
        return num_heads


@dataclass(frozen=True)
class Neuron(_AcrossLayers):
    """An FFN neuron: its column of the first matrix, its row of the second."""

    def _members(self):
        return {"ffn_intermediate": 1, "ffn_output": 0}

    def _units(self, layers, num_heads):
        return int(layers["ffn_intermediate"].raw_kernel.shape[1])


_PATTERNS: dict[str, Callable[[], Pattern]] = {
    "element": Pattern,
    "row": lambda: Pattern(height=1, width=0),
    "column": lambda: Pattern(height=0, width=1),
    "block": lambda: Pattern(height=32, width=32),
    "head": Head,
    "neuron": Neuron,
}


def get_pattern(name: str) -> Pattern:
    """The pattern called `name` in `gated_bert.config.PATTERNS`."""
    return _PATTERNS[name]()
