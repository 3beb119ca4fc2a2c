"""Attention layers and feed-forward networks of a Keras model, and what they are with fewer units."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import ops
from keras.layers import Layer

from gated_bert.compression.kept import Heads, KeptUnits, Matrix, Neurons, as_array, kept_of
from gated_bert.models.architecture import LayerSizes
from gated_bert.models.gate import dense_layers
from gated_bert.models.gated_dense import GatedLayer
from gated_bert.models.roles import (
    HEAD_ROLES,
    NEURON_ROLES,
    by_block,
    find_roles,
    graph_nodes,
    is_attention,
    projections,
    walk,
)
from gated_bert.support.errors import UserError


@dataclass(frozen=True, eq=False)
class SmallerAttention:
    """What becomes of an attention layer.

    Attributes:
        layers: the layer.
        heads: its matrices.
        kept: what stays of them.
    """

    layers: tuple[Layer, ...]
    heads: Heads
    kept: KeptUnits

    def config(self, layer: Layer, config: dict[str, Any]) -> dict[str, Any]:
        """The layer's configuration with the sizes that it gets."""
        sizes = self.kept.sizes
        # Of no heads one that gives nothing stays: Keras has no attention without.
        return config | {"num_heads": sizes.num_heads or 1, "key_dim": sizes.query_key_dim or 1,
                         "value_dim": sizes.value_dim or 1}  # fmt: skip

    def check(self, model: keras.Model, small: Layer) -> None:
        """Refuses what `fill` could not do before anything has its values."""

    def fill(self, model: keras.Model, small: Layer) -> None:
        """Gives the smaller layer, a part of `model`, its values."""
        kept, heads, made = self.kept, self.heads, projections(small)
        # Scores are divided by the root of the dimensions that there are.
        scale = np.sqrt(small.key_dim * heads.num_heads / heads.query.kernel.shape[1])
        _set(made["query"], heads.query.kernel[:, kept.query_key] * scale, heads.query.bias[kept.query_key] * scale)
        _set(made["key"], heads.key.kernel[:, kept.query_key], heads.key.bias[kept.query_key])
        _set(made["value"], heads.value.kernel[:, kept.value], heads.value.bias[kept.value])
        # The weights of a query sum to one, so that a closed value column gives its bias whatever the weights.
        added = heads.output.constant(heads.value.bias, kept.value)
        _set(made["attention_output"], heads.output.kernel[kept.value], heads.output.bias + added)


@dataclass(frozen=True, eq=False)
class SmallerNetwork:
    """What becomes of a feed-forward network.

    Attributes:
        layers: the one that makes neurons, and the one that reads them.
        neurons: their matrices.
        kept: the neurons that stay.
    """

    layers: tuple[Layer, ...]
    neurons: Neurons
    kept: np.ndarray

    def config(self, layer: Layer, config: dict[str, Any]) -> dict[str, Any]:
        """As of an attention."""
        # What closed neurons give goes into the bias of what reads them; of no neurons one that is not read stays.
        return config | ({"units": max(1, len(self.kept))} if layer is self.layers[0] else {"use_bias": True})

    def check(self, model: keras.Model, first: Layer, last: Layer) -> None:
        """As of an attention.

        Raises:
            UserError: `last` does not read each neuron for itself.
        """
        _between(model, first, last)

    def fill(self, model: keras.Model, first: Layer, last: Layer) -> None:
        """As of an attention; raises as `check`."""
        kept, reads, writes = self.kept, self.neurons.intermediate, self.neurons.output
        emitted = _between(model, first, last)(reads.bias[None])[0]
        _set(first, reads.kernel[:, kept], reads.bias[kept])
        _set(last, writes.kernel[kept], writes.bias + writes.constant(emitted, kept))


Smaller = SmallerAttention | SmallerNetwork


def smaller_parts(model: keras.Model, round_to: int) -> list[Smaller]:
    """The attention layers and networks of a model that get smaller.

    Args:
        model: a built model, with gates or without.
        round_to: see `shrink`.
    """
    labelled = dense_layers(model)
    seen = find_roles(model, labelled)
    found: list[Smaller] = []
    networks: dict[int, dict[str, Layer]] = {}
    for layer, (role, index) in seen.items():
        if role in NEURON_ROLES:
            networks.setdefault(index, {})[role] = layer
    # Blocks of what is seen are counted anew: parts that had gates before they were joined have the same numbers.
    given = by_block(layer for _, layer in labelled
                     if isinstance(layer, GatedLayer) and layer not in seen and layer.role in NEURON_ROLES)  # fmt: skip
    for layer in walk(model):
        if is_attention(layer):
            heads = _heads(layer)
            kept = kept_of(heads, None, round_to)
            now = LayerSizes(layer.num_heads, layer.key_dim, layer.value_dim, 0)
            if kept.sizes != now:
                _check_own(layer, list(projections(layer).values()))
                found.append(SmallerAttention((layer,), heads, kept))
    for network in (*networks.values(), *given.values()):
        first, last = (network.get(role) for role in NEURON_ROLES)
        if isinstance(first, keras.layers.Dense) and isinstance(last, keras.layers.Dense):
            neurons = Neurons(Matrix.of(first), Matrix.of(last))
            left = kept_of(None, neurons, round_to).neurons
            if len(left) < first.units:
                for layer in (first, last):
                    _check_own(layer, [layer])
                found.append(SmallerNetwork((first, last), neurons, left))
    return found


