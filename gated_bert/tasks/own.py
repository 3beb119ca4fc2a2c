"""A user's own task: TSV, CSV or JSONL files with named columns."""

from __future__ import annotations

import dataclasses
from decimal import Decimal
from pathlib import Path

import numpy as np

from gated_bert.support.errors import UserError
from gated_bert.tasks.conll import CONLL, check_conll, is_conll
from gated_bert.tasks.examples import Examples, TaskData
from gated_bert.tasks.kinds import MULTI_LABEL, TARGET, TOKENS
from gated_bert.tasks.own_lists import COLUMN_FLAGS, LabelsReader, Reader, TagsReader, kind_of_lists
from gated_bert.tasks.tables import (
    SUFFIXES,
    Table,
    as_number,
    decimal_text,
    label_text,
    read_table,
    shorten,
)
from gated_bert.tasks.task import GENERIC_NAMES, Task, own_task_name
from gated_bert.tasks.text_lines import table_suffix

SPLIT_SEED = 0
"""One seed for every run, so that all seeds and methods are judged on the same development examples."""

MANY_VALUES = 20
ROWS_OF_A_NUMBER, ROWS_OF_A_COUNTED_ONE = 5, 2
"""Rows that a whole number has on average where more than `MANY_VALUES` of them are classes: any numbers, and such as
number classes, 0 or 1 to the last without a gap."""
DEV_NAMES = ("dev", "validation", "valid", "val")


def find_split(folder: Path, *names: str) -> Path | None:
    """The one file in `folder` that is called by one of the names, with .tsv, .csv, .jsonl or .conll (or .gz) after it,
    or .txt where it, or the training file, holds words and tags.

    Raises:
        UserError: there are several.
    """
    files = [folder / (name + suffix + packed) for name in names for suffix in SUFFIXES for packed in ("", ".gz")]
    found = [file for file in files if file.is_file()]
    texts = [file for name in names for packed in ("", ".gz") if (file := folder / f"{name}.txt{packed}").is_file()]
    endings = [suffix + packed for suffix in (".txt", *CONLL) for packed in ("", ".gz")]
    beside = [file for ending in endings if (file := folder / f"train{ending}").is_file()]
    if texts and any(map(is_conll, beside)):
        # What is damaged is named, and not passed over.
        for file in texts:
            check_conll(file)
    found += filter(is_conll, texts)
    if len(found) > 1:
        raise UserError(f"{folder}: both {found[0].name} and {found[1].name} are there; keep one of them")
    return found[0] if found else None


def read_own_data(
    path: Path,
    name: str | None = None,
    text_column: str | None = None,
    text_pair_column: str | None = None,
    label_column: str | None = None,
    task_type: str | None = None,
    task: Task | None = None,
) -> TaskData:
    """The task and the examples of a user's own files.

    Without `task_type`, lists of words make tags of words, and lists of labels several classes at once. Of other labels
    numbers with fractions (more than two of them) make a regression. Whole numbers are classes where there are at most
    20, or `ROWS_OF_A_NUMBER` rows of each on average, or `ROWS_OF_A_COUNTED_ONE` where they number classes without a
    gap; otherwise they make a regression too. Anything else is a class. Without a development file a tenth of the
    training file, drawn with a fixed seed, takes its place. A test file with labels is judged on beside it.

    Args:
        path: a file, or a folder with `train.*` and perhaps `dev.*` and `test.*`; a file `train.*` stands for its
            folder.
        name: name of the task; by default from `path`.
        text_column: column of the texts, by default "text", or of their words, by default "tokens" or "words".
        text_pair_column: column of the second texts, if any.
        label_column: column of the labels, by default "label" or "labels", or of tags, by default "tags" or "ner_tags".
        task_type: one of `TASK_TYPES`.
        task: what a model was trained for, whose classes the labels are; nothing is decided then.

    Raises:
        UserError: a missing, malformed or empty file, a missing column, an empty text, an unknown label, or labels
            that `task_type` cannot be.
    """
    train_path, dev_path, test_path = _files(path)
    named = (text_column, text_pair_column, label_column)
    table = read_table(train_path)
    kind = task.kind if task else task_type or kind_of_lists(table, named)
    readers: dict[str | None, type[Reader]] = {TOKENS: TagsReader, MULTI_LABEL: LabelsReader}
    reader = readers.get(kind, _ClassesReader)(table, named, task_type)
    if task is None:
        task = reader.task(table, name or own_task_name(path), _title(path))
    source = {"kind": "file", "label": task.title, "path": str(path), "partial": False}
    train = reader.examples(table, task)
    source["labels"] = reader.said(table, task)
    if dev_path is not None:
        dev = reader.examples(read_table(dev_path), task)
    else:
        train, dev = _split(train, table)
        source["split"] = f"10 % of {train_path.name}, drawn with seed {SPLIT_SEED}, are the development examples"
    splits = {"dev": dev}
    if test_path is not None:
        test = read_table(test_path)
        labelled = reader.is_labelled(test, task)
        source["test"] = f"{test_path.name} is judged on too, as val_…_test" if labelled else (
            f"{test_path.name} has no labels in column {reader.label!r}; it is not used")  # fmt: skip
        if labelled:
            splits["test"] = reader.examples(test, task)
    return TaskData(dataclasses.replace(task, dev_splits=tuple(splits)), train, splits, source)


