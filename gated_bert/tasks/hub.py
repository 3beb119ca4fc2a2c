"""Reading from the Hugging Face hub, from its cache where there is no network, and from a saved data set."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from gated_bert.support.errors import UserError, one_line
from gated_bert.support.records import read_record
from gated_bert.support.schemas import SavedSplits, SavedState
from gated_bert.tasks.examples import Examples, TaskData
from gated_bert.tasks.glue import LAYOUTS
from gated_bert.tasks.kinds import TARGET
from gated_bert.tasks.task import Task

GLUE_ID = "nyu-mll/glue"
ANSWER_SECONDS = 5.0
"""How long the hub may take to answer at all; the libraries' own retries take half a minute to give up."""

NO_GLUE = "use -d embedded, or -d FOLDER with the GLUE files"
SAVED_MARK = "dataset_dict.json"
_SAVE_AGAIN = "save it again"


def hub_answers(repo: str, repo_type: str) -> bool:
    """Whether the hub can be asked: not switched off (HF_HUB_OFFLINE), and it answers within seconds."""
    import huggingface_hub
    from huggingface_hub.errors import HfHubHTTPError, HTTPError

    if huggingface_hub.constants.HF_HUB_OFFLINE:
        return False
    try:
        huggingface_hub.HfApi().repo_info(repo, repo_type=repo_type, timeout=ANSWER_SECONDS)
    except HfHubHTTPError as error:
        # A refusal is an answer, and what is asked for next explains it better; a server in trouble is none.
        return error.response.status_code < 500
    except (OSError, HTTPError):
        return False
    return True


