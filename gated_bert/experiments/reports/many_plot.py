"""The comparison of so many methods that their curves would hide each other: a line of the plot for each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from gated_bert.experiments.reports.aggregate import Group, mac_reduction, statistics
from gated_bert.experiments.reports.results import metric_scale, metric_title

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MANY = 16
"""From more methods in a panel than this, each gets a line of its own."""


def draw_many(figure: Figure, panels: Sequence[Sequence[Group]], titles: Sequence[str]) -> None:
    """Draws for every method the metric after the last epoch, and beside it what was closed and what that saves.

    Args:
        figure: an empty figure.
        panels: the groups of every panel.
        titles: one per panel.
    """
    heights = [len(groups) + 4 for groups in panels]
    figure.set_size_inches(11, 0.23 * sum(heights) + 0.5)
    grid = figure.subplots(len(panels), 2, squeeze=False, sharey="row", height_ratios=heights, width_ratios=(3, 2))
    for (left, right), groups, title in zip(grid, panels, titles, strict=True):
        _metric(left, groups)
        _saved(right, groups)
        left.set_title(title)
        left.set_yticks(range(len(groups)), [group.name for group in groups], fontsize="small")
        left.set_ylim(len(groups) - 0.5, -0.5)


def _metric(axes: Axes, groups: Sequence[Group]):
    metric = groups[0].metric
    for line, group in enumerate(groups):
        found = statistics(run.rows[f"val_{metric}"].iloc[-1] * metric_scale(metric) for run in group.ended)
        spread = [[found["mean"] - found["low"]], [found["high"] - found["mean"]]] if found["n"] >= 3 else None
        axes.errorbar([found["mean"]], [line], xerr=spread, color="#0072B2", marker="o", markersize=5, capsize=2)
        if group.method == "baseline":
            axes.axvline(found["mean"], color="#333333", linestyle="--", linewidth=1)
    seeds = sorted({len(group.ended) for group in groups})
    count = "–".join(str(each) for each in dict.fromkeys((seeds[0], seeds[-1])))
    bars = ", bars: 95 % t-interval" if seeds[-1] >= 3 else ""
    axes.set_xlabel(f"{metric_title(metric)}, last epoch ({count} seed{'s' * (seeds[-1] > 1)}{bars})")
    axes.grid(alpha=0.3)


def _saved(axes: Axes, groups: Sequence[Group]):
    lines = range(len(groups))
    closed = [100 * statistics(run.rows["sparsity"].iloc[-1] for run in group.ended)["mean"] for group in groups]
    saved = [100 * statistics(mac_reduction(run.metadata, "shrunk") for run in group.ended)["mean"] for group in groups]
    axes.barh(lines, closed, color="#BBBBBB", height=0.7, label="weights closed")
    axes.barh(lines, saved, color="#009E73", height=0.3, label="multiply-accumulates saved after shrinking")
    axes.set_xlim(0, 100)
    axes.set_xlabel("%")
    axes.legend(loc="lower right", bbox_to_anchor=(1, 1), frameon=False, fontsize="small")
    axes.grid(axis="x", alpha=0.3)
