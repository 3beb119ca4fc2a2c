"""Shrinking: from closed weights to smaller matrices that compute the same."""

from __future__ import annotations

from typing import TypeVar

import keras
import numpy as np
from keras import ops

from gated_bert.compression.kept import (
    Heads,
    KeptUnits,
    Matrix,
    Neurons,
    as_array,
    check_round_to,
    kept_of,
)
from gated_bert.compression.shrink_keras import shrink_keras
from gated_bert.models.architecture import Architecture
from gated_bert.models.attention import SelfAttention
from gated_bert.models.backbone import EncoderClassifier, is_backbone
from gated_bert.models.encoder import EncoderBlock, FeedForward
from gated_bert.models.gated_dense import GatedDense

_Model = TypeVar("_Model", bound=keras.Model)


def shrink(model: _Model, round_to: int = 1) -> _Model:
    """A model of smaller matrices that computes in inference what `model` computes, whatever its biases.

    It looks at weights that multiply by zero, closed or zero themselves, and at no pattern. A value dimension or
    neuron without open inputs emits a constant, which goes into the next bias; one that nobody reads just goes. A
    dimension of query and key goes where it adds the same to all scores of a query, which the softmax does not see:
    where the key's column is closed, or the query's is and its bias is zero; of rotated ones none goes alone. All
    heads of a layer keep as many dimensions as the largest needs. What remains keeps its gates, so that the model
    trains on, and can be pruned and shrunk again.

    Of any other functional or sequential Keras model the attention layers and keras-hub's feed-forward networks, and
    those that `gate` was told of by `roles`, become smaller, each by itself. What comes back is a model of plain layers
    whose gates are multiplied in, as by `ungate`; where nothing of heads or neurons is left, one unit that gives
    nothing stays. Layers that hold what becomes smaller, as keras-hub's encoders, and models of a class of their own
    become functional models, which Keras saves, loads and exports without this package.

    Args:
        model: any model; it is not changed.
        round_to: round sizes up to multiples of this where closed units are there to fill them: neurons, dimensions of
            heads (to the greatest common divisor with their present number), heads × dimensions.

    Returns:
        The smaller model, with `gate_rule="fixed"`, not compiled. Where nothing can be shrunk, the layers of its
        `architecture` are those of `model`.

    Raises:
        UserError: `round_to` is no whole number from 1 up, or a Keras model cannot be copied.

    Example:

    ```python
    model = BertClassifier(BertConfig.uniform(1, 16, 2, 32, vocab_size=100))
    Pruner(gated_layers(model), Magnitude(), NEURONS).update(0.5)
    assert shrink(model).architecture.layers[0].intermediate_size == 16
    ```
    """
    if not is_backbone(model):
        return shrink_keras(model, round_to)
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
    check_round_to(round_to)
    return [_kept_of(block, round_to) for block in model.encoder.blocks]


def _kept_of(block: EncoderBlock, round_to: int) -> KeptUnits:
    attention, projections, ffn = block.attention, block.attention.projections(), block.ffn
    heads = neurons = None
    if projections is not None:
        query, key, value, output = (Matrix.of(layer) for layer in (*projections, attention.output_dense))
        heads = Heads(query, key, value, output, attention.sizes.num_heads, projections[0].whole_heads)
    if ffn.intermediate is not None:
        neurons = Neurons(Matrix.of(ffn.intermediate), Matrix.of(ffn.output_dense), ffn.columns_per_neuron)
    return kept_of(heads, neurons, round_to)


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
    target.raw_kernel.assign(as_array(source.raw_kernel)[part])
    if source.gate_trainable:
        target.gates.assign(as_array(source.gates)[part])
    target.mask_variable.assign(as_array(source.rule.gates(source, training=False))[part])
    # Without a bias what goes emits nothing.
    if target.bias is not None:
        target.bias.assign(as_array(source.bias)[columns] + constant)


def _shrink_attention(source: SelfAttention, target: SelfAttention, units: KeptUnits):
    old, new = source.projections(), target.projections()
    if old is None:
        target.output_dense.bias.assign(ops.convert_to_numpy(source.output_dense.bias))
        return
    # The weights of a query sum to one, so that a closed value column gives its bias whatever the weights.
    query, key, value = old
    output = Matrix.of(source.output_dense)
    constant = output.constant(Matrix.of(value).bias, units.value)
    if new is None:
        target.output_dense.bias.assign(output.bias + constant)
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
    output = Matrix.of(source.output_dense)
    emitted = ops.convert_to_numpy(source.activation(Matrix.of(source.intermediate).bias))
    constant = output.constant(emitted, units.neurons)
    if target.intermediate is None:
        target.output_dense.bias.assign(output.bias + constant)
        return
    each = np.arange(source.columns_per_neuron)
    columns = (units.neurons[:, None] * source.columns_per_neuron + each).ravel()
    _copy(source.intermediate, target.intermediate, columns=columns)
    _copy(source.output_dense, target.output_dense, rows=units.neurons, constant=constant)
