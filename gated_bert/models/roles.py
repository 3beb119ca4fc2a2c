"""What the dense layers of any Keras model do in its transformer blocks, found by how it is put together."""

from __future__ import annotations

import fnmatch
import itertools
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import keras
from keras.layers import Layer

from gated_bert.config.space import ENCODER_ROLES
from gated_bert.models.gated_dense import GatedLayer
from gated_bert.models.gated_einsum import matrix_view
from gated_bert.support.checks import choose
from gated_bert.support.errors import UserError

Labelled = Sequence[tuple[str, Layer]]
"""Dense layers, each with its path inside the model."""
Place = tuple[str, int]
"""A layer's role, and the number of its block."""
HEAD_ROLES, NEURON_ROLES = ENCODER_ROLES[:4], ENCODER_ROLES[4:]
ASIDE = ("pooled_dense", "embedding_projection", "embeddings_projection")
"""Names of layers that belong to no block of an encoder and are no head either, as keras-hub has them."""


def walk(model: Layer) -> Iterator[Layer]:
    """A layer and all layers inside it, each once, from input to output where it is known."""
    seen, waiting = set(), [model]
    while waiting:
        layer = waiting.pop()
        if id(layer) not in seen:
            seen.add(id(layer))
            yield layer
            waiting.extend(reversed(layer._layers))


def graph_nodes(layer: Layer) -> list[Any]:
    """The calls that a functional or sequential model is made of, nothing of other layers."""
    # Of a subclassed model's own call nothing is seen.
    graph = getattr(layer, "_functional", None) or layer
    return [node for nodes in getattr(graph, "_nodes_by_depth", {}).values() for node in nodes]


def is_attention(layer: Layer) -> bool:
    """Whether a layer is Keras' attention, without the gate of its own that it may have."""
    return isinstance(layer, keras.layers.MultiHeadAttention) and not layer._use_gate


def projections(attention: Layer) -> dict[str, Layer]:
    """Role → matrix of an attention."""
    found = (attention._query_dense, attention._key_dense, attention._value_dense, attention._output_dense)
    return dict(zip(HEAD_ROLES, found, strict=True))


def _attentions(parent: Layer) -> list[dict[str, Layer]]:
    return [projections(part) for part in parent._layers if is_attention(part)]


def _feed_forward(parent: Layer) -> list[dict[str, Layer]]:
    # As keras-hub calls the two in its encoders.
    inside = {part.name: part for part in parent._layers if isinstance(part, keras.layers.Dense)}
    names = dict(zip(NEURON_ROLES, ("feedforward_intermediate_dense", "feedforward_output_dense"), strict=True))
    return [{role: inside[name] for role, name in names.items()}] if inside.keys() >= set(names.values()) else []


FINDERS: tuple[Callable[[Layer], list[dict[str, Layer]]], ...] = (_attentions, _feed_forward)
"""What each knows directly inside a layer, block after block: role → layer."""


def find_roles(
    model: keras.Model, labelled: Labelled, given: Mapping[str, str | Sequence[str]] | None = None
) -> dict[Layer, Place]:
    """Which layers do what in which block, blocks counted from 0.

    Args:
        model: a built model.
        labelled: its dense layers.
        given: role → names or paths of the layers that have it, the first in the first block; `*` stands for anything.
            It stands beside what is found.

    Raises:
        ConfigError: an unknown role.
        UserError: a name without a match, or layers that do not go together.
    """
    found: dict[Layer, Place] = {}
    count = 0
    for parent in walk(model):
        parts = [finder(parent) for finder in FINDERS]
        for blocks in parts:
            found.update({layer: (role, count + number) for number, roles in enumerate(blocks)
                          for role, layer in roles.items()})  # fmt: skip
        count += max(map(len, parts))
    if given:
        found.update(_given_roles(model, labelled, given, found, count))
    return found


def _given_roles(model, labelled, given, found, count) -> dict[Layer, Place]:
    chosen: dict[str, list[tuple[str, Layer]]] = {}
    for role, patterns in given.items():
        choose("roles", role, ENCODER_ROLES)
        met = matching("roles", model, labelled, patterns)
        chosen[role] = [(label, layer) for label, layer in labelled if layer in met]
    places: dict[Layer, Place] = {}
    for family in (HEAD_ROLES, NEURON_ROLES):
        own = {role: chosen[role] for role in family if role in chosen}
        if not own:
            continue
        if family is NEURON_ROLES and len(own) < 2 or len({len(layers) for layers in own.values()}) > 1:
            counts = ", ".join(f"{role} {len(own.get(role, ()))}" for role in family)
            raise UserError(f"gate: roles: of {counts} layers are refused; allowed: equally many, one of each a block")
        taken = {index for role, index in found.values() if role in family}
        numbers = itertools.chain((index for index in range(count) if index not in taken), itertools.count(count))
        for index, block in zip(numbers, zip(*own.values(), strict=True), strict=False):
            _fit(dict(zip(own, block, strict=True)))
            for role, (label, layer) in zip(own, block, strict=True):
                if layer in found or layer in places:
                    known = (found | places)[layer][0]
                    raise UserError(f"gate: roles: {label} as {role} is refused; allowed: {known}, which it is already")
                places[layer] = (role, index)
    return places


