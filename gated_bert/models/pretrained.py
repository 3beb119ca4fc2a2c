"""Pretrained weights: from a Hugging Face folder or id, Google's TensorFlow files, or a model folder."""

from __future__ import annotations

import warnings

import keras
import numpy as np
from keras import ops

from gated_bert.errors import UserError
from gated_bert.models.architecture import BertConfig
from gated_bert.models.bert import BertClassifier
from gated_bert.models.checkpoints import HEAD, SPAN_HEAD, open_checkpoint
from gated_bert.models.folder import is_model_folder, load_model, read_architecture
from gated_bert.models.gated_dense import GatedDense


def read_pretrained_architecture(path_or_id: str, num_layers: int | None = None) -> BertConfig:
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


def load_pretrained(model: BertClassifier, path_or_id: str):
    """Puts pretrained weights into a model, whose layers may be the first few of them.

    The head is taken over where the checkpoint has one of the same shape; otherwise it stays as it is. From a model
    folder the closed gates are taken over too.

    Args:
        model: the model, with the sizes of `read_pretrained_architecture`.
        path_or_id: as for `read_pretrained_architecture`.

    Raises:
        UserError: a missing, truncated or malformed file, or a tensor of another shape.
    """
    if is_model_folder(path_or_id):
        _load_from_model_folder(model, path_or_id)
        return
    checkpoint = open_checkpoint(path_or_id)
    variables = checkpoint_variables(model)
    arrays = checkpoint.read(variables)
    _drop_head_of_other_shape(arrays, model)
    if model.encoder.pooler is not None and "pooler/dense/kernel" not in arrays:
        warnings.warn(f"{checkpoint.weights_path}: no pooler in it; the pooler starts from random values", stacklevel=2)
    for name, variable in variables.items():
        if name in arrays:
            _assign(variable, arrays[name], f"{checkpoint.weights_path}: {name}")
        elif not name.startswith(("pooler/", *HEAD, *SPAN_HEAD)):
            raise UserError(f"{checkpoint.weights_path}: no {name} in it; weights of a BERT are needed")


def checkpoint_variables(model: BertClassifier) -> dict[str, keras.Variable]:
    """The variables of the model that a checkpoint can hold, under the names of `checkpoints`."""
    bert = model.encoder
    named = {
        "embeddings/word_embeddings": bert.embeddings.token.embeddings,
        "embeddings/position_embeddings": bert.embeddings.position,
        "embeddings/token_type_embeddings": bert.embeddings.token_type.embeddings,
        **_norm("embeddings", bert.embeddings.norm),
    }
    for index, block in enumerate(bert.blocks):
        stem = f"encoder/layer_{index}"
        for role in ("query", "key", "value"):
            named |= _dense(f"{stem}/attention/self/{role}", getattr(block.attention, role))
        named |= _dense(f"{stem}/attention/output/dense", block.attention.output_dense)
        named |= _norm(f"{stem}/attention/output", block.attention_norm)
        named |= _dense(f"{stem}/intermediate/dense", block.ffn.intermediate)
        named |= _dense(f"{stem}/output/dense", block.ffn.output_dense)
        named |= _norm(f"{stem}/output", block.ffn_norm)
    if bert.pooler is not None:
        named |= _dense("pooler/dense", bert.pooler)
    return named | dict(zip(_head(model), (model.classifier.raw_kernel, model.classifier.bias), strict=True))


def _head(model: BertClassifier) -> tuple[str, ...]:
    """Names of the head's kernel and bias: a classifier is no span head, whatever its shape."""
    return tuple(SPAN_HEAD if model.bert_config.span_head else HEAD)


def _dense(stem: str, layer) -> dict:
    return {f"{stem}/kernel": layer.raw_kernel, f"{stem}/bias": layer.bias}


def _norm(stem: str, layer) -> dict:
    return {f"{stem}/LayerNorm/gamma": layer.gamma, f"{stem}/LayerNorm/beta": layer.beta}


def _drop_head_of_other_shape(arrays: dict[str, np.ndarray], model: BertClassifier):
    names = _head(model)
    head = [arrays.pop(name, None) for name in names]
    if any(array is None for array in head):
        return
    # Checkpoints hold the head as [outputs, hidden].
    kernel = head[0].T
    if kernel.shape == tuple(model.classifier.raw_kernel.shape):
        arrays.update(zip(names, (kernel, head[1]), strict=True))


def _assign(variable: keras.Variable, array: np.ndarray, where: str):
    if array.shape != tuple(variable.shape):
        found, needed = ("x".join(str(size) for size in shape) for shape in (array.shape, variable.shape))
        raise UserError(
            f"{where} has the shape {found}, the model needs {needed}; weights and sizes do not belong together"
        )
    variable.assign(array)


def _load_from_model_folder(model: BertClassifier, folder: str):
    source = load_model(folder).model
    found, wanted = source.bert_config, model.bert_config
    for name, there, here in (
        ("vocab_size", found.vocab_size, wanted.vocab_size),
        ("hidden_size", found.hidden_size, wanted.hidden_size),
        ("max_position", found.max_position, wanted.max_position),
        ("layers", found.layers[: wanted.num_layers], wanted.layers),
    ):
        if there != here:
            raise UserError(
                f"{folder}: its {name} is {there}, the model's is {here}; weights and sizes do not belong together"
            )
    by_path = {variable.path.split("/", 1)[1]: variable for variable in source.weights}
    for variable in model.weights:
        path = variable.path.split("/", 1)[1]
        same_head = (found.num_outputs, found.span_head) == (wanted.num_outputs, wanted.span_head)
        other_head = path.startswith("classifier/") and not same_head
        if path in by_path and not other_head:
            # Through NumPy: under JAX one variable must not take over another's buffer.
            variable.assign(ops.convert_to_numpy(by_path[path]))
    if found.gate_trainable != wanted.gate_trainable:
        by_name = {layer.name: layer for layer in source.gated_layers()}
        for layer in model.gated_layers():
            if layer.name in by_name:
                _translate_gates(by_name[layer.name], layer)


def _translate_gates(source: GatedDense, target: GatedDense):
    """Gates from a layer that trains them into one that does not, or the other way round; what is closed stays so."""
    gates = ops.convert_to_numpy(source.effective_gates())
    if gates.shape == tuple(target.gates.shape):
        target.gates.assign(gates)
        target.mask_variable.assign(gates != 0 if target.gate_trainable else gates)
