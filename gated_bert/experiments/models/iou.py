"""How much the masks of runs overlap: intersection over union of their closed positions."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from gated_bert.experiments.reports.drawing import png, tolerated
from gated_bert.experiments.reports.names import short_names
from gated_bert.experiments.reports.run_layout import MODEL
from gated_bert.models.checkpoints import read_head
from gated_bert.models.folder import METADATA, WEIGHTS, is_model_folder, read_architecture, read_masks
from gated_bert.models.keras_file import faults_text, not_finite
from gated_bert.support.errors import UserError
from gated_bert.support.files import write_bytes_atomic, write_csv_atomic
from gated_bert.support.records import read_record
from gated_bert.support.schemas import HowMade
from gated_bert.tasks.labels import match_labels

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TABLE, SUMMARY, PAIRS_PLOT, LAYERS_PLOT = "iou.csv", "iou_summary.csv", "iou_pairs.png", "iou_layers.png"
_VALUES_UP_TO = 24
"""Heat maps of at most so many columns have their values written into the cells."""


def compare_masks(folders: Sequence[Path], out: Path) -> list[Path]:
    """Writes the IoU of the masks of every pair of runs: per matrix, its mean, minimum and maximum, and heat maps.

    Args:
        folders: run folders, whose `model/` is read, or model folders; at least two.
        out: where `iou.csv`, `iou_summary.csv`, `iou_pairs.png` and `iou_layers.png` go.

    Returns:
        The files written.

    Raises:
        UserError: a folder without a model, models whose matrices do not correspond, or no closed weight anywhere.
    """
    masks = read_comparable_masks(folders)
    table = iou_table(masks)
    summary = iou_summary(table)
    print(summary.to_string(index=False, float_format=lambda value: f"{value:.3f}"))
    written = [write_csv_atomic(out / TABLE, table), write_csv_atomic(out / SUMMARY, summary)]
    with tolerated(out / PAIRS_PLOT):
        written.append(write_bytes_atomic(out / PAIRS_PLOT, png(_pairs_figure(summary, list(masks)))))
    with tolerated(out / LAYERS_PLOT):
        written.append(write_bytes_atomic(out / LAYERS_PLOT, png(_layers_figure(table, summary))))
    return written


def read_comparable_masks(folders: Sequence[Path]) -> dict[str, dict]:
    """The masks of runs whose matrices correspond, by the runs' shortest distinct names.

    Raises:
        UserError: a folder without a model, or models whose matrices do not correspond.
    """
    models = [_model_folder(folder) for folder in folders]
    sizes = [read_architecture(model) for model in models]
    for model, found in zip(models, sizes, strict=True):
        if (model / METADATA).is_file() and "shrunk_from" in read_record(model / METADATA, HowMade, nan=True):
            raise UserError(f"{model}: a shrunk model, whose positions are no longer those of the others; give the "
                            "model it was made from")  # fmt: skip
        for name in ("hidden_size", "layers", "num_outputs", "head"):
            if getattr(found, name) != getattr(sizes[0], name):
                raise UserError(f"{model}: its {name} differs from that of {models[0]}; masks are compared position by "
                                "position, so the architectures must be equal")  # fmt: skip
    masks = {}
    for name, model, config in zip(short_names(models), models, sizes, strict=True):
        faulty = not_finite(model / WEIGHTS, config.num_parameters)
        if faulty:
            print(f"{name}: {faults_text(faulty)}")
        masks[name] = _head_in_order(read_masks(model), model, models[0])
    return masks


def _head_in_order(masks: dict, model: Path, first: Path) -> dict:
    """The masks with the classifier's outputs in the order that the first model has its classes in, if they are the
    same."""
    order = match_labels(read_head(str(model)).labels, read_head(str(first)).labels)
    if order and (None, "classifier") in masks:
        masks[None, "classifier"] = masks[None, "classifier"][:, order]
    return masks


def _model_folder(folder: Path) -> Path:
    for model in (folder / MODEL, folder):
        if is_model_folder(model):
            return model
    raise UserError(f"{folder}: no model here; give a finished run's folder or a model folder")


def iou(one: np.ndarray, other: np.ndarray) -> float:
    """|Z₁ ∩ Z₂| / |Z₁ ∪ Z₂| of two bool arrays that are true where a weight is closed; NaN where neither has any."""
    union = np.count_nonzero(one | other)
    return np.count_nonzero(one & other) / union if union else math.nan


def chance_iou(first: float, second: float) -> float:
    """IoU of two independent random masks of large matrices, given their sparsities a and b: ab / (a + b − ab)."""
    union = first + second - first * second
    return first * second / union if union else math.nan


def iou_table(masks: dict[str, dict]) -> pd.DataFrame:
    """One row per pair of runs and matrix in which some run has a closed weight.

    Args:
        masks: run → its masks as `read_masks` gives them.

    Returns:
        `first`, `second`, `layer` (empty for pooler and classifier), `role`, `iou`, `by_chance`, and the weights
        `closed_first`, `closed_second`, `closed_both` of `weights`. Where neither run of a pair has a closed weight
        there is nothing to overlap: `iou` and `by_chance` are NaN.

    Raises:
        UserError: no run has a closed weight.
    """
    import pandas as pd

    first_masks = next(iter(masks.values()))
    pruned = [matrix for matrix in first_masks if any(found[matrix].any() for found in masks.values())]
    if not pruned:
        raise UserError(f"{', '.join(masks)}: no closed weight in any of them; masks of pruned models are compared")
    rows = []
    for first, second in itertools.combinations(masks, 2):
        for matrix in pruned:
            one, other = masks[first][matrix], masks[second][matrix]
            closed = [int(np.count_nonzero(mask)) for mask in (one, other, one & other)]
            rows.append(
                {"first": first, "second": second, "layer": matrix[0], "role": matrix[1], "iou": iou(one, other),
                 "by_chance": chance_iou(closed[0] / one.size, closed[1] / one.size), "closed_first": closed[0],
                 "closed_second": closed[1], "closed_both": closed[2], "weights": one.size}
            )  # fmt: skip
    return pd.DataFrame(rows).astype({"layer": "Int64"})


def iou_summary(table: pd.DataFrame) -> pd.DataFrame:
    """One row per pair of runs: mean, minimum and maximum IoU over the matrices, and the mean of that by chance.

    Matrices in which neither run has a closed weight are left out; `matrices` counts the others. `sparsity_first` and
    `sparsity_second` are of the matrices in the table: those in which some run has a closed weight.
    """
    pairs = table.groupby(["first", "second"], sort=False)
    summary = pairs["iou"].agg(["mean", "min", "max", "count"]).rename(columns={"count": "matrices"})
    summary["by_chance"] = pairs["by_chance"].mean()
    for side in ("first", "second"):
        summary[f"sparsity_{side}"] = pairs[f"closed_{side}"].sum() / pairs["weights"].sum()
    return summary.reset_index()


def _pairs_figure(summary: pd.DataFrame, names: list[str]):
    from matplotlib.figure import Figure

    values = np.ones((len(names), len(names)))
    texts = [["1"] * len(names) for _ in names]
    for row in summary.itertuples():
        for i, j in itertools.permutations((names.index(row.first), names.index(row.second))):
            values[i, j] = row.mean
            texts[i][j] = f"{row.mean:.2f}\n({row.by_chance:.2f})"
    figure = Figure(figsize=(4.2 + 0.75 * len(names), 2.6 + 0.62 * len(names)), layout="constrained")
    axes = figure.subplots()
    _heat_map(figure, axes, values, texts, names, names)
    axes.set_title("Overlap of masks: mean IoU over the matrices\n(in brackets: of random masks as sparse)",
                   fontsize="medium", color="0.25")  # fmt: skip
    return figure


def _layers_figure(table: pd.DataFrame, summary: pd.DataFrame):
    from matplotlib.figure import Figure

    pairs = [f"{row.first} – {row.second}" for row in summary.itertuples()]
    # Matrices come in the same order for every pair.
    first = table.head(len(table) // len(pairs))
    columns = [
        f"{layer} {role}" if layer >= 0 else role
        for layer, role in zip(first["layer"].fillna(-1), first["role"], strict=True)
    ]
    values = table["iou"].to_numpy().reshape(len(pairs), len(columns))
    texts = [[f"{value:.2f}" for value in line] for line in values] if len(columns) <= _VALUES_UP_TO else None
    width = 2.5 + 0.075 * max(map(len, pairs)) + (0.4 if texts else 0.22) * len(columns)
    figure = Figure(figsize=(width, 2.6 + 0.3 * len(pairs)), layout="constrained")
    axes = figure.subplots()
    _heat_map(figure, axes, values, texts, pairs, columns)
    axes.set_xlabel("encoder block and matrix")
    axes.set_title("Overlap of masks by matrix (grey: no closed weight in either)", fontsize="medium", color="0.25")
    return figure


def _heat_map(figure: Figure, axes: Axes, values: np.ndarray, texts, rows: list[str], columns: list[str]):
    shown = axes.imshow(values, cmap="viridis", vmin=0, vmax=1, aspect="auto", interpolation="nearest")
    axes.set_facecolor("0.85")
    axes.set_xticks(range(len(columns)), columns, rotation=90, fontsize="small")
    axes.set_yticks(range(len(rows)), rows, fontsize="small")
    for (i, j), value in np.ndenumerate(values):
        if texts is not None and np.isfinite(value):
            colour = "black" if value > 0.55 else "white"
            axes.text(j, i, texts[i][j], ha="center", va="center", fontsize="x-small", color=colour)
    figure.colorbar(shown, ax=axes, label="IoU of the closed positions", pad=0.01)