def _fit(block: Mapping[str, tuple[str, Layer]]):
    """Refuses a network whose second matrix does not read what its first one puts out, and heads that are not seen."""
    if set(block) == set(NEURON_ROLES):
        (first, reads), (second, writes) = (block[role] for role in NEURON_ROLES)
        neurons, rows = matrix_shape(reads)[1], matrix_shape(writes)[0]
        if neurons != rows:
            raise UserError(f"gate: roles: {second} with {rows} inputs is refused; allowed: a layer that reads the "
                            f"{neurons} outputs of {first}")  # fmt: skip
        return
    heads = {layer._kernel.shape[0 if role == "attention_output" else 1] if len(layer._kernel.shape) == 3 else 0
             for role, (_, layer) in block.items()}  # fmt: skip
    if len(heads) > 1 or 0 in heads:
        raise UserError(f"gate: roles: {', '.join(label for label, _ in block.values())} are refused; allowed: layers "
                        "whose kernels show their heads, [in, heads, dim] or [heads, dim, out]")  # fmt: skip


def matrix_shape(layer: Layer) -> tuple[int, int]:
    """Rows and columns of the kernel of a `Dense` or an `EinsumDense` of one matrix."""
    if not isinstance(layer, keras.layers.EinsumDense):
        return tuple(layer._kernel.shape)
    view = matrix_view(layer.equation)
    sizes = [layer._kernel.shape[axis] for axis in view.order]
    return math.prod(sizes[: view.rows]), math.prod(sizes[view.rows :])


def matching(what: str, model: keras.Model, labelled: Labelled, patterns: str | Sequence[str]) -> set[Layer]:
    """The dense layers that names or paths with `*` mean.

    Raises:
        UserError: one that means none.
    """
    found = set()
    for pattern in (patterns,) if isinstance(patterns, str) else patterns:
        met = {layer for label, layer in labelled
               if fnmatch.fnmatchcase(label, pattern) or fnmatch.fnmatchcase(layer.name, pattern)}  # fmt: skip
        if not met:
            other = next((layer for layer in walk(model) if fnmatch.fnmatchcase(layer.name, pattern)), None)
            kind = "" if other is None else f" but a {type(other).__name__}, which gets no gates"
            names = ", ".join(label for label, _ in labelled)
            raise UserError(f"gate: {what}: {pattern!r} is no Dense or EinsumDense layer{kind}; there are {names}")
        found |= met
    return found


def by_block(layers: Iterable[GatedLayer]) -> dict[int, dict[str, GatedLayer]]:
    """Block → role → layer, of those that have both.

    Raises:
        UserError: two layers of one block have one role.
    """
    found: dict[int, dict[str, GatedLayer]] = {}
    for layer in layers:
        # Without a block a role is no more than a name.
        if layer.layer_index is not None:
            other = found.setdefault(layer.layer_index, {}).setdefault(layer.role, layer)
            if other is not layer:
                raise UserError(f"gate: {other.path} and {layer.path} are both {layer.role} of block "
                                f"{layer.layer_index}; allowed: one of each, gate the whole model at once")  # fmt: skip
    return found


def heads_of(layers: Iterable[GatedLayer]) -> tuple[int, ...]:
    """Attention heads of each block of a model of any kind, 0 where there are none or their number is not seen; nothing
    where no block shows its own, as this package's models do not."""
    found = {layer.layer_index: layer._kernel.shape[1] for layer in layers
             if layer.role == "query" and layer.layer_index is not None and len(layer._kernel.shape) == 3}  # fmt: skip
    if not found:
        return ()
    last = max((layer.layer_index for layer in layers if layer.layer_index is not None), default=-1)
    return tuple(found.get(index, 0) for index in range(last + 1))


def shared_layers(model: keras.Model) -> dict[Layer, str]:
    """Layers that stand in several places of a model, with what is to be said of them."""
    uses: Counter[Layer] = Counter()
    owners: dict[int, set[int]] = {}
    for part in walk(model):
        for node in graph_nodes(part):
            uses[node.operation] += 1
        for variable in (*part._trainable_variables, *part._non_trainable_variables):
            owners.setdefault(id(variable), set()).add(id(part))
    found: dict[Layer, str] = {}
    for layer, count in uses.items():
        if count > 1 and isinstance(layer, Layer):
            found.update({inside: f"called {count} times" for inside in walk(layer)})
    for layer in walk(model):
        kernel = getattr(layer, "_kernel", None)
        if kernel is not None and len(owners.get(id(kernel), ())) > 1:
            found.setdefault(layer, "its kernel is another layer's too")
    return found
