"""A user's own task: TSV, CSV or JSONL files with named columns."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from gated_bert.data_source import own_task_name
from gated_bert.errors import UserError
from gated_bert.tasks.examples import Examples, TaskData
from gated_bert.tasks.tables import SUFFIXES, Table, as_number, label_text, read_table, shorten, table_suffix
from gated_bert.tasks.task import Task

SPLIT_SEED = 0
"""One seed for every run, so that all seeds and methods are judged on the same development examples."""

MANY_VALUES = 20


def find_split(folder: Path, split: str) -> Path | None:
    """The one file `split`.tsv, .csv or .jsonl (or .gz) in `folder`.

    Raises:
        UserError: there are several.
    """
    names = [split + suffix + packed for suffix in SUFFIXES for packed in ("", ".gz")]
    found = [folder / name for name in names if (folder / name).is_file()]
    if len(found) > 1:
        raise UserError(f"{folder}: both {found[0].name} and {found[1].name} are there; keep one of them")
    return found[0] if found else None


def read_own_data(
    path: Path,
    name: str | None = None,
    text_column: str | None = None,
    text_pair_column: str | None = None,
    label_column: str | None = None,
) -> TaskData:
    """The task and the examples of a user's own files.

    Numbers with fractions, or with more than 20 different values, make a regression; anything else is a class.
    Without a development file a tenth of the training file, drawn with a fixed seed, takes its place.

    Args:
        path: a file, or a folder with `train.*` and perhaps `dev.*`.
        name: name of the task; by default from `path`.
        text_column: column of the texts, by default "text".
        text_pair_column: column of the second texts, if any.
        label_column: column of the labels, by default "label".

    Raises:
        UserError: a missing, malformed or empty file, a missing column, an empty text, an unknown label.
    """
    train_path, dev_path = _files(path)
    columns = (text_column or "text", text_pair_column, label_column or "label")
    train_table = read_table(train_path)
    _check_columns(train_table, columns)
    task = _make_task(train_table, columns, name or own_task_name(path), path)
    train = _examples(train_table, columns, task)
    source = {"kind": "file", "label": task.title, "path": str(path), "partial": False}
    if dev_path is not None:
        dev = _examples(read_table(dev_path), columns, task)
    else:
        train, dev = _split(train, train_table)
        source["split"] = f"10 % of {train_path.name}, drawn with seed {SPLIT_SEED}, are the development examples"
    return TaskData(task, train, {"dev": dev}, source)


def _files(path: Path) -> tuple[Path, Path | None]:
    if path.is_dir():
        train = find_split(path, "train")
        if train is None:
            raise UserError(f"{path}: no train.tsv, train.csv or train.jsonl in it; put the training file there")
        return train, find_split(path, "dev")
    if table_suffix(path) not in SUFFIXES:
        raise UserError(f"{path}: not a .tsv, .csv or .jsonl file (.gz may follow); save it as one of these")
    return path, None


def _check_columns(table: Table, columns: tuple[str, str | None, str]):
    for column, flag in zip(columns, ("--text-column", "--text-pair-column", "--label-column"), strict=True):
        if column is not None:
            table.column(column, f"name it with {flag}")


def _make_task(table: Table, columns: tuple[str, str | None, str], name: str, path: Path) -> Task:
    text, pair, label = columns
    title = path.resolve().name
    cells = table.columns[label]
    for row, cell in enumerate(cells):
        if not label_text(cell):
            raise UserError(f"{table.where(row)}: no label in column {label!r}; fill it in or remove the line")
    values = sorted({label_text(cell) for cell in cells})
    numbers = np.array([as_number(value) for value in values])
    numeric = bool(np.isfinite(numbers).all())
    if numeric and (len(values) > MANY_VALUES or (len(values) > 2 and (numbers % 1 != 0).any())):
        targets = (float(numbers.min()), float(numbers.max()))
        return Task(name, title, "regression", (), ("pearson", "spearman"), pair is not None, ("dev",), targets)
    if numeric:
        values = [values[index] for index in np.argsort(numbers, kind="stable")]
    if len(values) < 2:
        raise UserError(f"{table.path}: every label in column {label!r} is {values[0]!r}; give at least two classes")
    if len(values) > len(cells) // 2 and len(values) > MANY_VALUES:
        raise UserError(
            f"{table.path}: column {label!r} holds {len(values)} different labels in {len(cells)} rows "
            f"({shorten(values, 3)}); name the column of the classes with --label-column"
        )
    return Task(name, title, labels=tuple(values), metrics=("accuracy",), pair=pair is not None)


def _examples(table: Table, columns: tuple[str, str | None, str], task: Task) -> Examples:
    text, pair, label = columns
    texts = table.texts(text, "name it with --text-column")
    pairs = table.texts(pair, "name it with --text-pair-column") if pair else None
    remedy = "name it with --label-column"
    if task.kind == "regression":
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
