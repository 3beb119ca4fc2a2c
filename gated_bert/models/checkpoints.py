"""Reading checkpoints, a Hugging Face folder or Google's TensorFlow files, under the names of their family."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path

import numpy as np

from gated_bert.models.architecture import Architecture
from gated_bert.models.checkpoint_checks import check_head, check_stored, read_model_config
from gated_bert.models.family import Family, marked_family, read_architecture_of
from gated_bert.models.google_checkpoint import CHECKPOINT, GoogleCheckpoint
from gated_bert.models.heads import Head, hugging_face_head, match_head, task_head
from gated_bert.models.weight_files import (
    INDEX,
    SAFETENSORS,
    TORCH,
    WEIGHT_FILES,
    find_weights,
    kind_of,
    opened,
    part_names,
    parts_of,
)
from gated_bert.support.errors import UserError
from gated_bert.support.paths import user_path
from gated_bert.support.records import read_record
from gated_bert.tasks.hub import hub_file
from gated_bert.tasks.module_folder import encoder_folder
from gated_bert.tasks.task import Task

ADAPTER = "adapter_config.json"
"""What a folder of PEFT has in place of a model's configuration and weights."""


class HuggingFaceCheckpoint:
    """`config.json` and weights as transformers writes them.

    Args:
        config_path: the configuration.
        weights_path: the weights, one of `weight_files.WEIGHT_FILES`.
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
        size = sum(part.stat().st_size for part in parts_of(self.weights_path))
        check_stored(config, self.weights_path, size, kind_of(self.weights_path))
        return config

    def head(self) -> Head:
        """What the head is for, see `hugging_face_head`.

        Raises:
            UserError: a truncated or malformed file.
        """
        with opened(self.weights_path) as tensors:
            shapes = {self._plain(name): tensors.shape(name) for name in tensors.names}
        check_head(self.weights_path, shapes, (self.family.heads.classifier, "classifier.weight"))
        config = read_model_config(self.config_path)
        return hugging_face_head(config, shapes, self.family.class_prefix, self.family.heads)

    def _plain(self, name: str) -> str:
        return name.removeprefix(self.family.prefix)

    def read(self, names: Iterable[str]) -> dict[str, np.ndarray]:
        """Those of the tensors called `names` that there are, float32.

        Raises:
            UserError: a truncated or malformed file.
        """
        arrays = {}
        with opened(self.weights_path) as tensors:
            stored = {self._plain(name): name for name in tensors.names}
            for name in names:
                found = next((stored[each] for each in self.family.transformers_names(name) if each in stored), None)
                if found is not None:
                    arrays[name] = self.family.part_of_tensor(name, tensors.array(found))
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
        return _in_folder(encoder_folder(path))
    if path.with_name(path.name + ".index").is_file():
        return GoogleCheckpoint(path)
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", path_or_id) or path_or_id.startswith("."):
        raise UserError(f"{path}: no such folder; give a folder, a checkpoint prefix or a Hugging Face id")
    remedy = f"check the id, or give -pt FOLDER with config.json and {SAFETENSORS} in it"
    config = hub_file(path_or_id, ("config.json", ADAPTER), remedy)
    if config.name == ADAPTER:
        raise _adapter(path_or_id)
    try:
        weights = hub_file(path_or_id, WEIGHT_FILES[:2], remedy)
    except UserError:
        # Also one in PyTorch's own format that another tool has fetched before; it needs PyTorch.
        weights = hub_file(path_or_id, WEIGHT_FILES, remedy)
    if weights.name.endswith(INDEX):
        for name in part_names(weights):
            hub_file(path_or_id, (name,), remedy)
    return HuggingFaceCheckpoint(config, weights)


def _in_folder(path: Path) -> HuggingFaceCheckpoint:
    weights = find_weights(path)
    if weights is None and (path / ADAPTER).is_file():
        raise _adapter(str(path))
    for name, there in (("config.json", (path / "config.json").is_file()), (SAFETENSORS, weights is not None)):
        if not there:
            raise UserError(
                f"{path}: no {name} in it; a pretrained folder holds config.json and {SAFETENSORS} or {TORCH}, "
                f"or bert_config.json and {CHECKPOINT}.*"
            )
    return HuggingFaceCheckpoint(path / "config.json", weights or path / SAFETENSORS)


def _adapter(where: str) -> UserError:
    return UserError(f"{where}: a PEFT adapter ({ADAPTER}), no model of its own; in Python, join it to its model by "
                     "merge_and_unload(), write that by save_pretrained(FOLDER), and give FOLDER")  # fmt: skip


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
