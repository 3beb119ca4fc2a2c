"""Table and figure of a compression study: every level, shrunk or not, in every precision."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gated_bert.compression.benchmark import cell_name
from gated_bert.experiments.models.benchmark_table import COLOURS
from gated_bert.experiments.reports.drawing import png, tolerated
from gated_bert.experiments.reports.results import metric_scale, metric_title
from gated_bert.support.files import write_bytes_atomic, write_csv_atomic
from gated_bert.support.records import read_record
from gated_bert.support.schemas import BenchmarkRecord
from gated_bert.support.text_table import aligned

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TABLE, PLOT = "compression.csv", "compression.png"
FORMS = {
    "keras": ("Keras", "o"),
    "onnx": ("ONNX fp32", "s"),
    "fp16": ("ONNX 16 bit", "D"),
    "int8": ("ONNX 8 bit", "^"),
}
"""Folder of a form → its name and marker."""


def write_report(record: Path, models: Path, folder: Path) -> list[Path]:
    """Writes `compression.csv` and `compression.png` and prints the table.

    Args:
        record: `benchmark.json` of the study's models.
        models: the folder that holds them.
        folder: where the files go.

    Returns:
        The files written.
    """
    about = read_record(record, BenchmarkRecord)
    rows = report_rows(about["models"], models)
    cell = cell_name(1, max(about["lengths"]))
    print("\n" + report_text(rows, cell))
    written = [write_csv_atomic(folder / TABLE, rows)]
    with tolerated(folder / PLOT):
        written.append(write_bytes_atomic(folder / PLOT, png(report_figure(rows, cell, about))))
    return written


def report_rows(measured: Sequence[Mapping], models: Path) -> list[dict]:
    """The benchmark's rows with what tells the models of a study apart.

    Args:
        measured: rows of `benchmark.json`.
        models: the folder that the paths in them lie in.

    Returns:
        `kind` (base, pruned, shrunk), `level` (per cent of the units removed) and `form` (keras, onnx, int8, fp16)
        first, and `metric_change` from `base`; ordered by level, then kind, then form.
    """
    rows = []
    for row in measured:
        place = Path(row["path"]).relative_to(models)
        form = "keras" if len(place.parts) == 1 else place.parts[0]
        kind, level = re.findall(r"^(base|pruned|shrunk)(?:_([\d.]+))?$", place.name.removesuffix(".onnx"))[0]
        kept = {name: value for name, value in row.items() if name != "path"}
        if "value" in row and row["value"] is None:
            # A metric that is no number is null in JSON.
            kept["value"] = math.nan
        rows.append({"kind": kind, "level": float(level or 0), "form": form, **kept})
    base = next((row["value"] for row in rows if (row["kind"], row["form"]) == ("base", "keras")), None)
    if base is not None:
        rows = [{**row, "metric_change": row["value"] - base} for row in rows]
    forms = list(FORMS)
    return sorted(rows, key=lambda row: (row["level"], row["kind"], forms.index(row["form"])))


def report_text(rows: Sequence[Mapping], cell: str) -> str:
    """The table in words: metric, size and latency of one sequence of the longest length, with ratios to `base`."""
    scale, first = metric_scale(rows[0]["metric"]), rows[0]
    lines = [("model", "form", metric_title(first["metric"]), "MB", "of base", "ms", "of base")]
    for row in rows:
        size, latency = row["size_bytes"], row[f"p50_ms_{cell}"]
        name = row["kind"] + f" {row['level']:g} %" * bool(row["level"])
        lines.append((name, FORMS[row["form"]][0], f"{scale * row['value']:.2f}", f"{size / 1e6:.1f}",
                      f"{size / first['size_bytes']:.2f}", f"{latency:.1f}",
                      f"{latency / first[f'p50_ms_{cell}']:.2f}"))  # fmt: skip
    return aligned(lines)


def report_figure(rows: Sequence[Mapping], cell: str, about: Mapping) -> Figure:
    """Metric against latency and against size: a colour per level, a marker per form, hollow where not shrunk."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 5), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    length, threads = max(about["lengths"]), about["threads"]
    _draw(axes[0], rows, [row[f"p50_ms_{cell}"] for row in rows])
    axes[0].set_xlabel(f"median latency of one sequence of {length} tokens, ms, {threads} thread{'s' * (threads > 1)}")
    axes[0].set_ylabel(f"{metric_title(rows[0]['metric'])} on {about['data']}")
    _draw(axes[1], rows, [row["size_bytes"] / 1e6 for row in rows])
    axes[1].set_xlabel("size of the file, MB")
    _legend(axes[1], rows)
    return figure


def _draw(axes: Axes, rows: Sequence[Mapping], costs: Sequence[float]):
    levels = sorted({row["level"] for row in rows})
    scale = metric_scale(rows[0]["metric"])
    for row, cost in zip(rows, costs, strict=True):
        colour = COLOURS[levels.index(row["level"]) % len(COLOURS)]
        filled = "none" if row["kind"] == "pruned" else colour
        axes.scatter(cost, scale * row["value"], s=55, marker=FORMS[row["form"]][1], facecolors=filled,
                     edgecolors=colour, linewidths=1.5, zorder=3)  # fmt: skip
    axes.set_xscale("log")
    axes.grid(alpha=0.3, which="both")


def _legend(axes: Axes, rows: Sequence[Mapping]):
    from matplotlib.lines import Line2D
    from matplotlib.ticker import ScalarFormatter

    levels = sorted({row["level"] for row in rows})
    plain: dict[str, Any] = {"linestyle": "none", "markersize": 7}
    entries = [
        Line2D([], [], color=COLOURS[index % len(COLOURS)], linewidth=4,
               label=f"{level:g} % removed" if level else "base")
        for index, level in enumerate(levels)
    ]  # fmt: skip
    present = {row["form"] for row in rows}
    entries += [
        Line2D([], [], color="0.4", marker=marker, label=title, **plain)
        for form, (title, marker) in FORMS.items()
        if form in present
    ]
    entries.append(Line2D([], [], color="0.4", marker="o", markerfacecolor="none", label="masked, not shrunk", **plain))
    axes.figure.legend(handles=entries, loc="outside right center", frameon=False)
    for each in axes.figure.axes:
        each.xaxis.set_major_formatter(ScalarFormatter())
        each.xaxis.set_minor_formatter(ScalarFormatter())
        each.tick_params(axis="x", which="both", labelsize=8)
