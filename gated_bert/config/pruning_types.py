"""TileSparsity's numbers: what `--pruning-type` stands for in a record."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gated_bert.config.parts import part_of
from gated_bert.support.checks import ConfigError, choose

if TYPE_CHECKING:
    from gated_bert.config import GatedBertConfig

PRUNING_TYPES = {0: ("head", None), 1: ("head_dim", None), 2: ("k_tile", "k"), 3: ("qkv_row", None),
                 4: ("vector", None), 5: ("block", None), 6: ("k_tile", "kn"), 7: ("tile", "k"),
                 8: ("tile", "kn")}  # fmt: skip
"""Number → pattern and, where it has them, dimensions of tiles."""
VARIANTS = ("readme", "code")


def fields_of_type(config: GatedBertConfig) -> dict[str, object]:
    """The fields that a record's pruning type, and the way it is computed, fill in.

    Args:
        config: a record whose pattern is not filled in yet.

    Raises:
        ConfigError: an unknown number, or a field that says something else.
    """
    if config.tilesparsity_variant is not None:
        choose("tilesparsity_variant", config.tilesparsity_variant, VARIANTS)
    number = config.pruning_type
    if number is None and (config.pattern, config.tile_dims) == ("k_tile", "kn"):
        number = 6
    fields = {
        "pruning_type": number, "tile_dims": config.tile_dims or "k",
        "block_size": (32, 32) if config.block_size is None else config.block_size,
        "tilesparsity_variant": config.tilesparsity_variant or ("code" if number == 6 else "readme"),
        "sparsity_per_dim": bool(config.sparsity_per_dim),
    }  # fmt: skip
    if number is None:
        if fields["tilesparsity_variant"] == "code" and config.criterion:
            raise ConfigError("tilesparsity_variant", "code", "readme, or code with a pruning_type, 0 to 8")
    else:
        fields |= _fields_of_number(config, number, fields["tilesparsity_variant"])
    return fields | {"block_size": tuple(fields["block_size"])}


def _fields_of_number(config: GatedBertConfig, number: int, variant: str) -> dict[str, object]:
    if number not in PRUNING_TYPES:
        raise ConfigError("pruning_type", number, ", ".join(map(str, PRUNING_TYPES)))
    if number == 6 and variant == "readme":
        raise ConfigError("tilesparsity_variant", "readme", "code, with pruning_type=6, which no README describes")
    pattern, dims = PRUNING_TYPES[number]
    fields = {"pattern": pattern} | ({"tile_dims": dims} if dims else {})
    scope = "global" if pattern == "tile" else "layer"
    if variant == "code":
        fields["scope"] = scope
    for name, value in fields.items():
        if getattr(config, name) not in (None, value):
            by = f"pruning_type={number}" + (" and tilesparsity_variant=code" if name == "scope" else "")
            raise ConfigError(name, getattr(config, name), f"{value}, with {by}")
    if pattern == "tile" and config.scope is None:
        fields["scope"] = scope
    return fields | (_fields_of_code(config, number) if variant == "code" else {})


def _fields_of_code(config: GatedBertConfig, number: int) -> dict[str, object]:
    """What TileSparsity's code does without being told; whatever a record says stays."""
    fields = {}
    if config.pooling is None and config.criterion and not part_of(config).options.SIGNED:
        fields["pooling"] = "published"
    if config.sparsity_per_dim is None and number in (6, 8):
        fields["sparsity_per_dim"] = True
    if config.block_size is None and number == 5:
        fields["block_size"] = (config.granularity, config.granularity)
    return fields
