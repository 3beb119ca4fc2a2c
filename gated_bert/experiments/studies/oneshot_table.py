"""What one-shot pruning did: metric before, right after and after fine-tuning, sizes; as a table and as plots."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from gated_bert.experiments.reports.aggregate import mac_reduction, method_rank, statistics
from gated_bert.experiments.reports.drawing import files_there, label_text, png, tolerated
from gated_bert.experiments.reports.results import PATTERN_SPARSITY, Run, metric_scale, metric_title, read_run
from gated_bert.support.errors import UserError
from gated_bert.support.files import write_bytes_atomic, write_csv_atomic

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

TABLE, SUMMARY, PLOT = "oneshot.csv", "oneshot_summary.csv", "oneshot.png"
SPARSITIES = ("sparsity", PATTERN_SPARSITY)
_POINT = re.compile(r"_(compression|sparsity)([\d.]+?)(?:_seed\d+)?$")
_MARKERS = "os^vDPX*<>pdh8"
_COLOURS = (*(f"C{number}" for number in range(10)), "black", "gold")
"""As many as there are strategies."""


def table_row(run: Run) -> dict[str, object]:
    """One row of the table.

    Args:
        run: a finished run of one-shot pruning.

    Returns:
        Strategy, task, seed and what was asked for; sparsity (of all prunable weights, and of the pattern's matrices)
        and compression (all parameters ÷ those left); `before`, `after` and `final` (pruned, then fine-tuned) of the
        primary metric, and the same of the loss (for regression the mean squared error) and of every other metric;
        parameters, and the theoretical speed-up: multiply-accumulates of the dense model ÷ those of open weights.

    Raises:
        UserError: its metadata lack one of these.
    """
    _check(run)
    asked = _POINT.search(run.folder.name)
    parameters, final = run.metadata["parameters"], run.rows.iloc[-1]
    stages = {**run.metadata["one_shot"], "final": {name: final[f"val_{name}"] for name in _metrics(run)}}
    row = {
        "strategy": run.method, "task": run.task, "data": run.data_label, "seed": run.seed, "metric": run.metric,
        "asked": asked[1], "asked_value": float(asked[2]), **{name: float(final[name]) for name in SPARSITIES},
        "compression": parameters["total"] / parameters["remaining"],
    }  # fmt: skip
    row |= {stage: values[run.metric] for stage, values in stages.items()}
    for name in _metrics(run):
        if name != run.metric:
            row |= {f"{name}_{stage}": values[name] for stage, values in stages.items()}
    speedup = 1 / (1 - mac_reduction(run.metadata, "open"))
    return row | {
        "parameters": parameters["total"], "parameters_left": parameters["remaining"],
        "theoretical_speedup": speedup, "folder": run.folder.name,
    }  # fmt: skip


def _check(run: Run):
    counts, stages = run.metadata.get("parameters") or {}, run.metadata.get("one_shot") or {}
    measured = {stage: [name for name in _metrics(run) if values.get(name) is None] for stage, values in stages.items()}
    if not counts.get("total") or not counts.get("remaining") or not stages or any(measured.values()):
        raise UserError(f"{run.folder}: its metadata have no whole parameters or one_shot; remove that folder, and "
                        "--resume makes it again")  # fmt: skip


def _metrics(run: Run) -> list[str]:
    return [name.removeprefix("val_") for name in run.rows.columns if name.startswith("val_")]


def write_table(output: Path, folders: Sequence[Path]):
    """Writes `oneshot.csv` (a row per run), `oneshot_summary.csv` (over seeds) and `oneshot.png`; prints the summary.

    Args:
        output: where they go.
        folders: the finished runs.
    """
    import pandas as pd

    table = pd.DataFrame([table_row(read_run(folder)) for folder in folders])
    write_csv_atomic(output / TABLE, table)
    means = summary(table)
    write_csv_atomic(output / SUMMARY, means)
    print(means.to_string(index=False, float_format=lambda value: f"{value:.4g}"))
    with tolerated(output / PLOT):
        write_plot(table, output / PLOT)
    print(f"\n{files_there(output, TABLE, SUMMARY, PLOT)} in {output}")


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """Means over seeds, with the half-width of the 95 % t-interval of the fine-tuned metric (NaN for one seed)."""
    import pandas as pd

    rows = []
    for (task, strategy, value), runs in table.groupby(["task", "strategy", "asked_value"], sort=False):
        final = statistics(runs["final"])
        rows.append({
            "task": task, "strategy": strategy, str(runs["asked"].iloc[0]): value, "n": final["n"],
            **{name: runs[name].mean() for name in (*SPARSITIES, "compression", "before", "after", "final")},
            "final_half_interval": final["high"] - final["mean"],
            "theoretical_speedup": runs["theoretical_speedup"].mean(),
        })  # fmt: skip
    return pd.DataFrame(rows)


def write_plot(table: pd.DataFrame, path: Path) -> Path:
    """Draws the metric of every strategy right after pruning and after fine-tuning, a row of panels per task."""
    from matplotlib.figure import Figure

    tasks = list(dict.fromkeys(table["task"]))
    figure = Figure(figsize=(13, 4.6 * len(tasks)), layout="constrained")
    names = sorted(dict.fromkeys(table["strategy"]), key=method_rank)
    grid = figure.subplots(len(tasks), 2, squeeze=False, sharey="row")
    for panels, task in zip(grid, tasks, strict=True):
        rows = table[table["task"] == task]
        for axes, stage, title in zip(panels, ("after", "final"), ("right after pruning", "fine-tuned"), strict=True):
            _panel(axes, rows, stage, names)
            axes.set_title(f"{rows['data'].iloc[0]}\n{title}")
        panels[0].set_ylabel(metric_title(rows["metric"].iloc[0]))
    handles, labels = grid[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right upper", frameon=False)
    return write_bytes_atomic(path, png(figure))


def _panel(axes: Axes, rows: pd.DataFrame, stage: str, names: Sequence[str]):
    """One panel: equal steps from one amount to the next, with its compression below and its sparsity above."""
    values = sorted(set(rows["asked_value"]))
    scale = metric_scale(rows["metric"].iloc[0])
    for index, name in enumerate(names):
        points = [rows[(rows["strategy"] == name) & (rows["asked_value"] == value)][stage] * scale for value in values]
        found = [statistics(point) for point in points]
        # Side by side, or the intervals of strategies of one level would hide each other.
        x = [place + 0.5 * (index / max(len(names) - 1, 1) - 0.5) for place in range(len(values))]
        spread = [[each["mean"] - each["low"] for each in found], [each["high"] - each["mean"] for each in found]]
        several = found[0]["n"] >= 3
        axes.errorbar(
            x, [each["mean"] for each in found], yerr=spread if several else None,
            color=_COLOURS[index % len(_COLOURS)], marker=_MARKERS[index % len(_MARKERS)], linestyle="none", capsize=2,
            label=label_text(f"{name} ({found[0]['n']} seed{'s' * (found[0]['n'] > 1)})"),
        )  # fmt: skip
    dense = statistics(rows.drop_duplicates("seed")["before"] * scale)["mean"]
    axes.axhline(dense, color="0.4", linestyle="--", linewidth=1, label=f"dense, {dense:.1f}")
    means = rows.groupby("asked_value")[["compression", "sparsity"]].mean()
    axes.set_xticks(range(len(values)), [f"{means.loc[value, 'compression']:.3g}" for value in values])
    axes.set_xlabel("compression (all parameters ÷ those left)")
    above = axes.secondary_xaxis("top")
    above.set_xticks(range(len(values)), [f"{100 * means.loc[value, 'sparsity']:.1f} %" for value in values])
    above.set_xlabel("sparsity of all prunable weights")
    for place in range(1, len(values)):
        axes.axvline(place - 0.5, color="0.9", linewidth=1)
    axes.grid(axis="y", alpha=0.3)
