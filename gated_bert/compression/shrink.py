"""Shrinking: from closed weights to smaller matrices that compute the same."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from keras import ops

from gated_bert.models.architecture import Architecture, LayerSizes
from gated_bert.models.attention import SelfAttention
from gated_bert.models.backbone import EncoderClassifier
from gated_bert.models.encoder import EncoderBlock, FeedForward
from gated_bert.models.gated_dense import GatedDense
from gated_bert.support.errors import UserError


@dataclass(frozen=True, eq=False)
class KeptUnits:
    """What stays of one encoder layer.

    Attributes:
        sizes: the layer's sizes afterwards.
        query_key: columns of query and key that stay, head by head.
        value: columns of value, which are rows of the attention output.
        neurons: columns of the first feed-forward matrix, which are rows of the second.
    """

    sizes: LayerSizes
    query_key: np.ndarray
    value: np.ndarray
    neurons: np.ndarray


def shrink(model: EncoderClassifier, round_to: int = 1) -> EncoderClassifier:
    """A model of smaller matrices that computes in inference what `model` computes, whatever its biases.

    It looks at weights that multiply by zero, closed or zero themselves, and at no pattern. A value dimension or
    neuron without open inputs emits a constant, which goes into the next bias; one that nobody reads just goes. A
    dimension of query and key goes where it adds the same to all scores of a query, which the softmax does not see:
    where the key's column is closed, or the query's is and its bias is zero; of rotated ones none goes alone. All
    heads of a layer keep as many dimensions as the largest needs. What remains keeps its gates, so that the model
    trains on, and can be pruned and shrunk again.

    Args:
        model: any model; it is not changed.
        round_to: round sizes up to multiples of this where closed units are there to fill them: neurons, dimensions of
            heads (to the greatest common divisor with their present number), heads × dimensions.

    Returns:
        The smaller model, with `gate_rule="fixed"`, not compiled. Where nothing can be shrunk, the layers of its
        `architecture` are those of `model`.

    Raises:
        UserError: `round_to` is no whole number from 1 up.

    Example:

    ```python
    model = BertClassifier(BertConfig.uniform(1, 16, 2, 32, vocab_size=100))
    Pruner(gated_layers(model), Magnitude(), NEURONS).update(0.5)
    assert shrink(model).architecture.layers[0].intermediate_size == 16
    ```
    """
    kept = kept_units(model, round_to)
    small = model.rebuilt(model.architecture.replace(layers=tuple(units.sizes for units in kept), gate_rule="fixed"))
    _copy_around_blocks(model, small)
    for source, target, units in zip(model.encoder.blocks, small.encoder.blocks, kept, strict=True):
        _shrink_attention(source.attention, target.attention, units)
        _shrink_feed_forward(source.ffn, target.ffn, units)
    return small


def shrunk_config(model: EncoderClassifier, round_to: int = 1) -> Architecture:
    """The architecture that `shrink` would give, without making the model; arguments as there."""
    return model.architecture.replace(layers=tuple(units.sizes for units in kept_units(model, round_to)))


def kept_units(model: EncoderClassifier, round_to: int = 1) -> list[KeptUnits]:
    """What `shrink` keeps of every encoder layer; arguments as there."""
    if not isinstance(round_to, int) or isinstance(round_to, bool) or round_to < 1:
        raise UserError(f"round_to: {round_to!r} is refused; allowed: a whole number from 1 up")
    return [_kept_of(block, round_to) for block in model.encoder.blocks]


def effective_kernel(layer: GatedDense) -> np.ndarray:
    """What a layer multiplies its input by in inference, float32 [in, out]."""
    return _array(layer.raw_kernel) * _array(layer.effective_gates(training=False))


def _bias(layer: GatedDense) -> np.ndarray:
    """The bias of a layer, zeros where it has none, [out]."""
    return np.zeros(layer.units, np.float32) if layer.bias is None else _array(layer.bias)


def _array(variable) -> np.ndarray:
    return np.asarray(ops.convert_to_numpy(variable), dtype=np.float32)


def _kept_of(block: EncoderBlock, round_to: int) -> KeptUnits:
    neurons = _kept_neurons(block.ffn, round_to)
    none = np.empty(0, dtype=np.int64)
    projections = block.attention.projections()
    if projections is None:
        return KeptUnits(LayerSizes(0, 0, 0, len(neurons)), none, none, neurons)
    query_key_open, value_open = _open_dims(block.attention, *projections)
    alive = np.any(value_open, axis=1)
    if not alive.any():
        return KeptUnits(LayerSizes(0, 0, 0, len(neurons)), none, none, neurons)
    query_key_dim = _head_dim(query_key_open[alive], round_to)
    value_dim = _head_dim(value_open[alive], round_to)
    heads = _choose(alive, _head_count(alive, query_key_dim, value_dim, round_to))
    return KeptUnits(
        LayerSizes(len(heads), query_key_dim, value_dim, len(neurons)),
        _head_columns(query_key_open, heads, query_key_dim),
        _head_columns(value_open, heads, value_dim),
        neurons,
    )


def _kept_neurons(ffn: FeedForward, round_to: int) -> np.ndarray:
    if ffn.intermediate is None:
        return np.empty(0, dtype=np.int64)
    # A gated unit emits nothing where either of its columns is closed.
    read = _any(ffn.intermediate, 0).reshape(ffn.size, ffn.columns_per_neuron).all(axis=1)
    is_open = read & _any(ffn.output_dense, 1)
    return _choose(is_open, _round_up(np.count_nonzero(is_open), round_to, len(is_open)))


def _any(layer: GatedDense, axis: int) -> np.ndarray:
    """Whether the columns (axis 0) or the rows (axis 1) of a matrix hold a weight that is not 0."""
    return np.any(effective_kernel(layer), axis=axis)


def _open_dims(
    attention: SelfAttention, query: GatedDense, key: GatedDense, value: GatedDense
) -> tuple[np.ndarray, np.ndarray]:
    """Which dimensions are needed: of query and key, bool [heads, query_key_dim], and value, [heads, value_dim]."""
    sizes = attention.sizes
    # A query's score with a key is Σ (query + its bias)(key + its bias): where the key's column is closed, the summand
    # is the same for all keys, and the softmax over the keys cancels it.
    query_key = (_any(query, 0) | (_bias(query) != 0)) & _any(key, 0)
    query_key |= query.whole_heads
    values = _any(value, 0) & _any(attention.output_dense, 1)
    return query_key.reshape(sizes.num_heads, -1), values.reshape(sizes.num_heads, -1)


def _head_dim(is_open: np.ndarray, round_to: int) -> int:
    """Dimensions a head: as many as the largest of the heads needs, rounded; `is_open` is [heads, dim]."""
    most = is_open.shape[1]
    return _round_up(max(1, is_open.sum(axis=1).max()), math.gcd(round_to, most), most)


def _head_count(alive: np.ndarray, query_key_dim: int, value_dim: int, round_to: int) -> int:
    """The fewest heads, of which all that are alive, that make both widths multiples; the alive ones where none do."""
    needed = int(np.count_nonzero(alive))
    fits = (n for n in range(needed, len(alive) + 1) if not (n * query_key_dim % round_to or n * value_dim % round_to))
    return next(fits, needed)


def _round_up(count: int | np.integer, multiple: int, most: int) -> int:
    return int(min(math.ceil(count / multiple) * multiple, most))


def _choose(is_open: np.ndarray, count: int) -> np.ndarray:
    """Indices of `count` units in their order: the open ones, and closed ones to fill up."""
    return np.sort(np.argsort(~is_open, kind="stable")[:count])


def _head_columns(is_open: np.ndarray, heads: np.ndarray, dim: int) -> np.ndarray:
    return np.concatenate([head * is_open.shape[1] + _choose(is_open[head], dim) for head in heads])


def _copy_around_blocks(model: EncoderClassifier, small: EncoderClassifier):
    """Everything but the matrices of the encoder blocks: embeddings, norms, pooler and head."""
    values = {variable.path: variable for variable in model.weights}
    for variable in small.weights:
        source = values.get(variable.path)
        if source is not None and source.shape == variable.shape:
            # Through NumPy: under JAX one variable must not take over another's buffer.
            variable.assign(ops.convert_to_numpy(source))
    outside = {layer.name: layer for layer in small.gated_layers() if layer.layer_index is None}
    for source in model.gated_layers():
        if source.layer_index is None:
            _copy(source, outside[source.name])


def _copy(source: GatedDense, target: GatedDense, rows=None, columns=None, constant=0.0):
    """Kernel and gates at `rows` and `columns`, all by default; `constant` is added to the bias."""
    height, width = source.raw_kernel.shape
    rows = np.arange(height) if rows is None else rows
    columns = np.arange(width) if columns is None else columns
    part = np.ix_(rows, columns)
    target.raw_kernel.assign(_array(source.raw_kernel)[part])
    if source.gate_trainable:
        target.gates.assign(_array(source.gates)[part])
    target.mask_variable.assign(_array(source.rule.gates(source, training=False))[part])
    # Without a bias what goes emits nothing.
    if target.bias is not None:
        target.bias.assign(_array(source.bias)[columns] + constant)


def _shrink_attention(source: SelfAttention, target: SelfAttention, units: KeptUnits):
    old, new = source.projections(), target.projections()
    if old is None:
        target.output_dense.bias.assign(ops.convert_to_numpy(source.output_dense.bias))
        return
    # The weights of a query sum to one, so that a closed value column gives its bias whatever the weights.
    query, key, value = old
    constant = _constant(_bias(value), source.output_dense, units.value)
    if new is None:
        target.output_dense.bias.assign(_bias(source.output_dense) + constant)
        return
    new_query, new_key, new_value = new
    _copy(query, new_query, columns=units.query_key)
    _copy(key, new_key, columns=units.query_key)
    _copy(value, new_value, columns=units.value)
    _copy(source.output_dense, target.output_dense, rows=units.value, constant=constant)


def _shrink_feed_forward(source: FeedForward, target: FeedForward, units: KeptUnits):
    if source.intermediate is None:
        target.output_dense.bias.assign(ops.convert_to_numpy(source.output_dense.bias))
        return
    emitted = ops.convert_to_numpy(source.activation(_bias(source.intermediate)))
    constant = _constant(emitted, source.output_dense, units.neurons)
    if target.intermediate is None:
        target.output_dense.bias.assign(_bias(source.output_dense) + constant)
        return
    each = np.arange(source.columns_per_neuron)
    columns = (units.neurons[:, None] * source.columns_per_neuron + each).ravel()
    _copy(source.intermediate, target.intermediate, columns=columns)
    _copy(source.output_dense, target.output_dense, rows=units.neurons, constant=constant)


def _constant(emitted: np.ndarray, reader: GatedDense, kept: np.ndarray) -> np.ndarray:
    """What the units that are not kept add to the output of `reader`.

    Those that go because nobody reads them have rows of zeros in `reader`, the others emit always `emitted`.
    """
    gone = np.setdiff1d(np.arange(len(emitted)), kept)
    return emitted[gone].astype(np.float64) @ effective_kernel(reader)[gone].astype(np.float64)
