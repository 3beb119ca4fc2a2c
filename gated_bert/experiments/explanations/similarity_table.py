"""Tables and plots of how alike models' explanations are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from gated_bert.experiments.models.benchmark_table import model_style
from gated_bert.experiments.reports.drawing import label_text
from gated_bert.experiments.reports.results import metric_scale, metric_title
from gated_bert.explain.similarity import MEASURES, Weights, similarities, summarize
from gated_bert.support.text_table import aligned

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NOISE = "noise floor"
"""What tables and plots call the base model compared with itself, explained with another seed."""

_LESS, _MORE = "less alike than the noise floor", "more alike than the noise floor"
MARKS = {_LESS: "−", _MORE: "+"}
"""Verdict → its mark in tables; the others have none."""
_TITLES = {"cosine": "cosine", "spearman": "Spearman", "jaccard": "top-{k} Jaccard", "rbo": "rank-biased overlap"}
_GREY = "0.75"

Explained = Mapping[tuple[int, str], Weights]
"""(document, class) → words and their weights."""


def similarity_rows(name: str, base: Explained, other: Explained, top_k: int) -> list[dict]:
    """A row per document and class that both explain: `variant`, `document`, `class`, measures, numbers of words."""
    return [
        {"variant": name, "document": document, "class": label,
         **similarities(weights, other[document, label], top_k), "words_base": len(weights),
         "words_variant": len(other[document, label]), "words_both": len(weights.keys() & other[document, label])}
        for (document, label), weights in base.items() if (document, label) in other
    ]  # fmt: skip


def document_values(rows: Sequence[Mapping], measure: str, documents: Sequence[int]) -> np.ndarray:
    """A measure's mean over the classes of each document; NaN where it is defined for none."""
    found: dict[int, list[float]] = {document: [] for document in documents}
    for row in rows:
        if np.isfinite(row[measure]):
            found[row["document"]].append(row[measure])
    return np.array([np.mean(values) if values else np.nan for values in found.values()])


def values_by_variant(rows: Sequence[Mapping]) -> dict[str, dict[str, np.ndarray]]:
    """Variant → measure → a value per document, of all documents in one order."""
    documents = sorted({row["document"] for row in rows})
    parts: dict[str, list[Mapping]] = {}
    for row in rows:
        parts.setdefault(row["variant"], []).append(row)
    return {
        name: {measure: document_values(part, measure, documents) for measure in MEASURES}
        for name, part in parts.items()
    }


def summary_rows(rows: Sequence[Mapping], models: Mapping[str, Mapping], seed: int) -> list[dict]:
    """A row per variant and measure.

    Args:
        rows: of `similarity_rows`, those of the noise floor first.
        models: variant → what else is known of it, which its rows repeat.
        seed: of the bootstrap.

    Returns:
        `variant`, `measure`, what `summarize` gives, `verdict` in words, and the rest.
    """
    found, values = [], values_by_variant(rows)
    for name, measured in values.items():
        for measure in MEASURES:
            row = summarize(measured[measure], values[NOISE][measure], seed)
            if name == NOISE:
                row |= dict.fromkeys(("difference", "difference_low", "difference_high", "excludes_zero"))
            verdict = _verdict(row)
            found.append({"variant": name, "measure": measure, **row, "verdict": verdict, **models.get(name, {})})
    return found


def _verdict(row: Mapping) -> str:
    if row["excludes_zero"] is None:
        return NOISE
    if not row["excludes_zero"]:
        return "not told apart from the noise floor"
    return _LESS if row["difference"] < 0 else _MORE


def summary_text(summary: Sequence[Mapping], about: Mapping) -> str:
    """The summary as a table, a line per variant, and what its marks mean.

    Args:
        summary: rows of `summary_rows`.
        about: `base`, `base_facts` (as `models` of `summary_rows`), `documents`, `top_k` and, where the models were
            judged, `judged_on`.
    """
    judged = about["base_facts"].get("test_metric")
    heads = ["variant", "removed %", "accuracy (%), documents", "drop"]
    heads += [f"{metric_title(judged)}, {about['judged_on']}", "drop"] if judged else []
    lines = [heads + [titles(about["top_k"])[measure] for measure in MEASURES]]
    base = [about["base"], *_facts(about["base_facts"], bool(judged))]
    lines.append(base + [""] * len(MEASURES))
    for name in dict.fromkeys(row["variant"] for row in summary):
        own = [row for row in summary if row["variant"] == name]
        facts = [""] * (len(heads) - 1) if name == NOISE else _facts(own[0], bool(judged))
        lines.append([name, *facts, *map(_cell, own)])
    return "\n".join([
        f"similarity to the explanations of {about['base']} on {about['documents']} documents: mean [95 % interval]",
        aligned(lines),
        f"{NOISE}: {about['base']} against itself with other samples; of the paired difference to it the 95 % interval "
        "excludes 0: − less alike, + more alike",
    ])  # fmt: skip


def _cell(row: Mapping) -> str:
    mark = MARKS.get(row["verdict"], " ")
    return f"{row['mean']:.3f} [{row['low']:.3f}, {row['high']:.3f}]{mark}"


def _facts(row: Mapping, judged: bool) -> list[str]:
    cells = [_number(row.get("removed_percent"), 1), _number(row.get("document_accuracy"), 100)]
    cells.append(_number(row.get("document_accuracy_drop"), 100))
    if judged:
        scale = metric_scale(row["test_metric"]) if row.get("test_metric") else 1
        cells += [_number(row.get("test_value"), scale), _number(row.get("test_drop"), scale)]
    return cells


def _number(value: float | None, scale: float) -> str:
    return "" if value is None else f"{scale * value:.2f}"


