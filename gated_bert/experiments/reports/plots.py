"""Plots of one run and of many: metric, loss and rewards against epochs and sparsity."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from gated_bert.experiments.reports.aggregate import Group, group_runs, method_rank, statistics
from gated_bert.experiments.reports.best import SAME_SPARSITY
from gated_bert.experiments.reports.drawing import label_text, png, tolerated
from gated_bert.experiments.reports.many_plot import MANY, draw_many
from gated_bert.experiments.reports.results import PATTERN_SPARSITY, Run, metric_scale, metric_title
from gated_bert.support.files import write_bytes_atomic

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COMPARISON_PNG = "pruning_methods_comparison_dual_axis.png"
SPARSITY_LABEL = "sparsity of all prunable weights (%)"
STRETCH_FROM = 0.95
"""Runs that go beyond this sparsity are drawn over the logarithm of the weights left."""

STYLES = {
    "baseline": ("#333333", "o"),
    "magnitude": ("#0072B2", "s"),
    "movement": ("#D55E00", "^"),
    "spt": ("#009E73", "o"),
    "soft_movement": ("#E69F00", "v"),
    "l0": ("#CC79A7", "D"),
    "random": ("#56B4E9", "X"),
}
"""Colour (Okabe and Ito 2008, told apart by colour-blind readers) and marker of every method, the same in all plots."""

_OTHER_COLOURS = ("#332288", "#AA4499", "#117733", "#DDCC77", "#882255", "#88CCEE", "#999933", "#661100")
_OTHER_MARKERS = "Phpd*H<>"
_BANDS = 4
"""Up to so many methods in a panel have their intervals drawn as bands; of more, the bands would hide each other."""
_METRIC_PART, _LOSS_PART = (0.42, 0.96), (0.04, 0.36)
_TICKS = (0, 30, 50, 70, 80, 90, 95, 98, 99, 99.5, 99.9, 99.99)
_LEAST_LEFT = 1e-4
_TITLE = {"fontsize": "medium", "color": "0.25"}


def plot_run(run: Run, failed: list[str] | None = None) -> list[Path]:
    """Writes the plots of one run into its folder; one that fails is told, and stops nothing.

    Args:
        run: a run with at least one epoch.
        failed: gets a line for each plot that could not be drawn.

    Returns:
        `accuracy_sparsity_…png` (the primary metric, whatever its name), `loss_sparsity_…png` and, where the run
        has rewards, `reward_sparsity_…png`.
    """
    written = []
    for name, parts in _figures(run).items():
        with tolerated(run.folder / name, failed):
            written.append(write_bytes_atomic(run.folder / name, png(_curves(run, *parts))))
    return written


def run_figures(run: Run) -> dict[str, Figure]:
    """The plots of one run, by file name."""
    return {name: _curves(run, *parts) for name, parts in _figures(run).items()}


def _figures(run: Run) -> dict[str, tuple[dict[str, str], str, float]]:
    """Name of a file → what `_curves` draws in it."""
    suffix = f"sparsity_{run.csv.stem.removeprefix('results_')}.png"
    columns = {name: f"{name}_{run.metric}" for name in ("train", "val")}
    figures = {
        f"accuracy_{suffix}": (columns, metric_title(run.metric), metric_scale(run.metric)),
        f"loss_{suffix}": ({"train": "train_loss", "val": "val_loss"}, "loss", 1.0),
    }
    rewards = {name.removeprefix("reward_").replace("_", " "): name for name in run.rows if name.startswith("reward_")}
    if rewards and run.rows[list(rewards.values())].notna().any(axis=None):
        figures[f"reward_{suffix}"] = (rewards, "mean reward of a role (loss closed − loss open)", 1.0)
    return figures


def _figure(width: float, height: float) -> Figure:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _curves(run: Run, columns: dict[str, str], title: str, scale: float) -> Figure:
    """`columns` (label → column) over epochs and, where the run was pruned, over sparsity."""
    pruned = bool((run.rows["sparsity"] > 0).any())
    figure = _figure(11 if pruned else 7, 4.6)
    panels = figure.subplots(1, 2 if pruned else 1, squeeze=False)[0]
    names = {"train": "training", "val": "development"}
    colours = {"train": "#E69F00", "val": "#0072B2"}
    for index, (label, column) in enumerate(columns.items()):
        if column not in run.rows:
            continue
        values = run.rows[column] * scale
        colour = colours.get(label, list(STYLES.values())[1:][index % (len(STYLES) - 1)][0])
        style = {"color": colour, "marker": "osv^DXP"[index % 7], "markersize": 4, "label": names.get(label, label)}
        panels[0].plot(run.rows["epoch"], values, **style)
        if pruned:
            _over_sparsity(panels[1], run.rows["sparsity"], values, style)
    _epoch_axis(panels[0], run, pruned)
    panels[0].set_ylabel(title)
    if pruned:
        _sparsity_axis(panels[1], run.rows["sparsity"].max())
        panels[1].set_ylabel(title)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(len(labels), 4), frameon=False)
    seed = "" if run.seed is None else f" · seed {run.seed}"
    state = "" if run.finished else f" · {run.status}"
    figure.suptitle(f"{run.method} · {heading(run.task_title, run.data_label)} · {run.model}{seed}{state}", **_TITLE)
    return figure


def _over_sparsity(axes: Axes, sparsity: pd.Series, values: pd.Series, style: dict):
    """A line through the last epoch at each sparsity, as in the comparison; the epochs before it as faint points."""
    x, last = sparsity.map(_position(sparsity.max())), _last_at_each_sparsity(sparsity)
    axes.plot(x[last], values[last], **style)
    faint = {"linestyle": "", "marker": style["marker"], "markersize": 3, "color": style["color"], "alpha": 0.35}
    axes.plot(x[~last], values[~last], **faint)


def _last_at_each_sparsity(sparsity: pd.Series) -> pd.Series:
    return sparsity.diff(-1).abs().fillna(1.0) > 1e-6


def _epoch_axis(axes: Axes, run: Run, pruned: bool):
    from matplotlib.ticker import MaxNLocator

    axes.set_xlabel("epoch")
    axes.set_xlim(run.rows["epoch"].min() - 0.5, run.rows["epoch"].max() + 0.5)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1, steps=[1, 2, 5, 10]))
    axes.grid(alpha=0.3)
    if not pruned:
        return
    behind = axes.twinx()
    behind.fill_between(run.rows["epoch"], run.rows["sparsity"] * 100, step="mid", color="0.88")
    behind.set_ylim(0, 100)
    behind.set_ylabel("sparsity (%)", color="0.45")
    behind.tick_params(axis="y", colors="0.45")
    own = run.rows[PATTERN_SPARSITY]
    if ((own - run.rows["sparsity"]).abs() > SAME_SPARSITY).any():
        behind.plot(run.rows["epoch"], own * 100, color="0.55", linestyle=":", drawstyle="steps-mid")
        axes.plot([], [], color="0.55", linestyle=":", label="that of the pattern's matrices (right axis)")
    axes.set_zorder(behind.get_zorder() + 1)
    axes.patch.set_visible(False)
    axes.fill_between([], [], color="0.88", label="sparsity of all prunable weights (right axis)")


def heading(task_title: str, data_label: str) -> str:
    """Task and data in one phrase, on one line, without naming the task twice."""
    phrase = data_label if data_label.startswith(task_title) else f"{task_title} · {data_label}"
    return " ".join(phrase.splitlines())


def _position(highest: float):
    """Sparsity (fraction) → place on the axis: per cent, or decades of weights removed where runs end near 100 %."""
    if highest <= STRETCH_FROM:
        return lambda sparsity: 100 * sparsity
    return lambda sparsity: -math.log10(max(1 - sparsity, _LEAST_LEFT))


def _sparsity_axis(axes: Axes, highest: float):
    axes.grid(alpha=0.3)
    place = _position(highest)
    end = max(place(highest), place(0.1))
    axes.set_xlim(-0.04 * end, 1.04 * end)
    if highest <= STRETCH_FROM:
        axes.set_xlabel(SPARSITY_LABEL)
        return
    ticks = [tick for tick in _TICKS if tick / 100 <= highest + 1e-4]
    axes.set_xticks([place(tick / 100) for tick in ticks], [f"{tick:g}" for tick in ticks])
    axes.set_xlabel(f"{SPARSITY_LABEL}, stretched near 100 % (log of the weights left)")


def plot_comparison(runs: Iterable[Run], path: str | Path) -> Path:
    """Draws metric (left, solid) and loss (right, dashed) of all methods against sparsity, one panel per task.

    A method's curve takes the last epoch at each sparsity, the mean over its seeds, with the 95 % t-interval of the
    metric from three seeds on (two give an interval wider than the plot); the baseline is a line at its best epoch.
    Of more than `MANY` methods in a panel only the last epochs are drawn, each on a line of its own.

    Args:
        runs: runs of any tasks and methods; those that differ in more than the seed get curves of their own.
        path: the PNG file to write.

    Returns:
        The path.
    """
    groups = group_runs(runs)[0]
    panels = list(dict.fromkeys(group.panel for group in groups))
    members = [[group for group in groups if group.panel == panel] for panel in panels]
    if max(map(len, members)) > MANY:
        figure = _figure(11, 5)
        draw_many(figure, members, [_panel_title(each) for each in members])
        return write_bytes_atomic(path, png(figure))
    styles = group_styles(groups)
    columns = 1 if len(panels) == 1 else 2
    lines = math.ceil(len(panels) / columns)
    figure = _figure(9.5 if columns == 1 else 15, 5.4 * lines + 1.1)
    axes = figure.subplots(lines, columns, squeeze=False).ravel()
    for axis, each in zip(axes, members, strict=False):
        _comparison_panel(axis, each, styles)
    for axis in axes[len(panels) :]:
        axis.remove()
    _comparison_legend(figure, groups, styles)
    return write_bytes_atomic(path, png(figure))


def group_styles(groups: Sequence[Group]) -> dict[str, tuple[str, str]]:
    """Name of a group → its colour and marker."""
    styles: dict[str, tuple[str, str]] = {}
    used = 0
    for group in groups:
        if group.name in styles:
            continue
        if group.method in STYLES and STYLES[group.method] not in styles.values():
            styles[group.name] = STYLES[group.method]
        else:
            index = used % len(_OTHER_COLOURS)
            styles[group.name] = _OTHER_COLOURS[index], _OTHER_MARKERS[index]
            used += 1
    return styles


def _comparison_panel(axes: Axes, groups: Sequence[Group], styles: dict):
    metric, scale = groups[0].metric, metric_scale(groups[0].metric)
    loss_axes = axes.twinx()
    highest = max(float(run.rows["sparsity"].max()) for group in groups for run in group.runs)
    place = _position(highest)
    spans: dict[Axes, list[float]] = {axes: [], loss_axes: []}
    for index, group in enumerate(groups):
        colour, marker = styles[group.name]
        baseline = group.method == "baseline"
        for target, column, factor, line in ((axes, f"val_{metric}", scale, "-"), (loss_axes, "val_loss", 1.0, "--")):
            points = dense_level(group, column) if baseline else sparsity_curve(group, column)
            points = [point | {part: point[part] * factor for part in ("mean", "low", "high")} for point in points]
            spans[target] += [point["mean"] for point in points if math.isfinite(point["mean"])]
            if baseline:
                target.axhline(points[0]["mean"], color=colour, linestyle=line, linewidth=1.4)
                if target is axes:
                    _band(axes, [0, 1], points * 2, colour, transform=axes.get_yaxis_transform())
                continue
            x = [place(point["sparsity"]) for point in points]
            look = {"linewidth": 1.8} if line == "-" else {"linewidth": 1.2, "markerfacecolor": "white"}
            look |= {"color": colour, "marker": marker, "markersize": 4.5}
            target.plot(x, [point["mean"] for point in points], line, **look)
            if target is axes and len(groups) <= _BANDS:
                _band(axes, x, points, colour)
            elif target is axes:
                # Side by side, 0.6 % of the axis apart: methods share their sparsities.
                aside = 0.006 * place(highest) * (index - (len(groups) - 1) / 2)
                _bars(axes, [position + aside for position in x], points, colour)
    _sparsity_axis(axes, highest)
    axes.set_title(_panel_title(groups))
    _split(axes, spans[axes], *_METRIC_PART, f"{metric_title(metric)}, solid")
    _split(loss_axes, spans[loss_axes], *_LOSS_PART, "development loss, dashed")


def _panel_title(groups: Sequence[Group]) -> str:
    return f"{heading(groups[0].runs[0].task_title, groups[0].data)} · {groups[0].model}"


def _band(axes: Axes, x: Sequence[float], points: Sequence[dict], colour: str, **more):
    wide = [point["n"] >= 3 for point in points]
    if any(wide):
        area = axes.fill_between(x, [point["low"] for point in points], [point["high"] for point in points], where=wide,
                                 color=colour, alpha=0.15, linewidth=0, **more)  # fmt: skip
        _keep_above_loss(axes, area)


def _bars(axes: Axes, x: Sequence[float], points: Sequence[dict], colour: str):
    known = [(place, point) for place, point in zip(x, points, strict=True) if point["n"] >= 3]
    if known:
        places, lows, highs = zip(*((place, point["low"], point["high"]) for place, point in known), strict=True)
        _keep_above_loss(axes, axes.vlines(places, lows, highs, color=colour, alpha=0.7, linewidth=1.2))


def _keep_above_loss(axes: Axes, artist):
    """Cuts an interval off where the loss' part of the panel begins."""
    from matplotlib.patches import Rectangle

    low = (_METRIC_PART[0] + _LOSS_PART[1]) / 2
    artist.set_clip_path(Rectangle((0, low), 1, 1 - low, transform=axes.transAxes))


