"""What one pass over a batch shows of gated layers: gradients of the gates, means of inputs and outputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import keras
from keras import ops

from gated_bert.config.criterion_options import SaliencyOptions
from gated_bert.models.gated_dense import GatedLayer, output_hook
from gated_bert.pruning.calibration import real_tokens
from gated_bert.support.backend import compiled, with_gradients
from gated_bert.support.tensors import Tensor

# Gradients of 16-bit passes would vanish; a power of two is undone without rounding.
LOSS_SCALE = 256.0


class Tap:
    """A hook of gated layers that takes means over batch and real positions, and may add noise to every output.

    A layer of [batch, features] has no positions, so that all of its rows count. Outputs are taken with their noise.

    Args:
        attention_mask: int [batch, length], 1 where a token is real; None where all are.
        noise_std: standard deviation of the Gaussian noise; 0 adds none.
        relative: multiplies it by the standard deviation of the layer's inputs at real positions, through which no
            gradient flows.
        seed: what draws the noise.

    Attributes:
        sizes: layer → mean absolute inputs [in], of its last call.
        inputs: layer → mean inputs [in].
        outputs: layer → mean outputs before the activation function [out], of its last call.
        input_squares: layer → sums of squared inputs [in], over all calls.
    """

    def __init__(
        self, attention_mask: Tensor | None, noise_std: float, relative: bool, seed: keras.random.SeedGenerator
    ):
        self.attention_mask, self.noise_std, self.relative, self.seed = attention_mask, noise_std, relative, seed
        self.sizes: dict[GatedLayer, Tensor] = {}
        self.inputs: dict[GatedLayer, Tensor] = {}
        self.outputs: dict[GatedLayer, Tensor] = {}
        self.input_squares: dict[GatedLayer, Tensor] = {}

    def __call__(self, layer: GatedLayer, inputs: Tensor, outputs: Tensor) -> Tensor:
        features = layer.input_features(inputs)
        if self.noise_std:
            noise = keras.random.normal(ops.shape(outputs), dtype="float32", seed=self.seed)
            noise = noise * (self.noise_std * self._deviation(features) if self.relative else self.noise_std)
            outputs = outputs + ops.cast(noise, outputs.dtype)
        self.sizes[layer] = self._mean(ops.abs(features))
        self.inputs[layer] = self._mean(features)
        self.outputs[layer] = self._mean(layer.output_features(outputs))
        self.input_squares[layer] = self.input_squares.get(layer, 0.0) + self._sum(ops.square(_float32(features)))
        return outputs

    def _mean(self, values):
        """The mean over all axes but the last, float32."""
        values = _float32(values)
        axes = tuple(range(len(values.shape) - 1))
        if self.attention_mask is None or len(axes) < 2:
            return ops.mean(values, axis=axes)
        real = _float32(self.attention_mask)
        return ops.sum(values * real[..., None], axis=axes) / ops.sum(real)

    def _sum(self, values):
        """The sum over all axes but the last."""
        axes = tuple(range(len(values.shape) - 1))
        has_padding = self.attention_mask is not None and len(axes) > 1
        return ops.sum(values * _float32(self.attention_mask)[..., None] if has_padding else values, axis=axes)

    def _deviation(self, values):
        values = ops.stop_gradient(_float32(values))
        mean = ops.mean(self._mean(values))
        return ops.sqrt(ops.mean(self._mean(ops.square(values - mean))))


def _float32(values):
    return ops.cast(values, "float32")


def observer(
    model: keras.Model, layers: Sequence[GatedLayer], observes: Sequence[str], probe: Callable, seed: int,
    noise: SaliencyOptions | None = None,
) -> Callable:  # fmt: skip
    """A compiled function that looks at `layers` while `model` infers a batch.

    Gradients are those of the probed loss with respect to the variables that pruning closes, that is W ⊙ ∂L/∂W' for
    open and for closed weights. One pass gives all layers.

    Args:
        model: compiled and built.
        layers: the layers to look at.
        observes: what to return, of `kernels` [in, out], `gradients` [in, out], `sizes` [in], `inputs` [in], `outputs`
            [out] and `input_norms` [in], see `Tap`; what is not asked for is not computed. Norms are returned squared.
        probe: (model, inputs, labels) → the loss, calling the model once, in inference mode.
        seed: what the generator of noise begins with.
        noise: the noise that is added to the output of every gated layer of the model.

    Returns:
        A function of the values of `variables_of(model)`, a batch's inputs and labels, and a seed, uint32 [2]. It
        returns a dictionary of lists, an array per layer.
    """
    generator = keras.random.SeedGenerator(seed)
    variables = variables_of(model)
    noise_std, relative = (noise.noise_std, noise.noise == "activation") if noise else (0.0, False)

    def observe(values, inputs, labels, seed):
        state = [*zip(variables, values, strict=True), (generator.state, seed)]
        attention_mask = real_tokens(inputs)

        def loss(masks):
            tap = Tap(attention_mask, noise_std, relative, generator)
            closing = zip((layer.mask_variable for layer in layers), masks, strict=True)
            with keras.StatelessScope(state_mapping=[*state, *closing]), output_hook(tap):
                value = probe(model, inputs, labels)
            # Lists: JAX would sort a dictionary's keys, and layers have no order.
            found = (tap.sizes, tap.inputs, tap.outputs, tap.input_squares)
            seen = [[each[layer] for layer in layers] for each in found]
            return value * LOSS_SCALE, seen

        with keras.StatelessScope(state_mapping=state):
            # The identity that stops gradients makes tensors, where TensorFlow's conversion leaves variables.
            kernels = [ops.stop_gradient(layer.raw_kernel) for layer in layers]
            masks = [ops.stop_gradient(layer.mask_variable) for layer in layers]
        (sizes_in, means_in, means_out, squares_in), gradients = with_gradients(loss, masks)
        seen = {
            "kernels": kernels,
            "gradients": [gradient / LOSS_SCALE for gradient in gradients],
            "sizes": sizes_in,
            "inputs": means_in,
            "outputs": means_out,
            "input_norms": squares_in,
        }
        return {name: seen[name] for name in observes}

    return compiled(observe)


def variables_of(model: keras.Model) -> list[keras.Variable]:
    """The variables whose values `observer`'s function takes."""
    return [*model.trainable_variables, *model.non_trainable_variables]
