"""GLUE: how each task is laid out in the official files and on the hub, and the reader of a folder of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gated_bert.support.errors import UserError
from gated_bert.tasks.examples import Examples, TaskData
from gated_bert.tasks.kinds import TARGET
from gated_bert.tasks.official_files import folder_source, split_file
from gated_bert.tasks.tables import read_table
from gated_bert.tasks.task import Task

REMEDY = "put the official GLUE file there, or fetch it with `gated-bert download glue FOLDER`"


@dataclass(frozen=True)
class GlueLayout:
    """One task in the official files and in the hub's `nyu-mll/glue`.

    Attributes:
        folder: folder of the task.
        texts: text columns of the files.
        label: label column of the files.
        hub_texts: text columns on the hub.
        file_labels: spelling of the classes in the files, in the order of the task's labels.
        header: columns of files without a header line.
    """

    folder: str
    texts: tuple[str, ...]
    label: str
    hub_texts: tuple[str, ...]
    file_labels: tuple[str, ...] = ("0", "1")
    header: tuple[str, ...] | None = None


_TWO = ("sentence1", "sentence2")
_NAMED = ("entailment", "not_entailment")
LAYOUTS = {
    "sst2": GlueLayout("SST-2", ("sentence",), "label", ("sentence",)),
    "cola": GlueLayout("CoLA", ("sentence",), "label", ("sentence",), header=("source", "label", "mark", "sentence")),
    "mrpc": GlueLayout("MRPC", ("#1 String", "#2 String"), "Quality", _TWO),
    "stsb": GlueLayout("STS-B", _TWO, "score", _TWO, ()),
    "qnli": GlueLayout("QNLI", ("question", "sentence"), "label", ("question", "sentence"), _NAMED),
    "rte": GlueLayout("RTE", _TWO, "label", _TWO, _NAMED),
    "wnli": GlueLayout("WNLI", _TWO, "label", _TWO),
    "mnli": GlueLayout(
        "MNLI", _TWO, "gold_label", ("premise", "hypothesis"), ("entailment", "neutral", "contradiction")
    ),
}


def find_task_folder(folder: Path, task: Task) -> Path | None:
    """The folder of `task` in `folder`, in `folder`/glue, or `folder` itself where it has the task's name."""
    name = LAYOUTS[task.name].folder
    for candidate in (folder / name, folder / "glue" / name, folder / "GLUE" / name):
        if candidate.is_dir():
            return candidate
    return folder if folder.resolve().name.lower() == name.lower() else None


def read_glue_folder(folder: Path, task: Task, allow_partial: bool = False) -> TaskData:
    """The examples of `task` in a folder in the official GLUE layout.

    Args:
        folder: holds `SST-2/train.tsv` and so on, or is one task's folder; `.gz` accepted.
        task: one of the GLUE tasks.
        allow_partial: take `train_partial.tsv` and the like where the whole file is missing.

    Raises:
        UserError: a missing or malformed file.
    """
    place = find_task_folder(folder, task)
    if place is None:
        raise UserError(
            f"{folder}: no folder {LAYOUTS[task.name].folder} in it; give a folder in the GLUE layout "
            "(`gated-bert download glue FOLDER` makes one), or name the columns of your own data with --text-column"
        )
    paths = {split: split_file(place, f"{split}.tsv", allow_partial, REMEDY) for split in ("train", *task.dev_splits)}
    splits = {split: _read_split(path, task) for split, path in paths.items()}
    train = splits.pop("train")
    return TaskData(task, train, splits, folder_source(task, place, paths))


def _read_split(path: Path, task: Task) -> Examples:
    layout = LAYOUTS[task.name]
    table = read_table(path, layout.header)
    texts = [table.texts(name) for name in layout.texts]
    if task.kind == TARGET:
        labels = table.targets(layout.label, *(task.target_range or (-np.inf, np.inf)))
    else:
        labels = table.classes(layout.label, layout.file_labels)
    return Examples(texts[0], texts[1] if task.pair else None, labels)
