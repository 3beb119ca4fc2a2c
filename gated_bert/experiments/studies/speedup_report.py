"""Table, picture and page of a family of models: metric against measured speed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gated_bert.compression.benchmark import cell_name, pareto_front
from gated_bert.compression.latency import Conditions
from gated_bert.experiments.models.benchmark_table import COLOURS, RECORD
from gated_bert.experiments.reports.drawing import png, tolerated
from gated_bert.experiments.reports.page import element, html_image, html_table, note, page
from gated_bert.experiments.reports.results import metric_scale, metric_title
from gated_bert.experiments.studies.compress import METRICS, MODELS
from gated_bert.experiments.studies.family_folder import DENSE, pruned_record, target_of
from gated_bert.experiments.studies.prune_to_speed import TOLERANCE
from gated_bert.models.folder import read_architecture
from gated_bert.support.files import write_bytes_atomic, write_csv_atomic
from gated_bert.support.records import read_record
from gated_bert.support.schemas import BenchmarkRecord
from gated_bert.support.speed_schemas import SpeedRecord
from gated_bert.support.text_table import aligned

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TABLE, PLOT, PAGE = "family.csv", "family.png", "report.html"
FORMS = {"onnx": ("fp32", "o"), "int8": ("int8", "^")}
"""Folder of exported files → their precision, and its marker."""
TICKS = (1, 1.5, 2, 3, 4, 6, 8, 10, 12, 16, 24, 32, 48, 64)
LEAST_RANGE = 10.0
"""Points of the metric that the picture shows at least, so that no difference within the interval looks large."""

Rows = Sequence[Mapping[str, Any]]


def write_family(folder: Path, conditions: Conditions) -> list[Path]:
    """Writes `family.csv`, `family.png` and `report.html` of a family, and prints its table.

    Args:
        folder: the family's.
        conditions: of the predictions that were measured.

    Returns:
        The files written.
    """
    about = read_record(folder / METRICS / RECORD, BenchmarkRecord)
    rows = family_rows(about["models"], folder / MODELS, cell_name(conditions.batch, conditions.length))
    _add_when_pruned(rows, folder, conditions.precision)
    print("\n" + aligned(_cells(rows)))
    said = off(rows)
    if said:
        print(f"note: {said}")
    written = [write_csv_atomic(folder / TABLE, rows)]
    picture = None
    with tolerated(folder / PLOT):
        picture = png(family_figure(rows, conditions))
        written.append(write_bytes_atomic(folder / PLOT, picture))
    head, *body = _cells(rows)
    said_of_all = (f"{conditions}; {about['data']}. Speed is over the dense model in fp32. Models are in {MODELS}/, "
                   f"their ONNX files in {MODELS}/onnx/ and, of 8 bits, {MODELS}/int8/.")  # fmt: skip
    parts: list[object] = [element("h1", f"{rows[0]['task']}: models by speed"), note(said_of_all)]
    if picture is not None:
        parts.append(html_image(picture, "Metric against measured speed"))
    parts += [html_table(list(head), body), *([note(said)] if said else []),
              element("h2", "What is left of each layer"),
              html_table(["model", "heads + neurons, layer by layer", ""], _layers(folder, rows), "text")]  # fmt: skip
    return [*written, write_bytes_atomic(folder / PAGE, page("A family of models by speed", parts))]


def read_family(path: Path) -> list[dict[str, Any]]:
    """The rows of a `family.csv`."""
    import pandas as pd

    return pd.read_csv(path, dtype={"note": "object"}).fillna({"note": ""}).to_dict("records")  # type: ignore[return-value]


def family_rows(measured: Rows, models: Path, cell: str) -> list[dict[str, Any]]:
    """The models with their speed over that of the dense one in 32 bits.

    Args:
        measured: rows of `benchmark.json`.
        models: the folder that the paths in them lie in.
        cell: of the columns of the shape that counts.

    Returns:
        `target` (1: dense), `precision`, `speedup` as measured, also at the other shapes, the metric with its 95 %
        interval (Wilson; of accuracies alone), its share of the dense one's, sizes.
    """
    rows = []
    for row in measured:
        place = Path(row["path"]).relative_to(models)
        name = place.name.removesuffix(".onnx")
        value = math.nan if row["value"] is None else row["value"]
        low, high = interval(row["metric"], value, row["instances"])
        rows.append({
            "model": name, "target": target_of(name), "precision": FORMS[place.parts[0]][0],
            "p50_ms": row[f"p50_ms_{cell}"],
            "metric": row["metric"], "value": value, "low": low, "high": high, "instances": row["instances"],
            "size_bytes": row["size_bytes"], "parameters": row["parameters"], "macs_per_token": row["macs_per_token"],
            "task": row["task"], "path": str(place),
            **{name: each for name, each in row.items() if name.startswith("p50_ms_") and not name.endswith("_ratio")},
        })  # fmt: skip
    rows.sort(key=lambda row: (row["target"], row["precision"]))
    dense = next(row for row in rows if row["target"] == 1 and row["precision"] == "fp32")
    for row in rows:
        row["speedup"] = dense["p50_ms"] / row["p50_ms"]
        for name in [name for name in row if name.startswith("p50_ms_")]:
            row[name.replace("p50_ms", "speedup")] = dense[name] / row[name]
        row["share_of_dense"] = row["value"] / dense["value"] if dense["value"] else math.nan
    return rows


def _add_when_pruned(rows: list[dict[str, Any]], folder: Path, precision: str):
    """Adds what was said when models were pruned, of those that are served: `when_pruned`, their speed, and `note`."""
    for row in rows:
        row |= {"when_pruned": math.nan, "note": ""}
        record = read_record(pruned_record(folder, row["target"]), SpeedRecord, tolerant=True)
        if record and row["precision"] == precision:
            row |= {"when_pruned": record["speedup"], "note": record["note"]}


def off(rows: Rows) -> str:
    """Which models that were pruned to a speed have another one now, in words.

    Args:
        rows: with `target`, `speedup` as measured now and `when_pruned`, NaN of models that are not served.
    """
    found = [f"{row['target']:g}× is {row['speedup']:.2f}× here and was {row['when_pruned']:.2f}× when it was pruned"
           for row in rows if row["when_pruned"] < (1 + TOLERANCE) * row["target"]
           and abs(row["speedup"] / row["target"] - 1) > TOLERANCE]  # fmt: skip
    return "; ".join(found) + " (times vary with what else the machine does)" * bool(found)


def interval(metric: str, value: float, instances: int) -> tuple[float, float]:
    """The 95 % interval of a metric over so many examples, by Wilson; NaN of others than accuracies."""
    if metric != "accuracy" or math.isnan(value):
        return math.nan, math.nan
    from scipy.stats import binomtest

    found = binomtest(round(value * instances), instances).proportion_ci(method="wilson")
    return float(found.low), float(found.high)


def _cells(rows: Rows) -> list[tuple[str, ...]]:
    scale = metric_scale(rows[0]["metric"])
    digits = 2 if scale == 100 else 4
    title = metric_title(rows[0]["metric"])
    lines: list[tuple[str, ...]] = [("model", "precision", "speed", "ms", title, "95 % interval", "of dense", "MB",
                                     "MACs per token")]  # fmt: skip
    for row in rows:
        bounds = "–" if math.isnan(row["low"]) else f"{scale * row['low']:.1f} to {scale * row['high']:.1f}"
        name = "dense" if row["target"] == 1 else f"{row['target']:g}×"
        lines.append((name, row["precision"], f"{row['speedup']:.2f}×", f"{row['p50_ms']:.2f}",
                      f"{scale * row['value']:.{digits}f}", bounds, f"{100 * row['share_of_dense']:.1f} %",
                      f"{row['size_bytes'] / 1e6:.1f}", f"{row['macs_per_token']:,.0f}"))  # fmt: skip
    return lines


def _layers(folder: Path, rows: Rows) -> list[tuple[str, str, str]]:
    dense = read_architecture(folder / MODELS / DENSE).layers
    found = [("dense", ", ".join(f"{sizes.num_heads} + {sizes.intermediate_size}" for sizes in dense), "")]
    for target in dict.fromkeys(row["target"] for row in rows if row["target"] != 1):
        record = read_record(pruned_record(folder, target), SpeedRecord, tolerant=True)
        if record:
            sizes = ", ".join(f"{each['num_heads']} + {each['intermediate_size']}" for each in record["layers"])
            found.append((f"{target:g}×", sizes, record["note"]))
    return found


def show_points(axes: Axes) -> None:
    """Lets an axis of points go over no less than some, so that differences of tenths look like it."""
    low, high = axes.get_ylim()
    if high - low < LEAST_RANGE:
        axes.set_ylim((low + high - LEAST_RANGE) / 2, (low + high + LEAST_RANGE) / 2)


def family_figure(rows: Rows, conditions: Conditions) -> Figure:
    """Metric against measured speed, a line for each precision, with the models that no other beats ringed."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, NullFormatter

    figure = Figure(figsize=(7.5, 5), layout="constrained")
    axes, scale = figure.subplots(), metric_scale(rows[0]["metric"])
    for index, (form, marker) in enumerate(FORMS.values()):
        own = sorted((row for row in rows if row["precision"] == form), key=lambda row: row["speedup"])
        x, y = [row["speedup"] for row in own], [scale * row["value"] for row in own]
        axes.plot(x, y, color=COLOURS[index], marker=marker, label=form)
        bars = [(row, each, value) for row, each, value in zip(own, x, y, strict=True) if not math.isnan(row["low"])]
        axes.errorbar([each for _, each, _ in bars], [value for _, _, value in bars],
                      [[value - scale * row["low"] for row, _, value in bars],
                       [scale * row["high"] - value for row, _, value in bars]],
                      color=COLOURS[index], linewidth=0, elinewidth=1, capsize=2)  # fmt: skip
    front = pareto_front([1 / row["speedup"] for row in rows], [row["value"] for row in rows])
    axes.scatter([rows[each]["speedup"] for each in front], [scale * rows[each]["value"] for each in front], s=130,
                 facecolors="none", edgecolors="0.2", label="no other is faster and as good")  # fmt: skip
    if scale == 100:
        show_points(axes)
    axes.set_xscale("log")
    fastest = max(row["speedup"] for row in rows)
    axes.set_xticks([tick for tick in TICKS if tick < 1.1 * fastest])
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}×"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel(f"speed over the dense model in fp32 ({conditions.batch} × {conditions.length} tokens, "
                    f"{conditions.threads} thread{'s' * (conditions.threads > 1)})")  # fmt: skip
    axes.set_ylabel(f"{metric_title(rows[0]['metric'])}, bars: 95 % interval")
    axes.grid(alpha=0.3)
    axes.legend()
    return figure
