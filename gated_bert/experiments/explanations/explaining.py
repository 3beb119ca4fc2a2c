"""LIME explanations of a model's predictions for documents, in a folder that grows by each of them."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gated_bert.compression.onnx_model import open_model
from gated_bert.compression.predict import evaluation_config
from gated_bert.experiments.explanations.documents import Documents, Wanted, find_documents
from gated_bert.experiments.explanations.explanation_folder import (
    DOCUMENTS,
    RECORD,
    append_document,
    document_line,
    go_on,
    making,
    read_documents,
    write_views,
)
from gated_bert.experiments.reports.names import short_names
from gated_bert.experiments.runs.environment import versions
from gated_bert.explain.lime import BATCH_SIZE, Explanation, check_explainable, explain_texts, predict_samples
from gated_bert.models.folder import LoadedModel
from gated_bert.support.errors import UserError
from gated_bert.support.progress_bar import progress_bar
from gated_bert.support.text_table import aligned

CLASSES = ("predicted", "gold", "all")
SAME = 1e-3
"""Probabilities that differ by less, as other numbers of threads may make them, are of the same model and text."""


@dataclass(frozen=True)
class Lime:
    """How documents are explained.

    Attributes:
        classes: of `CLASSES`: which classes of each document.
        num_features: most words of an explanation.
        num_samples: samples of each document.
        seed: seed of the samples.
        batch_size: samples in a batch.
        max_len: longest text in tokens; by default that of the model's training.
    """

    classes: tuple[str, ...] = ("predicted", "gold")
    num_features: int = 10
    num_samples: int = 500
    seed: int = 42
    batch_size: int = BATCH_SIZE
    max_len: int | None = None


@dataclass(frozen=True)
class Opened:
    """A model and the documents that it is going to be explained on.

    Attributes:
        loaded: the model.
        documents: the documents.
        shares: [documents, classes] the model's probabilities of them.
        max_len: longest text in tokens.
        record: how the explanations are made, for `explanation_folder.making`.
    """

    loaded: LoadedModel
    documents: Documents
    shares: np.ndarray
    max_len: int
    record: dict


def open_explained(source: Path, wanted: Wanted | Documents, lime: Lime) -> Opened:
    """Reads a model and documents and predicts them.

    Raises:
        UserError: one of them cannot be read, or the model is not of classes of single texts.
    """
    loaded = open_model(source)
    check_explainable(loaded.task)
    max_len = evaluation_config(loaded, lime.batch_size, lime.max_len).max_len
    documents = wanted if isinstance(wanted, Documents) else find_documents(loaded, wanted)
    if lime.classes == ("gold",) and None in documents.labels:
        raise UserError(f"--classes: gold needs labels, and {documents.source} has none; give predicted or all")
    record = {
        "kind": "words", "model": str(source), "task": loaded.task.name, "labels": list(loaded.task.labels),
        "data": documents.source, "documents": documents.numbers, "classes": list(lime.classes), "seed": lime.seed,
        "num_features": lime.num_features, "num_samples": lime.num_samples, "max_len": max_len,
        "versions": versions(),
    }  # fmt: skip
    shares = predict_samples(loaded, documents.texts, lime.batch_size, max_len)
    return Opened(loaded, documents, shares, max_len, record)


def explain(source: Path, out: Path, wanted: Wanted | Documents, lime: Lime, resume: bool) -> list[Path]:
    """Explains documents and writes `documents.jsonl`, `explanations.csv`, `explanations.html` and `record.json`.

    Args:
        source: a model folder or an ONNX file.
        out: folder of the explanations.
        wanted: which documents, or these themselves.
        lime: how they are explained.
        resume: whether to go on with what is in the folder.

    Returns:
        The files written.

    Raises:
        UserError: a model, documents or a folder that cannot be read, written or gone on with.
        KeyboardInterrupt: stopped; its text says what was written.
    """
    opened = open_explained(source, wanted, lime)
    numbers = opened.documents.numbers
    title = f"Explanations of {short_names([source])[0]}"
    note = (f"{opened.documents.source} · LIME, {lime.num_samples:,} samples of each document, at most "
            f"{lime.num_features} words, seed {lime.seed}")  # fmt: skip

    def interrupted() -> str:
        write_views(out, title, note)
        return (f"stopped; {len(read_documents(out))} of {len(numbers)} documents are explained in {out}, and the same "
                "command with --resume goes on")  # fmt: skip

    with making(out, opened.record, resume, interrupted):
        done = {line["document"]: list(line["probabilities"].values()) for line in go_on(out)}
        rest = not_done(opened, done, out)
        began = time.perf_counter()
        for index, explanations in explained(opened, rest, lime, lime.num_features):
            append_document(out, _line(opened, index, explanations))
        views = write_views(out, title, note)
    lines = read_documents(out)
    print(_single(lines[0]) if len(lines) == 1 else _summary(lines, len(rest), time.perf_counter() - began))
    return [*views, out / DOCUMENTS, out / RECORD]


def not_done(opened: Opened, done: Mapping[int, Sequence[float]], out: Path) -> list[int]:
    """Places of the documents that are not explained yet.

    Args:
        opened: model and documents.
        done: number of each explained document → the probabilities that the model gave it then.
        out: where they are, for the message.

    Raises:
        UserError: the model gives other probabilities now, so that it or the texts have changed.
    """
    rest = []
    for index, number in enumerate(opened.documents.numbers):
        if number not in done:
            rest.append(index)
        elif not np.allclose(done[number], opened.shares[index], rtol=0, atol=SAME):
            raise UserError(f"--resume: the model gives document {number} other probabilities than when {out} was "
                            "begun; it or the texts have changed, so choose another folder")  # fmt: skip
    return rest


def wanted_classes(classes: Sequence[str], shares: np.ndarray, label: int | None) -> tuple[int, ...]:
    """Indices of the classes that are explained of a document, each once.

    Args:
        classes: of `CLASSES`.
        shares: the model's probabilities.
        label: the document's class, None where it is not known.
    """
    if "all" in classes:
        return tuple(range(len(shares)))
    chosen = {"predicted": int(np.argmax(shares)), "gold": label}
    return tuple(dict.fromkeys(chosen[each] for each in classes if chosen[each] is not None))


def explained(
    opened: Opened, rest: Sequence[int], lime: Lime, num_features: int | None
) -> Iterator[tuple[int, list[Explanation]]]:
    """Explains some of the documents, with a progress bar.

    Args:
        opened: model and documents.
        rest: which of them, by their places.
        lime: how they are explained; its `num_features` is not read.
        num_features: most words of an explanation; None for all of all classes.

    Yields:
        Place of a document, and its explanations.
    """
    documents, classes = opened.documents, lime.classes if num_features else ("all",)
    labels = [wanted_classes(classes, opened.shares[index], documents.labels[index]) for index in rest]
    with progress_bar("explain, samples", len(rest) * lime.num_samples) as advance:
        found = explain_texts(
            opened.loaded,
            [documents.texts[index] for index in rest],
            labels,
            documents=[documents.numbers[index] for index in rest],
            num_features=num_features,
            num_samples=lime.num_samples,
            seed=lime.seed,
            batch_size=lime.batch_size,
            max_len=opened.max_len,
            progress=advance,
        )
        for index, (_, explanations) in zip(rest, found, strict=True):
            yield index, explanations


def _line(opened: Opened, index: int, explanations: Sequence[Explanation]) -> dict:
    documents = opened.documents
    return document_line(documents.numbers[index], documents.texts[index], documents.labels[index],
                         opened.shares[index], explanations, opened.loaded.task.labels)  # fmt: skip


def _summary(lines: Sequence[dict], new: int, seconds: float) -> str:
    fidelities = [each["fidelity"] for line in lines for each in line["explanations"] if each["fidelity"] is not None]
    known = [line for line in lines if line["label"] is not None]
    text = f"{len(lines):,} documents"
    if known:
        text += f", {sum(line['label'] == line['predicted'] for line in known):,} of {len(known):,} predicted right"
    if fidelities:
        text += f"; mean R² of the explanations {np.mean(fidelities):.3f}"
    return text + (f"; {seconds / new:.2f} s a document" if new else "")


def _single(line: dict) -> str:
    parts = [f"predicted: {line['predicted']}, {100 * line['probabilities'][line['predicted']]:.1f} %"]
    for each in line["explanations"]:
        quality = "no words" if each["fidelity"] is None else f"R² {each['fidelity']:.3f}"
        rows = [(word["word"], f"{word['weight']:+.4f}") for word in each["words"]]
        parts.append(aligned([(f"for {each['class']}", quality), *rows]))
    return "\n".join(parts)
