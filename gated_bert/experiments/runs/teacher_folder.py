"""The folder of a run's teacher: what is in it, and whether the run can learn from that; without a framework."""

from __future__ import annotations

import functools
import hashlib
import zipfile
from dataclasses import dataclass
from pathlib import Path

from gated_bert.config import ConfigError, GatedBertConfig
from gated_bert.config.distill_options import SELF, SELF_ELSEWHERE
from gated_bert.experiments.reports.results import model_label
from gated_bert.experiments.reports.run_layout import MODEL
from gated_bert.experiments.runs.run_state import read_status
from gated_bert.models.architecture import Architecture
from gated_bert.models.checkpoints import pretrained_family, read_head, read_sizes, read_task
from gated_bert.models.heads import Head, match_head, task_head
from gated_bert.models.weight_files import find_weights, parts_of
from gated_bert.support.errors import UserError, one_line
from gated_bert.support.paths import user_path
from gated_bert.support.records import read_record
from gated_bert.support.schemas import HowMade
from gated_bert.tasks.module_folder import encoder_folder
from gated_bert.tasks.task import TASKS, Task
from gated_bert.tasks.tokenizer import tokenizer_from_folder
from gated_bert.tasks.tokenizer_protocol import TokenizerProtocol

WEIGHTS, TOKENIZER = "model.keras", "tokenizer.json"
_CHUNK = 2**24


@dataclass(frozen=True)
class TeacherFolder:
    """A teacher that a run can learn from.

    Attributes:
        path: the folder of the model.
        architecture: its sizes.
        rows: which of its outputs is which of the task's.
        note: what there is to say about that, empty where nothing is.
    """

    path: Path
    architecture: Architecture
    rows: tuple[int, ...]
    note: str = ""

    @property
    def files(self) -> list[Path]:
        """The files that decide what it computes: its configuration and its weights."""
        if _is_own(self.path):
            return [self.path / "config.json", self.path / WEIGHTS]
        folder = encoder_folder(self.path)
        weights = find_weights(folder)
        return [folder / "config.json", *(parts_of(weights) if weights else ())]

    @functools.cached_property
    def digest(self) -> bytes:
        """Of all that decides what it computes."""
        found = hashlib.sha256(repr(self.rows).encode())
        for path in self.files:
            with open(path, "rb") as file:
                while chunk := file.read(_CHUNK):
                    found.update(chunk)
        return found.digest()


def check_teacher(config: GatedBertConfig, task: Task, tokenizer: TokenizerProtocol) -> TeacherFolder:
    """The teacher of a run.

    Args:
        config: the run's record, with a teacher.
        task: what the run learns.
        tokenizer: the run's.

    Raises:
        ConfigError: no model there, or one of another task, other labels, another tokeniser or other sizes.
        UserError: a missing, truncated or malformed file.
    """
    if config.teacher is None:
        raise ValueError("check_teacher: the record has no teacher")
    path = find_teacher(config.teacher)
    check_whole(path)
    head, own = read_head(str(path)), read_task(str(path))
    rows, note = match_head(head, task)
    of = _title(own, head)
    if rows is None or _other_task(own, task):
        raise ConfigError("teacher", config.teacher, f"a model of {_described(task.title, task_head(task))}; "
                          f"this one is of {of}")  # fmt: skip
    _check_tokenizer(config.teacher, path, tokenizer)
    architecture = read_sizes(str(path))
    if architecture.max_position < config.max_len:
        raise ConfigError("teacher", config.teacher, f"a model that reads max_len={config.max_len} tokens; this one "
                          f"reads {architecture.max_position}")  # fmt: skip
    _check_layers(config, architecture)
    return TeacherFolder(path, architecture, tuple(rows), f"{config.teacher}: {note}" if note else "")


def model_of_teacher(config: GatedBertConfig, teacher: TeacherFolder) -> str | None:
    """What tables call the model of a run that starts from its teacher: as that one's; None where it does not."""
    start = config.pretrained
    if start is None or user_path(start).resolve() != teacher.path.resolve():
        return None
    made = read_record(teacher.path / "metadata.json", HowMade, nan=True, tolerant=True) or {}
    return made.get("model") or (model_label(made["config"]) if made.get("config") else None)


def find_teacher(place: str) -> Path:
    """The folder of the model that `place`, such a folder or that of its run, stands for.

    Raises:
        ConfigError: there is none.
        UserError: the run there has not come to one.
    """
    if place == SELF:
        raise ConfigError("teacher", place, SELF_ELSEWHERE)
    path = user_path(place)
    for folder in (path, path / MODEL):
        if _is_own(folder) or find_weights(encoder_folder(folder)) is not None:
            return folder
    state = read_status(path.parent if path.name == MODEL else path).get("state")
    if state is not None:
        raise UserError(f"teacher: {path} holds no model to learn from: its run is {state}")
    raise ConfigError("teacher", place, "the folder of a trained model, or of a finished run")


def check_whole(path: Path) -> None:
    """Reads the weights of a model folder through once, which finds what a broken copy lacks.

    Raises:
        UserError: they are not whole.
    """
    if not _is_own(path):
        return
    try:
        with zipfile.ZipFile(path / WEIGHTS) as archive:
            broken = archive.testzip()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, RuntimeError) as error:
        raise UserError(f"{path / WEIGHTS}: not a whole model ({one_line(error)}); copy it again") from error
    if broken is not None:
        raise UserError(f"{path / WEIGHTS}: not a whole model ({broken} is damaged); copy it again")


def _is_own(path: Path) -> bool:
    return (path / WEIGHTS).is_file()


def _other_task(own: Task | None, task: Task) -> bool:
    """Whether a model is known to be of another task; files of one's own may have any name."""
    return own is not None and own.name != task.name and {own.name, task.name} <= TASKS.keys()


def _title(own: Task | None, head: Head) -> str:
    return (head.description or "no task") if own is None else _described(own.title, head)


def _described(title: str, head: Head) -> str:
    return f"{title}, {head.description}"


def _check_layers(config: GatedBertConfig, teacher: Architecture):
    """Refuses layers that cannot be compared with those of the run's model."""
    if not config.distills_layers:
        return
    depth, width = config.sizes()[:2]
    if config.pretrained is not None:
        found = read_sizes(config.pretrained)
        depth, width = config.num_layers or found.num_layers, found.hidden_size
    if teacher.hidden_size != width:
        raise ConfigError("teacher", config.teacher, f"with layers one of the hidden size {width}, that of the run's "
                          f"model; this one has {teacher.hidden_size}")  # fmt: skip
    if config.distill_layers == "all" and teacher.num_layers != depth:
        raise ConfigError("distill_layers", "all", f"last or nearest: the teacher has {teacher.num_layers} layers, "
                          f"the run's model {depth}")  # fmt: skip


def _check_tokenizer(teacher: str, path: Path, tokenizer: TokenizerProtocol):
    kind = pretrained_family(str(path)).tokenizer
    own = (path / TOKENIZER).is_file() and _is_own(path)
    found = kind.from_file(path / TOKENIZER) if own else tokenizer_from_folder(path, kind=kind)
    if found is None:
        raise UserError(f"{path}: no {' or '.join(kind.files)} in it; put that of the teacher there")
    if found.fingerprint != tokenizer.fingerprint:
        raise ConfigError("teacher", teacher, f"a model whose tokeniser is that of the run ({tokenizer.origin}); "
                          f"{found.origin} is another one")  # fmt: skip

