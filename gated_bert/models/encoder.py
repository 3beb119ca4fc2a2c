"""Embeddings, encoder blocks and pooler of BERT, and of the families that have the same blocks."""

from __future__ import annotations

import operator
import threading
import weakref
from typing import Any, ClassVar

import keras
from keras import ops

from gated_bert.models.architecture import BertConfig, PostNormConfig
from gated_bert.models.attention import SelfAttention
from gated_bert.models.gated_dense import GatedDense
from gated_bert.models.layers import (
    ACTIVATION_FUNCTIONS,
    ConstantOutput,
    GatedUnit,
    LayerNorm,
    gated_dense,
    initializer,
    layer_norm,
)
from gated_bert.support.tensors import Shape, Tensor

# Large enough to vanish in a softmax, small enough to be finite in float16.
MASKED = -3e4

# No attribute of the block: Keras looks through those when it saves.
PLACES = {
    "query": "attention/query",
    "key": "attention/key",
    "value": "attention/value",
    "attention_output": "attention/output_dense",
    "ffn_intermediate": "ffn/intermediate",
    "ffn_output": "ffn/output_dense",
}
"""Role of a matrix → the attributes of its block that lead to it, and the place where Keras stores it."""


def padding_bias(attention_mask: Tensor) -> Tensor:
    """What keeps attention off the padding of a mask [batch, length]: [batch, 1, 1, length], for its scores."""
    return (1.0 - ops.cast(attention_mask, "float32"))[:, None, None, :] * MASKED


class Embeddings(keras.layers.Layer):
    """Sum of token, position and, where there are any, segment embeddings, normalised; then a projection, if any.

    Args:
        config: the architecture.
        **kwargs: those of `keras.layers.Layer`.

    Attributes:
        token_type: None where there are no segments.
        projection: what widens the embeddings to the residual path; None where they are as wide.
    """

    def __init__(self, config: PostNormConfig, **kwargs: Any):
        super().__init__(**kwargs)
        self.config = config
        self.token = self._embedding(config.vocab_size, "token_embedding")
        self.token_type: keras.layers.Embedding | None = None
        if config.segment_rows:
            self.token_type = self._embedding(config.segment_rows, "token_type_embedding")
        self.norm = layer_norm(config, "embeddings_norm", self.dtype_policy)
        self.position: keras.Variable | None = None
        self.dropout = keras.layers.Dropout(config.dropout_rate, dtype=self.dtype_policy)
        self.projection: keras.layers.Dense | None = None
        if config.embedding_size != config.hidden_size:
            self.projection = keras.layers.Dense(
                config.hidden_size, kernel_initializer=initializer(), name="projection", dtype=self.dtype_policy
            )

    def _embedding(self, rows, name):
        return keras.layers.Embedding(
            rows, self.config.embedding_size, embeddings_initializer=initializer(), name=name, dtype=self.dtype_policy
        )

    def build(self, input_shape: Shape | None = None) -> None:
        width = self.config.embedding_size
        self.token.build((None, None))
        if self.token_type is not None:
            self.token_type.build((None, None))
        if self.config.position_rows:
            self.position = self.add_weight(
                name="position_embedding", shape=(self.config.position_rows, width), initializer=initializer()
            )
        self.norm.build((None, None, width))
        if self.projection is not None:
            self.projection.build((None, None, width))

    def call(self, token_ids: Tensor, token_type_ids: Tensor | None = None, training: bool | None = None) -> Tensor:
        """Embeds token and segment ids, both int [batch, length], as [batch, length, hidden_size]."""
        summed = self.token(token_ids)
        if self.token_type is not None:
            summed = summed + self.token_type(ops.zeros_like(token_ids) if token_type_ids is None else token_type_ids)
        if self.position is not None:
            summed = summed + self.positions(self.position, token_ids)
        hidden = self.dropout(self.norm(summed), training=training)
        return hidden if self.projection is None else self.projection(hidden)

    def positions(self, table: Tensor, token_ids: Tensor) -> Tensor:
        """Rows of the position embedding for a batch of token ids, [length, width], or [batch, length, width]."""
        return table[: ops.shape(token_ids)[1]]


