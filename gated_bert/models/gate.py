"""Gates on the dense layers of any Keras model, put on and taken off in place."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Mapping, Sequence

import keras
from keras import ops

from gated_bert.models.backbone import is_backbone
from gated_bert.models.gated_dense import GatedDense, GatedLayer
from gated_bert.models.gated_einsum import GatedEinsumDense, matrix_view
from gated_bert.models.roles import ASIDE, find_roles, is_attention, matching, projections, shared_layers, walk
from gated_bert.support.errors import UserError

# By exact class: a subclass has a call of its own, which would be lost.
_GATED: dict[type[keras.layers.Layer], type[GatedLayer]] = {
    keras.layers.Dense: GatedDense, keras.layers.EinsumDense: GatedEinsumDense,
}  # fmt: skip
_PLAIN = {gated: plain for plain, gated in _GATED.items()}


def gated_layers(model: keras.Model) -> list[GatedLayer]:
    """The gated layers of `model`, however deep they lie in other layers, from input to output where that is known."""
    return [layer for layer in walk(model) if isinstance(layer, GatedLayer)]


def put_gates(
    model: keras.Model,
    gate_rule: str,
    exclude: str | Sequence[str] = (),
    include: str | Sequence[str] = (),
    roles: Mapping[str, str | Sequence[str]] | None = None,
) -> None:
    """Puts gates on a model's `Dense` and `EinsumDense` layers; `gated_bert.gate` says how.

    Args:
        model: a built model without gates.
        gate_rule: see `gated_bert.models.gate_rules`.
        exclude: paths or names of layers that get none.
        include: those of layers that would get none without being asked for.
        roles: role → those of the layers that have it.

    Raises:
        ConfigError: an unknown role.
        UserError: nothing to put gates on, or something that does not go with them; the model is unchanged.
    """
    if gated_layers(model):
        raise UserError(f"gate: {model.name} has gates already; ungate(model) takes them off")
    labelled = dense_layers(model)
    places = find_roles(model, labelled, roles)
    excluded = matching("exclude", model, labelled, exclude)
    asked = matching("include", model, labelled, include)
    shared = shared_layers(model)
    # A subclass may rotate queries and keys.
    whole = {layer for part in walk(model) if is_attention(part) and type(part) is not keras.layers.MultiHeadAttention
             for layer in projections(part).values()}  # fmt: skip
    layers, left = [], []
    for label, layer in labelled:
        if layer in excluded or (layer.name in ASIDE and layer not in asked):
            continue
        reason = _reason_against(layer)
        if reason is None and layer in shared and layer not in asked:
            reason = f"{shared[layer]}; include={label!r} takes it"
        if reason is None:
            layers.append((label, layer))
        else:
            left.append(f"{label} ({reason})")
    if not layers:
        raise UserError(f"gate: {model.name} has no Dense or EinsumDense layer to put gates on{_listed(model, left)}")
    for label, layer in layers:
        _put(layer, gate_rule, label, *places.get(layer, (layer.name, None)))
        layer.whole_heads = layer in whole
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


@contextlib.contextmanager
def plain_classes(model: keras.Model) -> Iterator[None]:
    """Makes the gated layers of a model answer as the plain ones that they were, as when Keras describes them."""
    layers = {layer: type(layer) for layer in gated_layers(model)}
    for layer, gated in layers.items():
        layer.__class__ = _PLAIN[gated]
    try:
        yield
    finally:
        for layer, gated in layers.items():
            layer.__class__ = gated


def dense_layers(model: keras.Model) -> list[tuple[str, keras.layers.Layer]]:
    """The `Dense` and `EinsumDense` layers of a built model, from input to output, each with its path inside it.

    Raises:
        UserError: the model, or one of them, is not built.
    """
    if not model.built:
        raise UserError(f"gate: {model.name} is not built; call it on a batch first, or model.build(input_shape)")
    found: list[keras.layers.Layer] = [layer for layer in walk(model) if isinstance(layer, tuple(_GATED))]
    for layer in found:
        if not layer.built:
            raise UserError(f"gate: layer {layer.name} of {model.name} is not built; call the model on a batch first")
    # Without the model's own name, which Keras numbers by how many models a process made.
    return [(layer.path.removeprefix(f"{model.name}/"), layer) for layer in found]


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


def _listed(model: keras.Model, left: list[str]) -> str:
    convolutions = [layer for layer in walk(model) if "Conv" in type(layer).__name__]
    left = left + [f"{layer.name} (a {type(layer).__name__}: convolutions get none)" for layer in convolutions]
    return f"; not on {', '.join(left)}" if left else ""


def _put(layer: keras.layers.Layer, gate_rule: str, label: str, role: str, layer_index: int | None):
    # The class is changed, not the layer: whatever holds it (an attention layer, a graph of layers) goes on holding it.
    layer.__class__ = _GATED[type(layer)]
    layer._set_gate_options(role, layer_index, 1.0, False, gate_rule)
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
