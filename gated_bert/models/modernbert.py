"""ModernBERT with a head for texts or tokens: rotated positions, local attention, gated units, norms first."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops

from gated_bert.models.architecture import ACTIVATIONS, PostNormConfig
from gated_bert.models.attention import SelfAttention
from gated_bert.models.encoder import MASKED, EncoderBlock, PostNormEncoder
from gated_bert.models.family_sizes import ModernBertConfig
from gated_bert.models.gated_dense import GatedDense
from gated_bert.models.layers import LayerNorm, layer_norm
from gated_bert.models.post_norm import PostNormClassifier
from gated_bert.support.tensors import Shape, Tensor


class RotaryAttention(SelfAttention):
    """Self-attention whose queries and keys are rotated by their places, to all tokens or to those nearby.

    Args:
        config: the architecture.
        layer_index: which of its layers, counted from 0.
        **kwargs: those of `keras.layers.Layer`.

    Paper: Su et al. 2021, RoFormer: Enhanced Transformer with Rotary Position Embedding
    (https://arxiv.org/abs/2104.09864).
    """

    def __init__(self, config: ModernBertConfig, layer_index: int, **kwargs: Any):
        super().__init__(config, layer_index, **kwargs)
        for layer in (self.projections() or ())[:2]:
            layer.whole_heads = True
        is_global = layer_index in config.global_layers
        self.window = None if is_global else config.local_attention // 2
        theta, dim = config.global_theta if is_global else config.local_theta, config.original_head_dim
        # In single precision, as transformers has them.
        self.frequencies = (1.0 / theta ** (np.arange(0, dim, 2, dtype=np.float32) / dim)).astype(np.float32)

    def by_heads(self, query: Tensor, key: Tensor, length: Any) -> tuple[Tensor, Tensor]:
        angles = ops.cast(ops.arange(length), "float32")[:, None] * self.frequencies
        angles = ops.concatenate([angles, angles], axis=-1)
        cos, sin = ops.cos(angles), ops.sin(angles)
        dim = self.sizes.query_key_dim
        rotated = []
        for vectors in (query, key):
            split = ops.cast(self._split(vectors, length, dim, (0, 2, 1, 3)), "float32")
            turned = ops.concatenate([-split[..., dim // 2 :], split[..., : dim // 2]], axis=-1)
            rotated.append(ops.cast(split * cos + turned * sin, self.compute_dtype))
        return rotated[0], ops.transpose(rotated[1], (0, 1, 3, 2))

    def bias(self, mask_bias: Tensor, length: Any) -> Tensor:
        if self.window is None:
            return mask_bias
        places = ops.arange(length)
        far = ops.abs(places[:, None] - places[None, :]) > self.window
        return mask_bias + ops.cast(far, "float32") * MASKED


class PreNormBlock(EncoderBlock):
    """One pre-norm transformer block: each sub-layer reads what is normalised, and adds to what is not.

    The first block reads the embeddings, which are normalised already.

    Args:
        config: the architecture.
        layer_index: which of its layers, counted from 0.
        **kwargs: those of `keras.layers.Layer`.
    """

    ATTENTION = RotaryAttention

    def _attention_norm(self, config: PostNormConfig, layer_index: int) -> LayerNorm | None:
        return super()._attention_norm(config, layer_index) if layer_index else None

    def attention_input(self, hidden: Tensor) -> Tensor:
        return hidden if self.attention_norm is None else self.attention_norm(hidden)

    def after_attention(self, hidden: Tensor, attended: Tensor) -> Tensor:
        return hidden + attended

    def ffn_input(self, hidden: Tensor) -> Tensor:
        return self.ffn_norm(hidden)

    def after_ffn(self, hidden: Tensor, transformed: Tensor) -> Tensor:
        return hidden + transformed


@keras.saving.register_keras_serializable(package="gated_bert")
class ModernBertEncoder(PostNormEncoder):
    """ModernBERT without a head's last layer; the pooler is the head's first one. Arguments as of `PostNormEncoder`.

    Paper: Warner et al. 2024, Smarter, Better, Faster, Longer (https://arxiv.org/abs/2412.13663).
    """

    CONFIG = ModernBertConfig
    BLOCK = PreNormBlock

    config: ModernBertConfig
    pooler: GatedDense

    def __init__(self, config: ModernBertConfig | dict, **kwargs: Any):
        super().__init__(config, **kwargs)
        self.final_norm = layer_norm(self.config, "final_norm", self.dtype_policy)
        self.head_norm = layer_norm(self.config, "head_norm", self.dtype_policy)

    @property
    def pooler_activation(self) -> str:
        return ACTIVATIONS[self.config.head_act]

    def build(self, input_shape: Shape | None = None) -> None:
        super().build(input_shape)
        for norm in (self.final_norm, self.head_norm):
            norm.build((None, None, self.config.hidden_size))

    def pool(self, hidden: Tensor, attention_mask: Tensor, training: bool | None = None) -> Tensor:
        hidden = self.final_norm(hidden)
        if self.config.token_head:
            return self.head_norm(self.pooler(hidden, training=training))
        first = hidden[:, 0]
        if self.config.pooling == "mean":
            real = ops.cast(attention_mask, hidden.dtype)[..., None]
            first = ops.sum(hidden * real, axis=1) / ops.sum(real, axis=1)
        return self.head_norm(self.pooler(first, training=training))


@keras.saving.register_keras_serializable(package="gated_bert")
class ModernBertClassifier(PostNormClassifier):
    """ModernBERT out of `GatedDense` layers; see `PostNormClassifier`."""

    ENCODER = ModernBertEncoder

    encoder: ModernBertEncoder
    BLOCK_FOLDER = "pre_norm_block"
