"""One door to the three sources of data: the hub, a folder or file, and the embedded data."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from gated_bert.config import ConfigError
from gated_bert.config.input_options import InputOptions
from gated_bert.config.training_options import TrainingOptions
from gated_bert.support.errors import UserError
from gated_bert.support.paths import user_path
from gated_bert.tasks.data_source import data_meant
from gated_bert.tasks.examples import Examples, TaskData
from gated_bert.tasks.glue import LAYOUTS, find_task_folder, read_glue_folder
from gated_bert.tasks.kinds import SPANS, TOKENS
from gated_bert.tasks.own import find_split, read_own_data
from gated_bert.tasks.tables import SUFFIXES
from gated_bert.tasks.task import EMBEDDED_ONLY, LOADERS, OWN_DATA_ONLY, TASKS, Task, get_task, own_task_name

__all__ = ["Examples", "TaskData", "data_path", "load_task_data", "task_name"]


def data_path(config: InputOptions) -> Path | None:
    """The folder or file that `config.data` names; with `hub`, the folder in GATED_BERT_DATA where that is set.

    Returns:
        The path, or `None` for the hub and for embedded data.

    Raises:
        ConfigError: the path does not exist.
    """
    given = config.data
    if given == "embedded":
        return None
    if given == "hub":
        given = os.environ.get("GATED_BERT_DATA", "")
        if not given:
            return None
    path = user_path(given)
    if not path.exists():
        raise ConfigError("data", given, "hub, embedded, or an existing folder or .tsv, .csv, .jsonl or .conll file")
    return path


def task_name(config: InputOptions) -> str:
    """The name of the task that `config` will run, known without reading any data.

    Raises:
        ConfigError: an unknown task or a missing path.
    """
    path = None if config.task in LOADERS else data_path(config)
    if path is None or not _is_own_data(config, path):
        return get_task(config.task).name
    return own_task_name(path) if config.task in TASKS else config.task


def load_task_data(config: InputOptions, task: Task | None = None) -> TaskData:
    """The task and the examples that `config` names.

    Args:
        config: its `task`, `data`, `allow_partial`, `task_type`, column and `train_examples` fields are read.
        task: what a model was trained for; the labels of own data are then its classes or targets.

    Returns:
        The data; with `train_examples`, a subset (all of them where there are fewer), drawn with the `seed` of a
        run's record, or the usual one.

    Raises:
        ConfigError: a refused field.
        UserError: missing or malformed data.
    """
    if config.task in LOADERS:
        return _finish(_from_loader(config), config)
    path = data_path(config)
    if path is not None and _is_own_data(config, path):
        columns = (config.text_column, config.text_pair_column, config.label_column)
        with _told_what_was_meant(path, config.task):
            return _finish(read_own_data(path, task_name(config), *columns, config.task_type, task), config)
    task = get_task(config.task)
    for field in ("text_column", "text_pair_column", "label_column", "task_type"):
        if getattr(config, field) is not None:
            raise ConfigError(field, getattr(config, field), OWN_DATA_ONLY)
    if config.task in EMBEDDED_ONLY and config.data != "embedded":
        what = "a .conll file of words and tags" if task.kind == TOKENS else "a .jsonl file with lists of labels"
        raise UserError(f"-d/--data: {config.data!r} has no data of {task.title}; give embedded, {what}, or a folder "
                        "with train.*")  # fmt: skip
    if path is not None:
        if not path.is_dir():
            raise UserError(f"{path}: not a folder, nor a {', '.join(SUFFIXES)} file; give one of these with -d")
        with _told_what_was_meant(path, task.name):
            return _finish(_from_folder(path, task, config.allow_partial), config)
    return _finish(_from_embedded(task) if config.data == "embedded" else _from_hub(task), config)


@contextmanager
def _told_what_was_meant(path: Path, task: str) -> Iterator[None]:
    """Where the block is refused, the message names what may have been meant."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{error}{data_meant(path, task)}") from error


def _from_loader(config: InputOptions) -> TaskData:
    task = get_task(config.task)
    found = LOADERS[task.name](config)
    if not isinstance(found, TaskData) or found.dev.keys() != set(task.dev_splits):
        raise UserError(f"task {task.name}: what was registered to read it gave {type(found).__name__}; allowed: "
                        f"TaskData with {', '.join(task.dev_splits)} in dev")  # fmt: skip
    usual = {"kind": "plug-in", "label": task.title, "path": None, "partial": False}
    return dataclasses.replace(found, task=task, source=usual | dict(found.source))


def _is_own_data(config: InputOptions, path: Path) -> bool:
    if path.is_file() or config.text_column is not None:
        return True
    official = config.task in TASKS and config.task not in EMBEDDED_ONLY
    if official and (config.task not in LAYOUTS or find_task_folder(path, TASKS[config.task])):
        return False
    return find_split(path, "train") is not None


def _from_embedded(task: Task) -> TaskData:
    from gated_bert.tasks.embedded import embedded_examples
    from gated_bert.tasks.embedded_entities import embedded_entities
    from gated_bert.tasks.embedded_spans import embedded_questions

    others: dict[str, Callable[[], tuple]] = {"squad": embedded_questions, "ner": embedded_entities}
    train, dev = others[task.name]() if task.name in others else embedded_examples(task.name)
    return TaskData(task, train, dev, {"kind": "embedded", "label": "embedded data", "path": None, "partial": False})


def _from_folder(path: Path, task: Task, allow_partial: bool) -> TaskData:
    from gated_bert.tasks.ag_news import read_ag_news_folder
    from gated_bert.tasks.hub import find_saved_dataset, read_saved_dataset
    from gated_bert.tasks.squad import read_squad_folder

    if task.kind == SPANS:
        return read_squad_folder(path, task)
    if task.name == "ag_news":
        return read_ag_news_folder(path, task, allow_partial)
    saved = find_saved_dataset(path, task.name, LAYOUTS[task.name].folder)
    return read_glue_folder(path, task, allow_partial) if saved is None else read_saved_dataset(saved, task)


def _from_hub(task: Task) -> TaskData:
    from gated_bert.tasks.ag_news import read_hub_ag_news
    from gated_bert.tasks.hub import read_hub_task
    from gated_bert.tasks.squad import read_hub_squad

    return {"squad": read_hub_squad, "ag_news": read_hub_ag_news}.get(task.name, read_hub_task)(task)


def _finish(data: TaskData, config: InputOptions) -> TaskData:
    source = dict(data.source)
    train = data.train
    wanted = config.train_examples
    if wanted is not None and wanted < len(train):
        chosen = np.random.default_rng(getattr(config, "seed", TrainingOptions.seed)).permutation(len(train))[:wanted]
        train = train.take(np.sort(chosen))
        source["label"] += f", {wanted:,} training examples"
    source["rows"] = {"train": len(train), **{split: len(examples) for split, examples in data.dev.items()}}
    return dataclasses.replace(data, train=train, source=source)