def own_data_notes(source: dict) -> list[str]:
    """Sentences about what was decided on a user's own files, from the `source` of their data."""
    return [source[name] for name in ("labels", "split", "test") if source["kind"] == "file" and name in source]


def _title(path: Path) -> str:
    path = path.resolve()
    generic = path.name.split(".")[0].lower() in GENERIC_NAMES
    return f"{path.parent.name}/{path.name}" if generic and path.parent.name else path.name


def _files(path: Path) -> tuple[Path, Path | None, Path | None]:
    """The training file and, as far as they are there, those of development and test."""
    if path.is_dir():
        train = find_split(path, "train")
        if train is None:
            raise UserError(f"{path}: no train.tsv, train.csv, train.jsonl or train.conll in it; put the training file "
                            "there")  # fmt: skip
    elif table_suffix(path) == ".txt" and not is_conll(path):
        raise UserError(f"{path}: a .txt holds texts alone, unless its lines are words and tags of entities, as EU "
                        "B-ORG; save other tags in a .conll file")  # fmt: skip
    elif table_suffix(path) not in (*SUFFIXES, ".txt"):
        raise UserError(f"{path}: not a .tsv, .csv, .jsonl or .conll file (.gz may follow); save it as one of these")
    elif path.name.split(".")[0].lower() != "train":
        return path, None, None
    else:
        train = path
    return train, find_split(train.parent, *DEV_NAMES), find_split(train.parent, "test")


class _ClassesReader(Reader):
    """Files with a class or a number for each text."""

    def __init__(self, table: Table, columns: tuple[str | None, str | None, str | None], task_type: str | None):
        self.text, self.pair, self.label = columns[0] or "text", columns[1], columns[2] or "label"
        self.task_type = task_type
        for column, flag in zip((self.text, self.pair, self.label), COLUMN_FLAGS, strict=True):
            if column is not None:
                table.column(column, f"name it with {flag}")

    def task(self, table: Table, name: str, title: str) -> Task:
        return _make_task(table, (self.text, self.pair, self.label), name, title, self.task_type)

    def examples(self, table: Table, task: Task) -> Examples:
        return _examples(table, (self.text, self.pair, self.label), task)

    def said(self, table: Table, task: Task) -> str:
        return _said(table, self.label, task, self.task_type)

    def is_labelled(self, table: Table, task: Task) -> bool:
        return _is_labelled(table, self.label, task)


def _make_task(
    table: Table, columns: tuple[str, str | None, str], name: str, title: str, task_type: str | None
) -> Task:
    label, pair = columns[2], columns[1] is not None
    cells = _checked_labels(table, label, task_type)
    values = set(cells)
    spelt = {decimal_text(value) for value in values}
    decimals = {text for text in spelt if text is not None}
    numeric = decimals == spelt
    if task_type == TARGET or (numeric and task_type is None and not _are_classes(decimals, len(cells))):
        targets = [as_number(value) for value in values]
        ends = (min(targets), max(targets))
        return Task(name, title, TARGET, (), ("pearson", "spearman"), pair, ("dev",), ends)
    labels = sorted(decimals, key=Decimal) if numeric else sorted(values)
    if len(labels) < 2:
        raise UserError(f"{table.path}: every label in column {label!r} is {labels[0]!r}; give at least two classes")
    if task_type is None and len(labels) > len(cells) // 2 and len(labels) > MANY_VALUES:
        slip = next((value for value in cells if decimal_text(value) is None), None)
        mostly_numbers = slip is not None and len(spelt) > len(values) // 2
        raise UserError(
            f"{table.path}: column {label!r} holds {len(labels)} different labels in {len(cells)} rows "
            f"({shorten(labels, 3)}); name the column of the classes with --label-column, or say "
            "--task-type classification"
            + (f", or correct {slip!r}, which is no plain decimal number" if mostly_numbers else "")
        )
    return Task(name, title, labels=tuple(labels), metrics=("accuracy",), pair=pair)


