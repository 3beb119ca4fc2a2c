"""Small layers and functions that BERT is made of."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from gated_bert.models.architecture import PostNormConfig
from gated_bert.models.gated_dense import GatedDense
from gated_bert.support.tensors import Shape, Tensor


def gelu(x: Tensor) -> Tensor:
    """The exact Gaussian error linear unit, x Φ(x)."""
    # Spelt with erf because converters to ONNX know it, and not the erfc of keras.activations.gelu.
    return 0.5 * x * (1.0 + ops.erf(x / math.sqrt(2.0)))


def gelu_tanh(x: Tensor) -> Tensor:
    """The Gaussian error linear unit with a tanh in place of erf: transformers' `gelu_new`."""
    return 0.5 * x * (1.0 + ops.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * x * x * x)))


def silu(x: Tensor) -> Tensor:
    """The sigmoid linear unit, x σ(x)."""
    return x * ops.sigmoid(x)


def quick_gelu(x: Tensor) -> Tensor:
    """x σ(1.702 x)."""
    return x * ops.sigmoid(1.702 * x)


class GatedUnit:
    """A gated linear unit: of columns side by side the first one's activation times the second, [..., 2n] → [..., n].

    Args:
        activation: the activation function.

    Paper: Shazeer 2020, GLU Variants Improve Transformer (https://arxiv.org/abs/2002.05202).
    """

    def __init__(self, activation: Callable[[Tensor], Tensor]):
        self.activation = activation

    def __call__(self, x: Tensor) -> Tensor:
        return self.activation(x[..., 0::2]) * x[..., 1::2]


ACTIVATION_FUNCTIONS = {"gelu": gelu, "gelu_tanh": gelu_tanh, "silu": silu, "quick_gelu": quick_gelu, "relu": ops.relu}
"""Activation functions by the values of `architecture.ACTIVATIONS`."""


def initializer() -> keras.initializers.Initializer:
    """The initialiser of all matrices and embeddings of BERT."""
    return keras.initializers.TruncatedNormal(stddev=0.02)


def gated_dense(
    config: PostNormConfig, units: int, role: str, layer_index: int | None, dtype: Any, **kwargs: Any
) -> GatedDense:
    """A `GatedDense` with the gate options of `config`, named `encoder_{layer_index}_{role}` or `{role}`.

    It has a bias where `config` says so, unless `use_bias` is given.
    """
    kwargs.setdefault("use_bias", config.use_bias)
    return GatedDense(
        units,
        role=role,
        layer_index=layer_index,
        gate_init_value=config.gate_init_value,
        gate_trainable=config.gate_trainable,
        gate_rule=config.gate_rule,
        kernel_initializer=initializer(),
        name=role if layer_index is None else f"encoder_{layer_index}_{role}",
        dtype=dtype,
        **kwargs,
    )


class LayerNorm(keras.layers.Layer):
    """Layer normalisation over the last axis, computed in float32 in every precision.

    `keras.layers.LayerNormalization` computes the same; this spelling is the one that ONNX Runtime fuses, and BERT's
    ε of 1e-12 does not exist in float16.

    Args:
        epsilon: added to the variance.
        shift: whether it has a shift, `beta`, beside its scale.
        **kwargs: those of `keras.layers.Layer`.
    """

    def __init__(self, epsilon: float = 1e-12, shift: bool = True, **kwargs: Any):
        super().__init__(**kwargs)
        self.epsilon, self.shift = epsilon, shift

    def build(self, input_shape: Shape) -> None:
        shape = (input_shape[-1],)
        self.gamma = self.add_weight(name="gamma", shape=shape, initializer="ones", autocast=False)
        self.beta = None
        if self.shift:
            self.beta = self.add_weight(name="beta", shape=shape, initializer="zeros", autocast=False)

    def call(self, inputs: Tensor) -> Tensor:
        x = ops.cast(inputs, "float32")
        centred = x - ops.mean(x, axis=-1, keepdims=True)
        variance = ops.mean(ops.power(centred, 2.0), axis=-1, keepdims=True)
        outputs = centred / ops.sqrt(variance + self.epsilon) * self.gamma
        if self.beta is not None:
            outputs = outputs + self.beta
        return ops.cast(outputs, self.compute_dtype)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "epsilon": self.epsilon, "shift": self.shift}


def layer_norm(config: PostNormConfig, name: str, dtype: Any) -> LayerNorm:
    """A `LayerNorm` as `config` has it."""
    return LayerNorm(config.layer_norm_epsilon, config.use_bias, name=name, dtype=dtype)


class ConstantOutput(keras.layers.Layer):
    """What is left of a sub-layer without heads or neurons: its bias, the same for every input.

    Args:
        units: size of the output.
        **kwargs: those of `keras.layers.Layer`.
    """

    def __init__(self, units: int, **kwargs: Any):
        super().__init__(**kwargs)
        self.units = units

    def build(self, input_shape: Shape) -> None:
        self.bias = self.add_weight(name="bias", shape=(self.units,), initializer="zeros")

    def call(self, inputs: Tensor) -> Tensor:
        return ops.broadcast_to(self.bias, ops.shape(inputs))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "units": self.units}