def _check_own(layer: Layer, known: Sequence[Layer]):
    """Refuses variables of a layer, or inside it, that are not the kernels, biases and gates of known dense layers."""
    names = []
    for part in walk(layer):
        kept = () if part not in known else (part.variables if isinstance(part, GatedLayer) else
                                             (part._kernel, part.bias))  # fmt: skip
        names += [variable.name for variable in (*part._trainable_variables, *part._non_trainable_variables)
                  if not any(variable is each for each in kept)]  # fmt: skip
    if names:
        raise UserError(f"shrink: {layer.path}, a {type(layer).__name__}, is refused, since it has weights of its own, "
                        f"{', '.join(names)}; allowed: kernels and biases alone in what gets smaller")  # fmt: skip


def _heads(attention: Layer) -> Heads:
    query, key, value, output = (Matrix.of(projections(attention)[role]) for role in HEAD_ROLES)
    whole = type(attention) is not keras.layers.MultiHeadAttention
    # Without dropout Keras' fused attention is called, which under JAX takes one number alone.
    alike = not attention.dropout and attention.key_dim == attention.value_dim
    return Heads(query, key, value, output, attention.num_heads, whole, alike)


def _set(layer: Layer, kernel: np.ndarray, bias: np.ndarray):
    """Values of a layer's variables; of no units zeros for the one that stays."""
    layer.kernel.assign(np.reshape(kernel, layer.kernel.shape) if kernel.size else np.zeros(layer.kernel.shape))
    if layer.bias is not None:
        layer.bias.assign(np.reshape(bias, layer.bias.shape) if bias.size else np.zeros(layer.bias.shape))


def _between(model: keras.Model, first: Layer, last: Layer) -> Callable[[np.ndarray], np.ndarray]:
    """What becomes of neurons, [1 or 2, neurons], between the layer that makes them and the one that reads them.

    Two are those of neighbours along every axis.

    Raises:
        UserError: `last` reads something else, `first` is read elsewhere too, or neurons meet in between.
    """
    graph = next(part for part in walk(model) if any(node.operation is last for node in graph_nodes(part)))
    nodes = graph_nodes(graph)
    node = next(node for node in nodes if node.operation is last)
    rank = len(node.input_tensors[0].shape)
    steps: list[Any] = []
    while node is not None and node.operation is not first:
        read = node.input_tensors
        readers = sum(tensor is read[0] for each in nodes for tensor in each.input_tensors) if len(read) == 1 else 0
        if readers != 1 or any(tensor is read[0] for tensor in graph.outputs):
            node = None
        else:
            steps.append(node)
            history = read[0]._keras_history
            node = history.operation and history.operation._inbound_nodes[history.node_index]

    def function(values: np.ndarray) -> np.ndarray:
        ends = (*[len(values)] * (rank - 1), -1)
        places = np.indices(ends[:-1]).sum(0) % len(values)
        tensor = first.activation(ops.convert_to_tensor(values[places], first.compute_dtype))
        for step in reversed(steps[1:]):
            symbol = step.input_tensors[0]
            args, kwargs = keras.tree.map_structure(
                lambda each, symbol=symbol, tensor=tensor: tensor if each is symbol else each,
                (step.arguments.args, step.arguments.kwargs),
            )
            tensor = step.operation(*args, **kwargs)
        found = as_array(tensor)
        rows = np.stack([found[places == number][0] for number in range(len(values))])
        if found.shape != (*places.shape, values.shape[1]) or not np.allclose(found, rows[places], atol=1e-5):
            raise ValueError(f"places meet, {found.shape}")
        return rows

    if node is None or not _each_alone(function, first.units):
        raise UserError(f"shrink: {last.path} does not read the neurons of {first.path} one by one; allowed: these two "
                        "layers with dropout and activation functions between them")  # fmt: skip
    return function


def _each_alone(function: Callable[[np.ndarray], np.ndarray], size: int) -> bool:
    """Whether a function of neurons is one of each neuron, at each place for itself."""
    values = np.linspace(-2, 2, max(size, 4), dtype=np.float32)
    pair = np.stack([values, np.sin(5 * values)])
    try:
        alone = np.concatenate([function(row[None]) for row in pair])
        return np.allclose(function(pair), alone, atol=1e-5) and np.allclose(
            alone[:, ::3], function(pair[:, ::3]), atol=1e-5
        )
    except Exception:  # Whatever Keras or a backend says of shapes.
        return False
