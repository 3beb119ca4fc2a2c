"""What each way of pruning keeps of its own dense model's metric, level by level; as tables and as a picture."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gated_bert.experiments.reports.aggregate import statistics
from gated_bert.experiments.reports.drawing import label_text, png, tolerated
from gated_bert.experiments.reports.plots import SPARSITY_LABEL
from gated_bert.experiments.reports.results import Run, find_runs, metric_title, read_runs
from gated_bert.support.files import write_bytes_atomic, write_csv_atomic

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TABLE, SUMMARY, PLOT = "accuracy.csv", "accuracy_summary.csv", "accuracy.png"
DENSE, ONE_SHOT, TRAINED, TAUGHT = "dense", "one-shot", "trained", "with a teacher"
LEVELS = (0.5, 0.6, 0.8, 0.9, 0.95, 0.97)
"""Sparsities of all prunable weights at which ways of pruning are compared."""
NEAR = 0.006
"""How far from a level the sparsity of a row may be, a fraction: whole units and thresholds do not meet it exactly."""
_MARKERS = "os^vDPX*<>pdh8"
_LINES = ("-", "--", ":", "-.")
"""Of one method's runs, which have its colour."""


def write_accuracy(output: Path) -> None:
    """Writes `accuracy.csv` (a row per run and level), `accuracy_summary.csv` (over seeds) and `accuracy.png`.

    Args:
        output: the folder of a study, anywhere below which its runs are. A run that cannot be read is named and left
            out; so is a pruned one without a dense run of its task and seed.
    """
    import pandas as pd

    runs, problems = read_runs(find_runs(output))
    dense = {(run.task, run.seed): _last(run) for run in runs if _way(run) == DENSE and run.finished}
    rows = [row for run in runs for row in _rows(run, dense)]
    problems += [f"{run.folder}: no finished dense run of {run.task}, seed {run.seed}, to compare it with"
                 for run in runs if _way(run) != DENSE and (run.task, run.seed) not in dense]  # fmt: skip
    for problem in problems:
        print(f"note: left out: {problem}")
    if not rows:
        return
    table = pd.DataFrame(rows)
    summary = _summary(table)
    write_csv_atomic(output / TABLE, table)
    write_csv_atomic(output / SUMMARY, summary)
    with tolerated(output / PLOT):
        write_bytes_atomic(output / PLOT, png(accuracy_figure(summary)))


def _way(run: Run) -> str:
    config = run.config
    if not config.get("enable_pruning", True) or config.get("pruning_method") == "baseline":
        return DENSE
    if not config.get("epochs"):
        return ONE_SHOT
    return TAUGHT if config.get("teacher") else TRAINED


def _last(run: Run) -> float:
    return float(run.rows[f"val_{run.metric}"].iloc[-1])


def _rows(run: Run, dense: dict[tuple[str, int | None], float]) -> Iterator[dict[str, Any]]:
    whole = dense.get((run.task, run.seed))
    if whole is None or not run.finished:
        return
    way = _way(run)
    for level, near in _at_levels(run, way == DENSE):
        if len(near):
            # The last one there: a plateau's later epochs have recovered more.
            value = float(near[f"val_{run.metric}"].iloc[-1])
            yield {
                "task": run.task, "method": run.config.get("criterion") or DENSE, "way": way, "label": run.method,
                "level": level, "seed": run.seed, "sparsity": float(near["sparsity"].iloc[-1]), "metric": run.metric,
                "value": value, "dense": whole, "share_of_dense": value / whole, "folder": run.folder.name,
            }  # fmt: skip


def _at_levels(run: Run, is_dense: bool) -> Iterator[tuple[float, pd.DataFrame]]:
    """The rows near each level; of what closes by a threshold or a penalty, and aims at none, where it ended."""
    rows = run.rows
    if not is_dense and rows["target_sparsity"].isna().any():
        yield round(float(rows["sparsity"].iloc[-1]), 3), rows.tail(1)
        return
    for level in (0.0,) if is_dense else LEVELS:
        yield level, rows[(rows["sparsity"] - level).abs() <= NEAR]


def _summary(table: pd.DataFrame) -> pd.DataFrame:
    """Over seeds: of the metric and of its share of dense, mean and 95 % t-interval."""
    import pandas as pd

    rows = []
    names = ["task", "metric", "way", "method", "label", "level"]
    for keys, seeds in table.groupby(names, sort=False):
        named = dict(zip(names, keys, strict=True))
        value, share = (statistics(seeds[name]) for name in ("value", "share_of_dense"))
        rows.append({**named, "seeds": int(value["n"]), "value": value["mean"], "value_low": value["low"],
                     "value_high": value["high"], "share_of_dense": share["mean"], "share_low": share["low"],
                     "share_high": share["high"]})  # fmt: skip
    return pd.DataFrame(rows).sort_values(["task", "way", "level", "method"], kind="stable", ignore_index=True)


def accuracy_figure(summary: pd.DataFrame) -> Figure:
    """A row of panels per task, a panel per way: share of dense against sparsity, a line for all runs of one kind."""
    from matplotlib.figure import Figure

    pruned = summary[summary["way"] != DENSE]
    tasks, there = list(dict.fromkeys(pruned["task"])), set(pruned["way"])
    ways = [way for way in (ONE_SHOT, TRAINED, TAUGHT) if way in there]
    figure = Figure(figsize=(5.2 * len(ways), 4.6 * len(tasks)), layout="constrained")
    panels = figure.subplots(len(tasks), len(ways), squeeze=False, sharey="row")
    # The same method has the same colour in all panels, with a teacher or without.
    names = list(dict.fromkeys(pruned["method"]))
    for task, line in zip(tasks, panels, strict=True):
        rows = pruned[pruned["task"] == task]
        here = [way for way in ways if way in set(rows["way"])]
        for way, axes in zip(here, line, strict=False):
            _draw(axes, rows[rows["way"] == way], names)
            axes.set_title(f"{task}, {way}", fontsize="medium")
            axes.set_xlabel(SPARSITY_LABEL)
        for axes in line[len(here) :]:
            axes.set_axis_off()
        title = metric_title(rows["metric"].iloc[0]).split(" (")[0].split(" ×")[0]
        line[0].set_ylabel(f"{title}, % of the dense model's")
    return figure


def _draw(axes: Axes, rows: pd.DataFrame, names: Sequence[str]):
    labels = rows.groupby("method")["label"].unique()
    for (method, label), points in rows.groupby(["method", "label"], sort=False):
        index, place = names.index(method), list(labels[method]).index(label)
        points = points.sort_values("level")
        seeds = int(points["seeds"].min())
        shown = method if len(labels[method]) == 1 else label
        name = label_text(shown + (f" ({seeds} seeds)" if seeds > 1 else ""))
        x, y = 100 * points["level"], 100 * points["share_of_dense"]
        axes.plot(x, y, color=f"C{index % 10}", marker=_MARKERS[index % len(_MARKERS)],
                  linestyle=_LINES[place % len(_LINES)], label=name)  # fmt: skip
        if seeds >= 3:
            axes.errorbar(x, y, [y - 100 * points["share_low"], 100 * points["share_high"] - y],
                          color=f"C{index % 10}", linewidth=0, elinewidth=1, capsize=2)  # fmt: skip
    axes.axhline(100, color="0.6", linewidth=0.8, linestyle=":")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, fontsize="small", loc="best")
