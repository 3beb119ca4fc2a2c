"""Gates on the dense layers of any Keras model, put on and taken off in place."""

from __future__ import annotations

import fnmatch
import warnings
from collections.abc import Sequence

import keras
from keras import ops

from gated_bert.models.backbone import is_backbone
from gated_bert.models.gated_dense import GatedDense, GatedLayer
from gated_bert.models.gated_einsum import GatedEinsumDense, matrix_view
from gated_bert.support.errors import UserError

# By exact class: a subclass has a call of its own, which would be lost.
_GATED: dict[type[keras.layers.Layer], type[GatedLayer]] = {
    keras.layers.Dense: GatedDense, keras.layers.EinsumDense: GatedEinsumDense,
}  # fmt: skip
_PLAIN = {gated: plain for plain, gated in _GATED.items()}


def gated_layers(model: keras.Model) -> list[GatedLayer]:
    """The gated layers of `model`, however deep they lie in other layers."""
    return [layer for layer in model._flatten_layers() if isinstance(layer, GatedLayer)]


def put_gates(model: keras.Model, gate_rule: str, exclude: Sequence[str]) -> None:
    """Puts gates on a model's `Dense` and `EinsumDense` layers; `gated_bert.gate` says how.

    Args:
        model: a built model without gates.
        gate_rule: see `gated_bert.models.gate_rules`.
        exclude: paths or names of layers that get none.

    Raises:
        UserError: nothing to put gates on, or something that does not go with them; the model is unchanged.
    """
    if gated_layers(model):
        raise UserError(f"gate: {model.name} has gates already; ungate(model) takes them off")
    layers, left = [], []
    for label, layer in _dense_layers(model, exclude):
        reason = _reason_against(layer)
        if reason is None:
            layers.append((label, layer))
        else:
            left.append(f"{label} ({reason})")
    if not layers:
        raise UserError(f"gate: {model.name} has no Dense or EinsumDense layer to put gates on{_listed(left)}")
    for label, layer in layers:
        _put(layer, gate_rule, label)
    _uncompile(model)
    if left:
        warnings.warn(f"gate: no gates on {', '.join(left)}", stacklevel=3)


def ungate(model: keras.Model) -> keras.Model:
    """Multiplies the kernels of a gated model by their gates and makes its layers plain Keras layers again.

    Closed weights are zeros then, predictions are those from before, and a file of the model is read without this
    package. The values under closed gates, and scores, are gone. Works in place; compile the model afterwards.

    Args:
        model: a model that `gate` changed.

    Returns:
        The same model.

    Raises:
        UserError: the model has no gates that `gate` put on.

    Example:

    ```python
    model = gate(keras.Sequential([keras.Input((8,)), keras.layers.Dense(2)]))
    assert type(ungate(model).layers[0]) is keras.layers.Dense
    ```
    """
    layers = gated_layers(model)
    if not layers or is_backbone(model):
        raise UserError(f"ungate: {model.name} has no gates that gate(model) put on")
    for layer in layers:
        kernel = ops.multiply(layer._kernel, layer.kernel_shaped(layer.effective_gates()))
        # Through NumPy: under JAX one variable must not take over another's buffer.
        layer._kernel.assign(ops.convert_to_numpy(kernel))
        layer._remove_gates()
        layer.__class__ = _PLAIN[type(layer)]
    _uncompile(model)
    return model


def _dense_layers(model: keras.Model, exclude: Sequence[str]) -> list[tuple[str, keras.layers.Layer]]:
    """The layers not excluded, each with its path inside the model."""
    if not model.built:
        raise UserError(f"gate: {model.name} is not built; call it on a batch first, or model.build(input_shape)")
    found: list[keras.layers.Layer] = [layer for layer in model._flatten_layers() if isinstance(layer, tuple(_GATED))]
    for layer in found:
        if not layer.built:
            raise UserError(f"gate: layer {layer.name} of {model.name} is not built; call the model on a batch first")
    # Without the model's own name, which Keras numbers by how many models a process made.
    labelled = [(layer.path.removeprefix(f"{model.name}/"), layer) for layer in found]
    excluded = set()
    for pattern in exclude:
        met = {label for label, layer in labelled if any(fnmatch.fnmatchcase(w, pattern) for w in (label, layer.name))}
        if not met:
            names = ", ".join(label for label, _ in labelled)
            raise UserError(f"gate: exclude: {pattern!r} is no Dense or EinsumDense layer; there are {names}")
        excluded |= met
    return [(label, layer) for label, layer in labelled if label not in excluded]


def _reason_against(layer: keras.layers.Layer) -> str | None:
    """Why `layer` can have no gates, None where it can."""
    if type(layer) not in _GATED:
        return f"class {type(layer).__name__} has a call of its own"
    if layer.quantization_mode or layer.lora_enabled:
        return "quantised" if layer.quantization_mode else "its kernel is that of LoRA"
    if isinstance(layer, keras.layers.EinsumDense):
        try:
            matrix_view(layer.equation)
        except ValueError as error:
            return str(error)
    return None


def _listed(left: list[str]) -> str:
    return f"; not on {', '.join(left)}" if left else ""


def _put(layer: keras.layers.Layer, gate_rule: str, label: str):
    # The class is changed, not the layer: whatever holds it (an attention layer, a graph of layers) goes on holding it.
    layer.__class__ = _GATED[type(layer)]
    layer._set_gate_options(layer.name, None, 1.0, False, gate_rule)
    layer.label = label
    layer._tracker.unlock()
    with layer._open_name_scope():
        layer._add_gates()
    layer._tracker.lock()


def _uncompile(model: keras.Model):
    """Forgets functions that were traced with the layers as they were, and an optimiser for their variables."""
    for part in model._flatten_layers():
        if isinstance(part, keras.Model):
            part.compiled, part.optimizer = False, None
            part.train_function = part.test_function = part.predict_function = None