def _split(axes: Axes, values: Sequence[float], low: float, high: float, label: str):
    """Gives `values` the part [low, high] of the axis' height, and ticks only there: metric and loss do not cross."""
    from matplotlib.ticker import FixedLocator, MaxNLocator

    bottom, top = (min(values), max(values)) if values else (0.0, 1.0)
    if top - bottom < 1e-6 * max(1.0, abs(top)):
        half = max(0.02 * abs(top), 0.01)
        bottom, top = bottom - half, top + half
    unit = (top - bottom) / (high - low)
    axes.set_ylim(bottom - low * unit, bottom + (1 - low) * unit)
    ticks = MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]).tick_values(bottom, top)
    margin = 0.03 * unit
    axes.yaxis.set_major_locator(FixedLocator([tick for tick in ticks if bottom - margin <= tick <= top + margin]))
    axes.set_ylabel(label, y=(low + high) / 2, ha="center")


def sparsity_curve(group: Group, column: str) -> list[dict]:
    """The last epoch at each sparsity, over the seeds of `group`.

    Returns:
        Points in the order of training: mean `sparsity` (fraction) and `n`, `mean`, `std`, `low`, `high` of `column`.
    """
    by_epoch: dict[int, list[dict]] = {}
    for run in group.runs:
        for row in run.rows[_last_at_each_sparsity(run.rows["sparsity"])].to_dict("records"):
            by_epoch.setdefault(int(row["epoch"]), []).append(row)
    return [
        {"sparsity": statistics(row["sparsity"] for row in rows)["mean"]} | statistics(row[column] for row in rows)
        for _, rows in sorted(by_epoch.items())
    ]


