"""Which columns of a file hold what a task reads, and a table's rows as examples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gated_bert.support.errors import UserError
from gated_bert.tasks.ag_news import COLUMNS, FILE_CLASSES, clean_rows
from gated_bert.tasks.conll import is_conll
from gated_bert.tasks.examples import Examples, SpanExamples
from gated_bert.tasks.glue import LAYOUTS
from gated_bert.tasks.kinds import MULTI_LABEL, SPANS, TARGET, TOKENS
from gated_bert.tasks.labels import match_labels
from gated_bert.tasks.own_lists import LABEL_COLUMNS, TAG_COLUMNS, WORD_COLUMNS, label_matrix, tagged_examples
from gated_bert.tasks.tables import SUFFIXES, TEXT, Table, first_row, read_chunks, shorten
from gated_bert.tasks.task import TASKS, Task
from gated_bert.tasks.text_lines import table_suffix

FLAGS = {"text_column": "--text-column", "text_pair_column": "--text-pair-column", "label_column": "--label-column"}
"""Names of the columns that a user may give, and their flags."""

_NEWS = ("title", "description")
_SINGLE = (("sentence",), (TEXT,))
_PAIRS = (("sentence1", "sentence2"), (TEXT, "text_pair"), ("premise", "hypothesis"), ("question", "sentence"))
_QUESTIONS = (("question", "context"),)
_LABELS = {SPANS: ("answers", "answer"), TOKENS: (*TAG_COLUMNS, "label"), MULTI_LABEL: LABEL_COLUMNS}


@dataclass(frozen=True)
class _Usual:
    """Columns of a task's files: texts (sets of names to choose from), label, its spellings, those without header."""

    texts: tuple[tuple[str, ...], ...] = ()
    labels: tuple[str, ...] = ()
    spellings: tuple[str, ...] = ()
    header: tuple[str, ...] = ()


def _usual(task: Task) -> _Usual:
    if task.name == "ag_news":
        spellings = _file_spellings(task, FILE_CLASSES)
        return _Usual((_NEWS, (TEXT,)), ("class", "class index", "label"), spellings, COLUMNS)
    others: tuple[tuple[str, ...], ...] = _QUESTIONS if task.kind == SPANS else _PAIRS if task.pair else _SINGLE
    if task.kind == TOKENS:
        others = (*((name,) for name in WORD_COLUMNS), *_SINGLE)
    labels = _LABELS.get(task.kind, ("label",))
    layout = LAYOUTS.get(task.name)
    if layout is None:
        return _Usual(others, labels)
    spellings = _file_spellings(task, layout.file_labels)
    return _Usual((layout.texts, layout.hub_texts, *others), (layout.label, *labels), spellings, layout.header or ())


def _file_spellings(task: Task, file_labels: Sequence[str]) -> tuple[str, ...]:
    """How the official files of the task of that name spell the classes, in the order that `task` has them."""
    rows = match_labels(TASKS[task.name].labels, task.labels) or []
    spellings = tuple(file_labels[row] for row in rows)
    return () if spellings == task.labels else spellings


@dataclass(frozen=True)
class Columns:
    """Where a file holds texts and labels.

    Attributes:
        texts: columns of the text; of AG News two, title and description, which are joined by a space.
        pair: column of the second text, where the task has pairs.
        label: column of the labels; None where there are none.
        labels: accepted spellings of the classes, in their order: the task's own, then those of its official files.
        header: columns of a file that has no header line.
    """

    texts: tuple[str, ...]
    pair: str | None = None
    label: str | None = None
    labels: tuple[str, ...] = ()
    header: tuple[str, ...] | None = None

    def examples(self, table: Table, task: Task) -> Examples:
        """The rows of a table.

        Args:
            table: a part of the file.
            task: what the texts are for.

        Returns:
            The examples, whose `labels` are None where the file has none; for spans `SpanExamples`, whose `answers` are
            then empty, and whose `labels` are zeros; for tags `TaggedExamples`.

        Raises:
            UserError: a cell that is empty, no text, or a label of another task.
        """
        if task.kind == TOKENS:
            return tagged_examples(table, self.texts[0], self.label, task.labels)
        if task.name == "ag_news":
            parts = [table.column(name, "check the header") for name in self.texts]
            rows = ([cell for cell in row if isinstance(cell, str)] for row in zip(*parts, strict=True))
            texts = clean_rows(rows, table.where)
        else:
            texts = table.texts(self.texts[0])
        pairs = table.texts(self.pair) if self.pair else None
        if task.kind == SPANS:
            answers: list[tuple[str, ...]] = [()] * len(texts)
            if self.label is not None:
                answers = _accepted(table, self.label)
            names = [table.where(row) for row in range(len(texts))]
            return SpanExamples(texts, pairs or [], np.zeros((len(texts), 2), np.int32), names, answers)
        return Examples(texts, pairs, None if self.label is None else self._labels(table, task, self.label))

    def _labels(self, table: Table, task: Task, column: str) -> np.ndarray:
        if task.kind == TARGET:
            return table.targets(column)
        if task.kind == MULTI_LABEL:
            return label_matrix(table, column, task.labels)
        return table.classes(column, self.labels) % len(task.labels)


