"""Reading checkpoints, a Hugging Face folder or Google's TensorFlow files, under the names of their family."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path

import numpy as np

from gated_bert.models.architecture import Architecture
from gated_bert.models.checkpoint_checks import check_head, check_stored, check_type, read_model_config
from gated_bert.models.family import Family, marked_family, read_architecture_of
from gated_bert.models.google_checkpoint import CHECKPOINT, GoogleCheckpoint
from gated_bert.models.heads import Head, hugging_face_head, match_head, task_head
from gated_bert.support.errors import UserError, one_line
from gated_bert.support.paths import user_path
from gated_bert.support.records import read_record
from gated_bert.tasks.hub import hub_file
from gated_bert.tasks.task import Task

SAFETENSORS = "model.safetensors"
_FLOATS = ("F32", "F16", "BF16", "F64")


class HuggingFaceCheckpoint:
    """`config.json` and `model.safetensors` as transformers writes them.

    Args:
        config_path: the configuration.
        weights_path: the weights.
    """

    def __init__(self, config_path: Path, weights_path: Path):
        self.config_path, self.weights_path = config_path, weights_path

    @cached_property
    def family(self) -> type[Family]:
        """The family that `model_type` names; BERT's where it is missing.

        Raises:
            UserError: it is not known, or a malformed file.
        """
        return marked_family(read_model_config(self.config_path), str(self.config_path))

    def architecture(self) -> Architecture:
        """The sizes in `config.json`; see `Family.read_config`.

        Raises:
            UserError: also sizes that need more than the weights' file holds.
        """
        config = self.family.read_config(read_model_config(self.config_path), str(self.config_path))
        check_stored(config, self.weights_path, self.weights_path.stat().st_size, "safetensors file")
        return config

    def head(self) -> Head:
        """What the head is for, see `hugging_face_head`.

        Raises:
            UserError: a truncated or malformed file.
        """
        with self._opened() as file:
            shapes = {self._plain(name): tuple(file.get_slice(name).get_shape()) for name in file.keys()}
        check_head(self.weights_path, shapes, (self.family.heads.classifier, "classifier.weight"))
        config = read_model_config(self.config_path)
        return hugging_face_head(config, shapes, self.family.class_prefix, self.family.heads)

    def _plain(self, name: str) -> str:
        return name.removeprefix(self.family.prefix)

    @contextmanager
    def _opened(self) -> Iterator:
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(self.weights_path, framework="numpy") as file:
                yield file
        except (SafetensorError, OSError) as error:
            raise UserError(
                f"{self.weights_path}: not a whole safetensors file ({one_line(error)}); fetch it again"
            ) from error

    def read(self, names: Iterable[str]) -> dict[str, np.ndarray]:
        """Those of the tensors called `names` that there are, float32.

        Raises:
            UserError: a truncated or malformed file.
        """
        arrays = {}
        with self._opened() as file:
            stored = {self._plain(name): name for name in file.keys()}
            for name in names:
                found = next((stored[each] for each in self.family.transformers_names(name) if each in stored), None)
                if found is not None:
                    check_type(f"{self.weights_path}: {found}", file.get_slice(found).get_dtype(), _FLOATS)
                    array = np.asarray(file.get_tensor(found), dtype=np.float32)
                    arrays[name] = array.T if name.endswith("/kernel") else array
        return arrays


def open_checkpoint(path_or_id: str) -> HuggingFaceCheckpoint | GoogleCheckpoint:
    """The checkpoint in a folder, at a checkpoint prefix, or of an id on the Hugging Face hub.

    Raises:
        UserError: nothing there that can be read.
    """
    path = user_path(path_or_id)
    if path.is_dir():
        if (path / f"{CHECKPOINT}.index").is_file():
            return GoogleCheckpoint(path / CHECKPOINT)
        for name in ("config.json", SAFETENSORS):
            if not (path / name).is_file():
                raise UserError(
                    f"{path}: no {name} in it; a pretrained folder holds config.json and {SAFETENSORS}, "
                    f"or bert_config.json and {CHECKPOINT}.*"
                )
        return HuggingFaceCheckpoint(path / "config.json", path / SAFETENSORS)
    if path.with_name(path.name + ".index").is_file():
        return GoogleCheckpoint(path)
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", path_or_id) or path_or_id.startswith("."):
        raise UserError(f"{path}: no such folder; give a folder, a checkpoint prefix or a Hugging Face id")
    remedy = f"check the id, or give -pt FOLDER with config.json and {SAFETENSORS} in it"
    paths = [hub_file(path_or_id, (name,), remedy) for name in ("config.json", SAFETENSORS)]
    return HuggingFaceCheckpoint(*paths)


def read_head(path_or_id: str) -> Head:
    """What the head of pretrained weights is for, and its classes, without loading the weights.

    Args:
        path_or_id: as for `open_checkpoint`, or a model folder of this package.

    Raises:
        UserError: nothing there that can be read.
    """
    own, where = _own_record(path_or_id)
    return open_checkpoint(path_or_id).head() if own is None else task_head(Task.from_dict(own["task"], where))


def read_task(path_or_id: str) -> Task | None:
    """What a model folder of this package was trained for; None of others; arguments and errors as of `read_head`."""
    own, where = _own_record(path_or_id)
    return None if own is None else Task.from_dict(own["task"], where)


def read_sizes(path_or_id: str) -> Architecture:
    """The architecture of pretrained weights, by their configuration alone; arguments and errors as of `read_head`."""
    own, where = _own_record(path_or_id)
    if own is None:
        return open_checkpoint(path_or_id).architecture()
    return read_architecture_of(own.get("architecture"), where)


def pretrained_family(path_or_id: str) -> type[Family]:
    """The family of pretrained weights; arguments and errors as of `read_head`."""
    own, where = _own_record(path_or_id)
    if own is None:
        return open_checkpoint(path_or_id).family
    sizes = own.get("architecture")
    return marked_family(sizes if isinstance(sizes, dict) else {}, where)


def _own_record(path_or_id: str) -> tuple[dict | None, str]:
    """`config.json` of a model folder of this package, None where it is none, and its name."""
    path = user_path(path_or_id) / "config.json"
    found = read_record(path) if path.is_file() else {}
    # What transformers calls a task is a text.
    return found if isinstance(found.get("task"), dict) else None, str(path)


def head_notes(path_or_id: str | None, task: Task) -> list[str]:
    """What there is to say, if anything, about the head that `task` gets from pretrained weights; errors as above."""
    sentence = match_head(read_head(path_or_id), task)[1] if path_or_id is not None else ""
    return [f"{path_or_id}: {sentence}"] if sentence else []
