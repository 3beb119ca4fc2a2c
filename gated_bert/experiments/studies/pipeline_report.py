"""The report of a pipeline: one table, one figure and one page on what compression did to a model's explanations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from gated_bert.compression.benchmark import cell_name
from gated_bert.experiments.explanations.similarity_table import MARKS, NOISE, titles
from gated_bert.experiments.models.benchmark_table import COLOURS
from gated_bert.experiments.models.benchmark_table import RECORD as BENCHMARK
from gated_bert.experiments.reports.csv_file import read_csv
from gated_bert.experiments.reports.drawing import label_text, png, tolerated
from gated_bert.experiments.reports.page import Html, element, html_image, html_table, joined, link, note, page
from gated_bert.experiments.reports.results import metric_scale, metric_title
from gated_bert.experiments.studies.compress import METRICS, REPORTS
from gated_bert.experiments.studies.compress_report import FORMS, report_rows
from gated_bert.experiments.studies.compress_report import TABLE as COMPRESSION
from gated_bert.experiments.studies.pipeline_plan import POS, SIMILARITY, STUDENTS
from gated_bert.experiments.sweeps.overview import clock
from gated_bert.explain.similarity import MEASURES
from gated_bert.support.files import write_bytes_atomic, write_csv_atomic
from gated_bert.support.records import read_record
from gated_bert.support.schemas import BenchmarkRecord, SimilarityRecord
from gated_bert.support.text_table import aligned

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from gated_bert.experiments.studies.pipeline_plan import Pipeline

TABLE, PLOT, PAGE = "explanations.csv", "explanations.png", "report.html"
_SIMILARITY = ("mean", "low", "high"), ("variant", "measure", "verdict")
_POS_TESTS = ("p_value",), ("model", "tagset")
"""Columns that are read, of numbers and others."""
_STUDENTS = ("accuracy", "agreement", "cosine", "spearman")


def write_report(pipeline: Pipeline, done: Mapping[str, Mapping]) -> list[Path]:
    """Joins what the steps have found and writes `explanations.csv`, `explanations.png` and `report.html`.

    Args:
        pipeline: what was run; steps whose files are not there have no section.
        done: step → its `words` and `seconds`.

    Returns:
        The files written, all in `reports/`.
    """
    folder = pipeline.output / REPORTS
    rows, record = model_rows(pipeline), pipeline.output / SIMILARITY / "similarity.json"
    about = read_record(record, SimilarityRecord, tolerant=True) or {}
    parts = [element("h1", f"What compression does to the explanations of {about.get('data', 'a model')}")]
    written = [write_csv_atomic(folder / TABLE, rows)]
    if rows and "cosine" in rows[0]:
        with tolerated(folder / PLOT):
            written.append(write_bytes_atomic(folder / PLOT, png(report_figure(rows, about))))
        print("\n" + verdict_text(rows, about.get("top_k", 5)))
    parts += _models(pipeline, rows) + _similarity(pipeline, rows, about) + _pos(pipeline) + _students(pipeline)
    parts += _steps(done)
    return [*written, write_bytes_atomic(folder / PAGE, page("What compression does to explanations", parts))]


def model_rows(pipeline: Pipeline) -> list[dict]:
    """A row per explained model, what is known of it beside its similarity to the base model.

    Returns:
        `model`, `kind`, `level` and `form`; `metric`, `value`, `metric_change` in points or hundredths, `size_bytes`
        and `latency_ms` as far as they were measured; per measure of similarity its mean, `_low`, `_high` and
        `_verdict`; `pos_p` of the chi-square test of Penn groups. The noise floor has a row of its own.
    """
    out = pipeline.output
    similarity = _table(out / SIMILARITY / "similarity.csv", *_SIMILARITY)
    tests = _table(out / POS / "pos_tests.csv", *_POS_TESTS)
    measured = read_record(out / METRICS / BENCHMARK, BenchmarkRecord, tolerant=True) or {"models": [], "lengths": [0]}
    known = {(row["kind"], row["level"], row["form"]): row
             for row in report_rows(measured["models"], out / "models")}  # fmt: skip
    cell = cell_name(1, max(measured["lengths"]))
    noise = {"model": NOISE, "kind": NOISE, "level": 0.0, "form": "onnx", **_similarities(similarity, NOISE),
             **_pos_p(tests, "noise_floor")}  # fmt: skip
    rows = [noise] if not similarity.empty else []
    for variant in pipeline.variants():
        row = {"model": variant.name, "kind": variant.kind, "level": variant.level, "form": variant.form}
        facts = known.get((variant.kind, variant.level, variant.form))
        if facts:
            scale = metric_scale(facts["metric"])
            row |= {"metric": facts["metric"], "value": scale * facts["value"],
                    "metric_change": scale * facts["metric_change"], "size_bytes": facts["size_bytes"],
                    "latency_ms": facts[f"p50_ms_{cell}"]}  # fmt: skip
        rows.append(row | _similarities(similarity, variant.name) | _pos_p(tests, variant.name))
    return rows


def _table(path: Path, numbers: tuple[str, ...], others: tuple[str, ...]) -> pd.DataFrame:
    return read_csv(path, numbers, others) if path.is_file() else pd.DataFrame()


def _similarities(similarity: pd.DataFrame, name: str) -> dict:
    found = {}
    for row in similarity[similarity["variant"] == name].to_dict("records") if not similarity.empty else ():
        measure = row["measure"]
        found |= {measure: row["mean"], f"{measure}_low": row["low"], f"{measure}_high": row["high"],
                  f"{measure}_verdict": row["verdict"]}  # fmt: skip
    return found


def _pos_p(tests: pd.DataFrame, name: str) -> dict:
    if tests.empty:
        return {}
    own = tests[(tests["model"] == name) & (tests["tagset"] == "penn")]
    return {"pos_p": float(own["p_value"].iloc[0])} if len(own) else {}


def verdict_text(rows: Sequence[Mapping], top_k: int) -> str:
    """Which models' explanations differ from the base model's by more than the noise floor, a line per model."""
    lines = [("model", "change of metric", *(titles(top_k)[measure] for measure in MEASURES))]
    for row in rows:
        change = f"{row['metric_change']:+.2f}" if "metric_change" in row else ""
        lines.append((row["model"], change, *(_mean(row, measure) for measure in MEASURES)))
    return aligned(lines) + "\n− less alike, + more alike than the noise floor, by the 95 % interval of the difference"


def verdict_lines(rows: Sequence[Mapping], top_k: int) -> list[str]:
    """Sentences: which models' explanations are less alike, more alike, or not told apart, and by which measures."""
    found: dict[str, list[str]] = {}
    for row in rows:
        by_verdict: dict[str, list[str]] = {}
        for measure in MEASURES if row["model"] != NOISE and "cosine" in row else ():
            by_verdict.setdefault(row[f"{measure}_verdict"], []).append(titles(top_k)[measure])
        for verdict, measures in by_verdict.items():
            which = "" if len(measures) == len(MEASURES) else f" ({', '.join(measures)})"
            found.setdefault(verdict, []).append(row["model"] + which)
    return [f"{verdict[0].upper()}{verdict[1:]}: {', '.join(models)}." for verdict, models in sorted(found.items())]


