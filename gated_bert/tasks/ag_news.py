"""AG News: its CSV files and its columns on the hub as texts of four topics."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

import numpy as np
from sklearn.model_selection import train_test_split

from gated_bert.support.errors import UserError
from gated_bert.tasks.examples import Examples, TaskData
from gated_bert.tasks.hub import find_saved_dataset, hub_examples, load_hub_dataset, load_saved_dataset
from gated_bert.tasks.official_files import folder_source, split_file
from gated_bert.tasks.own import SPLIT_SEED
from gated_bert.tasks.tables import Table, read_table
from gated_bert.tasks.task import Task

AG_NEWS_ID = "fancyzhx/ag_news"
NO_AG_NEWS = "use -d embedded, or -d FOLDER with train.csv and test.csv"
REMEDY = "put the official AG News file there, or fetch it with `gated-bert download ag_news FOLDER`"
FOLDERS = ("ag_news", "ag_news_csv")
COLUMNS = ("class", "title", "description")
FILE_CLASSES = ("1", "2", "3", "4")
LEAST = 10
"""Training examples of a class, so that a tenth of them is at least one."""

LINE_BREAKS = re.compile(r"\\+(?!\$)")
"""What stands for a line break in the official files; before a dollar sign the backslash is another escape."""


def read_hub_ag_news(task: Task) -> TaskData:
    """AG News from the hub, or its cache where there is no network; split and cleaned as by `read_ag_news_folder`.

    Raises:
        UserError: no network and nothing cached, or unexpected columns.
    """
    source = {"kind": "hub", "label": task.title, "path": AG_NEWS_ID, "partial": False}
    return _from_splits(load_hub_dataset(AG_NEWS_ID, None, NO_AG_NEWS), task, source)


def read_ag_news_folder(folder: Path, task: Task, allow_partial: bool = False) -> TaskData:
    """AG News from `train.csv` and `test.csv` (`.gz` accepted), or from a folder that `DatasetDict.save_to_disk` wrote.

    Columns are class from 1 to 4, title and description, with or without a header line; title and description are
    joined by a space. A tenth of the training file, drawn with a fixed seed and with equal shares of the classes, is
    the validation set, which decides; the test file is reported beside it. Backslashes, which stand for the line
    breaks of the original, become spaces; `\\$` and what is left of HTML (`&lt;b&gt;`, `#39;`) stay as they are, as
    in the hub's copy, so that results compare with published ones.

    Args:
        folder: holds the files itself, or in a sub-folder `ag_news` or `ag_news_csv`.
        task: AG News.
        allow_partial: take `train_partial.csv` and the like where the whole file is missing.

    Raises:
        UserError: a missing, malformed or empty file, a class out of range, an empty text, too few examples.

    Paper: Zhang et al. 2015, Character-level Convolutional Networks for Text Classification
    (https://arxiv.org/abs/1509.01626).
    """
    saved = find_saved_dataset(folder, *FOLDERS)
    if saved is not None:
        source = {"kind": "folder", "label": task.title, "path": str(saved), "partial": False}
        return _from_splits(load_saved_dataset(saved), task, source)
    place = next((folder / name for name in FOLDERS if (folder / name).is_dir()), folder)
    paths = {split: split_file(place, f"{split}.csv", allow_partial, REMEDY) for split in ("train", "test")}
    train, test = (_read_file(path) for path in paths.values())
    return _task_data(task, train, test, folder_source(task, place, paths), str(paths["train"]))


def _read_file(path: Path) -> Examples:
    table = read_table(path, COLUMNS)
    # A class is a number, the name of a column is not.
    start = int(any(map(str.isalpha, table.columns["class"][0])))
    if len(table.lines) == start:
        raise UserError(f"{path}: no examples in it, only a header; give a file with at least one row of data")
    table = Table(path, {name: cells[start:] for name, cells in table.columns.items()}, table.lines[start:])
    labels = table.classes("class", FILE_CLASSES, "")
    rows = zip(table.columns["title"], table.columns["description"], strict=True)
    return Examples(clean_rows(rows, table.where), None, labels)


def _from_splits(splits, task: Task, source: dict) -> TaskData:
    where = source["path"]
    parts = []
    for name in ("train", "test"):
        found = hub_examples(splits, name, ("text",), task, where)
        texts = clean_rows(([text] for text in found.texts), partial("{}, {}, row {}".format, where, name))
        parts.append(Examples(texts, None, found.labels))
    return _task_data(task, parts[0], parts[1], source, f"{where}, train")


def clean_rows(rows: Iterable[Iterable[str]], where: Callable[[int], str]) -> list[str]:
    """The parts of each row, cleaned and joined by a space.

    Args:
        rows: title and description, or one text.
        where: number of a row → its place, for messages.

    Raises:
        UserError: an empty text.
    """
    texts = [LINE_BREAKS.sub(" ", " ".join(part for part in parts if part.strip())).strip() for parts in rows]
    if "" in texts:
        raise UserError(f"{where(texts.index(''))}: empty text; fill it in or remove the line")
    return texts


def _task_data(task: Task, train: Examples, test: Examples, source: dict, where: str) -> TaskData:
    counts = np.bincount(train.known_labels, minlength=len(task.labels))
    fewest = int(counts.argmin())
    if counts[fewest] < LEAST:
        raise UserError(
            f"{where}: {counts[fewest]} examples of class {task.labels[fewest]}; at least {LEAST} of every class are "
            "needed to keep a tenth for validation"
        )
    rows = np.arange(len(train))
    kept, validation = train_test_split(rows, test_size=0.1, random_state=SPLIT_SEED, stratify=train.labels)
    source["split"] = (
        f"10 % of the training file, stratified by class and drawn with seed {SPLIT_SEED}, are the validation examples"
    )
    dev = {"validation": train.take(np.sort(validation)), "test": test}
    return TaskData(task, train.take(np.sort(kept)), dev, source)
