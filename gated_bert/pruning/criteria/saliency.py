"""Saliency: weights times what gradients and activations of a few batches say of them."""

from __future__ import annotations

import keras
import numpy as np
from keras import ops

from gated_bert.config.criterion_options import ActivationSaliencyOptions, SaliencyOptions
from gated_bert.models.gated_dense import GatedLayer
from gated_bert.pruning.criteria.base import Criterion
from gated_bert.pruning.criteria.observation import observer, variables_of


class Saliency(Criterion):
    """Base of criteria scored on data: what batches show is added up, and `combine` makes the scores of it at the end.

    The model infers (no dropout). Means of activations are over a batch and its real positions, and then over the
    batches; the published code counts padding as well. Norms of inputs are over all real positions of all batches.

    Class attributes:
        observes: the statistics that `combine` takes after the kernel, in order, see `observer`: `gradients` [in, out]
            (of the gates: W ⊙ g, with g = ∂L/∂W' of the probed loss, for closed weights too), `sizes` [in] (mean
            absolute inputs), `inputs` [in] and `outputs` [out] (means), `input_norms` [in] (L2 norms of the inputs).
        smooth: average over `smooth_passes` passes with fresh noise on every gated layer's output.
    """

    Options = SaliencyOptions
    needs_data = True
    observes: tuple[str, ...] = ()
    smooth = False

    def bind(self, groups, seed=0, pooling=None, loss=None):
        super().bind(groups, seed, pooling, loss)
        self.layers = list(dict.fromkeys(layer for group in groups for layer in group.layers))
        self._observe = None
        self._scores: dict[GatedLayer, np.ndarray] = {}

    def combine(self, kernel: np.ndarray, *seen: np.ndarray) -> np.ndarray:
        """Scores of a layer's weights, array [in, out], from its kernel [in, out] and what `observes` names."""
        raise NotImplementedError(f"{type(self).__name__} does not say its score")

    def prepare(self, model, dataset):
        if self._observe is None:
            noise = self.options if self.smooth else None
            self._observe = observer(model, self.layers, self.observes, self.probe, self.seed, noise)
        # The identity: no gradient could be taken of a variable that stands on several devices under TensorFlow.
        values = [ops.stop_gradient(variable) for variable in variables_of(model)]
        sums, count = None, min(self.options.score_batches, len(dataset))
        for index in range(count):
            inputs, labels = dataset[index][:2]
            found = [self._of_batch(*seen) for seen in zip(*self._seen(values, inputs, labels, index), strict=True)]
            sums = found if sums is None else keras.tree.map_structure(ops.add, sums, found)
        pairs = zip(self.layers, sums, strict=True)
        self._scores = {layer: self._finish(layer, found, count) for layer, found in pairs}

    def _seen(self, values, inputs, labels, index: int) -> list:
        """What a batch's passes show on average: for each of `observes` a list of arrays, one per layer."""
        passes = self.options.smooth_passes if self.smooth else 1
        total = None
        for number in range(passes):
            # A function of seed, batch and pass alone, so that a run that goes on scores as it would have.
            seed = np.random.SeedSequence([self.seed, index, number]).generate_state(2)
            seen = self._observe(values, inputs, labels, seed)
            total = seen if total is None else keras.tree.map_structure(ops.add, total, seen)
        return keras.tree.map_structure(lambda array: array / passes, [total[name] for name in self.observes])

    def _of_batch(self, *seen):
        """What of a batch is added up for a layer."""
        return seen

    def _finish(self, layer: GatedLayer, sums, batches: int) -> np.ndarray:
        found = zip(self.observes, map(np.asarray, sums), strict=True)
        seen = [np.sqrt(array) if name == "input_norms" else array / np.float32(batches) for name, array in found]
        return self.combine(np.asarray(ops.convert_to_numpy(layer.raw_kernel)), *seen)

    def scores(self, layer):
        return self._scores[layer]


class BatchSaliency(Saliency):
    """Base of criteria whose importance is that of a batch, of which the absolute values are summed over batches."""

    observes = ("gradients",)

    def importance(self, *seen):
        """Importance with its sign, array [in, out], from what `observes` names, also `kernels` [in, out]."""
        raise NotImplementedError(f"{type(self).__name__} does not say its score")

    def _of_batch(self, *seen):
        return ops.abs(self.importance(*seen))

    def _finish(self, layer, sums, batches):
        return np.asarray(sums)


class GradientMagnitude(BatchSaliency):
    """|W g| (Blalock et al. 2020, ShrinkBench, MagGrad)."""

    def importance(self, gradients):
        return gradients


class ActivationMagnitude(BatchSaliency):
    """|W_io| a_i, with a_i the mean absolute input i (after Blalock et al. 2020, ShrinkBench, MagAct)."""

    Options = ActivationSaliencyOptions
    observes = ("kernels", "sizes")

    def importance(self, kernels, inputs):
        return kernels * inputs[:, None]


class PublishedActivationMagnitude(ActivationMagnitude):
    """|W_io| |a_i|, with a_i the mean input i, as ShrinkBench's code has it for inputs [batch, features]."""

    observes = ("kernels", "inputs")


class GradCam(BatchSaliency):
    """|W g ā|, with ā the layer's mean output (DeepCuts, after Selvaraju et al. 2017, Grad-CAM)."""

    observes = ("gradients", "outputs")

    def importance(self, gradients, outputs):
        return gradients * outputs


class GradCamShift(BatchSaliency):
    """|W g (10 + ā)|: units that are silent on average are not all alike (DeepCuts)."""

    observes = ("gradients", "outputs")

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