def _mean(row: Mapping, measure: str) -> str:
    if measure not in row:
        return "the base" if row["kind"] == "base" else ""
    mark = MARKS.get(row[f"{measure}_verdict"], "")
    return f"{row[measure]:.3f} [{row[f'{measure}_low']:.3f}, {row[f'{measure}_high']:.3f}] {mark}".rstrip()


def report_figure(rows: Sequence[Mapping], about: Mapping) -> Figure:
    """Similarity to the base model's explanations, against the change of the metric and against latency."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 5), layout="constrained")
    noise, *models = rows
    models = [row for row in models if "cosine" in row]
    styles = _styles(models)
    costs = [name for name in ("metric_change", "latency_ms") if all(name in row for row in models)]
    panels = figure.subplots(1, max(1, len(costs)), sharey=True, squeeze=False)[0]
    metric = next((metric_title(row["metric"]) for row in models if "metric" in row), "")
    heads = {"metric_change": f"change of the metric from the base model: {metric}",
             "latency_ms": "median latency of one sequence, ms"}  # fmt: skip
    for axes, name in zip(panels, costs or [None], strict=True):
        axes.axhspan(noise["cosine_low"], noise["cosine_high"], color="0.75", alpha=0.6, linewidth=0)
        axes.axhline(noise["cosine"], color="0.4", linewidth=1, linestyle="--")
        for place, row in enumerate(models):
            error = [[row["cosine"] - row["cosine_low"]], [row["cosine_high"] - row["cosine"]]]
            axes.errorbar(row[name] if name else place, row["cosine"], yerr=error, capsize=3, **styles[row["model"]])
        axes.set_xlabel(heads.get(name, "models in their order"))
        axes.grid(alpha=0.3)
    panels[0].set_ylabel("cosine with the base model's explanations")
    _legend(figure, styles)
    figure.suptitle(f"{about.get('documents')} documents of {about.get('data')}: mean and 95 % interval",
                    fontsize="medium", color="0.25")  # fmt: skip
    return figure


def _styles(models: Sequence[Mapping]) -> dict[str, dict]:
    """Model → its look: a colour per level, a marker per form."""
    levels = sorted({row["level"] for row in models})
    return {row["model"]: {"color": COLOURS[levels.index(row["level"]) % len(COLOURS)], "linestyle": "none",
                           "marker": FORMS[row["form"]][1], "markersize": 7} for row in models}  # fmt: skip


def _legend(figure: Figure, styles: Mapping[str, dict]):
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    entries = [Line2D([], [], label=label_text(name), **style) for name, style in styles.items()]
    entries += [Line2D([], [], color="0.4", linewidth=1, linestyle="--", label=f"{NOISE}: mean"),
                Patch(color="0.75", alpha=0.6, label=f"{NOISE}: 95 % interval")]  # fmt: skip
    figure.legend(handles=entries, loc="outside right center", frameon=False)


def _models(pipeline: Pipeline, rows: Sequence[Mapping]) -> list[Html]:
    measured = [row for row in rows if "value" in row]
    if not measured:
        return []
    metric = metric_title(measured[0]["metric"])
    heads = ("model", metric, "change", "MB", "ms", "of the base model")
    first = measured[0]["latency_ms"]
    cells = [(row["model"], f"{row['value']:.2f}", f"{row['metric_change']:+.2f}", f"{row['size_bytes'] / 1e6:.1f}",
              f"{row['latency_ms']:.1f}", f"{row['latency_ms'] / first:.2f}") for row in measured]  # fmt: skip
    below = "ms: median latency of one sequence of the longest length measured, in one thread."
    return [element("h2", "Models"), html_table(heads, cells), note(below),
            *_image(pipeline.output / REPORTS / "compression.png", "metric, latency and size of all models"),
            *_links(pipeline.output, (f"{REPORTS}/{COMPRESSION}", f"{METRICS}/benchmark.csv"))]  # fmt: skip


def _similarity(pipeline: Pipeline, rows: Sequence[Mapping], about: Mapping) -> list[Html]:
    if not rows or "cosine" not in rows[0]:
        return []
    names = titles(about["top_k"])
    heads = ("model", *(names[measure] for measure in MEASURES))
    cells = [(row["model"], *(_mean(row, measure) for measure in MEASURES)) for row in rows if "cosine" in row]
    below = (f"Mean over {about['documents']} documents [95 % interval]. The {NOISE} is the base model against itself "
            "with other samples of LIME. − less alike, + more alike than it, by the 95 % interval of the paired "
            "difference; no mark: not told apart.")  # fmt: skip
    out = pipeline.output
    sentences = [element("p", line) for line in verdict_lines(rows, about["top_k"])]
    return [element("h2", "Similarity of explanations"), html_table(heads, cells), note(below), *sentences,
            *_image(out / REPORTS / PLOT, "similarity against metric and latency"),
            *_image(out / SIMILARITY / "similarity_distributions.png", "similarity of every document"),
            *_image(out / SIMILARITY / "similarity_levels.png", "similarity against parameters removed"),
            *_links(out, ("similarity/similarity.csv", "similarity/similarities.csv", "sp_lime/sp_lime.html",
                          *(f"similarity/explanations/{row['model'].replace(' ', '_')}/explanations.html"
                            for row in rows)))]  # fmt: skip


def _pos(pipeline: Pipeline) -> list[Html]:
    out = pipeline.output
    shares = _table(out / POS / "pos.csv", ("share",), ("model", "tagset", "group"))
    tests = _table(out / POS / "pos_tests.csv", *_POS_TESTS)
    if shares.empty:
        return []
    penn = shares[shares["tagset"] == "penn"]
    groups = list(dict.fromkeys(penn["group"]))
    cells = []
    for name in dict.fromkeys(penn["model"]):
        own = penn[penn["model"] == name].set_index("group")["share"]
        p = _pos_p(tests, name).get("pos_p")
        cells.append((name, *(f"{100 * own[group]:.1f}" for group in groups), "" if p is None else f"{p:.3f}"))
    below = ("Shares in % of the words of largest weight. p: chi-square test against the base model; words of the same "
            "texts are not independent, so read it beside that of the noise floor.")  # fmt: skip
    return [element("h2", "Parts of speech"), html_table(("model", *groups, "p"), cells), note(below),
            *_image(out / POS / "pos.png", "shares of parts of speech"),
            *_links(out, ("pos/pos.csv", "pos/pos_tests.csv", "pos/pos_words.csv"))]  # fmt: skip


def _students(pipeline: Pipeline) -> list[Html]:
    out = pipeline.output
    summary = _table(out / STUDENTS / "students_summary.csv", ("parameters",), ("student",))
    if summary.empty:
        return []
    cells = []
    for row in summary.to_dict("records"):
        line = [row["student"], f"{row['parameters']:,.0f}"]
        for name in _STUDENTS:
            mean, low, high = (row.get(f"{name}_{part}", float("nan")) for part in ("mean", "low", "high"))
            scale, digits = (100, 1) if name in ("accuracy", "agreement") else (1, 3)
            interval = f" [{scale * low:.{digits}f}, {scale * high:.{digits}f}]" if low == low else ""
            verdict = row.get(f"{name}_verdict")
            text = f"{scale * mean:.{digits}f}{interval}" if mean == mean else "–"
            line.append(text + (f", {verdict}" if isinstance(verdict, str) else ""))
        cells.append(line)
    below = ("Accuracy and agreement with BERT in %; cosine and Spearman's ρ of the student's attributions and BERT's "
            "LIME weights on documents held out; mean [95 % t-interval over seeds], and whether the difference to the "
            "vanilla student of the same seed is outside its interval.")  # fmt: skip
    heads = ("student", "parameters", "accuracy", "agreement", "cosine", "Spearman's ρ")
    return [element("h2", "Students"), html_table(heads, cells), note(below),
            *_image(out / STUDENTS / "students.png", "students against the weight of explanations"),
            *_links(out, ("students/students.csv", "students/students_summary.csv"))]  # fmt: skip


def _steps(done: Mapping[str, Mapping]) -> list[Html]:
    import shlex

    cells = [(name, clock(step["seconds"]), shlex.join(["gated-bert", *step["words"]])) for name, step in done.items()]
    return [element("h2", "How it was made"), html_table(("step", "time", "command"), cells, "text")]


def _image(path: Path, what: str) -> list[Html]:
    return [html_image(path.read_bytes(), what)] if path.is_file() else []


def _links(out: Path, names: Sequence[str]) -> list[Html]:
    there = [link(f"../{name}", name) for name in names if (out / name).is_file()]
    return [note(joined(there, " · "))] if there else []
