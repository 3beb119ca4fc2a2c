"""What is inside a model: sizes, sparsity, and the heads, widths and neurons that are left."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from gated_bert.compression.model_statistics import macs, open_macs, weight_arrays
from gated_bert.compression.shrink import shrunk_config
from gated_bert.config.space import ENCODER_ROLES
from gated_bert.models.backbone import EncoderClassifier
from gated_bert.support.text_table import aligned


def matrix_rows(model: EncoderClassifier) -> list[dict[str, object]]:
    """A row per matrix, and one per encoder block for all of its biases and norms.

    Returns:
        `layer` (encoder block from 0; None outside), `role` (see `weight_arrays`), `rows` and `columns` (None of
        what is no matrix), `parameters`, `nonzero` and `sparsity`, the share that is closed or zero.
    """
    rows: dict[tuple, dict[str, object]] = {}
    for layer, role, array in weight_arrays(model):
        shape = array.shape if array.ndim == 2 else (None, None)
        row = rows.setdefault((layer, role), {"layer": layer, "role": role, "rows": shape[0], "columns": shape[1],
                                              "parameters": 0, "nonzero": 0})  # fmt: skip
        row["parameters"] += array.size
        row["nonzero"] += int(np.count_nonzero(array))
    for row in rows.values():
        row["sparsity"] = 1 - row["nonzero"] / row["parameters"]
    return list(rows.values())


def layer_rows(model: EncoderClassifier, length: int) -> list[dict[str, object]]:
    """A row per encoder block: its sizes, those that `shrink` would leave, and MACs per token.

    Args:
        model: the model.
        length: tokens of a sequence, for the MACs.

    Returns:
        `layer`; `heads`, `query_key_dim`, `value_dim` and `neurons`, each also with `_left`; `macs_per_token`, with
        `open_` where closed weights cost nothing, and `shrunk_` of the matrices that `shrink` makes.
    """
    config, small = model.architecture, shrunk_config(model)
    found = {"": macs(config, length), "open_": open_macs(model, length), "shrunk_": macs(small, length)}
    rows = []
    for layer, (sizes, left) in enumerate(zip(config.layers, small.layers, strict=True)):
        row: dict[str, object] = {"layer": layer}
        for name, field in (("heads", "num_heads"), ("query_key_dim", "query_key_dim"), ("value_dim", "value_dim"),
                            ("neurons", "intermediate_size")):  # fmt: skip
            row |= {name: getattr(sizes, field), f"{name}_left": getattr(left, field)}
        rows.append(row | {f"{name}macs_per_token": each.per_layer[layer] for name, each in found.items()})
    return rows


def model_text(model: EncoderClassifier, matrices: Sequence[dict], layers: Sequence[dict], length: int) -> str:
    """The rows of `matrix_rows` and `layer_rows` as tables: units left and sparsity by layer and role, totals, MACs."""
    sparsity = {(row["layer"], row["role"]): f"{100 * row['sparsity']:.1f}" for row in matrices}
    lines = [("layer", "heads", "query-key dim", "value dim", "neurons", *ENCODER_ROLES)]
    for row in layers:
        units = [_left(row, name) for name in ("heads", "query_key_dim", "value_dim", "neurons")]
        lines.append((str(row["layer"]), *units, *(sparsity.get((row["layer"], role), "–") for role in ENCODER_ROLES)))
    parts = [("", "parameters", "non-zero", "sparsity, %")]
    for role in dict.fromkeys(row["role"] for row in matrices):
        parts.append(_total(role, [row for row in matrices if row["role"] == role]))
    parts.append(_total("all", matrices))
    dense, opened, small = (each.total for each in (macs(model.architecture, length), open_macs(model, length),
                                                    macs(shrunk_config(model), length)))  # fmt: skip
    return (
        "sizes (now → what shrinking leaves), and sparsity of each matrix in %\n"
        f"{aligned(lines)}\n\n{aligned(parts)}\n\n"
        f"MACs per token (length {length}): {dense:,.0f}; of open weights {opened:,.0f} ({opened / dense:.3f}); "
        f"shrunk {small:,.0f} ({small / dense:.3f})"
    )


def _left(row: dict, name: str) -> str:
    now, left = row[name], row[f"{name}_left"]
    return f"{now:,}" if now == left else f"{now:,} → {left:,}"


def _total(name: str, rows: Sequence[dict]) -> tuple[str, str, str, str]:
    parameters, nonzero = (sum(row[column] for row in rows) for column in ("parameters", "nonzero"))
    return name, f"{parameters:,}", f"{nonzero:,}", f"{100 * (1 - nonzero / parameters):.1f}"


def block_means(is_open: np.ndarray, most: int) -> np.ndarray:
    """Shares of true values in the cells of a grid over a matrix.

    Args:
        is_open: bool [rows, columns].
        most: most cells along each side.

    Returns:
        [min(rows, most), min(columns, most)], cells as equal in size as whole numbers allow.
    """
    starts = [np.linspace(0, side, min(side, most), endpoint=False).astype(int) for side in is_open.shape]
    sums = np.add.reduceat(np.add.reduceat(is_open.astype(np.float64), starts[0], 0), starts[1], 1)
    sides = [np.diff(first, append=side) for first, side in zip(starts, is_open.shape, strict=True)]
    return sums / math.prod(np.ix_(*sides))
