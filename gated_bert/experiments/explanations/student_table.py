"""Tables and plot of students: means over seeds, beside the model that they learn from."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gated_bert.experiments.reports.aggregate import statistics
from gated_bert.experiments.reports.drawing import png
from gated_bert.support.files import write_bytes_atomic
from gated_bert.support.text_table import aligned

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MEASURES = {"accuracy": ("accuracy (%)", 100), "agreement": ("agreement with BERT (%)", 100),
            "cosine": ("cosine", 1), "spearman": ("Spearman's ρ", 1)}  # fmt: skip
"""Measure → its title and what it is multiplied by where people read it."""

_PANELS = (("accuracy", "agreement"), ("cosine", "spearman"))
_LOOK = {"accuracy": ("#0072B2", "o", "-"), "agreement": ("#E69F00", "s", "--"),
         "cosine": ("#009E73", "o", "-"), "spearman": ("#CC79A7", "s", "--")}  # fmt: skip


def student_name(weight: float) -> str:
    """What tables call the students of a loss weight."""
    return f"XAI {weight:g}" if weight else "vanilla"


def summarize(
    rows: Sequence[Mapping], bert: Mapping[str, Any], latency: Mapping[str, Mapping[str, float]]
) -> list[dict]:
    """Means over the seeds of every loss weight, and differences to the vanilla students.

    Args:
        rows: a row per student: `student`, `xai_weight`, `seed`, the measures, `parameters` and `size_bytes`; for each
            seed there is one of weight 0.
        bert: `student` (its name), `accuracy`, `parameters` and `size_bytes` of the model.
        latency: of `bert` and `student`.

    Returns:
        The model's row, then one per weight: each measure's `n`, `mean`, `std`, `low` and `high` (95 % t-interval), and
        from the second on the same of its difference to the vanilla student of the same seed, with a verdict.
    """
    costs = ("parameters", "size_bytes")
    found = [{"student": bert["student"], "xai_weight": None, "accuracy_n": 1, "accuracy_mean": bert["accuracy"],
              **{name: bert[name] for name in costs}, **latency["bert"]}]  # fmt: skip
    vanilla = {row["seed"]: row for row in rows if row["xai_weight"] == 0}
    for weight in dict.fromkeys(row["xai_weight"] for row in rows):
        own = [row for row in rows if row["xai_weight"] == weight]
        line = {"student": student_name(weight), "xai_weight": weight}
        for name in MEASURES:
            line |= _columns(name, [_number(row[name]) for row in own])
        for name in MEASURES if weight else ():
            apart = [_number(row[name]) - _number(vanilla[row["seed"]][name]) for row in own]
            line |= _columns(f"{name}_difference", apart)
            line[f"{name}_verdict"] = verdict(line[f"{name}_difference_low"], line[f"{name}_difference_high"])
        found.append(line | {name: own[0][name] for name in costs} | dict(latency["student"]))
    return found


def verdict(low: float, high: float) -> str:
    """What the interval of a difference to the vanilla students says."""
    if not math.isfinite(low):
        return "one seed"
    return "above vanilla" if low > 0 else "below vanilla" if high < 0 else "not told apart"


def _number(value: float | None) -> float:
    return math.nan if value is None else value


def _columns(name: str, values: Sequence[float]) -> dict[str, float]:
    return {f"{name}_{part}": value for part, value in statistics(values).items()}


def students_text(summary: Sequence[Mapping], about: Mapping[str, Any]) -> str:
    """The summary as tables: measures with their intervals, differences to vanilla, costs.

    Args:
        summary: of `summarize`.
        about: `data`, `judged_documents`, `train_documents`, `held_out_documents` and `hardware`.
    """
    bert, *students = summary
    head = [("", *(title for title, _ in MEASURES.values()))]
    head += [(line["student"], *(_interval(line, name) for name in MEASURES)) for line in summary]
    costs: list[tuple[str, ...]] = [("", "parameters", "MB", "ms a document, batch 1", "batch 32")]
    for line in (bert, students[0]):
        name = line["student"] if line is bert else "a student"
        costs.append((name, f"{line['parameters']:,}", f"{line['size_bytes'] / 1e6:.1f}",
                      *(f"{line[f'ms_a_document_b{batch}']:.3f}" for batch in (1, 32))))  # fmt: skip
    parts = [
        f"{about['data']}, {about['judged_documents']:,} documents; students: {about['train_documents']:,} documents, "
        f"explanations compared on {about['held_out_documents']:,} others; {students[0]['accuracy_n']} seed(s), "
        "95 % t-intervals",
        aligned(head),
    ]
    if len(students) > 1:
        against = [("difference to vanilla", *(title for title, _ in MEASURES.values()))]
        for line in students[1:]:
            against.append((line["student"], *(_interval(line, f"{name}_difference") for name in MEASURES)))
            against.append(("", *(line[f"{name}_verdict"] for name in MEASURES)))
        parts += ["", aligned(against)]
    parts += ["", f"at {bert['length']} tokens, {about['hardware']['threads']} thread(s)", aligned(costs)]
    return "\n".join(parts)


def _interval(line: Mapping, name: str) -> str:
    """Mean and interval of a measure, or of its difference to vanilla, as people read it."""
    scale = MEASURES[name.removesuffix("_difference")][1]
    sign = "+" if name.endswith("_difference") else ""
    mean, low, high = (_number(line.get(f"{name}_{part}")) * scale for part in ("mean", "low", "high"))
    form = f"{sign}.2f" if scale == 100 else f"{sign}.3f"
    if not math.isfinite(mean):
        return "–"
    return f"{mean:{form}} ({low:{form}} to {high:{form}})" if math.isfinite(low) else f"{mean:{form}}"


def write_plot(path: Path, summary: Sequence[Mapping], data: str) -> Path:
    """Draws accuracy and agreement, and beside them similarity to BERT, against the weight of explanations in the loss.

    95 % t-intervals are drawn from three seeds on: two give an interval wider than the plot.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.8), layout="constrained")
    left, right = figure.subplots(1, 2)
    bert, *students = summary
    for axes, names in zip((left, right), _PANELS, strict=True):
        for index, name in enumerate(names):
            _curve(axes, students, name, index)
        axes.set_xticks(range(len(students)), [f"{line['xai_weight']:g}" for line in students])
        axes.set_xlabel("weight of the explanations in the loss (0: vanilla)")
        axes.grid(alpha=0.3)
    left.axhline(100 * bert["accuracy_mean"], color="#333333", linestyle=":", linewidth=1.4,
                 label=f"accuracy of {bert['student']}")  # fmt: skip
    left.set_ylabel("documents judged on (%)")
    right.set_ylabel("attributions and LIME weights of BERT:\nsimilarity on held-out documents")
    figure.legend(loc="outside lower center", frameon=False, ncols=5)
    seeds = students[0]["accuracy_n"]
    bars = ", bars: 95 % t-interval" if seeds >= 3 else ""
    figure.suptitle(f"Students · {data} · {seeds} seed{'s' * (seeds > 1)}{bars}", fontsize="medium", color="0.25")
    return write_bytes_atomic(path, png(figure))


def _curve(axes: Axes, students: Sequence[Mapping], name: str, index: int):
    title, scale = MEASURES[name]
    colour, marker, line = _LOOK[name]
    # Side by side, a hundredth of the axis apart, so that no interval hides another.
    places = np.arange(len(students)) + 0.01 * len(students) * (2 * index - 1)
    means = [scale * _number(each[f"{name}_mean"]) for each in students]
    wide = [each[f"{name}_n"] >= 3 for each in students]
    half = [scale * (each[f"{name}_high"] - each[f"{name}_mean"]) if known else math.nan
            for each, known in zip(students, wide, strict=True)]  # fmt: skip
    axes.errorbar(places, means, yerr=half if any(wide) else None, color=colour, marker=marker, linestyle=line,
                  capsize=3, label=title.removesuffix(" (%)"))  # fmt: skip
