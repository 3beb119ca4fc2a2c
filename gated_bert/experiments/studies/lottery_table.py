"""What lottery tickets and their controls reached: table, means over seeds, plot."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from gated_bert.experiments.reports.aggregate import statistics
from gated_bert.experiments.reports.drawing import label_text, png
from gated_bert.experiments.reports.plots import SPARSITY_LABEL, STYLES, heading
from gated_bert.experiments.reports.results import PATTERN_SPARSITY, metric_scale, metric_title, read_run
from gated_bert.experiments.studies.stage_table import stage_rows
from gated_bert.experiments.sweeps.jobs import Plan
from gated_bert.support.files import write_bytes_atomic

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

_KEYS = ["task", "data", "metric", "kind", "round", "method"]
_CONTROLS = {"random": (1, "x", "random mask"), "reinitialized": (2, "D", "reinitialized weights")}


def lottery_table(parts: Sequence[tuple[str, Plan]]) -> pd.DataFrame:
    """One row per run of a lottery.

    Args:
        parts: finished parts, as `lottery_parts` gives them.

    Returns:
        `kind` (dense, ticket, random, reinitialized), `round` (0: dense; controls: the last), `data`, and the columns
        of `stage_rows`.
    """
    import pandas as pd

    rows, rounds = [], 0
    for _, part in parts:
        rounds += any(job.config.ticket and job.config.ticket_control is None for job in part.jobs)
        for job in part.jobs:
            kind = job.config.ticket_control or ("ticket" if job.config.ticket else "dense")
            run = read_run(job.folder)
            rows.append({"kind": kind, "round": rounds, "data": run.data_label} | stage_rows(run, job.config))
    return pd.DataFrame(rows)


def lottery_summary(table: pd.DataFrame) -> pd.DataFrame:
    """The means of a lottery's table over the seeds.

    Returns:
        Per task, kind, round and method: mean sparsities and reductions of multiply-accumulates, and of the metric `n`,
        `mean`, `std`, `low`, `high` (95 % t-interval; NaN for one seed).
    """
    import pandas as pd

    costs = ["sparsity", PATTERN_SPARSITY, "mac_reduction", "mac_reduction_shrunk"]
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
    figure = Figure(figsize=(6.5 * len(tasks) + 2.2, 5.0), layout="constrained")
    for axes, task in zip(figure.subplots(1, len(tasks), squeeze=False)[0], tasks, strict=True):
        _panel(axes, summary[summary["task"] == task])
    axes.legend(frameon=False, fontsize="small", loc="center left", bbox_to_anchor=(1.0, 0.5))
    return write_bytes_atomic(path, png(figure))


def _panel(axes: Axes, rows: pd.DataFrame):
    scale, tickets = metric_scale(rows["metric"].iloc[0]), rows[rows["kind"] == "ticket"]
    _dense(axes, rows[rows["kind"] == "dense"], scale)
    low, high = (100 * end for end in (tickets["sparsity"].min(), tickets["sparsity"].max()))
    # Per cent between two controls, which stand side by side so that no interval hides another.
    gap = 0.04 * max(high - low, 10)
    others = [colour for method, (colour, _) in STYLES.items() if method not in ("baseline", "magnitude", "random")]
    for index, (method, points) in enumerate(tickets.groupby("method", sort=False)):
        colour, marker = STYLES.get(method, (others[index % len(others)], "^vP*hp"[index % 6]))
        seeds = int(points["n"].iloc[0])
        label = label_text(f"{method}: ticket ({seeds} seed{'s' * (seeds > 1)})")
        _points(axes, points, scale, 0.3 * gap * index, color=colour, marker=marker, linestyle="-", label=label)
        for control, (place, control_marker, name) in _CONTROLS.items():
            found = rows[(rows["kind"] == control) & (rows["method"] == method)]
            _points(axes, found, scale, gap * (place + 2.5 * index), color=colour, marker=control_marker,
                    markerfacecolor="white", linestyle="", label=label_text(f"{method}: {name}"))  # fmt: skip
            high = max(high, 100 * tickets["sparsity"].max() + gap * (place + 2.5 * index))
    ticks = sorted({round(100 * sparsity, 1) for sparsity in tickets["sparsity"]})
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.set_xlim(low - 2 * gap, high + gap)
    axes.set_title(heading(rows["task"].iloc[0], rows["data"].iloc[0]))
    axes.set_xlabel(f"{SPARSITY_LABEL}; controls, of the last ticket, to its right")
    axes.set_ylabel(metric_title(rows["metric"].iloc[0]))
    axes.grid(alpha=0.3)


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