def find_columns(
    path: Path, task: Task, given: Mapping[str, str | None], recorded: Mapping[str, str | None]
) -> Columns:
    """The columns of a file that a task reads, by the names that its official files and others usually give them.

    Args:
        path: a .tsv, .csv, .jsonl or .txt file.
        task: what the texts are for.
        given: `text_column`, `text_pair_column` and `label_column`, as far as the user names them.
        recorded: the same of the data that the model was trained on; they are taken where the file has them.

    Raises:
        UserError: no such columns, or a second text for a task of single texts.
    """
    text, pair, label = (given.get(name) for name in FLAGS)
    if task.pair and (text is None) != (pair is None):
        raise UserError(f"--text-column and --text-pair-column: {task.title} has pairs of texts; give both or neither")
    if pair is not None and not task.pair:
        raise UserError(f"--text-pair-column: {pair!r} is refused; {task.title} has single texts")
    usual = _usual(task)
    names, header = _names(path, usual)
    for name, flag in FLAGS.items():
        if given.get(name) is not None and given[name] not in names:
            raise UserError(f"{path}: no column {given[name]!r}, named with {flag}; found: {shorten(names)}")
    named = tuple(name for name in (text, pair) if name is not None)
    texts = named if text else _text_columns(path, task, names, usual, recorded)
    actual = {name.casefold(): name for name in names if name not in texts}
    likely = [name.casefold() for name in (recorded.get("label_column"), *usual.labels) if name]
    label = label or next((actual[name] for name in likely if name in actual), None)
    labels = (*task.labels, *usual.spellings)
    return Columns(texts[:1] if task.pair else texts, texts[1] if task.pair else None, label, labels, header)


def _names(path: Path, usual: _Usual) -> tuple[Sequence[str], tuple[str, ...] | None]:
    """The columns of a file, and the same again if they do not stand in it."""
    suffix = table_suffix(path)
    if suffix == ".jsonl" or is_conll(path):
        return list(next(read_chunks(path, 100)).columns), None
    if suffix == ".txt":
        return (TEXT,), None
    if suffix not in SUFFIXES:
        raise UserError(f"{path}: not a .tsv, .csv, .jsonl, .conll or .txt file (.gz may follow); save it as one of "
                        "these")  # fmt: skip
    found = first_row(path)
    if len(found) == len(usual.header) and not {name.casefold() for name in found} & set(usual.header):
        return usual.header, usual.header
    return found, None


def _text_columns(
    path: Path, task: Task, names: Sequence[str], usual: _Usual, recorded: Mapping[str, str | None]
) -> tuple[str, ...]:
    trained = [recorded.get(name) for name in ("text_column", "text_pair_column")[: 1 + task.pair]]
    named = tuple(name for name in trained if name)
    choices = dict.fromkeys([*([named] if len(named) == len(trained) else []), *usual.texts])
    actual = {name.casefold(): name for name in names}
    for columns in choices:
        if all(name.casefold() in actual for name in columns):
            return tuple(actual[name.casefold()] for name in columns)
    wanted = " or ".join(" and ".join(columns) for columns in choices)
    flags = "--text-column and --text-pair-column" if task.pair else "--text-column"
    found = shorten(names) or "an empty file"
    raise UserError(f"{path}: no column {wanted}, as {task.title} needs; found: {found}; name yours with {flags}")


def _accepted(table: Table, name: str) -> list[tuple[str, ...]]:
    """Accepted answers by row: a text, or as on the hub an object whose field `text` lists them."""
    found = []
    for row, cell in enumerate(table.column(name, "check the header")):
        answers = cell.get("text") if isinstance(cell, dict) else [cell]
        if not isinstance(answers, list) or not answers or not all(isinstance(each, str) and each for each in answers):
            raise UserError(f"{table.where(row)}: {cell!r} in column {name!r} is refused; allowed: an answer's text, "
                            'or {"text": [answers]}')  # fmt: skip
        found.append(tuple(answers))
    return found
