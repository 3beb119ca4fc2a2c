"""What `-d` names, decided once for all commands: the hub, embedded data, a folder, or a file."""

from __future__ import annotations

from pathlib import Path

from gated_bert.support.checks import FlagError, did_you_mean
from gated_bert.support.paths import user_path
from gated_bert.tasks.task import GLUE_TASKS

WITHOUT_PATH = ("hub", "embedded")
FILE_ENDINGS = (".tsv", ".csv", ".jsonl", ".tsv.gz", ".csv.gz", ".jsonl.gz")
_ALLOWED = "hub, embedded, an existing folder, or a .tsv, .csv or .jsonl file"
_FOLDERS = {task.title.lower(): name for name, task in GLUE_TASKS.items()} | {
    "ag_news": "ag_news", "ag_news_csv": "ag_news", "squad": "squad"
}  # fmt: skip
"""Official names of the folders of tasks, in small letters."""


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
        raise FlagError.refused(label, data, _ALLOWED + did_you_mean(data, WITHOUT_PATH))
    return str(path.resolve())


def folder_task(data: str) -> str | None:
    """The task whose official folder `data` is, as `glue/SST-2` is that of sst2; None for any other source."""
    path = Path(data) if data in WITHOUT_PATH else user_path(data)
    if data in WITHOUT_PATH or not path.is_dir():
        return None
    name = _FOLDERS.get(path.resolve().name.lower())
    if name is None:
        return None
    ending = {"ag_news": "csv", "squad": "json"}.get(name, "tsv")
    return name if any(path.glob(f"train*.{ending}*")) else None
