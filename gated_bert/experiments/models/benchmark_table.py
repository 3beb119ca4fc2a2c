"""Tables and plot of a benchmark."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gated_bert.compression.benchmark import cell_name, pareto_front
from gated_bert.experiments.reports.drawing import label_text, png
from gated_bert.experiments.reports.results import metric_scale, metric_title
from gated_bert.support.files import write_bytes_atomic, write_csv_atomic, write_json_atomic
from gated_bert.support.text_table import aligned

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TABLE, RECORD, PLOT = "benchmark.csv", "benchmark.json", "benchmark.png"
_COMPARED = ("parameters", "nonzero_parameters", "size_bytes", "gzip_bytes", "macs_per_token", "peak_memory_bytes",
             "seconds_per_instance")  # fmt: skip
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#E69F00", "#CC79A7", "#56B4E9", "#332288", "#882255", "#117733",
           "#999933", "#000000", "#F0E442", "#661100", "#AA4499")  # fmt: skip
_MARKERS = "os^vDPX*<"
"""Fourteen colours and nine markers: together they repeat after 126 models."""
_MB = 1e6


def with_ratios(rows: Sequence[Mapping]) -> list[dict]:
    """The rows with, for every cost and latency, a column `_ratio`: the value over that of the first model."""
    found = []
    for row in rows:
        names = [name for name in row if name in _COMPARED or name.startswith("p50_ms_")]
        known = [name for name in names if row[name] is not None and rows[0].get(name)]
        found.append({**row, **{f"{name}_ratio": row[name] / rows[0][name] for name in known}})
    return found


def write_tables(out: Path, rows: Sequence[Mapping], about: Mapping[str, Any]) -> list[Path]:
    """Writes `benchmark.csv`, a row per model, and `benchmark.json`, the same with how it was measured."""
    rows = with_ratios(rows)
    return [write_csv_atomic(out / TABLE, rows), write_json_atomic(out / RECORD, {**about, "models": rows})]


def benchmark_text(rows: Sequence[Mapping], cells: Sequence[tuple[int, int]], about: Mapping[str, Any]) -> str:
    """The benchmark as tables: costs, latency and throughput at every shape, metric; ratios to the first model.

    Args:
        rows: a row per model.
        cells: (batch, length) of the shapes.
        about: `threads`, `repeats`, `macs_length` and `data`.
    """
    rows = with_ratios(rows)
    costs = [("model", "format", "parameters", "non-zero", "MB", "gzipped", "MACs per token", "memory, MB")]
    for row in rows:
        costs.append((row["model"], row["format"], _cell(row, "parameters"), _cell(row, "nonzero_parameters"),
                      _cell(row, "size_bytes", "{:,.1f}", _MB), _cell(row, "gzip_bytes", "{:,.1f}", _MB),
                      _cell(row, "macs_per_token"), _cell(row, "peak_memory_bytes", "{:,.0f}", _MB)))  # fmt: skip
    speed = [("model", *(f"batch {batch} × {length}" for batch, length in cells))]
    speed += [(row["model"], *(_latency(row, cell_name(*cell)) for cell in cells)) for row in rows]
    parts = [
        f"in brackets: × the first model; MACs at {about['macs_length']} tokens; memory: most of a process of its own",
        aligned(costs, left=2),
        f"\nlatency p50 / p95 in ms [sequences a second] (× the first model's p50), {about['threads']} thread(s), "
        f"{about['repeats']} predictions each",
        aligned(speed),
    ]
    if "metric" in rows[0]:
        title, scale = metric_title(rows[0]["metric"]), metric_scale(rows[0]["metric"])
        judged = [("model", title, "instances", "ms an instance")]
        judged += [(row["model"], f"{row['value'] * scale:.2f}", f"{row['instances']:,}",
                    _cell(row, "seconds_per_instance", "{:.2f}", 1e-3)) for row in rows]  # fmt: skip
        parts += [f"\n{about['data']}", aligned(judged)]
    return "\n".join(parts)


def _cell(row: Mapping, name: str, form: str = "{:,.0f}", unit: float = 1.0) -> str:
    ratio = f" ({row[f'{name}_ratio']:.3f})" if f"{name}_ratio" in row else ""
    return form.format(row[name] / unit) + ratio


def _latency(row: Mapping, cell: str) -> str:
    low, high, many = (row[f"{name}_{cell}"] for name in ("p50_ms", "p95_ms", "sequences_per_second"))
    return f"{low:,.2f} / {high:,.2f} [{many:,.1f}] ({row[f'p50_ms_{cell}_ratio']:.3f})"


def write_plot(
    path: Path, rows: Sequence[Mapping], cells: Sequence[tuple[int, int]], about: Mapping[str, Any]
) -> Path:
    """Draws a panel per shape: the metric against latency with the Pareto front, or latencies where there is no metric.

    Args:
        path: the PNG file.
        rows: a row per model.
        cells: (batch, length) of the shapes.
        about: `threads`, `repeats` and `data`.
    """
    from matplotlib.figure import Figure

    columns = min(2, len(cells))
    lines = -(-len(cells) // columns)
    judged = "metric" in rows[0]
    height = 4.2 if judged else 1.2 + 0.34 * len(rows)
    figure = Figure(figsize=(6 * columns + (2.5 if judged else 1), height * lines + 0.6), layout="constrained")
    panels = figure.subplots(lines, columns, squeeze=False, sharey=True).ravel()
    for axes, (batch, length) in zip(panels, cells, strict=False):
        (_points if judged else _bars)(axes, rows, cell_name(batch, length))
        axes.set_title(f"batch {batch}, {length} tokens", fontsize="medium")
        axes.set_xlabel("latency of a batch (ms)")
        axes.grid(alpha=0.3)
        axes.set_axisbelow(True)
    for axes in panels[len(cells) :]:
        axes.remove()
    where = f"{about['threads']} thread{'s' * (about['threads'] > 1)}, {about['repeats']} predictions of each model"
    if judged:
        for axes in panels[: len(cells) : columns]:
            axes.set_ylabel(metric_title(rows[0]["metric"]))
        figure.legend(handles=_handles(rows), loc="outside right upper", frameon=False)
        where = f"{about['data']}\n{where}; point: median, line: to the 95th percentile"
    else:
        where += "; bar: median, line: to the 95th percentile"
    figure.suptitle(where, fontsize="medium", color="0.25")
    return write_bytes_atomic(path, png(figure))


def model_style(index: int) -> dict[str, Any]:
    """Colour and marker of the model of this number, for `Axes.plot`; the same in every plot of several models."""
    return {"color": COLOURS[index % len(COLOURS)], "marker": _MARKERS[index % len(_MARKERS)], "markersize": 8,
            "linestyle": "none"}  # fmt: skip


def _handles(rows: Sequence[Mapping]) -> list:
    from matplotlib.lines import Line2D

    models = [Line2D([], [], **model_style(index), label=label_text(row["model"])) for index, row in enumerate(rows)]
    hollow: dict[str, Any] = {"color": "0.4", "marker": "o", "markersize": 8, "linestyle": "none",
                              "markerfacecolor": "white"}  # fmt: skip
    return [*models, Line2D([], [], color="0.6", linestyle="--", label="Pareto front"),
            Line2D([], [], **hollow, label="hollow: another is faster\nand at least as good")]  # fmt: skip


def _points(axes: Axes, rows: Sequence[Mapping], cell: str):
    scale = metric_scale(rows[0]["metric"])
    costs, values = [row[f"p50_ms_{cell}"] for row in rows], [scale * row["value"] for row in rows]
    ends = [row[f"p95_ms_{cell}"] for row in rows]
    # A model whose outputs are no numbers, as after 16 bits overflow, has no place in the panel.
    known = [value for value in values if math.isfinite(value)] or [0.0]
    front, right = pareto_front(costs, values), 1.05 * max(ends)
    axes.step([*(costs[index] for index in front), right], [*(values[index] for index in front), max(known)],
              where="post", color="0.6", linestyle="--", linewidth=1.2, zorder=1)  # fmt: skip
    for index, (cost, end, value) in enumerate(zip(costs, ends, values, strict=True)):
        look = model_style(index)
        axes.plot([cost, end], [value, value], color=look["color"], linewidth=1, alpha=0.6)
        axes.plot(cost, value, **look, markerfacecolor=look["color"] if index in front else "white")
    axes.set_xlim(0, right)
    # At least a point of the metric in either direction, or noise would fill the panel.
    axes.set_ylim(min(known) - 1, max(known) + 1)


def _bars(axes: Axes, rows: Sequence[Mapping], cell: str):
    places = range(len(rows))
    medians = [row[f"p50_ms_{cell}"] for row in rows]
    above = [row[f"p95_ms_{cell}"] - median for row, median in zip(rows, medians, strict=True)]
    axes.barh(places, medians, xerr=[[0] * len(rows), above], capsize=3,
              color=[COLOURS[index % len(COLOURS)] for index in places])  # fmt: skip
    axes.set_yticks(places, [row["model"] for row in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
