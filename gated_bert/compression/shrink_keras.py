"""Shrinking Keras models of any kind: a copy of plain layers whose attention and feed-forward networks are smaller.

A layer that holds what becomes smaller, as keras-hub's encoders do, is taken apart: what its call does with the layers
inside it becomes a model of these, which Keras saves, loads and exports without this package.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import keras
from keras import ops
from keras.layers import Layer

from gated_bert.compression.alike import check_alike
from gated_bert.compression.kept import Matrix, check_round_to
from gated_bert.compression.onnx_erfc import let_keras_export
from gated_bert.compression.smaller_parts import Smaller, SmallerAttention, smaller_parts
from gated_bert.models.gate import plain_classes
from gated_bert.models.gated_dense import GatedLayer
from gated_bert.models.roles import graph_nodes, walk
from gated_bert.support.errors import UserError, one_line


def shrink_keras(model: keras.Model, round_to: int = 1) -> keras.Model:
    """A smaller model that computes in inference what a Keras model computes; `gated_bert.shrink` says how.

    Raises:
        UserError: `round_to` is refused, or the model cannot be copied; one line that names the layer.
    """
    check_round_to(round_to)
    smaller = smaller_parts(model, round_to)
    if not graph_nodes(model):
        return _from_configuration(model, smaller, round_to)
    _check_sharing(model)
    small = _Copy(model, smaller).made()
    check_alike(model, small)
    return small


def _from_configuration(model: keras.Model, smaller: list[Smaller], round_to: int) -> keras.Model:
    """A model of a class with a call of its own, made by its configuration with smaller models inside it."""
    held = {part: set(walk(part)) for part in model._layers if graph_nodes(part)}
    small = {part.name: shrink_keras(part, round_to) for part, inside in held.items()
             if any(inside.issuperset(plan.layers) for plan in smaller)}  # fmt: skip
    within = set().union(*held.values())
    alone = [layer.path for plan in smaller for layer in plan.layers if layer not in within]
    if alone:
        raise UserError(f"shrink: {model.name}, a subclassed {type(model).__name__}, is refused, since its call cannot "
                        f"be made with a smaller {alone[0]}; allowed: a functional or sequential model")  # fmt: skip
    left = set(small)

    def put(value: Any) -> Any:
        if isinstance(value, dict):
            described = value.get("config")
            name = described.get("name") if isinstance(described, dict) and "class_name" in value else None
            if name in small:
                left.discard(name)
                return keras.saving.serialize_keras_object(small[name])
            return {key: put(each) for key, each in value.items()}
        return [put(each) for each in value] if isinstance(value, list | tuple) else value

    try:
        with plain_classes(model), _not_compiled(model):
            made = type(model).from_config(put(model.get_config()))
            made.build_from_config(model.get_build_config())
            # Keras builds the layers, and does not say it of the model.
            made.built = True
    except Exception as error:
        raise _no_copy(model, error) from error
    if left:
        raise UserError(f"shrink: {model.name}, a subclassed {type(model).__name__}, is refused, since its "
                        f"configuration does not hold {min(left)}; allowed: that model alone, or a get_config that "
                        "describes it")  # fmt: skip
    _assign(model, made, [*model._trainable_variables, *model._non_trainable_variables])
    for source, target in zip(model._layers, made._layers, strict=True):
        if target.name in small:
            target.set_weights(small[target.name].get_weights())
        else:
            _copy_weights(source, target)
    return made


class _Copy:
    """A copy of a functional or sequential model.

    Args:
        model: the model.
        smaller: what of it gets smaller.
    """

    def __init__(self, model: keras.Model, smaller: list[Smaller]):
        self.model, self._smaller = model, smaller
        self._plans: dict[Layer, Smaller] = {layer: plan for plan in smaller for layer in plan.layers}
        # Layer of a copy that is taken apart → the one of the model.
        self._origins: dict[Layer, Layer] = {}
        self._clones: dict[Any, Any] = {}
        self._whole: dict[Any, Layer] = {}
        self._apart: dict[Any, keras.Model] = {}

    def made(self) -> keras.Model:
        """The copy, with its weights."""
        with plain_classes(self.model), _not_compiled(self.model):
            small = self._graph(self.model)
        for plan in self._smaller:
            plan.check(small, *(self._clones[layer] for layer in plan.layers))
        for origin, clone in self._clones.items():
            # A model, and what was taken apart, has no weights but those of its layers.
            copied = origin in self._plans or clone in self._whole
            if isinstance(clone, Layer) and not copied and not graph_nodes(clone):
                _copy_weights(origin, clone)
        # What closed neurons give is asked of the copies of layers between, which may have learnt something.
        for plan in self._smaller:
            plan.fill(small, *(self._clones[layer] for layer in plan.layers))
        # Keras exports no model that was never called.
        given = small.inputs[0] if isinstance(small, keras.Sequential) else small.input
        small(keras.tree.map_structure(lambda each: keras.KerasTensor(each.shape, each.dtype), given))
        let_keras_export(small)
        return small

    def _graph(self, model: keras.Model) -> keras.Model:
        _check_holder(model)
        self._check_scores(model)
        if isinstance(model, keras.Sequential):
            if not any(self._is_holder(layer) for layer in model.layers):
                return keras.models.clone_model(model, clone_function=self._clone)
            model = keras.Model(model.inputs[0], model.outputs[0], name=model.name)
        # By themselves clones call their inputs as tensors are called, and not as the layers.
        inputs = keras.tree.map_structure(
            lambda each: keras.Input(batch_shape=each.shape, dtype=each.dtype, name=each._keras_history.operation.name),
            model.input,
        )
        return keras.models.clone_model(model, inputs, self._clone, self._call)

    def _check_scores(self, model: keras.Model):
        nodes = graph_nodes(model)
        read = {id(each) for each in keras.tree.flatten([model.outputs, [node.input_tensors for node in nodes]])}
        for node in nodes:
            plan = self._plans.get(self._origin(node.operation))
            if isinstance(plan, SmallerAttention) and any(id(scores) in read for scores in node.outputs[1:]):
                raise UserError(f"shrink: {plan.layers[0].path} is refused, since the scores of its heads are read; "
                                "allowed: an attention whose output alone is read")  # fmt: skip

    def _is_holder(self, layer: Any) -> bool:
        """Whether what gets smaller is a part of a layer, which is no model of layers."""
        if not isinstance(layer, Layer) or graph_nodes(layer) or self._origin(layer) in self._plans:
            return False
        return any(self._origin(inside) in self._plans for inside in walk(layer))

    def _origin(self, layer: Any) -> Any:
        return self._origins.get(layer, layer)

    def _clone(self, layer: Any) -> Any:
        origin = self._origin(layer)
        if origin not in self._clones:
            if isinstance(layer, Layer) and graph_nodes(layer):
                self._clones[origin] = self._graph(layer)
                return self._clones[origin]
            try:
                config = layer.get_config()
                plan = self._plans.get(origin)
                clone = type(layer).from_config(config if plan is None else plan.config(origin, config))
            except Exception as error:
                raise _no_copy(layer, error) from error
            self._clones[origin] = clone
            if self._is_holder(layer):
                self._whole[clone] = layer
        return self._clones[origin]

    def _call(self, layer: Any, *args: Any, **kwargs: Any) -> Any:
        if layer not in self._whole:
            return layer(*args, **kwargs)
        tensors = [each for each in keras.tree.flatten((args, kwargs)) if isinstance(each, keras.KerasTensor)]
        if layer not in self._apart:
            try:
                self._apart[layer] = self._graph(self._taken_apart(layer, tensors, args, kwargs))
            except UserError:
                raise
            except Exception as error:
                raise _no_copy(layer, error) from error
        return self._apart[layer](tensors)

    def _taken_apart(self, layer: Layer, tensors: list, args: tuple, kwargs: dict[str, Any]) -> keras.Model:
        """What a copy of a layer does with the layers inside it, as a model of these."""
        _check_holder(self._whole[layer])
        layer(*args, **kwargs)
        for inside, twin in zip(walk(self._whole[layer]), walk(layer), strict=True):
            self._origins[twin] = self._origin(inside)
        inputs = [keras.Input(batch_shape=tensor.shape, name=f"{layer.name}_{place}",
                              dtype=layer.compute_dtype if "float" in tensor.dtype else tensor.dtype)
                  for place, tensor in enumerate(tensors)]  # fmt: skip
        if any(getattr(tensor, "_keras_mask", None) is not None for tensor in tensors):
            raise UserError(f"shrink: {layer.path} is refused, since what it reads comes with a mask of its own "
                            "(mask_zero=True); allowed: a mask that is an input, padding_mask=…")  # fmt: skip
        given = dict(zip(map(id, tensors), inputs, strict=True))
        args, kwargs = keras.tree.map_structure(lambda each: given.get(id(each), each), (args, kwargs))
        return keras.Model(inputs, layer.call(*args, **kwargs), name=layer.name)


def _check_holder(holder: Layer):
    """Refuses a layer that has variables beside those of the layers inside it, which alone are copied."""
    names = [variable.name for variable in (*holder._trainable_variables, *holder._non_trainable_variables)]
    if names:
        raise UserError(f"shrink: {holder.path}, a {type(holder).__name__}, is refused, since it holds weights "
                        f"of its own, {', '.join(names)}, beside what gets smaller; allowed: weights of layers in "
                        "it")  # fmt: skip


def _copy_weights(origin: Layer, clone: Layer):
    try:
        for source, target in zip(walk(origin), walk(clone), strict=True):
            if isinstance(source, GatedLayer):
                kernel = source.kernel_shaped(ops.convert_to_tensor(Matrix.of(source).kernel))
                values = [kernel, *([] if source.bias is None else [source.bias])]
            else:
                values = [*source._trainable_variables, *source._non_trainable_variables]
            _assign(source, target, values)
            if target.trainable != source.trainable:
                target.trainable = source.trainable
    except ValueError as error:
        raise _no_copy(origin, error) from error


def _assign(source: Layer, target: Layer, values: list):
    """Gives the variables that a layer has beside those of the layers inside it their values."""
    try:
        for variable, value in zip(
            [*target._trainable_variables, *target._non_trainable_variables], values, strict=True
        ):
            # Through NumPy: under JAX one variable must not take over another's buffer.
            variable.assign(ops.convert_to_numpy(value))
    except ValueError as error:
        raise _no_copy(source, error) from error


def _no_copy(layer: Any, error: Exception) -> UserError:
    return UserError(f"shrink: {layer.name}, a {type(layer).__name__}, cannot be copied ({one_line(error)}); allowed: "
                     "layers that Keras makes again from their get_config")  # fmt: skip


def _check_sharing(model: keras.Model):
    """Refuses layers that several others hold: copies would have one each."""
    holders: dict[Layer, Layer] = {}
    for graph in walk(model):
        for node in graph_nodes(graph):
            layer = node.operation
            if isinstance(layer, Layer) and not graph_nodes(layer):
                for inside in walk(layer):
                    other = holders.setdefault(inside, layer)
                    if other is not layer:
                        raise UserError(f"shrink: {model.name} is refused, since {other.name} and {layer.name} share "
                                        f"{inside.name}; allowed: the backbone alone, with a new head")  # fmt: skip


@contextlib.contextmanager
def _not_compiled(model: keras.Model) -> Iterator[None]:
    """Lets Keras clone a model without what it was compiled with."""
    compiled = [part for part in walk(model) if isinstance(part, keras.Model) and part.compiled]
    for part in compiled:
        part.compiled = False
    try:
        yield
    finally:
        for part in compiled:
            part.compiled = True
