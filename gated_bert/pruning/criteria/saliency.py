"""Saliency: weights times what gradients and activations of a few batches say of them."""

from __future__ import annotations

import keras
import numpy as np
from keras import ops

from gated_bert.models.gated_dense import GatedLayer
from gated_bert.pruning.criteria.base import Criterion
from gated_bert.pruning.criteria.observation import observer, variables_of


class Saliency(Criterion):
    """Base of criteria scored on data: |importance| of every batch, summed over the batches.

    The model infers (no dropout). W ⊙ g, with g = ∂L/∂W' of the compiled loss, is the gradient of the gates and exists
    for closed weights too. Means of activations are over the batch and its real positions; the published code counts
    padding as well.

    Class attributes:
        reads: the arguments of `importance`; see `observer`.
        smooth: average over `smooth_passes` passes with fresh noise on every gated layer's output.
    """

    needs_data = True
    reads: tuple[str, ...] = ("gradients",)
    smooth = False

    def __init__(self, config, groups):
        super().__init__(config, groups)
        self.layers = list(dict.fromkeys(layer for group in groups for layer in group.layers))
        self._observe = None
        self._scores: dict[GatedLayer, np.ndarray] = {}

    def importance(self, *seen):
        """Importance with its sign, array [in, out], from what `reads` names."""
        raise NotImplementedError(f"{type(self).__name__} does not say its score")

    def prepare(self, model, dataset):
        if self._observe is None:
            self._observe = observer(model, self.layers, self.reads, self.config, self.smooth)
        # The identity: no gradient could be taken of a variable that stands on several devices under TensorFlow.
        values = [ops.stop_gradient(variable) for variable in variables_of(model)]
        sums = None
        for index in range(min(self.config.score_batches, len(dataset))):
            inputs, labels = dataset[index][:2]
            means = self._means(values, inputs, labels, index)
            scores = [ops.abs(self.importance(*seen)) for seen in zip(*means, strict=True)]
            sums = scores if sums is None else keras.tree.map_structure(ops.add, sums, scores)
        self._scores = {layer: np.asarray(score) for layer, score in zip(self.layers, sums, strict=True)}

    def _means(self, values, inputs, labels, index: int) -> list:
        """What a batch's passes show on average: for each of `reads` a list of arrays, one per layer."""
        passes = self.config.smooth_passes if self.smooth else 1
        total = None
        for number in range(passes):
            # A function of seed, batch and pass alone, so that a run that goes on scores as it would have.
            seed = np.random.SeedSequence([self.config.seed, index, number]).generate_state(2)
            seen = self._observe(values, inputs, labels, seed)
            total = seen if total is None else keras.tree.map_structure(ops.add, total, seen)
        return keras.tree.map_structure(lambda array: array / passes, [total[name] for name in self.reads])

    def scores(self, layer):
        return self._scores[layer]


class GradientMagnitude(Saliency):
    """|W g| (Blalock et al. 2020, ShrinkBench, MagGrad)."""

    def importance(self, gradients):
        return gradients


class ActivationMagnitude(Saliency):
    """|W_io| a_i, with a_i the mean absolute input i (after Blalock et al. 2020, ShrinkBench, MagAct)."""

    reads = ("kernels", "sizes")

    def importance(self, kernels, inputs):
        return kernels * inputs[:, None]


class PublishedActivationMagnitude(ActivationMagnitude):
    """|W_io| |a_i|, with a_i the mean input i, as ShrinkBench's code has it for inputs [batch, features]."""

    reads = ("kernels", "inputs")


class GradCam(Saliency):
    """|W g ā|, with ā the layer's mean output (DeepCuts, after Selvaraju et al. 2017, Grad-CAM)."""

    reads = ("gradients", "outputs")

    def importance(self, gradients, outputs):
        return gradients * outputs


class GradCamShift(Saliency):
    """|W g (10 + ā)|: units that are silent on average are not all alike (DeepCuts)."""

    reads = ("gradients", "outputs")

    def importance(self, gradients, outputs):
        return gradients * (10.0 + outputs)


class SmoothGrad(GradientMagnitude):
    """|W g̃|, with g̃ the mean gradient of noisy passes (DeepCuts, after Smilkov et al. 2017, SmoothGrad)."""

    smooth = True


class SmoothGradCam(GradCam):
    """|W g̃ ā|, gradient and mean output from the same noisy passes (DeepCuts)."""

    smooth = True


class SmoothGradCamShift(GradCamShift):
    """|W g̃ (10 + ā)|, gradient and mean output from the same noisy passes (DeepCuts)."""

    smooth = True
