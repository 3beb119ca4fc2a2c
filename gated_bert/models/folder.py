"""The model folder: what a run leaves and every later command takes."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
from keras import ops

from gated_bert.models.architecture import Architecture
from gated_bert.models.backbone import EncoderClassifier
from gated_bert.models.family import get_family, read_architecture_of
from gated_bert.models.keras_file import read_keras, stored_arrays
from gated_bert.support.disk import sync_folder, sync_tree
from gated_bert.support.errors import UserError, one_line
from gated_bert.support.partial import partial_folder, surviving, take_place
from gated_bert.support.paths import user_path
from gated_bert.support.records import read_record
from gated_bert.support.schemas import HowMade, ModelConfig
from gated_bert.tasks.task import Task
from gated_bert.tasks.tokenizer_protocol import TokenizerProtocol

CONFIG, WEIGHTS, TOKENIZER, METADATA = FILES = ("config.json", "model.keras", "tokenizer.json", "metadata.json")


@dataclass(frozen=True)
class LoadedModel:
    """What a model folder holds.

    Attributes:
        model: the model, its gates as they were saved.
        tokenizer: the tokeniser it was trained with.
        task: what it was trained for.
        config: its architecture.
        metadata: how it came to be.
    """

    model: EncoderClassifier
    tokenizer: TokenizerProtocol
    task: Task
    config: Architecture
    metadata: dict


def save_model(
    folder: str | Path, model: EncoderClassifier, tokenizer: TokenizerProtocol, task: Task, metadata: dict
) -> None:
    """Writes a model folder; one that is there is replaced as a whole.

    The saved model computes what `model` computes in inference, with `gate_rule="fixed"`, and carries no optimiser.

    Args:
        folder: where to.
        model: the model.
        tokenizer: the tokeniser it was trained with.
        task: what it was trained for.
        metadata: how it came to be; JSON values.

    Raises:
        UserError: the folder cannot be written.
    """
    saved = with_fixed_gates(model)
    with replaced_folder(Path(folder)) as new:
        saved.save(new / WEIGHTS)
        tokenizer.save(new / TOKENIZER)
        record = {"architecture": saved.architecture.to_dict(), "task": task.to_dict()}
        (new / CONFIG).write_text(json.dumps(record, indent=2), encoding="utf-8")
        (new / METADATA).write_text(json.dumps(metadata, indent=2), encoding="utf-8")


def same_model(source: str | Path, folder: str | Path) -> None:
    """Makes `folder` the same model folder as `source`; their weights are one file on disks that know links.

    Raises:
        UserError: the folder cannot be written.
    """
    with replaced_folder(Path(folder)) as new:
        shutil.copytree(source, new, dirs_exist_ok=True, copy_function=_link_weights)


def _link_weights(source: str, target: str):
    """Links weights, which are never written in place, and copies all else."""
    if Path(source).name == WEIGHTS:
        try:
            os.link(source, target)
            return
        except OSError:
            pass
    shutil.copy2(source, target)


@contextmanager
def replaced_folder(folder: Path) -> Iterator[Path]:
    """Gives a new folder that becomes `folder`, as a whole, when the block has ended without an error.

    Raises:
        UserError: a file in the block, or the folder, cannot be written.
    """
    try:
        with partial_folder(folder) as new:
            yield new
            sync_tree(new)
            take_place(folder, new)
            sync_folder(folder.parent)
    except OSError as error:
        raise UserError(f"{folder}: the model cannot be written ({one_line(error)}); choose another folder") from error


def load_model(folder: str | Path) -> LoadedModel:
    """Reads a model folder.

    Args:
        folder: a folder that `save_model` wrote.

    Returns:
        The model, which predicts bit for bit what the saved one predicted, and what belongs to it.

    Raises:
        UserError: a missing, truncated or malformed file.
    """
    folder = surviving(user_path(folder))
    for name in FILES:
        if not (folder / name).is_file():
            raise UserError(f"{folder}: no {name} in it; a model folder holds {', '.join(FILES)}")
    config = read_architecture(folder)
    family = get_family(config.model_type)
    tokenizer = family.tokenizer.from_file(folder / TOKENIZER)
    tokenizer.check_rows(config.vocab_size)
    task = Task.from_dict(read_record(folder / CONFIG, ModelConfig)["task"], str(folder / CONFIG))
    if task.num_outputs != config.num_outputs:
        raise UserError(f"{folder / CONFIG}: {config.num_outputs} outputs in the architecture, and {task.num_outputs} "
                        "of the task; save or copy it again")  # fmt: skip

    def count(stored: dict) -> int:
        if read_architecture_of(stored.get(family.model().STORED), str(folder / WEIGHTS)) != config:
            raise UserError(f"{folder}: {CONFIG} and {WEIGHTS} do not belong together; save or copy both again")
        return config.num_parameters

    model = read_keras(folder / WEIGHTS, keras.saving.get_registered_name(family.model()), count)
    return LoadedModel(model, tokenizer, task, config, read_record(folder / METADATA, HowMade, nan=True))


def is_model_folder(path: str | Path) -> bool:
    """Whether `path` is a folder that `save_model` wrote, rather than a checkpoint of other tools."""
    return (surviving(user_path(path)) / WEIGHTS).is_file()


def read_architecture(folder: str | Path) -> Architecture:
    """The architecture in a model folder, without loading its weights.

    Raises:
        UserError: a missing or malformed `config.json`.
    """
    path = surviving(user_path(folder)) / CONFIG
    return read_architecture_of(read_record(path, ModelConfig)["architecture"], str(path))


def read_masks(folder: str | Path) -> dict[tuple[int | None, str], np.ndarray]:
    """The closed positions of the matrices in a model folder, without building the model.

    Args:
        folder: a folder that `save_model` wrote.

    Returns:
        (encoder block from 0, role) → bool [in, out], true where a gate or the mask beside it is zero; of pooler and
        classifier the block is None. Matrices that the model has not, as a span head's pooler, are left out.

    Raises:
        UserError: a missing, truncated or malformed file.
    """
    folder = surviving(user_path(folder))
    config = read_architecture(folder)
    stems = get_family(config.model_type).model().stored_matrices(config)
    masks, shapes = {}, config.matrix_shapes()
    with stored_arrays(folder / WEIGHTS, config.num_parameters) as file:
        for matrix, stem in stems.items():
            variables = file[f"{stem}/vars"] if f"{stem}/vars" in file else {}
            # The kernel comes first, then a bias, if any; a constant in place of a matrix has neither kernel nor gates.
            names = [name for name in sorted(variables) if name != "0" and variables[name].ndim == 2]
            if any(variables[name].shape != shapes[matrix] for name in names):
                raise UserError(f"{folder}: {CONFIG} and {WEIGHTS} do not belong together; save or copy both again")
            if names:
                masks[matrix] = np.any([np.asarray(variables[name]) == 0 for name in names], axis=0)
    return masks


def with_fixed_gates(model: EncoderClassifier) -> EncoderClassifier:
    """A copy of a model that computes what it computes in inference, with its gates written down.

    Args:
        model: a model with any gate rule; it is not changed.

    Returns:
        The model with `gate_rule="fixed"`, not compiled.
    """
    copy = model.rebuilt(model.architecture.replace(gate_rule="fixed"))
    values = {variable.path: variable for variable in model.weights}
    for variable in copy.weights:
        # Through NumPy: under JAX one variable must not take over another's buffer.
        variable.assign(ops.convert_to_numpy(values[variable.path]))
    for source, target in zip(model.gated_layers(), copy.gated_layers(), strict=True):
        target.mask_variable.assign(ops.convert_to_numpy(source.rule.gates(source, training=False)))
    return copy
