"""Whether a pattern's units fit the matrices of a run, as far as its record alone says how large these are."""

from __future__ import annotations

from gated_bert.config import GatedBertConfig
from gated_bert.support.checks import ConfigError


def check_matrices(config: GatedBertConfig) -> None:
    """Refuses blocks, vectors and runs that do not divide the matrices that a run is going to make.

    Pretrained weights say their sizes themselves, and the run refuses then.

    Raises:
        ConfigError: the size of a unit.
    """
    if config.criterion is None or config.pretrained is not None or config.tilesparsity_variant == "code":
        return
    for field, sizes in _units(config).items():
        for size, axis in sizes:
            for role in config.prunable_roles:
                length = _shape(config, role)[axis]
                if length is not None and length % size:
                    what = ("rows", "columns")[axis]
                    raise ConfigError(field, getattr(config, field), f"divisors of the {length} {what} of {role}")


def _units(config: GatedBertConfig) -> dict[str, list[tuple[int, int]]]:
    """Field that sets the size of a unit → its sizes, each with the axis of the matrix that it has to divide."""
    axis = "kn".index(config.vector_axis)
    return {
        "block": {"block_size": [(size, axis) for axis, size in enumerate(config.block_size)]},
        "k_tile": {"granularity": [(config.granularity, 1)]},
        "vector": {"vector_size": [(config.vector_size, axis)]},
    }.get(config.pattern, {})


def _shape(config: GatedBertConfig, role: str) -> tuple[int | None, int | None]:
    hidden, inner = config.d_model, config.dff
    sizes = {"ffn_intermediate": (hidden, inner), "ffn_output": (inner, hidden), "classifier": (hidden, None)}
    return sizes.get(role, (hidden, hidden))