def dense_level(group: Group, column: str) -> list[dict]:
    """The statistics of `column` over the seeds of a dense `group`, each at its best epoch: one point."""
    scored = [run.rows.dropna(subset=f"val_{run.metric}") for run in group.ended]
    best = [rows.loc[rows[f"val_{group.metric}"].idxmax()] for rows in scored if len(rows)]
    return [statistics(row[column] for row in best)]


def _comparison_legend(figure: Figure, groups: Sequence[Group], styles: dict):
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    handles: list[Artist] = []
    methods = {group.name: group.method for group in groups}
    for name, (colour, marker) in sorted(styles.items(), key=lambda item: method_rank(methods[item[0]])):
        counts = sorted({len(group.runs) for group in groups if group.name == name})
        seeds = "–".join(str(count) for count in dict.fromkeys((counts[0], counts[-1])))
        dense = methods[name] == "baseline"
        said = f"{name}{', dense, best epoch' if dense else ''} ({seeds} seed{'s' if counts[-1] > 1 else ''})"
        label = label_text(said)
        handles.append(Line2D([], [], color=colour, marker="" if dense else marker, label=label))
    if any(len(group.runs) >= 3 for group in groups):
        handles.append(Patch(color="0.5", alpha=0.3, label="95 % t-interval over seeds"))
    # Inches of a column: its longest label at 5.5 points a letter, and the line before it.
    column = max(len(str(handle.get_label())) for handle in handles) * 5.5 / 72 + 0.7
    ncols = max(1, min(3, int(figure.get_figwidth() / column)))
    figure.legend(handles=handles, loc="outside lower center", ncols=ncols, frameon=False)
    figure.suptitle("Metric (left axis, solid) and loss (right axis, dashed), last epoch at each sparsity", **_TITLE)
