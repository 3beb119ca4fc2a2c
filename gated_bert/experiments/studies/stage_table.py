"""What a stage of multi-stage pruning left: sparsity, products saved per layer, metric; and its plot."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from gated_bert.config import GatedBertConfig
from gated_bert.experiments.reports.aggregate import mac_reduction, statistics
from gated_bert.experiments.reports.drawing import label_text, png
from gated_bert.experiments.reports.plots import SPARSITY_LABEL, STYLES
from gated_bert.experiments.reports.results import PATTERN_SPARSITY, Run, metric_scale, metric_title
from gated_bert.support.files import write_bytes_atomic

if TYPE_CHECKING:
    import pandas as pd


def stage_rows(run: Run, config: GatedBertConfig) -> dict[str, Any]:
    """One row of the table of stages.

    Args:
        run: a finished run.
        config: its record.

    Returns:
        Method, task, seed, sparsities (of all prunable weights; of the pattern's matrices), metric, and reductions of
        multiply-accumulates (MACs) against the same architecture without gates, as fractions: `mac_reduction` where
        closed weights cost nothing, and `mac_reduction_shrunk` of what is left as smaller dense matrices, both also for
        every layer.
    """
    row: dict[str, Any] = {
        "method": run.method, "task": config.task, "seed": config.seed, "metric": run.metric,
        **{name: float(run.rows[name].iloc[-1]) for name in ("sparsity", PATTERN_SPARSITY)},
        "value": float(run.rows[f"val_{run.metric}"].iloc[-1]),
    }  # fmt: skip
    names = {"mac_reduction": "open", "mac_reduction_shrunk": "shrunk"}
    row |= {name: mac_reduction(run.metadata, part) for name, part in names.items()}
    for layer in range(len(run.metadata["macs_per_token"]["dense"]["per_layer"])):
        row |= {f"layer_{layer}_{name}": mac_reduction(run.metadata, part, layer) for name, part in names.items()}
    return row | {"folder": str(run.folder)}


def write_stage_plot(table: pd.DataFrame, path: Path) -> Path:
    """Draws the metric after each stage against the sparsity, a panel per task, a line per method (mean over seeds)."""
    from matplotlib.figure import Figure

    tasks = list(dict.fromkeys(table["task"]))
    figure = Figure(figsize=(6.5 * len(tasks), 4.6 + 0.22 * table["method"].nunique()), layout="constrained")
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
            label = label_text(f"{method} ({seeds} seed{'s' * (seeds > 1)})")
            axes.plot(x, [point["mean"] for point in points], color=colour, marker=marker, label=label)
            if seeds >= 3:
                low, high = ([point[end] for point in points] for end in ("low", "high"))
                axes.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0)
        axes.set_title(f"{task}, after each stage")
        axes.set_xlabel(SPARSITY_LABEL)
        axes.set_ylabel(metric_title(metric))
        axes.grid(alpha=0.3)
        # Below the axes, where it hides no line however many methods there are.
        axes.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.13), fontsize="small")
    return write_bytes_atomic(path, png(figure))
