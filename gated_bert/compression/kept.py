"""What of an encoder layer's matrices is needed to compute what it computes."""

from __future__ import annotations

import math
from dataclasses import dataclass

import keras
import numpy as np
from keras import ops

from gated_bert.models.architecture import LayerSizes
from gated_bert.models.gated_dense import GatedLayer
from gated_bert.models.gated_einsum import matrix_view
from gated_bert.support.errors import UserError


@dataclass(frozen=True, eq=False)
class Matrix:
    """What a layer multiplies by and adds in inference.

    Attributes:
        kernel: with gates, float32 [in, out].
        bias: zeros where there is none, float32 [out].
    """

    kernel: np.ndarray
    bias: np.ndarray

    @classmethod
    def of(cls, layer: keras.layers.Layer) -> Matrix:
        """That of a `Dense` or an `EinsumDense`, with gates or without."""
        kernel = effective_kernel(layer) if isinstance(layer, GatedLayer) else _plain_kernel(layer)
        bias = np.zeros(kernel.shape[1], np.float32) if layer.bias is None else as_array(layer.bias).ravel()
        return cls(kernel, bias)

    def any(self, axis: int) -> np.ndarray:
        """Whether the columns (axis 0) or the rows (axis 1) hold a weight that is not 0."""
        return np.any(self.kernel, axis=axis)

    def constant(self, emitted: np.ndarray, kept: np.ndarray) -> np.ndarray:
        """What the units that are not kept add to what this matrix, which reads them, puts out.

        Those that go because nobody reads them have rows of zeros, the others emit always `emitted`.
        """
        gone = np.setdiff1d(np.arange(len(emitted)), kept)
        return emitted[gone].astype(np.float64) @ self.kernel[gone].astype(np.float64)


@dataclass(frozen=True, eq=False)
class Heads:
    """The matrices of an attention; columns of query, key and value lie head after head.

    Attributes:
        whole: whether the dimensions of query and key go with their head alone, as those that are rotated.
        alike: whether query, key and value must have equally many dimensions a head.
    """

    query: Matrix
    key: Matrix
    value: Matrix
    output: Matrix
    num_heads: int
    whole: bool = False
    alike: bool = False


@dataclass(frozen=True, eq=False)
class Neurons:
    """The matrices of a feed-forward network; of a gated unit a neuron has two columns, side by side."""

    intermediate: Matrix
    output: Matrix
    columns_per_neuron: int = 1


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


def as_array(variable: object) -> np.ndarray:
    """A variable or tensor as float32."""
    return np.asarray(ops.convert_to_numpy(variable), dtype=np.float32)


def effective_kernel(layer: GatedLayer) -> np.ndarray:
    """What a layer multiplies its input by in inference, float32 [in, out]."""
    return as_array(layer.raw_kernel) * as_array(layer.effective_gates(training=False))


def _plain_kernel(layer: keras.layers.Layer) -> np.ndarray:
    kernel = as_array(layer.kernel)
    if not isinstance(layer, keras.layers.EinsumDense):
        return kernel
    view = matrix_view(layer.equation)
    kernel = kernel.transpose(view.order)
    return kernel.reshape(math.prod(kernel.shape[: view.rows]), -1)


def check_round_to(round_to: object) -> None:
    """Refuses what is no whole number from 1 up.

    Raises:
        UserError: anything else.
    """
    if not isinstance(round_to, int) or isinstance(round_to, bool) or round_to < 1:
        raise UserError(f"round_to: {round_to!r} is refused; allowed: a whole number from 1 up")


def kept_of(heads: Heads | None, ffn: Neurons | None, round_to: int) -> KeptUnits:
    """What stays of a layer of these parts; of one that is not there nothing does."""
    neurons = _kept_neurons(ffn, round_to)
    none = np.empty(0, dtype=np.int64)
    if heads is None:
        return KeptUnits(LayerSizes(0, 0, 0, len(neurons)), none, none, neurons)
    query_key_open, value_open = _open_dims(heads)
    alive = np.any(value_open, axis=1)
    if not alive.any():
        return KeptUnits(LayerSizes(0, 0, 0, len(neurons)), none, none, neurons)
    query_key_dim = _head_dim(query_key_open[alive], round_to)
    value_dim = _head_dim(value_open[alive], round_to)
    if heads.alike:
        query_key_dim = value_dim = max(query_key_dim, value_dim)
    chosen = _choose(alive, _head_count(alive, query_key_dim, value_dim, round_to))
    return KeptUnits(
        LayerSizes(len(chosen), query_key_dim, value_dim, len(neurons)),
        _head_columns(query_key_open, chosen, query_key_dim),
        _head_columns(value_open, chosen, value_dim),
        neurons,
    )


def _kept_neurons(ffn: Neurons | None, round_to: int) -> np.ndarray:
    if ffn is None:
        return np.empty(0, dtype=np.int64)
    # A gated unit emits nothing where either of its columns is closed.
    read = ffn.intermediate.any(0).reshape(-1, ffn.columns_per_neuron).all(axis=1)
    is_open = read & ffn.output.any(1)
    return _choose(is_open, _round_up(np.count_nonzero(is_open), round_to, len(is_open)))


def _open_dims(heads: Heads) -> tuple[np.ndarray, np.ndarray]:
    """Which dimensions are needed: of query and key, bool [heads, query_key_dim], and value, [heads, value_dim]."""
    # A query's score with a key is Σ (query + its bias)(key + its bias): where the key's column is closed, the summand
    # is the same for all keys, and the softmax over the keys cancels it.
    query_key = (heads.query.any(0) | (heads.query.bias != 0)) & heads.key.any(0)
    query_key |= heads.whole
    values = heads.value.any(0) & heads.output.any(1)
    return query_key.reshape(heads.num_heads, -1), values.reshape(heads.num_heads, -1)


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