def titles(top_k: int) -> dict[str, str]:
    """Measure → its name in tables and plots."""
    return {measure: title.format(k=top_k) for measure, title in _TITLES.items()}


def level_figure(summary: Sequence[Mapping], about: Mapping) -> Figure:
    """Mean similarity against the share of the base model's parameters that is gone; a panel per measure.

    Args:
        summary: rows of `summary_rows`; variants without `removed_percent` are left out.
        about: as for `summary_text`.
    """
    figure, panels = _panels(about, 5, sharex=True)
    names = [name for name in dict.fromkeys(row["variant"] for row in summary) if name != NOISE]
    for axes, measure in zip(panels, MEASURES, strict=True):
        of_measure = {row["variant"]: row for row in summary if row["measure"] == measure}
        noise = of_measure[NOISE]
        axes.axhspan(noise["low"], noise["high"], color=_GREY, alpha=0.6, linewidth=0)
        axes.axhline(noise["mean"], color="0.4", linewidth=1, linestyle="--")
        for index, name in enumerate(names):
            row = of_measure[name]
            if row.get("removed_percent") is not None:
                error = np.abs(np.array([[row["low"]], [row["high"]]]) - row["mean"])
                axes.errorbar(row["removed_percent"], row["mean"], yerr=error, capsize=3, **_hollow(index))
        axes.set_ylabel(f"{titles(about['top_k'])[measure]}, mean over documents")
        axes.grid(alpha=0.3)
    for axes in panels[2:]:
        axes.set_xlabel(f"parameters removed (% of the non-zero ones of {about['base']})")
    _legend(figure, names, "mean and 95 % interval")
    return figure


def distribution_figure(rows: Sequence[Mapping], about: Mapping) -> Figure:
    """Similarity of every document, variant by variant, with the noise floor's quartiles as a band.

    Args:
        rows: of `similarity_rows`, those of the noise floor too.
        about: as for `summary_text`.
    """
    values = values_by_variant(rows)
    names = [name for name in values if name != NOISE]
    figure, panels = _panels(about, 2.2 + 0.38 * (len(names) + 1), sharey=True)
    scatter = np.random.default_rng(0)
    for axes, measure in zip(panels, MEASURES, strict=True):
        noise = values[NOISE][measure]
        low, middle, high = _quantiles(noise, 0.25, 0.5, 0.75)
        axes.axvspan(low, high, color=_GREY, alpha=0.6, linewidth=0)
        axes.axvline(middle, color="0.4", linewidth=1, linestyle="--")
        for place, name in enumerate([NOISE, *names]):
            colour = "0.35" if name == NOISE else model_style(place - 1)["color"]
            _box(axes, place, values[name][measure], colour, scatter)
        axes.use_sticky_edges = False
        axes.autoscale_view(scaley=False)
        axes.set_xlabel(f"{titles(about['top_k'])[measure]} of a document")
        axes.grid(alpha=0.3, axis="x")
    panels[0].set_yticks(range(len(names) + 1), [NOISE, *names])
    panels[0].set_ylim(len(names) + 0.6, -0.6)
    _legend(figure, (), "median and middle half")
    return figure


def _box(axes: Axes, place: int, values: np.ndarray, colour: str, scatter: np.random.Generator):
    known = values[np.isfinite(values)]
    if not len(known):
        return
    least, low, middle, high, most = _quantiles(known, 0.05, 0.25, 0.5, 0.75, 0.95)
    axes.plot([least, most], [place, place], color=colour, linewidth=1.2)
    axes.barh(place, high - low, left=low, height=0.5, facecolor="white", edgecolor=colour, linewidth=1.2)
    axes.plot(known, place + scatter.uniform(-0.28, 0.28, len(known)), ".", color=colour, alpha=0.3, markersize=4)
    axes.plot([middle, middle], [place - 0.25, place + 0.25], color=colour, linewidth=2.2)
    axes.plot(known.mean(), place, "D", color=colour, markeredgecolor="white", markersize=6)


def _hollow(index: int) -> dict[str, Any]:
    """The look of a variant; hollow, since a model and its 16 bits stand in one place."""
    return model_style(index) | {"markerfacecolor": "none", "markeredgewidth": 1.5}


def _quantiles(values: np.ndarray, *levels: float) -> np.ndarray:
    known = values[np.isfinite(values)]
    return np.quantile(known, levels) if len(known) else np.full(len(levels), np.nan)


def _panels(about: Mapping, height: float, sharex: bool = False, sharey: bool = False) -> tuple[Figure, np.ndarray]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 2 * height), layout="constrained")
    figure.suptitle(f"explanations compared with those of {about['base']}: {about['documents']} documents of "
                    f"{about['data']}", fontsize="medium", color="0.25")  # fmt: skip
    return figure, figure.subplots(2, 2, sharex=sharex, sharey=sharey, squeeze=False).ravel()


def _legend(figure: Figure, names: Sequence[str], what: str):
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    entries: list[Artist] = []
    entries += [Line2D([], [], **_hollow(index), label=label_text(name)) for index, name in enumerate(names)]
    entries += [Line2D([], [], color="0.4", linewidth=1, linestyle="--"), Patch(color=_GREY, alpha=0.6)]
    entries[-2].set_label(f"{NOISE}: {what.partition(' and ')[0]}")
    entries[-1].set_label(f"{NOISE}: {what.partition(' and ')[2]}")
    if not names:
        entries += [
            Patch(facecolor="white", edgecolor="0.35", label="documents: middle half, median; line: 5 to 95 %"),
            Line2D([], [], color="0.35", marker="D", linestyle="none", label="mean of the documents"),
        ]
    figure.legend(handles=entries, loc="outside lower center", frameon=False, ncols=min(4, len(entries)))
