"""Patterns: what is removed at once. A pattern knows no criterion."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gated_bert.config import ConfigError
from gated_bert.models.gated_dense import GatedLayer
from gated_bert.models.roles import by_block
from gated_bert.pruning.groups import BalancedGroup, BlockGroup, Group, TiedGroup, TileGroup
from gated_bert.support.backend import view


class Pattern:
    """Base class.

    Class attributes:
        on_top: masks close more of what the masks before left open; else they say everything.
        restores: units open already stay open whatever their score.
    """

    on_top = False
    restores = False

    def groups(self, layers: Sequence[GatedLayer], num_heads: Sequence[int] = ()) -> list[Group]:
        """The groups of `layers`.

        Args:
            layers: gated layers of one model.
            num_heads: attention heads of each encoder block; only patterns made of heads read it.

        Raises:
            ConfigError: a matrix that the pattern does not divide, or no matrix that it is made of.
        """
        raise NotImplementedError

    def steps(self, sparsity: float) -> list[tuple[Pattern, float]]:
        """The patterns that one mask update applies one after another, each with the sparsity reached after it."""
        return [(self, sparsity)]

    def closes(self, units: int, sparsity: float) -> int | None:
        """How many of `units` that are ranked together close; None where as many as hold that share of the weights."""
        return None

    def total(self, sparsity: float) -> float:
        """The sparsity of the pattern's matrices that is due where `sparsity` is asked for."""
        return self.steps(sparsity)[-1][1]

    def roles(self) -> frozenset[str] | None:
        """Roles of the matrices that the pattern is made of; None where these are all."""
        return None