class FeedForward(keras.layers.Layer):
    """A feed-forward network of any number of neurons, also none.

    `intermediate` and `output_dense` are its `GatedDense` layers, `activation` the function between them. Without
    neurons `intermediate` is None and `output_dense` is a `ConstantOutput`.

    Args:
        config: the architecture.
        layer_index: which of its layers, counted from 0.
        **kwargs: those of `keras.layers.Layer`.
    """

    def __init__(self, config: PostNormConfig, layer_index: int, **kwargs: Any):
        super().__init__(**kwargs)
        activation = ACTIVATION_FUNCTIONS[config.activation]
        self.columns_per_neuron = config.columns_per_neuron
        self.activation = activation if self.columns_per_neuron == 1 else GatedUnit(activation)
        self.size = config.layers[layer_index].intermediate_size
        self.intermediate = None
        if self.size:
            width = self.size * self.columns_per_neuron
            self.intermediate = gated_dense(config, width, "ffn_intermediate", layer_index, self.dtype_policy)
            self.output_dense = gated_dense(config, config.hidden_size, "ffn_output", layer_index, self.dtype_policy)
        else:
            name = f"encoder_{layer_index}_ffn_output"
            self.output_dense = ConstantOutput(config.hidden_size, name=name, dtype=self.dtype_policy)

    def build(self, input_shape: Shape) -> None:
        if self.intermediate is not None:
            self.intermediate.build(input_shape)
        self.output_dense.build((*input_shape[:-1], self.size))

    def call(self, hidden: Tensor, training: bool | None = None) -> Tensor:
        if self.intermediate is None:
            return self.output_dense(hidden)
        return self.output_dense(self.activation(self.intermediate(hidden, training=training)), training=training)


class _Seen(threading.local):
    """Outputs of watched blocks; of several devices each has a thread."""

    def __init__(self):
        self.outputs: weakref.WeakKeyDictionary[EncoderBlock, Tensor] = weakref.WeakKeyDictionary()


_SEEN = _Seen()


class EncoderBlock(keras.layers.Layer):
    """One post-norm transformer block: attention and feed-forward network, each with residual path and norm.

    Args:
        config: the architecture.
        layer_index: which of its layers, counted from 0.
        **kwargs: those of `keras.layers.Layer`.

    Attributes:
        watched: whether `take_output` gives what its last call put out.
    """

    ATTENTION: ClassVar[type[SelfAttention]] = SelfAttention
    watched = False
    attention_norm: Any

    def __init__(self, config: PostNormConfig, layer_index: int, **kwargs: Any):
        super().__init__(name=f"encoder_{layer_index}", **kwargs)
        dtype = self.dtype_policy
        self.attention = self.ATTENTION(config, layer_index, name="attention", dtype=dtype)
        self.attention_norm = self._attention_norm(config, layer_index)
        self.ffn = FeedForward(config, layer_index, name="ffn", dtype=dtype)
        self.ffn_norm = layer_norm(config, "ffn_norm", dtype)
        self.attention_dropout = keras.layers.Dropout(config.dropout_rate, dtype=dtype)
        self.ffn_dropout = keras.layers.Dropout(config.dropout_rate, dtype=dtype)

    def _attention_norm(self, config: PostNormConfig, layer_index: int) -> LayerNorm | None:
        return layer_norm(config, "attention_norm", self.dtype_policy)

    def matrices(self) -> dict[str, GatedDense]:
        """Role → matrix, from input to output, as far as the block has them."""
        found = {role: operator.attrgetter(place.replace("/", "."))(self) for role, place in PLACES.items()}
        return {role: layer for role, layer in found.items() if isinstance(layer, GatedDense)}

    def build(self, input_shape: Shape) -> None:
        for layer in (self.attention, self.attention_norm, self.ffn, self.ffn_norm):
            if layer is not None:
                layer.build(input_shape)

    def call(self, hidden: Tensor, mask_bias: Tensor, training: bool | None = None) -> Tensor:
        attended = self.attention(self.attention_input(hidden), mask_bias, training=training)
        hidden = self.after_attention(hidden, self.attention_dropout(attended, training=training))
        transformed = self.ffn(self.ffn_input(hidden), training=training)
        hidden = self.after_ffn(hidden, self.ffn_dropout(transformed, training=training))
        if self.watched:
            _SEEN.outputs[self] = hidden
        return hidden

    def attention_input(self, hidden: Tensor) -> Tensor:
        """What attention reads of what comes into the block."""
        return hidden

    def after_attention(self, hidden: Tensor, attended: Tensor) -> Tensor:
        """What comes into the block, and what attention makes of it, as one; all [batch, length, hidden_size]."""
        return self.attention_norm(hidden + attended)

    def ffn_input(self, hidden: Tensor) -> Tensor:
        """What the feed-forward network reads of what `after_attention` gives."""
        return hidden

    def after_ffn(self, hidden: Tensor, transformed: Tensor) -> Tensor:
        """What `after_attention` gives, and what the feed-forward network makes of it, as one."""
        return self.ffn_norm(hidden + transformed)

    def take_output(self) -> Tensor:
        """What the last call put out, [batch, length, hidden_size]; in a compiled function, where that is traced."""
        return _SEEN.outputs.pop(self)


