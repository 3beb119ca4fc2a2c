"""The documents that are explained: rows of a file, of a task's data, or one text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gated_bert.compression.benchmark import read_judged
from gated_bert.experiments.reports.plots import heading
from gated_bert.models.folder import LoadedModel
from gated_bert.support.errors import UserError
from gated_bert.tasks.columns import find_columns
from gated_bert.tasks.examples import Examples
from gated_bert.tasks.tables import read_table

ORDER_SEED = 0
"""Seed of the order in which documents are drawn: not that of LIME's samples, so that the same documents are explained
whatever seed these have."""


@dataclass(frozen=True)
class Wanted:
    """Which documents, as a user says it; one of `text`, `file` and `data` is given.

    Attributes:
        text: a single text.
        file: a file of texts.
        columns: `text_column` and `label_column` of it, as far as they were named.
        data: hub, embedded, a folder or a file, as for training.
        split: one of the task's splits, or train; None takes its test set, or where it has none the one that decides.
        allow_partial: whether `*_partial` files are accepted.
        count: documents that are drawn; None takes all.
        per_class: whether so many of each class are drawn.
    """

    text: str | None = None
    file: Path | None = None
    columns: Mapping[str, str | None] | None = None
    data: str | None = None
    split: str | None = None
    allow_partial: bool = False
    count: int | None = None
    per_class: bool = False


@dataclass(frozen=True)
class Documents:
    """The documents.

    Attributes:
        numbers: row of each in its file or split, from 1.
        texts: the texts.
        labels: index of each one's class, None where it is not known.
        source: task and data, for tables and pages.
    """

    numbers: list[int]
    texts: list[str]
    labels: list[int | None]
    source: str


def find_documents(loaded: LoadedModel, wanted: Wanted) -> Documents:
    """The documents that a user wants explained.

    Args:
        loaded: the model that is explained.
        wanted: which.

    Raises:
        UserError: a file or data that cannot be read, or classes asked for where none is known.
    """
    if wanted.text is not None:
        if any("\ud800" <= letter <= "\udfff" for letter in wanted.text):
            raise UserError("--text: holds bytes that are no UTF-8; give the text in UTF-8")
        return Documents([1], [wanted.text], [None], loaded.task.title)
    examples, source = _read(loaded, wanted)
    if wanted.per_class and examples.labels is None:
        raise UserError(f"--per-class: {source} has no labels; name their column with --label-column, or leave it out")
    chosen = draw(len(examples), examples.labels if wanted.per_class else None, wanted.count)
    labels: list[int | None] = [None] * len(chosen)
    if examples.labels is not None:
        labels = [int(examples.labels[row]) for row in chosen]
    texts = [examples.texts[row] for row in chosen]
    return Documents([int(row) + 1 for row in chosen], texts, labels, heading(loaded.task.title, source))


def draw(rows: int, labels: np.ndarray | None, count: int | None) -> np.ndarray:
    """Rows drawn with a fixed seed, in their order; the first so many of one order, so that more hold those of fewer.

    Args:
        rows: how many there are.
        labels: class of each, to draw from each class; None draws from all.
        count: how many are drawn, all where there are fewer; None draws all.
    """
    order = np.random.default_rng(ORDER_SEED).permutation(rows)
    if labels is None:
        return np.sort(order[:count])
    return np.sort(np.concatenate([order[labels[order] == label][:count] for label in np.unique(labels)]))


def _read(loaded: LoadedModel, wanted: Wanted) -> tuple[Examples, str]:
    if wanted.file is not None:
        columns = find_columns(wanted.file, loaded.task, wanted.columns or {}, loaded.metadata.get("config") or {})
        return columns.examples(read_table(wanted.file, columns.header), loaded.task), wanted.file.name
    if wanted.data is None:
        raise UserError("documents: give one of a text, a file of texts and data")
    train = wanted.split == "train"
    judged = read_judged({"the model": loaded}, wanted.data, None if train else wanted.split, wanted.allow_partial)
    if not train:
        return judged.examples, judged.label
    return judged.train, f"{judged.label.rpartition(', ')[0]}, train"
