"""Pretrained weights: from a Hugging Face folder or id, Google's TensorFlow files, or a model folder."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import keras
import numpy as np
from keras import ops

from gated_bert.models.architecture import Architecture
from gated_bert.models.backbone import EncoderClassifier
from gated_bert.models.checkpoints import open_checkpoint
from gated_bert.models.family import family_of
from gated_bert.models.folder import is_model_folder, load_model, read_architecture
from gated_bert.models.gated_dense import GatedDense
from gated_bert.models.heads import Head, match_head, task_head
from gated_bert.support.errors import UserError
from gated_bert.tasks.kinds import CLASSES, KINDS, TARGET
from gated_bert.tasks.task import Task

PRUNED_SHARE = 0.05
"""Share of zeros from which on weights were pruned; fewer are what rounding leaves, and train like others."""


def read_pretrained_architecture(path_or_id: str, num_layers: int | None = None) -> Architecture:
    """The sizes of pretrained weights.

    Args:
        path_or_id: a Hugging Face folder (`config.json`, `model.safetensors`) or id, a folder or prefix of a Google
            checkpoint (`bert_model.ckpt.*`, `bert_config.json`), or a model folder of this package.
        num_layers: keep only the first so many encoder layers.

    Returns:
        The architecture; the fields that do not describe the weights have their defaults.

    Raises:
        UserError: nothing there that can be read, or fewer layers than `num_layers`.
    """
    if is_model_folder(path_or_id):
        config = read_architecture(path_or_id).replace(gate_rule="fixed")
    else:
        config = open_checkpoint(path_or_id).architecture()
    if num_layers is None:
        return config
    if not 1 <= num_layers <= config.num_layers:
        raise UserError(f"num_layers: {num_layers} is refused; {path_or_id} has layers 1 to {config.num_layers}")
    return config.replace(layers=config.layers[:num_layers])


def load_pretrained(model: EncoderClassifier, path_or_id: str, task: Task | None = None) -> None:
    """Puts pretrained weights into a model, whose layers may be the first few of them.

    The head is taken over where the checkpoint has one for the same task, its outputs in the order of the task's
    classes; otherwise it stays as it is, and a warning says why. From a model folder the closed gates are taken over
    too. Of weights without gates those that a tool pruned by zeroing are closed, and a warning says so.

    Args:
        model: the model, with the sizes of `read_pretrained_architecture`.
        path_or_id: as for `read_pretrained_architecture`.
        task: what the model's outputs are; by default as many classes, or one target, as the head has, in its order.

    Raises:
        UserError: a missing, truncated or malformed file, or a tensor of another shape.
    """
    if is_model_folder(path_or_id):
        _load_from_model_folder(model, path_or_id, task)
        return
    checkpoint, family = open_checkpoint(path_or_id), family_of(model)
    if checkpoint.family is not family:
        raise UserError(f"{path_or_id}: its model_type is {checkpoint.family.model_type}, the model's is "
                        f"{family.model_type}; weights and sizes do not belong together")  # fmt: skip
    rows = _head_rows(checkpoint.head(), model, path_or_id, task)
    _check_activation(checkpoint.architecture(), model.architecture, path_or_id)
    variables = family.variables(model)
    arrays = checkpoint.read(variables)
    _order_head(arrays, model, rows, str(checkpoint.weights_path))
    pooler = model.encoder.pooler
    if pooler is not None and not any(variables[name] is pooler.raw_kernel for name in arrays):
        warnings.warn(f"{checkpoint.weights_path}: no {family.pooled} in it; the {family.pooled} starts from random "
                      "values", stacklevel=2)  # fmt: skip
    for name, variable in variables.items():
        if name in arrays:
            _assign(variable, arrays[name], f"{checkpoint.weights_path}: {name}")
        elif not name.startswith(family.optional):
            raise UserError(f"{checkpoint.weights_path}: no {name} in it; weights of a {family.title} are needed")
    share = close_zeros(model, PRUNED_SHARE)
    if share:
        warnings.warn(f"{path_or_id}: {share:.1%} of the weights are zeros, which count as closed", stacklevel=2)


def close_zeros(model: EncoderClassifier, least: float = 0.0) -> float:
    """Closes the gates of zeros: a tool that prunes by zeroing leaves nothing else to see it by.

    Args:
        model: the model.
        least: share of zeros below which all gates stay as they are.

    Returns:
        The share of the weights that were closed.
    """
    # Not those of the classifier: zeros may be what a fresh one starts from.
    layers = [layer for layer in model.gated_layers() if layer.role != "classifier"]
    kept = [ops.convert_to_numpy(layer.raw_kernel) != 0 for layer in layers]
    total = sum(mask.size for mask in kept)
    share = (total - sum(int(np.count_nonzero(mask)) for mask in kept)) / total
    if share == 0 or share < least:
        return 0.0
    for layer, mask in zip(layers, kept, strict=True):
        value = 1.0 if layer.gate_trainable else layer.gate_init_value
        layer.mask_variable.assign(mask * np.float32(value))
    return share


def _head_rows(head: Head, model: EncoderClassifier, where: str, task: Task | None) -> list[int] | None:
    """The outputs of a head in the order of the model's; None for a new head."""
    rows, sentence = match_head(head, task or _task_like(model.architecture, head))
    if sentence:
        warnings.warn(f"{where}: {sentence}", stacklevel=3)
    return rows


