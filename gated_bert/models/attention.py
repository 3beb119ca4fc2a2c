"""Multi-head self-attention out of gated layers."""

from __future__ import annotations

import math
from typing import Any

import keras
from keras import ops

from gated_bert.models.architecture import PostNormConfig
from gated_bert.models.gated_dense import GatedDense
from gated_bert.models.layers import ConstantOutput, gated_dense
from gated_bert.support.tensors import Shape, Tensor


class SelfAttention(keras.layers.Layer):
    """BERT's self-attention with its output projection, of any number of heads, also none.

    `query`, `key`, `value` and `output_dense` are its `GatedDense` layers. Head h owns the columns
    h·dim … (h+1)·dim − 1 of query, key and value and those rows of the output. Without heads the three are None and
    `output_dense` is a `ConstantOutput`.

    Args:
        config: the architecture.
        layer_index: which of its layers, counted from 0.
        **kwargs: those of `keras.layers.Layer`.
    """

    def __init__(self, config: PostNormConfig, layer_index: int, **kwargs: Any):
        super().__init__(**kwargs)
        self.sizes = config.layers[layer_index]
        self.hidden_size = config.hidden_size
        self.scale = 1.0 / math.sqrt(config.original_head_dim)
        self.query: GatedDense | None = None
        self.key: GatedDense | None = None
        self.value: GatedDense | None = None
        self.dropout = keras.layers.Dropout(config.dropout_rate, dtype=self.dtype_policy)
        if not self.sizes.num_heads:
            name = f"encoder_{layer_index}_attention_output"
            self.output_dense = ConstantOutput(config.hidden_size, name=name, dtype=self.dtype_policy)
            return
        query_key, value = (self.sizes.num_heads * dim for dim in (self.sizes.query_key_dim, self.sizes.value_dim))
        self.query = gated_dense(config, query_key, "query", layer_index, self.dtype_policy)
        self.key = gated_dense(config, query_key, "key", layer_index, self.dtype_policy)
        self.value = gated_dense(config, value, "value", layer_index, self.dtype_policy)
        self.output_dense = gated_dense(config, config.hidden_size, "attention_output", layer_index, self.dtype_policy)

    # No property: Keras would save the layers under its name.
    def projections(self) -> tuple[GatedDense, GatedDense, GatedDense] | None:
        """Query, key and value; None without heads."""
        if self.query is None or self.key is None or self.value is None:
            return None
        return self.query, self.key, self.value

    def build(self, input_shape: Shape) -> None:
        for layer in self.projections() or ():
            layer.build(input_shape)
        self.output_dense.build((*input_shape[:-1], self.sizes.num_heads * self.sizes.value_dim))

    def call(self, hidden: Tensor, mask_bias: Tensor, training: bool | None = None) -> Tensor:
        """Attends.

        Args:
            hidden: [batch, length, hidden_size].
            mask_bias: [batch, 1, 1, length], added to the attention scores.
            training: whether dropout and stochastic gates are active.

        Returns:
            [batch, length, hidden_size].
        """
        if self.query is None:
            return self.output_dense(hidden)
        return self.output_dense(self.attend(hidden, mask_bias, training)[0], training=training)

    def attend(self, hidden: Tensor, mask_bias: Tensor, training: bool | None = None) -> tuple[Tensor, Tensor]:
        """What attention is before its output projection; arguments as for `call`, at least one head.

        Returns:
            The context, [batch, length, heads × value_dim], and the attention weights, [batch, heads, length, length].
        """
        sizes, length = self.sizes, ops.shape(hidden)[1]
        projections = self.projections()
        if projections is None:
            raise ValueError(f"{self.name}: no heads, which could attend")
        query, key, value = (layer(hidden, training=training) for layer in projections)
        query, key = self.by_heads(query * self.scale, key, length)
        value = self._split(value, length, sizes.value_dim, (0, 2, 1, 3))
        # In float32 in every precision: a 16-bit softmax loses small attention weights.
        scores = ops.cast(ops.matmul(query, key), "float32") + self.bias(ops.cast(mask_bias, "float32"), length)
        weights = self.dropout(ops.cast(ops.softmax(scores, axis=-1), self.compute_dtype), training=training)
        context = ops.transpose(ops.matmul(weights, value), (0, 2, 1, 3))
        return ops.reshape(context, (-1, length, sizes.num_heads * sizes.value_dim)), weights

    def by_heads(self, query: Tensor, key: Tensor, length: Any) -> tuple[Tensor, Tensor]:
        """Queries as [batch, heads, length, dim], and keys as [batch, heads, dim, length]."""
        dim = self.sizes.query_key_dim
        return self._split(query, length, dim, (0, 2, 1, 3)), self._split(key, length, dim, (0, 2, 3, 1))

    def bias(self, mask_bias: Tensor, length: Any) -> Tensor:
        """What is added to the attention scores, [batch, 1, 1 or length, length]."""
        return mask_bias

    def _split(self, x, length, dim, order):
        return ops.transpose(ops.reshape(x, (-1, length, self.sizes.num_heads, dim)), order)
