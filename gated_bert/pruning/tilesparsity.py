"""TileSparsity's pruning types as its code computes them (Guo et al. 2020); its README says other things of some."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import numpy as np

from gated_bert.config import ConfigError, GatedBertConfig
from gated_bert.models.gated_dense import GatedLayer
from gated_bert.pruning.groups import BlockGroup, Group
from gated_bert.pruning.patterns import COLUMNS, QKV_ROWS, Block, KTiles, Pattern, Tiles, Vectors, shape
from gated_bert.support.backend import view

_QKV = ("query", "key", "value")
_RUN, _LONG_RUN = 32, 128


@dataclass(frozen=True)
class Quantile(Pattern):
    """Units of `pattern`, of which those at or below the quantile of every ranking close: counted, not weighed."""

    pattern: Pattern
    on_top: bool = False

    def groups(self, layers, num_heads=()):
        return self.pattern.groups(layers, num_heads)

    def closes(self, units, sparsity):
        # The quantile lies between two units, or on one, which then closes as well.
        return math.floor((units - 1) * sparsity + 1e-9) + 1 if sparsity > 0 else 0


class TopOfVectors(Quantile):
    """Vectors that keep the whole part of their share, but one weight at least (the code keeps all where it is 0)."""

    def closes(self, units, sparsity):
        return units - max(1, math.floor((1 - sparsity) * units + 1e-9))


@dataclass(frozen=True)
class QkvApart(Pattern):
    """Query, key and value by one pattern, all other matrices by another."""

    qkv: Pattern
    others: Pattern

    def groups(self, layers, num_heads=()):
        qkv = [layer for layer in layers if layer.role in _QKV]
        others = [layer for layer in layers if layer.role not in _QKV]
        parts = ((self.qkv, qkv), (self.others, others))
        return [group for pattern, part in parts if part for group in pattern.groups(part, num_heads)]


@dataclass(frozen=True)
class InputHeads(Pattern):
    """Input rows of single matrices, fallen into as many runs of neighbours as the block has heads.

    Args:
        strided: a unit is the same row of every run; else it is a run.
    """

    strided: bool = False

    def groups(self, layers, num_heads=()):
        heads = [num_heads[layer.layer_index] for layer in layers]
        return [self._group(layer, count) for layer, count in zip(layers, heads, strict=True) if count]

    def _group(self, layer: GatedLayer, heads: int) -> Group:
        rows, columns = shape(layer)
        if rows % heads:
            allowed = f"a model whose heads ({heads}) divide the {rows} rows of {layer.label}"
            raise ConfigError("pruning_type", int(self.strided), allowed)
        height = rows // heads
        if self.strided:
            return StridedRowsGroup((layer,), layer.role, height, heads * columns, layer.label)
        return BlockGroup((layer,), layer.role, heads, height * columns, layer.label, height, columns)


@dataclass(frozen=True)
class Runs(Pattern):
    """`KTiles` of `granularity` columns, of whole rows in matrices that are no wider."""

    granularity: int

    def groups(self, layers, num_heads=()):
        widths = [min(self.granularity, shape(layer)[1]) for layer in layers]
        return [group for layer, g in zip(layers, widths, strict=True) for group in KTiles(g).groups([layer])]


@dataclass(frozen=True)
class Spans(Pattern):
    """Rows inside tiles that reach from open column to open column, `granularity` of them, with all closed between."""

    granularity: int

    def groups(self, layers, num_heads=()):
        return [self._group(layer) for layer in layers]

    def _group(self, layer: GatedLayer) -> SpanGroup:
        live = view(layer.mask_variable).any(0)
        ends = np.flatnonzero(live)[self.granularity - 1 :: self.granularity] + 1
        starts = np.array([0, *ends[ends < len(live)]])
        rows, columns = shape(layer)
        units = rows * len(starts)
        return SpanGroup((layer,), layer.role, units, rows * columns // units, layer.label, live, starts)


@dataclass(frozen=True)
class TwoDims(Pattern):
    """A pattern in each dimension, one after the other.

    Args:
        first, second: the patterns; `second` on top of what the first left open.
        per_dim: a sparsity is meant for each of them, as the published scripts do; else both take so much that
            together they would take it all, were they independent.
    """

    first: Pattern
    second: Pattern
    per_dim: bool

    def groups(self, layers, num_heads=()):
        return self.first.groups(layers, num_heads)

    def steps(self, sparsity):
        share = sparsity if self.per_dim else 1 - math.sqrt(1 - sparsity)
        return [(self.first, share), (self.second, share)]

    def total(self, sparsity):
        return 1 - (1 - self.steps(sparsity)[-1][1]) ** 2


def published_pattern(config: GatedBertConfig) -> Pattern:
    """What TileSparsity's code makes of the record's `pruning_type`."""
    k_tiles, per_dim = KTiles(config.granularity), config.sparsity_per_dim
    return {
        0: lambda: Quantile(QkvApart(InputHeads(), k_tiles)),
        1: lambda: Quantile(QkvApart(InputHeads(strided=True), k_tiles)),
        2: lambda: Quantile(k_tiles),
        3: lambda: Quantile(QkvApart(QKV_ROWS, k_tiles)),
        4: lambda: TopOfVectors(Vectors(config.vector_size, config.vector_axis)),
        5: lambda: Quantile(Block(*config.block_size)),
        6: lambda: TwoDims(
            Quantile(QkvApart(Runs(_RUN), Runs(_LONG_RUN))), Quantile(COLUMNS, on_top=True), per_dim
        ),
        7: lambda: Quantile(Tiles(config.granularity)),
        8: lambda: TwoDims(Quantile(COLUMNS), Quantile(Spans(config.granularity), on_top=True), per_dim),
    }[config.pruning_type]()  # fmt: skip


@dataclass(frozen=True, eq=False)
class StridedRowsGroup(Group):
    """Units are input rows of one matrix that lie `num_units` apart."""

    def _sums(self, place, array):
        return array.sum(1).reshape(-1, self.num_units).sum(0)

    def expand(self, units, xp=np):
        rows = int(self.layers[0].mask_variable.shape[0])
        return [xp.expand_dims(xp.tile(units, rows // self.num_units), 1)]

    def _unit(self):
        return f"every {self.num_units}th row"


@dataclass(frozen=True, eq=False)
class SpanGroup(Group):
    """Units are the rows inside tiles of unlike width, of which only open columns score, but all count.

    Args:
        live: bool [columns], which are open.
        starts: the tiles' first columns.
    """

    live: np.ndarray = None
    starts: np.ndarray = None

    @functools.cached_property
    def _widths(self) -> np.ndarray:
        return np.diff([*self.starts, len(self.live)])

    def _divisor(self):
        return np.tile(self._widths, self.num_units // len(self.starts)).astype(np.float32)

    def _sums(self, place, array):
        return np.add.reduceat(array * self.live, self.starts, axis=1).ravel()

    def expand(self, units, xp=np):
        return [xp.repeat(xp.reshape(units, (-1, len(self.starts))), self._widths, axis=1)]

    def _unit(self):
        return f"row inside a tile of {min(self._widths)} to {max(self._widths)} columns"