def _checked_labels(table: Table, label: str, task_type: str | None) -> list[str]:
    """The labels as text, all of which are there, and of a regression numbers."""
    texts = []
    for row, cell in enumerate(table.columns[label]):
        text = label_text(cell)
        if not text or (isinstance(cell, float) and not np.isfinite(cell)):
            raise UserError(f"{table.where(row)}: no label in column {label!r}; fill it in or remove the line")
        if task_type == TARGET and not np.isfinite(as_number(cell)):
            raise UserError(f"{table.where(row)}: {cell!r} in column {label!r} is no finite number, as --task-type "
                            "regression needs; correct it, or leave the flag out")  # fmt: skip
        texts.append(text)
    return texts


def _are_classes(decimals: set[str], rows: int) -> bool:
    """Whether different numbers, of so many rows, are classes rather than targets."""
    numbers = [Decimal(text) for text in decimals]
    if any(number != number.to_integral_value() for number in numbers):
        return len(numbers) <= 2
    counted = min(numbers) in (0, 1) and max(numbers) - min(numbers) == len(numbers) - 1
    needed = ROWS_OF_A_COUNTED_ONE if counted else ROWS_OF_A_NUMBER
    return len(numbers) <= MANY_VALUES or rows >= needed * len(numbers)


def _said(table: Table, label: str, task: Task, task_type: str | None) -> str:
    """What the labels are taken for, with the counts, and how to have it otherwise where it was a guess."""
    cells = table.columns[label]
    place = f"in {len(cells):,} rows of {table.path.name} (column {label!r})"
    if task.kind == TARGET:
        found = {as_number(cell) for cell in cells}
        guess = "" if task_type else "; --task-type classification makes classes of them"
        return f"a regression: {len(found):,} different numbers from {min(found):g} to {max(found):g} {place}{guess}"
    numeric = all(decimal_text(text) is not None for text in task.labels)
    guess = "; --task-type regression makes targets of them" if numeric and task_type is None else ""
    return f"{len(task.labels):,} classes: {shorten(task.labels, 4)} {place}{guess}"


def _is_labelled(table: Table, label: str, task: Task) -> bool:
    """Whether the labels of a test file are known: a column of nothing, or of one mark that is no label, is not."""
    cells = table.columns.get(label, [])
    texts = {label_text(cell) or "" for cell in cells}
    if len(texts) != 1:
        return len(texts) > 1
    if task.kind == TARGET:
        low, high = task.target_range or (-np.inf, np.inf)
        return low <= as_number(cells[0]) <= high
    return texts <= set(task.labels) or decimal_text(*texts) in task.labels


def _examples(table: Table, columns: tuple[str, str | None, str], task: Task) -> Examples:
    text, pair, label = columns
    texts = table.texts(text, "name it with --text-column")
    pairs = table.texts(pair, "name it with --text-pair-column") if pair else None
    remedy = "name it with --label-column"
    if task.kind == TARGET:
        labels = table.targets(label, remedy=remedy)
    else:
        labels = table.classes(label, task.labels, remedy)
    return Examples(texts, pairs, labels)


def _split(examples: Examples, table: Table) -> tuple[Examples, Examples]:
    if len(examples) < 2:
        raise UserError(f"{table.path}: one example only; at least two are needed to keep one for development")
    order = np.random.default_rng(SPLIT_SEED).permutation(len(examples))
    dev_rows = max(1, len(examples) // 10)
    return examples.take(np.sort(order[dev_rows:])), examples.take(np.sort(order[:dev_rows]))
