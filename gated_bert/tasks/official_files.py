"""The files of a task's splits in a folder, whole or in part."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from gated_bert.support.errors import UserError
from gated_bert.tasks.task import Task

SPLIT_KINDS = {"train": "training", "dev": "development", "test": "test"}


def split_file(place: Path, name: str, allow_partial: bool, remedy: str) -> Path:
    """The file `name` in `place`, packed or not.

    Args:
        place: folder of the task.
        name: official name of the file ("train.tsv").
        allow_partial: take `train_partial.tsv` and the like where the whole file is missing.
        remedy: what to do where there is neither, for the message.

    Raises:
        UserError: no such file, or only a partial one that is not allowed.
    """
    stem, _, suffix = name.partition(".")
    partials = [f"{stem}_partial.{suffix}", f"{stem}_partial.{suffix}.gz"]
    for candidate in [name, f"{name}.gz"] + (partials if allow_partial else []):
        if (place / candidate).is_file():
            return place / candidate
    for candidate in partials:
        if (place / candidate).is_file():
            raise UserError(f"{place}: {name} is missing, only {candidate} is there; pass --allow-partial to use it")
    raise UserError(f"{place}: {name} (or .gz) is missing; {remedy}")


def folder_source(task: Task, place: Path, paths: Mapping[str, Path]) -> dict:
    """What a `TaskData` says of files in a folder: in its label too, which of them are partial.

    Args:
        task: what is learnt.
        place: folder of the task.
        paths: the files by split ("train", "dev", "dev_matched", "test").
    """
    partial = dict.fromkeys(
        SPLIT_KINDS[split.partition("_")[0]] for split, path in paths.items() if "_partial." in path.name
    )
    note = f" (partial {' and '.join(partial)} data)" if partial else ""
    return {"kind": "folder", "label": task.title + note, "path": str(place), "partial": bool(partial)}
