"""What lottery tickets and their controls reached: table, means over seeds, plot."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from gated_bert.experiments.aggregate import statistics
from gated_bert.experiments.jobs import Plan
from gated_bert.experiments.plots import STYLES, png
from gated_bert.experiments.results import metric_scale, metric_title, read_run, write_bytes_atomic
from gated_bert.experiments.stage_table import stage_rows

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

_KEYS = ["task", "metric", "kind", "round", "method"]
_CONTROLS = {"random": ("x", "random mask"), "reinitialized": ("D", "reinitialized weights")}


def lottery_table(parts: Sequence[tuple[str, Plan]]) -> pd.DataFrame:
    """One row per run: `kind` (dense, ticket, random, reinitialized), `round` (0: dense) and what `stage_rows` says.

    Args:
        parts: finished parts, as `lottery_parts` gives them.
    """
    import pandas as pd

    rows, rounds = [], 0
    for _, part in parts:
        rounds += any(job.config.ticket and job.config.ticket_control is None for job in part.jobs)
        for job in part.jobs:
            kind = job.config.ticket_control or ("ticket" if job.config.ticket else "dense")
            rows.append({"kind": kind, "round": rounds} | stage_rows(read_run(job.folder), job.config))
    return pd.DataFrame(rows)


def lottery_summary(table: pd.DataFrame) -> pd.DataFrame:
    """The means of a lottery's table over the seeds.

    Returns:
        Per task, kind, round and method: mean sparsity and reductions of multiply-accumulates, and of the metric `n`,
        `mean`, `std`, `low`, `high` (95 % t-interval; NaN for one seed).
    """
    import pandas as pd

    costs = ["sparsity", "mac_reduction", "mac_reduction_shrunk"]
    rows = [
        dict(zip(_KEYS, key, strict=True)) | group[costs].mean().to_dict() | statistics(group["value"])
        for key, group in table.groupby(_KEYS, sort=False)
    ]
    return pd.DataFrame(rows)


def write_lottery_plot(summary: pd.DataFrame, path: Path) -> Path:
    """Draws metric against sparsity, a panel per task: tickets as a line per method, dense as a level, controls apart.

    95 % t-intervals are drawn from three seeds on: two give an interval wider than the plot.
    """
    from matplotlib.figure import Figure

    tasks = list(dict.fromkeys(summary["task"]))
    figure = Figure(figsize=(8.5 * len(tasks), 5.0), layout="constrained")
    for axes, task in zip(figure.subplots(1, len(tasks), squeeze=False)[0], tasks, strict=True):
        rows = summary[summary["task"] == task]
        scale = metric_scale(rows["metric"].iloc[0])
        _dense(axes, rows[rows["kind"] == "dense"], scale)
        tickets = rows[rows["kind"] == "ticket"]
        for index, (method, points) in enumerate(tickets.groupby("method", sort=False)):
            colour, marker = STYLES.get(method, (f"C{index}", "os^vP*"[index % 6]))
            seeds = int(points["n"].iloc[0])
            label = f"{method}: ticket ({seeds} seed{'s' * (seeds > 1)})"
            _points(axes, points, scale, 0.0, color=colour, marker=marker, linestyle="-", label=label)
            for place, (control, (control_marker, name)) in enumerate(_CONTROLS.items(), 1):
                found = rows[(rows["kind"] == control) & (rows["method"] == method)]
                # Beside the ticket, so that no interval hides another.
                aside = 0.6 * place + 1.5 * index
                _points(axes, found, scale, aside, color=colour, marker=control_marker, markerfacecolor="white",
                        linestyle="", label=f"{method}: {name}")  # fmt: skip
        axes.set_title(task)
        axes.set_xlabel("sparsity of the prunable weights (%)")
        axes.set_ylabel(metric_title(rows["metric"].iloc[0]))
        axes.set_xlim(0, max(50, 100 * summary["sparsity"].max() + 6))
        axes.grid(alpha=0.3)
        axes.legend(frameon=False, fontsize="small", loc="center left", bbox_to_anchor=(1.0, 0.5))
    return write_bytes_atomic(path, png(figure))


def _dense(axes: Axes, rows: pd.DataFrame, scale: float):
    colour = STYLES["baseline"][0]
    for row in rows.itertuples():
        axes.axhline(scale * row.mean, color=colour, linestyle="--", linewidth=1.4, label="dense")
        if row.n >= 3:
            axes.axhspan(scale * row.low, scale * row.high, color=colour, alpha=0.1, linewidth=0)


def _points(axes: Axes, rows: pd.DataFrame, scale: float, aside: float, **style):
    """Means at their sparsities, `aside` per cent to the right, with intervals where there are three seeds."""
    if rows.empty:
        return
    half = scale * (rows["high"] - rows["mean"]).where(rows["n"] >= 3)
    axes.errorbar(100 * rows["sparsity"] + aside, scale * rows["mean"], yerr=half, capsize=3, markersize=6, **style)