class PostNormEncoder(keras.layers.Layer):
    """An encoder without a head: embeddings, BERT's blocks and, unless the head reads every token, a pooler.

    Its weights exist as soon as it is made.

    Args:
        config: the architecture, or its dictionary.
        **kwargs: those of `keras.layers.Layer`.

    Attributes:
        first_dropout: what the first token goes through before the pooler; None where it goes through nothing.
    """

    CONFIG: ClassVar[type[PostNormConfig]]
    EMBEDDINGS: ClassVar[type[Embeddings]] = Embeddings
    BLOCK: ClassVar[type[EncoderBlock]] = EncoderBlock
    POOLER_ACTIVATION: ClassVar[str] = "tanh"
    DROPS_FIRST_TOKEN: ClassVar[bool] = False

    def __init__(self, config: PostNormConfig | dict, **kwargs: Any):
        super().__init__(**kwargs)
        self.config = config if isinstance(config, PostNormConfig) else self.CONFIG.from_dict(config)
        dtype = self.dtype_policy
        self.embeddings = self.EMBEDDINGS(self.config, name="embeddings", dtype=dtype)
        self.blocks = [self.BLOCK(self.config, index, dtype=dtype) for index in range(self.config.num_layers)]
        self.pooler: GatedDense | None = None
        self.first_dropout: keras.layers.Dropout | None = None
        if self.config.has_pooler:
            named = self.pooler_activation
            activation = ACTIVATION_FUNCTIONS.get(named, named)
            self.pooler = gated_dense(
                self.config, self.config.hidden_size, "pooler", None, dtype, activation=activation
            )
            if self.DROPS_FIRST_TOKEN:
                self.first_dropout = keras.layers.Dropout(self.config.dropout_rate, dtype=dtype)

    @property
    def pooler_activation(self) -> str:
        """The activation function behind the pooler: `tanh`, or one of `ACTIVATION_FUNCTIONS`."""
        return self.POOLER_ACTIVATION

    def build(self, input_shape: Shape | None = None) -> None:
        hidden_shape = (None, None, self.config.hidden_size)
        self.embeddings.build(None)
        for block in self.blocks:
            block.build(hidden_shape)
        if self.pooler is not None:
            self.pooler.build((None, self.config.hidden_size))

    def call(self, inputs: dict[str, Tensor], training: bool | None = None) -> tuple[Tensor, Tensor | None]:
        """Encodes a batch.

        Args:
            inputs: `input_ids` and, where they are not all 0 or all 1, `token_type_ids`, of a family with segments,
                and `attention_mask`, each int [batch, length].
            training: whether dropout and stochastic gates are active.

        Returns:
            The last hidden states [batch, length, hidden_size] and the pooled first token [batch, hidden_size]; None in
            its place where the head reads every token.
        """
        hidden = self.embed(inputs, training=training)
        return self.encode(hidden, inputs.get("attention_mask"), training=training)

    def embed(self, inputs: dict, training: bool | None = None) -> Tensor:
        """Embeds a batch, see `call`, as [batch, length, hidden_size]."""
        return self.embeddings(inputs["input_ids"], training=training)

    def encode(
        self, hidden: Tensor, attention_mask: Tensor | None = None, training: bool | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Encodes embedded tokens [batch, length, hidden_size]; returns what `call` returns."""
        if attention_mask is None:
            attention_mask = ops.ones(ops.shape(hidden)[:2])
        mask_bias = padding_bias(attention_mask)
        for block in self.blocks:
            hidden = block(hidden, mask_bias, training=training)
        return hidden, self.pool(hidden, attention_mask, training=training)

    def pool(self, hidden: Tensor, attention_mask: Tensor, training: bool | None = None) -> Tensor | None:
        """What the classifier reads, [batch, hidden_size], of the last hidden states; None without a pooler."""
        if self.pooler is None:
            return None
        first = hidden[:, 0] if self.first_dropout is None else self.first_dropout(hidden[:, 0], training=training)
        return self.pooler(first, training=training)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "config": self.config.to_dict()}


@keras.saving.register_keras_serializable(package="gated_bert")
class BertEncoder(PostNormEncoder):
    """BERT without a head; arguments as of `PostNormEncoder`.

    Paper: Devlin et al. 2019, BERT (https://arxiv.org/abs/1810.04805).
    """

    CONFIG = BertConfig

    def embed(self, inputs: dict, training: bool | None = None) -> Tensor:
        return self.embeddings(inputs["input_ids"], inputs.get("token_type_ids"), training=training)