def hub_file(repo: str, names: Sequence[str], remedy: str) -> Path:
    """A file of a model on the hub, from the cache where it is there.

    Args:
        repo: id of the model.
        names: paths in it, of which the first that exists is taken.
        remedy: what to do without a network, for the message.

    Raises:
        UserError: no network, or no such model or file.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, HFValidationError, HTTPError, LocalEntryNotFoundError

    wanted = f"{' or '.join(names)} of {repo}"
    try:
        for name in names:
            with contextlib.suppress(LocalEntryNotFoundError):
                return Path(hf_hub_download(repo, name, local_files_only=True))
        if not hub_answers(repo, "model"):
            raise UserError(f"{wanted} is not cached and the Hugging Face hub cannot be reached; {remedy}")
        for name in names:
            with contextlib.suppress(EntryNotFoundError):
                return Path(hf_hub_download(repo, name))
    except (OSError, HTTPError, HFValidationError) as error:
        raise UserError(f"{wanted} cannot be had from the Hugging Face hub ({one_line(error)}); {remedy}") from error
    raise UserError(f"{wanted} is not on the Hugging Face hub; {remedy}")


def hub_files_beside(repo: str, names: Sequence[str]) -> None:
    """Fetches those files of a model that there are into its folder of the cache; without a network, none.

    Args:
        repo: id of the model.
        names: paths in it.
    """
    from huggingface_hub import hf_hub_download, try_to_load_from_cache
    from huggingface_hub.errors import HfHubHTTPError, HTTPError

    # What is known not to be there is remembered in the cache as well.
    unknown = [name for name in names if try_to_load_from_cache(repo, name) is None]
    if unknown and hub_answers(repo, "model"):
        for name in unknown:
            with contextlib.suppress(OSError, HTTPError, HfHubHTTPError):
                hf_hub_download(repo, name)


def load_hub_dataset(repo: str, name: str | None, remedy: str) -> Mapping:
    """A data set of the hub as a `datasets.DatasetDict`, from the cache where the hub cannot be reached.

    Args:
        repo: id of the data set.
        name: its configuration, if it has several.
        remedy: what to do without a network, for the message.

    Raises:
        UserError: neither the hub nor the cache has it, or a folder here has its name.
    """
    import datasets
    from huggingface_hub.errors import HTTPError

    # The library takes such a folder for the data set, whoever made it.
    if Path(repo).is_dir():
        raise UserError(f"{repo}: a folder of the working folder has the name of a data set on the Hugging Face hub; "
                        "work in another folder, or name this one with -d")  # fmt: skip
    switched_off = datasets.config.HF_HUB_OFFLINE
    offline = switched_off or not hub_answers(repo, "dataset")
    full_name = f"{repo} ({name})" if name else repo
    # Switched off, the library goes to its cache at once; otherwise it retries for half a minute first.
    datasets.config.HF_HUB_OFFLINE = offline
    try:
        return datasets.load_dataset(repo, name)
    except (OSError, ValueError, HTTPError, datasets.exceptions.DatasetsError) as error:
        if offline:
            message = f"{full_name} is not cached and the Hugging Face hub cannot be reached; {remedy}"
        else:
            message = f"{full_name} cannot be had from the Hugging Face hub ({one_line(error)}); {remedy}"
        raise UserError(message) from error
    finally:
        datasets.config.HF_HUB_OFFLINE = switched_off


def read_hub_task(task: Task) -> TaskData:
    """The examples of a GLUE task from the hub.

    Raises:
        UserError: no network and nothing cached, or unexpected columns.
    """
    source = {"kind": "hub", "label": task.title, "path": GLUE_ID, "partial": False}
    return _task_data(load_hub_dataset(GLUE_ID, task.name, NO_GLUE), task, GLUE_ID, source)


def find_saved_dataset(folder: Path, *names: str) -> Path | None:
    """A data set that `DatasetDict.save_to_disk` wrote: `folder`, or the one in it that has one of the names."""
    for candidate in (folder, *(folder / name for name in names)):
        if (candidate / SAVED_MARK).is_file():
            return candidate
    return None


def load_saved_dataset(folder: Path) -> Mapping:
    """What `DatasetDict.save_to_disk` wrote into a folder.

    Raises:
        UserError: a damaged folder.
    """
    import datasets

    for split in read_record(folder / SAVED_MARK, SavedSplits, remedy=_SAVE_AGAIN)["splits"]:
        place = _inside(folder, split, folder / SAVED_MARK)
        read_record(place / "dataset_info.json", remedy=_SAVE_AGAIN)
        for entry in read_record(place / "state.json", SavedState, remedy=_SAVE_AGAIN)["_data_files"]:
            if not _inside(place, entry["filename"], place / "state.json").is_file():
                raise UserError(f"{place / entry['filename']}: no such file; {_SAVE_AGAIN}")
    try:
        return datasets.load_from_disk(str(folder))
    # Whatever records of other types make the library raise.
    except Exception as error:
        raise UserError(f"{folder}: not a whole saved data set ({one_line(error)}); {_SAVE_AGAIN}") from error


def _inside(folder: Path, name: str, where: Path) -> Path:
    """What a record of a saved data set names, which lies in its own folder."""
    path = folder / name
    try:
        inside = Path(name).name == name and path.resolve().parent == folder.resolve()
    except (OSError, ValueError):
        inside = False
    if not inside:
        raise UserError(f"{where}: {name!r:.80} is no name in {folder}; {_SAVE_AGAIN}")
    return path


def read_saved_dataset(folder: Path, task: Task) -> TaskData:
    """The examples of a GLUE task from a folder that `DatasetDict.save_to_disk` wrote.

    Raises:
        UserError: a damaged folder or unexpected columns.
    """
    source = {"kind": "folder", "label": task.title, "path": str(folder), "partial": False}
    return _task_data(load_saved_dataset(folder), task, str(folder), source)


def _task_data(splits, task: Task, where: str, source: dict) -> TaskData:
    names = {split: split.replace("dev", "validation") for split in (*task.dev_splits, "train")}
    texts = LAYOUTS[task.name].hub_texts
    parts = {split: hub_examples(splits, name, texts, task, where) for split, name in names.items()}
    return TaskData(task, parts.pop("train"), parts, source)


def hub_examples(splits: Mapping, name: str, texts: Sequence[str], task: Task, where: str) -> Examples:
    """One split of a data set as examples, classes by their names.

    Args:
        splits: a `datasets.DatasetDict`.
        name: the split.
        texts: its columns of texts: one, or two for pairs; the labels are in "label".
        task: what is learnt.
        where: the data set's name, for messages.

    Raises:
        UserError: no such split or column, or an unknown label.
    """
    if name not in splits:
        raise UserError(f"{where}: no split {name!r}; found: {', '.join(splits)}; give the data set of {task.title}")
    split = splits[name]
    for column in (*texts, "label"):
        if column not in split.column_names:
            found = ", ".join(split.column_names)
            raise UserError(f"{where}, {name}: no column {column!r}; found: {found}; give the data set of {task.title}")
    columns = split.select_columns([*texts, "label"]).to_dict()
    for column in texts:
        for row, text in enumerate(columns[column]):
            if not isinstance(text, str):
                raise UserError(f"{where}, {name}, row {row}: {column!r} holds {text!r:.60}, not a text; correct or "
                                "remove it")  # fmt: skip
    labels = _labels(columns["label"], split.features["label"], task, f"{where}, {name}")
    return Examples(columns[texts[0]], columns[texts[1]] if task.pair else None, labels)


def _labels(values: list, feature, task: Task, where: str) -> np.ndarray:
    if task.kind == TARGET:
        for row, value in enumerate(values):
            if not isinstance(value, int | float) or not math.isfinite(value):
                raise UserError(f"{where}, row {row}: label {value!r} is refused; allowed: a finite number")
        return np.array(values, dtype=np.float32)
    names = getattr(feature, "names", task.labels)
    unknown = [name for name in names if name not in task.labels]
    if unknown:
        raise UserError(f"{where}: unknown label {unknown[0]!r}; allowed: {', '.join(task.labels)}")
    for row, value in enumerate(values):
        if not isinstance(value, int) or not 0 <= value < len(names):
            raise UserError(f"{where}, row {row}: label {value} is no class; allowed: 0 to {len(names) - 1}")
    order = np.array([task.labels.index(name) for name in names], dtype=np.int32)
    return order[np.array(values)]
