"""What pruning by activation change cost and saved: a row per model, and means over seeds against the unpruned one."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from gated_bert.compression.model_statistics import macs, measure_latency, parameter_counts
from gated_bert.experiments.reports.aggregate import statistics
from gated_bert.experiments.reports.csv_file import read_csv
from gated_bert.experiments.reports.drawing import files_there, label_text, png, tolerated
from gated_bert.experiments.reports.run_layout import MODEL, RESOURCES
from gated_bert.experiments.runs.resource_log import COLUMNS
from gated_bert.experiments.studies.activation_config import UNPRUNED
from gated_bert.experiments.sweeps.jobs import Job
from gated_bert.models.folder import WEIGHTS, load_model
from gated_bert.support.errors import UserError
from gated_bert.support.files import write_bytes_atomic, write_csv_atomic
from gated_bert.support.progress_bar import progress_bar
from gated_bert.support.text_table import aligned
from gated_bert.tasks.data import load_task_data
from gated_bert.tasks.evaluation import evaluate_model, make_dataset

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TABLE, SUMMARY, PLOT = "activation_change.csv", "activation_change_summary.csv", "activation_change.png"
METRICS = ("accuracy", "f1", "precision")
COSTS = ("parameters", "macs_per_token", "file_mb", "latency_ms", "peak_memory_mb", "training_memory_mb", "seconds")
SHORT = {"parameters": "parameters", "macs_per_token": "MACs", "file_mb": "file", "latency_ms": "latency",
         "peak_memory_mb": "peak memory", "training_memory_mb": "… of training"}  # fmt: skip
"""Costs that are drawn, and their names there."""
BATCH, LENGTH, REPEATS = 8, 128, 9


def write_tables(jobs: Sequence[Job], output: Path) -> int:
    """Judges the finished runs, writes `activation_change.csv`, its summary and its plot, and prints the summary.

    A seed whose rows are in an earlier table, written after its models, is not measured again.

    Args:
        jobs: for every seed its unpruned run and its pruned ones, which started from the model folders in `pretrained`.
        output: where the files go.

    Returns:
        The exit status 0.

    Raises:
        UserError: a finished run without its model.
    """
    for job in jobs:
        if not (job.folder / MODEL / WEIGHTS).is_file():
            raise UserError(f"{job.folder / MODEL}: the model of a finished run is gone; remove {job.folder}, and "
                            "--resume makes it again")  # fmt: skip
    by_seed: dict[int, dict[str, Job]] = {}
    for job in jobs:
        by_seed.setdefault(job.config.seed, {})[_variant(job)] = job
    earlier, tables = _earlier(output / TABLE), []
    with progress_bar("measuring", len(by_seed)) as advance:
        for seed, of_seed in by_seed.items():
            advance(f"seed {seed}", 0)
            kept = _rows_there(earlier, output / TABLE, seed, of_seed)
            tables.append(pd.DataFrame(_rows_of_seed(of_seed)) if kept is None else kept)
            advance("", 1)
    table = pd.concat(tables, ignore_index=True)
    write_csv_atomic(output / TABLE, table)
    write_csv_atomic(output / SUMMARY, summary(table))
    label = load_task_data(jobs[0].config).source["label"]
    print(f"\n{summary_text(summary(table))}\n\n{label}; latency of a prediction at batch {BATCH}, the models in turns")
    with tolerated(output / PLOT):
        write_bytes_atomic(output / PLOT, png(_figure(table, label)))
    print(f"{files_there(output, TABLE, SUMMARY, PLOT)} in {output}, and a folder for each run")
    return 0


def _variant(job: Job) -> str:
    return job.name.rpartition(" seed ")[0]


def _earlier(path: Path) -> pd.DataFrame | None:
    """The table of an earlier command; None where there is none that can be read."""
    try:
        return read_csv(path, ("seed", *METRICS, "loss", *COSTS), ("variant", "layers"))
    except UserError:
        return None


def _rows_there(earlier: pd.DataFrame | None, path: Path, seed: int, jobs: dict[str, Job]) -> pd.DataFrame | None:
    """The rows of a seed in the earlier table in `path`, where it was written after all of the seed's models; None
    where there are none, or not all of what is measured."""
    if earlier is None:
        return None
    rows = earlier[earlier["seed"] == seed]
    measured = rows[[*METRICS, "loss", "parameters", "macs_per_token", "file_mb", "latency_ms"]]
    whole = np.isfinite(measured).all(axis=None)
    stats = [(job.folder / MODEL / WEIGHTS).stat() for job in jobs.values()]
    # A copy may be as old as what it is of.
    older = path.stat().st_mtime_ns <= max(max(stat.st_mtime_ns, stat.st_ctime_ns) for stat in stats)
    return None if older or not whole or list(rows["variant"]) != list(jobs) else rows


def _rows_of_seed(jobs: dict[str, Job]) -> list[dict]:
    """One row per variant; their latencies are measured in turns."""
    loaded = {variant: load_model(job.folder / MODEL) for variant, job in jobs.items()}
    longest = min(LENGTH, *(entry.config.max_position for entry in loaded.values()))
    seconds = measure_latency({name: entry.model for name, entry in loaded.items()}, BATCH, longest, REPEATS)
    rows = []
    for variant, job in jobs.items():
        entry, data = loaded[variant], load_task_data(job.config)
        task = dataclasses.replace(data.task, metrics=METRICS)
        sets = {name: make_dataset(task, entry.tokenizer, part, job.config) for name, part in data.dev.items()}
        scores, _ = evaluate_model(entry.model, task, sets, data.dev, job.config)
        rows.append({
            "variant": variant, "seed": job.config.seed, **{name: scores[name] for name in (*METRICS, "loss")},
            "parameters": parameter_counts(entry.model)[0],
            "macs_per_token": macs(entry.config, longest).total,
            "file_mb": (job.folder / MODEL / WEIGHTS).stat().st_size / 1e6,
            "latency_ms": 1e3 * float(pd.Series(seconds[variant]).median()),
            **memory(job.folder / RESOURCES),
            "layers": "; ".join(sizes.describe() for sizes in entry.config.layers),
        })  # fmt: skip
    return rows


def memory(path: Path) -> dict[str, float]:
    """What a run's log of resources says: its highest memory in MB (of the GPU, where there is one; else of the
    process), how much of it came after the run had started, and the seconds of its epochs; NaN without a log."""
    if not path.is_file():
        return dict.fromkeys(("peak_memory_mb", "training_memory_mb", "seconds"), math.nan)
    rows = read_csv(path, [name for name in COLUMNS if "memory" in name or name == "seconds"], ("event",))
    kind = "gpu_memory" if rows["gpu_memory_mb"].notna().any() else "memory"
    peak = float(rows[f"{kind}_peak_mb"].max())
    start = 0.0 if kind == "gpu_memory" else float(rows["memory_mb"].iloc[0])
    trained = rows.loc[rows["event"].isin(("epoch begin", "epoch end")), "seconds"]
    return {"peak_memory_mb": peak, "training_memory_mb": peak - start, "seconds": trained.max() - trained.min()}


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """Per variant and measure, the mean over seeds with its 95 % t-interval, and that of what each seed changed.

    Args:
        table: a row per seed and variant.

    Returns:
        Columns `variant`, `measure`, `n`, `mean`, `std`, `low`, `high` and, against the unpruned model of the same
        seed, `change_mean`, `change_low`, `change_high`: differences of metrics, ratios of costs.
    """
    dense = table[table["variant"] == UNPRUNED].set_index("seed")
    rows = []
    for variant, part in table.groupby("variant", sort=False):
        part = part.set_index("seed")
        for measure in (*METRICS, *COSTS):
            values, base = part[measure], dense[measure].reindex(part.index)
            change = statistics(values - base if measure in METRICS else values / base.where(base != 0))
            rows.append({"variant": variant, "measure": measure, **statistics(values),
                         **{f"change_{name}": change[name] for name in ("mean", "low", "high")}})  # fmt: skip
    return pd.DataFrame(rows)


def summary_text(rows: pd.DataFrame) -> str:
    """The summary as an aligned table: metrics in per cent with changes in points, costs with ratios."""
    forms = {"parameters": "{:,.0f}", "macs_per_token": "{:,.0f}"}
    lines = [("variant", "n", "measure", "mean [95 % interval]", "against unpruned")]
    for row in rows.to_dict("records"):
        metric = row["measure"] in METRICS
        scale, form = (100.0, "{:.2f}") if metric else (1.0, forms.get(row["measure"], "{:,.1f}"))
        values = _interval([row[name] * scale for name in ("mean", "low", "high")], form)
        changes = [row[f"change_{name}"] * scale for name in ("mean", "low", "high")]
        change = "" if row["variant"] == UNPRUNED else _interval(changes, "{:+.2f} points" if metric else "× {:.3f}")
        lines.append((row["variant"], str(row["n"]), row["measure"] + (" (%)" if metric else ""), values, change))
    return aligned(lines, left=5)


def _interval(values: Sequence[float], form: str) -> str:
    mean, low, high = values
    if math.isnan(mean):
        return "–"
    number = "{:" + form.partition("{:")[2].partition("}")[0] + "}"
    return form.format(mean) + ("" if math.isnan(low) else f" [{number.format(low)}, {number.format(high)}]")


def _figure(table: pd.DataFrame, label: str) -> Figure:
    """Accuracy of every seed and its mean with the interval, per variant; beside it the ratios of costs."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    found = summary(table)
    variants = list(dict.fromkeys(table["variant"]))
    for place, variant in enumerate(variants):
        values = 100 * table.loc[table["variant"] == variant, "accuracy"]
        mean = statistics(values)
        left.plot([place] * len(values), values, "o", color="0.6", markersize=4, label=None if place else "one seed")
        half = 0.0 if math.isnan(mean["high"]) else mean["high"] - mean["mean"]
        left.errorbar(place + 0.12, mean["mean"], half, fmt="s", color="#0072B2", capsize=4,
                      label=None if place else f"mean of {mean['n']}, 95 % interval")  # fmt: skip
    left.set_xticks(range(len(variants)), variants)
    left.set_xlim(-0.5, len(variants) - 0.3)
    left.set_ylabel("accuracy (%)")
    pruned = [variant for variant in variants if variant != UNPRUNED]
    for place, variant in enumerate(pruned):
        part = found[found["variant"] == variant].set_index("measure").loc[list(SHORT)]
        width = 0.8 / len(pruned)
        places = [index + place * width for index in range(len(SHORT))]
        right.bar(places, part["change_mean"], width, label=label_text(variant))
    right.axhline(1.0, color="0.3", linewidth=1)
    right.set_xticks([index + 0.4 - 0.4 / max(len(pruned), 1) for index in range(len(SHORT))],
                     list(SHORT.values()),
                     rotation=25, ha="right")  # fmt: skip
    right.set_ylabel("ratio to unpruned")
    for axes in (left, right):
        axes.grid(axis="y", alpha=0.3)
        axes.set_axisbelow(True)
        axes.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, 1.12), ncols=4)
    figure.suptitle(f"pruning by activation change: {label}", fontsize="medium", color="0.25")
    return figure
