"""SP-LIME: the documents of an explanation folder that stand for all, by both picks, as tables and a page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from gated_bert.experiments.explanations.explanation_folder import AGAIN, RECORD, read_documents, write_some
from gated_bert.experiments.explanations.explanation_page import explanation_page
from gated_bert.experiments.reports.names import short_names
from gated_bert.explain.sp_lime import PICKS, word_matrix
from gated_bert.support.errors import UserError
from gated_bert.support.files import write_bytes_atomic, write_csv_atomic
from gated_bert.support.records import read_record
from gated_bert.support.schemas import ExplanationRecord

TABLE, WORDS, PAGE = "sp_lime.csv", "sp_lime_words.csv", "sp_lime.html"
_MEASURES = {"coverage": "covered", "diversity": "mean_cosine"}


def pick_documents(folder: Path, out: Path, count: int, picked: Path | None = None) -> list[Path]:
    """Picks documents by coverage and by diversity, from their explanations of the class that the model predicts.

    Args:
        folder: of explanations, the candidates.
        out: where `sp_lime.csv` (a row per picked document), `sp_lime_words.csv` (a row per word of it) and
            `sp_lime.html` go.
        count: documents that each way picks; all with words where there are fewer.
        picked: a new folder of explanations for those picked by coverage, which other models can be compared with.

    Returns:
        The files written.

    Raises:
        UserError: a folder that cannot be read, or without explanations of the predicted classes that have words.
    """
    lines = sorted(read_documents(folder), key=lambda line: line["document"])
    candidates = [(line, each) for line in lines for each in line["explanations"] if each["class"] == line["predicted"]]
    if not candidates:
        raise UserError(f"{folder}: no explanation of a predicted class in it; explain with --classes predicted")
    explained = [each for each in candidates if any(word["weight"] for word in each[1]["words"])]
    if not explained:
        raise UserError(f"{folder}: no explanation of a predicted class in it has a word of any weight, so none can be "
                        "picked; explain texts with words")  # fmt: skip
    without, candidates = len(candidates) - len(explained), explained
    record = read_record(folder / RECORD, ExplanationRecord, remedy=AGAIN)
    weights, words = word_matrix([{word["word"]: word["weight"] for word in each["words"]} for _, each in candidates])
    rows, word_rows, groups = [], [], {}
    for pick, choose in PICKS.items():
        places, values = choose(weights, count)
        for rank, (place, value) in enumerate(zip(places, values, strict=True), start=1):
            line, each = candidates[place]
            base = {"pick": pick, "rank": rank, "document": line["document"], "class": each["class"]}
            rows.append(base | _about(line, each, pick, value))
            word_rows += [base | {"word": word["word"], "weight": word["weight"]} for word in each["words"]]
        groups[_heading(pick, values)] = [_only_predicted(*candidates[place]) for place in places]
        print(f"{_heading(pick, values)}: {_shares([candidates[place][0] for place in places])}")
    note = (f"{record['data']} · picked from {len(candidates)} documents with {len(words):,} words"
            + (f" ({without} without words left out)" if without else "")
            + f"; LIME, {record['num_samples']:,} samples, at most {record['num_features']} words, "
            f"seed {record['seed']}"
            )  # fmt: skip
    if picked is not None:
        if (picked / RECORD).is_file():
            print(f"note: the explanations in {picked} are replaced")
        covering = {row["document"] for row in rows if row["pick"] == "coverage"}
        write_some(folder, picked, covering)
    return [
        write_csv_atomic(out / TABLE, rows),
        write_csv_atomic(out / WORDS, word_rows),
        write_bytes_atomic(
            out / PAGE, explanation_page(f"SP-LIME of {short_names([Path(record['model'])])[0]}", note, groups)
        ),
    ]


def _about(line: Mapping, each: Mapping, pick: str, value: float) -> dict:
    measures = {name: value if pick == kind else None for kind, name in _MEASURES.items()}
    words = " ".join(word["word"] for word in each["words"])
    return {"label": line["label"], **measures, "words": words, "text": line["text"]}


def _only_predicted(line: Mapping, each: Mapping) -> dict:
    return {**line, "explanations": [each]}


def _heading(pick: str, values: Sequence[float]) -> str:
    if pick == "coverage":
        return f"coverage: {len(values)} documents with {100 * values[-1]:.1f} % of all importance"
    return f"diversity: {len(values)} documents, mean cosine {sum(values) / len(values):.3f} with those before"


def _shares(lines: Sequence[Mapping]) -> str:
    counts: dict[str, int] = {}
    for line in lines:
        counts[line["predicted"]] = counts.get(line["predicted"], 0) + 1
    return ", ".join(f"{name} {count}" for name, count in sorted(counts.items()))
