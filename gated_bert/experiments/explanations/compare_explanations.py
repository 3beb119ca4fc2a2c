"""How far models' explanations are from those of a base model: measured, told, written."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from gated_bert.experiments.explanations.explained import check_noise_floor, check_variant, read_comparable
from gated_bert.experiments.explanations.model_facts import JUDGED, Judging, model_facts
from gated_bert.experiments.explanations.similarity_table import (
    NOISE,
    distribution_figure,
    level_figure,
    similarity_rows,
    summary_rows,
    summary_text,
)
from gated_bert.experiments.reports.drawing import png, tolerated
from gated_bert.support.files import write_bytes_atomic, write_csv_atomic, write_json_atomic

ROWS, SUMMARY, MODELS, RECORD = "similarities.csv", "similarity.csv", "models.csv", "similarity.json"
LEVELS_PLOT, DISTRIBUTIONS_PLOT = "similarity_levels.png", "similarity_distributions.png"
_BOOTSTRAP_SEED = 0


def compare_explanations(
    folders: Mapping[str, Path], noise: Path, out: Path, top_k: int, judging: Judging
) -> list[Path]:
    """Compares explanations with those of a base model, and writes tables and plots.

    Of each document the class that the base model predicts and, where it is known, its own class are compared.

    Args:
        folders: name → folder of explanations, that of the base model first. All hold the same documents and seed.
        noise: the base model's explanations of the same documents with another seed.
        out: where `similarities.csv` (a row per variant, document and class), `similarity.csv` (per variant and
            measure), `models.csv`, `similarity.json`, the plots and what `model_facts` keeps go.
        top_k: words that the Jaccard index looks at.
        judging: what the models are judged on.

    Returns:
        The files written.

    Raises:
        UserError: a folder that cannot be read, or that differs in documents, task, samples or seed; with data to judge
            on, a model that is not there.
    """
    names = list(folders)
    *explained, floor = read_comparable([*folders.values(), noise])
    base, *others = explained
    for other in others:
        check_variant(base, other)
    check_noise_floor(base, floor)
    weights = base.of_predicted_and_own()
    rows = similarity_rows(NOISE, weights, floor.weights, top_k)
    for name, other in zip(names[1:], others, strict=True):
        rows += similarity_rows(name, weights, other.weights, top_k)
    judged_on, facts = model_facts(dict(zip(names, explained, strict=True)), judging, out / JUDGED)
    about = {"base": names[0], "base_facts": facts[names[0]], "documents": len(base.texts), "top_k": top_k,
             "judged_on": judged_on, "data": base.record.get("data")}  # fmt: skip
    summary = summary_rows(rows, facts, _BOOTSTRAP_SEED)
    print(summary_text(summary, about))
    record = {**about, "noise_floor": floor.folder, "bootstrap_seed": _BOOTSTRAP_SEED, "models": [
        {"name": name, "folder": each.folder, **each.record} for name, each in zip(names, explained, strict=True)
    ]}  # fmt: skip
    written = [
        write_csv_atomic(out / ROWS, rows),
        write_csv_atomic(out / SUMMARY, summary),
        write_csv_atomic(out / MODELS, [{"model": name, **each} for name, each in facts.items()]),
        write_json_atomic(out / RECORD, record),
    ]
    with tolerated(out / DISTRIBUTIONS_PLOT):
        written.append(write_bytes_atomic(out / DISTRIBUTIONS_PLOT, png(distribution_figure(rows, about))))
    if any(row.get("removed_percent") is not None for row in summary):
        with tolerated(out / LEVELS_PLOT):
            written.append(write_bytes_atomic(out / LEVELS_PLOT, png(level_figure(summary, about))))
    return written
