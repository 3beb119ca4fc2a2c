"""What `-d` names, decided once for all commands: the hub, embedded data, a folder, or a file."""

from __future__ import annotations

import os
from pathlib import Path

from gated_bert.support.checks import FlagError, closest, did_you_mean
from gated_bert.support.paths import user_path
from gated_bert.tasks.conll import CONLL
from gated_bert.tasks.task import GLUE_TASKS

WITHOUT_PATH = ("hub", "embedded")
FILE_ENDINGS = tuple(ending + packed for packed in ("", ".gz")
                     for ending in (".tsv", ".csv", ".jsonl", *CONLL, ".txt"))  # fmt: skip
_ALLOWED = "hub, embedded, an existing folder, or a .tsv, .csv, .jsonl or .conll file"
_FOLDERS = {task.title.lower(): name for name, task in GLUE_TASKS.items()} | {
    "ag_news": "ag_news", "ag_news_csv": "ag_news", "squad": "squad"
}  # fmt: skip
"""Official names of the folders of tasks, in small letters."""
_MOST_LOOKED_AT = 200


def find_data(data: str, label: str) -> str:
    """A source of data as the record of a run holds it: `hub`, `embedded`, or an absolute path.

    Args:
        data: as it was typed.
        label: what messages call it.

    Raises:
        FlagError: it is not there, or no file that can be read twice.
    """
    if data in WITHOUT_PATH:
        return data
    path = user_path(data)
    if path.exists() and not path.is_dir() and not path.is_file():
        raise FlagError.refused(label, data, f"{_ALLOWED}; a pipe or device can be read only once")
    if not (path.is_dir() or (path.is_file() and path.name.lower().endswith(FILE_ENDINGS))):
        meant = _named(data) or _beside(path) or did_you_mean(data, WITHOUT_PATH)
        raise FlagError.refused(label, data, _ALLOWED + meant)
    return str(path.resolve())


def _named(data: str) -> str:
    """A remark on a word that names a task, and no place."""
    task = closest(data, [*_FOLDERS, *_FOLDERS.values()]) if "/" not in data else []
    name = _FOLDERS.get(task[0], task[0]) if task else None
    exact = name and data.lower() in (name, *(folder for folder, each in _FOLDERS.items() if each == name))
    return f" (the task is -t {name}; did you mean hub?)" if exact else ""


def _beside(path: Path) -> str:
    """A remark on what is there in the place of a path that is not: beside it, or beside a folder above it."""
    official = folder_task(str(path.parent))
    if official:
        return f" (did you mean {path.parent.absolute()}, the official folder of {official}?)"
    parts, here = list(path.absolute().parts), Path(path.absolute().anchor)
    for part in parts[1:]:
        if os.path.exists(here / part):
            here /= part
            continue
        found = closest(part, _names_in(here))
        if not found:
            return ""
        here /= found[0]
    return f" (did you mean {here}?)"


def _names_in(folder: Path) -> list[str]:
    try:
        return sorted(each.name for each in folder.iterdir() if not each.name.startswith("."))[:_MOST_LOOKED_AT]
    except OSError:
        return []


def _below(folder: Path) -> list[Path]:
    return [each for name in _names_in(folder) if os.path.isdir(each := folder / name)]


def _holds(place: Path, task: str) -> bool:
    """Whether `-d` of this folder reads the task's official files."""
    return any(folder_task(str(each)) == task for each in (place, *_below(place), *_below(place / "glue")))


def data_meant(path: Path, task: str) -> str:
    """A remark on data of `task` that was looked for at `path` and is not there, where it is somewhere near.

    Args:
        path: a folder or file that is there.
        task: its name.
    """
    folder = path if path.is_dir() else path.parent
    if not path.is_dir():
        official = folder_task(str(folder))
        return f" (did you mean {folder}, the official folder of {official}?)" if official else ""
    if _holds(folder, task):
        return ""
    near = [*_below(folder), *(each for one in _below(folder) for each in _below(one)), *folder.absolute().parents[:2]]
    for place in near:
        if _holds(place, task):
            return f" (did you mean {place}?)"
    other = folder_task(str(folder))
    return f" (it is the folder of {other}: did you mean -t {other}?)" if other and other != task else ""


def folder_task(data: str) -> str | None:
    """The task whose official folder `data` is, as `glue/SST-2` is that of sst2; None for any other source."""
    path = Path(data) if data in WITHOUT_PATH else user_path(data)
    if data in WITHOUT_PATH or not os.path.isdir(path):
        return None
    name = _FOLDERS.get(path.resolve().name.lower())
    if name is None:
        return None
    ending = {"ag_news": "csv", "squad": "json"}.get(name, "tsv")
    return name if any(path.glob(f"train*.{ending}*")) else None