def _task_like(config: Architecture, head: Head) -> Task:
    """What a model learns of which only the outputs are known: the head's own classes where it has as many."""
    unnamed = tuple(f"LABEL_{index}" for index in range(config.num_outputs))
    names = {label for label in head.labels if label.strip()}
    labels = head.labels if len(names) == len(head.labels) == len(unnamed) else unnamed
    alike = (kind for kind, traits in KINDS.items() if traits.head == config.head)
    kind = head.kind if head.kind in KINDS and KINDS[head.kind].head == config.head else next(alike)
    if kind == CLASSES and config.num_outputs == 1:
        kind = TARGET
    return Task("model", "the model", kind, labels if KINDS[kind].has_labels else ())


def _check_activation(found: Architecture, wanted: Architecture, where: str):
    if found.activation != wanted.activation:
        raise UserError(f"{where}: its hidden_act is {found.hidden_act!r}, the model's is {wanted.hidden_act!r}; "
                        "weights and activation function do not belong together")  # fmt: skip


def _order_head(arrays: dict[str, np.ndarray], model: EncoderClassifier, rows: Sequence[int] | None, where: str):
    """Puts the head among `arrays` into the order of `rows`; None drops it."""
    names = family_of(model).head_names(model.architecture.head)
    kernel, bias = (arrays.pop(name, None) for name in names)
    if rows is not None and kernel is not None and bias is not None:
        # Checkpoints hold the head as [outputs, hidden].
        if kernel.ndim != 2 or bias.shape != kernel.shape[:1] or len(bias) != len(rows):
            found = " and ".join("x".join(map(str, array.shape)) or "a single number" for array in (kernel, bias))
            raise UserError(f"{where}: the head's kernel and bias have the shapes {found}, the model needs "
                            f"{len(rows)} outputs of both; fetch it again")  # fmt: skip
        arrays.update(zip(names, (kernel[rows].T, bias[rows]), strict=True))


def _assign(variable: keras.Variable, array: np.ndarray, where: str):
    if array.shape != tuple(variable.shape):
        found, needed = ("x".join(str(size) for size in shape) for shape in (array.shape, variable.shape))
        raise UserError(
            f"{where} has the shape {found}, the model needs {needed}; weights and sizes do not belong together"
        )
    variable.assign(array)


def _load_from_model_folder(model: EncoderClassifier, folder: str, task: Task | None):
    loaded = load_model(folder)
    source = loaded.model
    found, wanted = source.architecture, model.architecture
    for name, there, here in (
        ("model_type", found.model_type, wanted.model_type),
        ("vocab_size", found.vocab_size, wanted.vocab_size),
        ("hidden_size", found.hidden_size, wanted.hidden_size),
        ("max_position", found.max_position, wanted.max_position),
        ("layers", found.layers[: wanted.num_layers], wanted.layers),
    ):
        if there != here:
            raise UserError(
                f"{folder}: its {name} is {there}, the model's is {here}; weights and sizes do not belong together"
            )
    _check_activation(found, wanted, folder)
    rows = _head_rows(task_head(loaded.task), model, folder, task)
    _order_classifier(source, rows)
    by_path = {variable.path.split("/", 1)[1]: variable for variable in source.weights}
    for variable in model.weights:
        path = variable.path.split("/", 1)[1]
        if path in by_path and not (rows is None and path.startswith("classifier/")):
            # Through NumPy: under JAX one variable must not take over another's buffer.
            variable.assign(ops.convert_to_numpy(by_path[path]))
    if found.gate_trainable != wanted.gate_trainable:
        by_name = {layer.name: layer for layer in source.gated_layers()}
        for layer in model.gated_layers():
            if layer.name in by_name and not (rows is None and layer is model.classifier):
                _translate_gates(by_name[layer.name], layer)


def _order_classifier(model: EncoderClassifier, rows: Sequence[int] | None):
    """Puts all that the head has for each output, gates and scores included, into the order of `rows`."""
    if rows is None or list(rows) == list(range(len(rows))):
        return
    for variable in model.classifier.weights:
        if variable.shape and variable.shape[-1] == len(rows):
            variable.assign(ops.convert_to_numpy(variable)[..., list(rows)])


def _translate_gates(source: GatedDense, target: GatedDense):
    """Gates from a layer that trains them into one that does not, or the other way round; what is closed stays so."""
    gates = ops.convert_to_numpy(source.effective_gates())
    if gates.shape == tuple(target.gates.shape):
        target.gates.assign(gates)
        target.mask_variable.assign(gates != 0 if target.gate_trainable else gates)
