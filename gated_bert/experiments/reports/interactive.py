"""Curves of a page that can be hovered over and switched on and off: its data, and the script that draws it."""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from gated_bert.experiments.reports.aggregate import Group, group_runs, statistics
from gated_bert.experiments.reports.page import Html, element
from gated_bert.experiments.reports.plots import (
    STRETCH_FROM,
    dense_level,
    group_styles,
    sparsity_curve,
)
from gated_bert.experiments.reports.results import Run, metric_scale, metric_title

STYLE = """
.chart { max-width: 60rem; } .chart svg:not(.sample) { width: 100%; height: auto; display: block; touch-action: pan-y; }
.chart text { font-size: 12px; fill: #1b1f24; } .chart .grid { stroke: #e3e7eb; } .chart .unit { font-weight: 600; }
.tip rect { fill: #fffffff0; stroke: #8c959f; } .tip { pointer-events: none; }
.choice, .legend { display: flex; flex-wrap: wrap; gap: 0.3rem; margin: 0.4rem 0; }
.choice button, .legend button { font: inherit; font-size: 0.85rem; padding: 0.15rem 0.5rem; border: 1px solid #d0d7de;
  border-radius: 1rem; background: #fff; cursor: pointer; max-width: 100%; overflow-wrap: anywhere; text-align: left; }
.choice button[aria-pressed=true] { background: #1b1f24; color: #fff; }
.legend button[aria-pressed=false] { opacity: 0.45; text-decoration: line-through; }
.sample { width: 18px; height: 10px; margin-right: 0.35rem; }
table.sortable th { cursor: pointer; } th[aria-sort]::after { content: " ▴"; }
th[aria-sort=descending]::after { content: " ▾"; }
@media print { .choice { display: none; } .legend button { border: none; } .wide { overflow: visible; }
  h2, h3 { break-after: avoid; } .chart, tr, img { break-inside: avoid; } }
"""
_DIGITS = 5
MOST_RUNS = 100
"""Of more runs than this no single curves are drawn: a browser has to move them."""


@functools.cache
def script() -> str:
    """What draws the charts of a page and sorts its tables; it needs nothing beside it."""
    return Path(__file__).with_name("charts.js").read_text(encoding="utf-8")


def chart(views: Sequence[dict[str, Any]]) -> Html:
    """A place where `script` draws one of `views` at a time."""
    return element("div", kind="chart", **{"data-chart": json.dumps(views, separators=(",", ":"))})


def comparison_charts(runs: Iterable[Run]) -> list[tuple[str, Html]]:
    """A chart for every task, data and model: metric and loss of all methods, over sparsity and over epochs.

    Returns:
        Pairs of a task, data and model in one phrase, and its chart.
    """
    groups = group_runs(runs)[0]
    colours = {name: colour for name, (colour, _) in group_styles(groups).items()}
    panels: dict[tuple, list[Group]] = {}
    for group in groups:
        panels.setdefault(group.panel, []).append(group)
    return [(f"{each[0].runs[0].task_title} · {each[0].data} · {each[0].model}", chart(_views(each, colours)))
            for each in panels.values()]  # fmt: skip


def _views(groups: Sequence[Group], colours: dict[str, str]) -> list[dict[str, Any]]:
    metric = groups[0].metric
    measured = ((f"val_{metric}", metric_title(metric), metric_scale(metric)), ("val_loss", "development loss", 1.0))
    highest = max(float(run.rows["sparsity"].max()) for group in groups for run in group.runs)
    views = []
    if highest > 0:
        for column, title, scale in measured:
            lines = [_line(group, colours) | _over_sparsity(group, column, scale) for group in groups]
            views.append({"name": f"{title} over sparsity", "x": "sparsity (%)", "y": title,
                          "stretch": highest > STRETCH_FROM, "lines": lines})  # fmt: skip
    for column, title, scale in measured:
        lines = [_line(group, colours) | {"points": _over_epochs(group, column, scale)} for group in groups]
        views.append({"name": f"{title} over epochs", "x": "epoch", "y": title, "lines": lines})
    several = any(len(group.runs) > 1 for group in groups)
    if several and sum(len(group.runs) for group in groups) <= MOST_RUNS:
        column, title, scale = measured[0]
        lines = [_line(group, colours) | {"label": f"{group.name}, seed {run.seed}"}
                 | {"points": _of_run(run, column, scale)} for group in groups for run in group.runs]  # fmt: skip
        views.append({"name": "every seed", "x": "epoch", "y": title, "lines": lines})
    return views


def _line(group: Group, colours: dict[str, str]) -> dict[str, Any]:
    return {"name": group.name, "color": colours[group.name]}


def _over_sparsity(group: Group, column: str, scale: float) -> dict[str, Any]:
    if group.method == "baseline":
        level = _number(scale * dense_level(group, column)[0]["mean"])
        return {"points": []} if level is None else {"level": level}
    return {"points": [[_number(100 * point["sparsity"]), *_values(point, scale)]
                       for point in sparsity_curve(group, column)]}  # fmt: skip


def _over_epochs(group: Group, column: str, scale: float) -> list[list]:
    by_epoch: dict[int, list[float]] = {}
    for run in group.runs:
        for epoch, value in zip(run.rows["epoch"], run.rows[column], strict=True):
            by_epoch.setdefault(int(epoch), []).append(value)
    return [[epoch, *_values(statistics(values), scale)] for epoch, values in sorted(by_epoch.items())]


def _of_run(run: Run, column: str, scale: float) -> list[list]:
    rows = zip(run.rows["epoch"], run.rows[column], strict=True)
    return [[int(epoch), _number(scale * value)] for epoch, value in rows]


def _values(point: dict, scale: float) -> list:
    """The mean, and the 95 % interval from three seeds on."""
    parts = ("mean", "low", "high") if point["n"] >= 3 else ("mean",)
    return [_number(scale * point[part]) for part in parts]


def _number(value: float) -> float | None:
    return float(f"{value:.{_DIGITS}g}") if math.isfinite(value) else None
