"""Patterns by the names that a record and a command line have for them."""

from __future__ import annotations

from collections.abc import Callable

from gated_bert.config import GatedBertConfig
from gated_bert.config.parts import claim
from gated_bert.config.space import PATTERNS
from gated_bert.pruning.patterns import (
    COLUMNS,
    HEADS,
    NEURONS,
    QKV_ROWS,
    Block,
    ColumnsThenTiles,
    HeadDims,
    KTiles,
    Pattern,
    PerDimension,
    Several,
    Tiles,
    TilesRestored,
    Vectors,
)
from gated_bert.pruning.tilesparsity import published_pattern
from gated_bert.support.errors import UserError


def _tiles(config: GatedBertConfig) -> Tiles:
    return ColumnsThenTiles(config.granularity) if config.tile_dims == "kn" else Tiles(config.granularity)


FACTORIES: dict[str, Callable[[GatedBertConfig], Pattern]] = {
    "element": lambda config: Block(),
    "row": lambda config: Block(height=1, width=0),
    "column": lambda config: COLUMNS,
    "block": lambda config: Block(*config.block_size),
    "head": lambda config: HEADS,
    "neuron": lambda config: NEURONS,
    "head_neuron": lambda config: Several((HEADS, NEURONS)),
    "head_dim": lambda config: HeadDims(),
    "qkv_row": lambda config: QKV_ROWS,
    "k_tile": lambda config: KTiles(config.granularity),
    "vector": lambda config: Vectors(config.vector_size, config.vector_axis),
    "tile": _tiles,
    "tile_element": lambda config: TilesRestored(_tiles(config), config.g1percent / 100),
}
"""Name → what makes the pattern of a record."""


def register_pattern(name: str, factory: Callable[[GatedBertConfig], Pattern]):
    """Makes a pattern of a user's own known by name, as a `--pattern`.

    Args:
        name: letters, digits and _.
        factory: makes the pattern of a run's record, whose sizes (`granularity`, `block_size` …) it may read.

    Raises:
        UserError: a name that is taken or no name, or a factory that cannot be called.
    """
    if not callable(factory):
        raise UserError(f"register_pattern: {factory!r} is refused; allowed: a function of a record, that makes a "
                        "Pattern")  # fmt: skip
    claim("pattern", name, PATTERNS)
    PATTERNS.append(name)
    FACTORIES[name] = factory


def get_pattern(config: GatedBertConfig) -> Pattern:
    """The record's pattern."""
    if config.tilesparsity_variant == "code":
        return published_pattern(config)
    pattern = FACTORIES[config.pattern](config)
    if not isinstance(pattern, Pattern):
        raise UserError(f"pattern {config.pattern}: what was registered made a {type(pattern).__name__}, no Pattern")
    return PerDimension(pattern) if config.sparsity_per_dim else pattern
