"""What a stage of multi-stage pruning left: sparsity, products saved per layer, metric; and its plot."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from gated_bert.config import GatedBertConfig
from gated_bert.experiments.aggregate import statistics
from gated_bert.experiments.plots import STYLES, png
from gated_bert.experiments.results import Run, metric_scale, metric_title, write_bytes_atomic

if TYPE_CHECKING:
    import pandas as pd


def stage_rows(run: Run, config: GatedBertConfig) -> dict[str, object]:
    """One row of the table of stages.

    Args:
        run: a finished run with its model folder.
        config: its record; MACs are counted at its `max_len`.

    Returns:
        Method, task, seed, sparsity, metric, and reductions of multiply-accumulates (MACs) against the same
        architecture without gates, as fractions: `mac_reduction` where closed weights cost nothing, and
        `mac_reduction_shrunk` of what is left as smaller dense matrices, both also for every layer.
    """
    from gated_bert.compression.shrink import shrunk_config
    from gated_bert.compression.statistics import macs, open_macs
    from gated_bert.models.folder import load_model

    model = load_model(run.folder / "model").model
    dense = macs(model.bert_config, config.max_len)
    found = {"mac_reduction": open_macs(model, config.max_len), "mac_reduction_shrunk":
             macs(shrunk_config(model), config.max_len)}  # fmt: skip
    row: dict[str, object] = {
        "method": run.method, "task": config.task, "seed": config.seed, "metric": run.metric,
        "sparsity": float(run.rows["sparsity"].iloc[-1]), "value": float(run.rows[f"val_{run.metric}"].iloc[-1]),
    }  # fmt: skip
    row |= {name: 1 - left.total / dense.total for name, left in found.items()}
    for index, whole in enumerate(dense.per_layer):
        row |= {f"layer_{index}_{name}": 1 - left.per_layer[index] / whole for name, left in found.items()}
    return row | {"folder": str(run.folder)}


def write_stage_plot(table: pd.DataFrame, path: Path) -> Path:
    """Draws the metric after each stage against the sparsity, a panel per task, a line per method (mean over seeds)."""
    from matplotlib.figure import Figure

    tasks = list(dict.fromkeys(table["task"]))
    figure = Figure(figsize=(6.5 * len(tasks), 4.8), layout="constrained")
    for axes, task in zip(figure.subplots(1, len(tasks), squeeze=False)[0], tasks, strict=True):
        rows = table[table["task"] == task]
        metric = rows["metric"].iloc[0]
        for index, (method, runs) in enumerate(rows.groupby("method", sort=False)):
            points = [
                statistics(group["value"] * metric_scale(metric)) | {"sparsity": 100 * group["sparsity"].mean()}
                for _, group in runs.groupby("stage")
            ]
            colour, marker = STYLES.get(method, (f"C{index}", "os^vDPX*"[index % 8]))
            x = [point["sparsity"] for point in points]
            seeds = points[0]["n"]
            label = f"{method} ({seeds} seed{'s' * (seeds > 1)})"
            axes.plot(x, [point["mean"] for point in points], color=colour, marker=marker, label=label)
            if seeds >= 3:
                low, high = ([point[end] for point in points] for end in ("low", "high"))
                axes.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0)
        axes.set_title(f"{task}, after each stage")
        axes.set_xlabel("sparsity of the prunable weights (%)")
        axes.set_ylabel(metric_title(metric))
        axes.grid(alpha=0.3)
        axes.legend(frameon=False)
    return write_bytes_atomic(path, png(figure))