@dataclass(frozen=True)
class Block(Pattern):
    """Blocks of `height` × `width` weights of one matrix; 0 means all rows or columns."""

    height: int = 1
    width: int = 1

    def groups(self, layers: Sequence[GatedLayer], num_heads: Sequence[int] = ()) -> list[Group]:
        return [self._group(layer) for layer in layers]

    def _group(self, layer: GatedLayer) -> BlockGroup:
        rows, columns = shape(layer)
        height, width = self.height or rows, self.width or columns
        _divides(layer, "block_size", height, rows, "rows")
        _divides(layer, "block_size", width, columns, "columns")
        units = (rows // height) * (columns // width)
        return BlockGroup((layer,), layer.role, units, height * width, layer.label, height, width)


@dataclass(frozen=True)
class Tied(Pattern):
    """Units that run through several matrices of an encoder block.

    Args:
        what: the units' name, in the plural.
        members: role → axis of the kernel along which the units lie.
        per_head: units are as many as the block's heads; else as the shortest member's axis is long.
    """

    what: str
    members: tuple[tuple[str, int], ...]
    per_head: bool = False

    def groups(self, layers: Sequence[GatedLayer], num_heads: Sequence[int] = ()) -> list[Group]:
        roles = [role for role, _ in self.members]
        blocks = by_block(layer for layer in layers if layer.role in roles)
        made = [self._group(index, block, num_heads) for index, block in sorted(blocks.items())]
        found: list[Group] = [group for group in made if group]
        if not found:
            raise ConfigError(
                "prunable_roles", "none of the layers", f"{', '.join(roles)}, which {self.what} are made of; "
                "another pattern for a model that has none of them left",
            )
        return found

    def roles(self) -> frozenset[str]:
        return frozenset(role for role, _ in self.members)

    def _group(self, index: int, block: dict[str, GatedLayer], num_heads: Sequence[int]) -> TiedGroup | None:
        missing = [role for role, _ in self.members if role not in block]
        if missing:
            raise ConfigError("prunable_roles", ", ".join(block), f"also {', '.join(missing)}, tied by {self.what}")
        layers = tuple(block[role] for role, _ in self.members)
        axes = tuple(axis for _, axis in self.members)
        lengths = [shape(layer)[axis] for layer, axis in zip(layers, axes, strict=True)]
        # Of a gated unit a neuron has two columns, side by side, and one row.
        units = _heads(num_heads, index, layers[0]) if self.per_head else min(lengths)
        weights = sum(math.prod(shape(layer)) for layer in layers)
        if not units:
            return None
        return TiedGroup(layers, layers[0].role, units, weights // units, f"encoder_{index} {self.what}", axes)


HEADS = Tied("heads", (("query", 1), ("key", 1), ("value", 1), ("attention_output", 0)), per_head=True)
NEURONS = Tied("neurons", (("ffn_intermediate", 1), ("ffn_output", 0)))
QKV_ROWS = Tied("QKV rows", (("query", 0), ("key", 0), ("value", 0)))
_QUERY_KEY_DIMS = Tied("query-key dimensions", (("query", 1), ("key", 1)))
_VALUE_DIMS = Tied("value dimensions", (("value", 1), ("attention_output", 0)))


@dataclass(frozen=True)
class Several(Pattern):
    """Units of several patterns side by side, e.g. heads and neurons, compared per weight."""

    parts: tuple[Pattern, ...]

    def groups(self, layers: Sequence[GatedLayer], num_heads: Sequence[int] = ()) -> list[Group]:
        return [group for part in self.parts for group in part.groups(layers, num_heads)]

    def roles(self) -> frozenset[str] | None:
        found = [part.roles() for part in self.parts]
        known = [roles for roles in found if roles is not None]
        return frozenset().union(*known) if len(known) == len(found) else None


class HeadDims(Pattern):
    """Dimensions of heads, equally many of every head of a block: query with key, value with the output's rows."""

    def groups(self, layers: Sequence[GatedLayer], num_heads: Sequence[int] = ()) -> list[Group]:
        found: list[Group] = []
        if any(layer.whole_heads for layer in layers):
            raise ConfigError("pattern", "head_dim", "head: queries and keys that are rotated lose whole heads "
                              "alone")  # fmt: skip
        for part in (_QUERY_KEY_DIMS, _VALUE_DIMS):
            for base in part.groups(layers):
                heads = _heads(num_heads, base.layers[0].layer_index, base.layers[0])
                if heads:
                    found.append(BalancedGroup.of(base, (heads, base.num_units // heads), 1))
        return found

    def roles(self) -> frozenset[str] | None:
        return _QUERY_KEY_DIMS.roles() | _VALUE_DIMS.roles()


@dataclass(frozen=True)
class KTiles(Pattern):
    """1 × g runs inside a row, equally many of every tile of g columns (TileSparsity's one quantile per tile)."""

    granularity: int

    def groups(self, layers: Sequence[GatedLayer], num_heads: Sequence[int] = ()) -> list[Group]:
        found: list[Group] = []
        for layer in layers:
            rows, columns = shape(layer)
            _divides(layer, "granularity", self.granularity, columns, "columns")
            base = Block(1, self.granularity).groups([layer])[0]
            found.append(BalancedGroup.of(base, (rows, columns // self.granularity), 0))
        return found


@dataclass(frozen=True)
class Vectors(Pattern):
    """n of every m consecutive weights stay: inside a column (`axis` k) or inside a row (n)."""

    size: int
    axis: str = "k"

    def groups(self, layers: Sequence[GatedLayer], num_heads: Sequence[int] = ()) -> list[Group]:
        return [self._group(layer, Block().groups([layer])[0]) for layer in layers]

    def _group(self, layer, base):
        rows, columns = shape(layer)
        if self.axis == "k":
            _divides(layer, "vector_size", self.size, rows, "rows")
            return BalancedGroup.of(base, (rows // self.size, self.size, columns), 1)
        _divides(layer, "vector_size", self.size, columns, "columns")
        return BalancedGroup.of(base, (rows, columns // self.size, self.size), 2)


@dataclass(frozen=True)
class Tiles(Pattern):
    """Rows inside tiles of g columns; a matrix' last tile holds the columns left over.

    Args:
        granularity: g.
        surviving: only columns still open are gathered into tiles.
    """

    granularity: int
    surviving: bool = False

    @property
    def on_top(self) -> bool:  # type: ignore[override]  # of these patterns an option says it
        return self.surviving

    def groups(self, layers: Sequence[GatedLayer], num_heads: Sequence[int] = ()) -> list[Group]:
        found: list[Group] = []
        for layer in layers:
            rows, total = shape(layer)
            columns = np.flatnonzero(view(layer.mask_variable).any(0)) if self.surviving else np.arange(total)
            whole = len(columns) // self.granularity * self.granularity
            for part, width in ((columns[:whole], self.granularity), (columns[whole:], len(columns) - whole)):
                if len(part):
                    units = rows * (len(part) // width)
                    found.append(TileGroup((layer,), layer.role, units, width, layer.label, part, width))
        return found


@dataclass(frozen=True)
class ColumnsThenTiles(Tiles):
    """Whole columns first, the survivors regrouped into tiles, then rows per tile (TileSparsity's TW in both dims)."""

    def steps(self, sparsity: float) -> list[tuple[Pattern, float]]:
        return [(COLUMNS, 1 - math.sqrt(1 - sparsity)), (Tiles(self.granularity, surviving=True), sparsity)]


class Restored(Block):
    """Single weights of which all that are open stay, so that a lower sparsity opens the best of the closed."""

    restores = True


@dataclass(frozen=True)
class TilesRestored(Pattern):
    """Tiles pruned further by `delta`, then the globally best single weights restored (TileSparsity's TEW)."""

    tiles: Tiles
    delta: float

    def groups(self, layers: Sequence[GatedLayer], num_heads: Sequence[int] = ()) -> list[Group]:
        return self.tiles.groups(layers, num_heads)

    def steps(self, sparsity: float) -> list[tuple[Pattern, float]]:
        return [*self.tiles.steps(min(1.0, sparsity + self.delta)), (Restored(), sparsity)]


@dataclass(frozen=True)
class PerDimension(Pattern):
    """A two-step pattern whose sparsity is meant for each step, as in TileSparsity's scripts: 50 % removes 75 %."""

    pattern: Pattern

    def groups(self, layers: Sequence[GatedLayer], num_heads: Sequence[int] = ()) -> list[Group]:
        return self.pattern.groups(layers, num_heads)

    def steps(self, sparsity: float) -> list[tuple[Pattern, float]]:
        return self.pattern.steps(1 - (1 - sparsity) ** 2)


COLUMNS = Block(height=0, width=1)


def _heads(num_heads: Sequence[int], index: int | None, layer: GatedLayer) -> int:
    if index is None or index >= len(num_heads):
        raise ConfigError("num_heads", list(num_heads), f"one for each block, also that of {layer.label}")
    return num_heads[index]


def shape(layer: GatedLayer) -> tuple[int, int]:
    """Rows (inputs) and columns (outputs) of a layer's kernel."""
    rows, columns = layer.mask_variable.shape
    return int(rows), int(columns)


def _divides(layer: GatedLayer, field: str, size: int, length: int, what: str):
    if length % size:
        raise ConfigError(field, size, f"a divisor of the {length} {what} of {layer.label}")
