"""Criteria that look at what comes into layers over calibration data."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import keras
import numpy as np

from gated_bert.config.criterion_options import CalibrationOptions, CriterionOptions
from gated_bert.models.gated_dense import GatedLayer
from gated_bert.pruning.calibration import Calibration, Moments, first_batches
from gated_bert.pruning.closed import layers_of
from gated_bert.pruning.criteria.base import Criterion, Loss, Stage
from gated_bert.pruning.groups import Group
from gated_bert.support.backend import view


class Calibrated(Criterion):
    """Base of criteria scored on the inputs of layers, of unlabelled data.

    With `calibrate="sequential"` the layers are pruned in the order in which the model calls them, each on what the
    pruned ones before it give. Where what competes spans several of them (the scope `global`, heads), all are ranked on
    one pass through the model as it was, and their weights are then updated in order.

    Class attributes:
        products: whether the products of every two inputs are needed, or their squares alone.
        reference: whether what came in before anything was pruned is needed beside it.
    """

    Options: ClassVar[type[CriterionOptions]] = CalibrationOptions
    needs_data = True
    needs_labels = False
    products = False
    reference = False

    def bind(
        self, groups: Sequence[Group], seed: int = 0, pooling: str | None = None, loss: Loss | None = None
    ) -> None:
        super().bind(groups, seed, pooling, loss)
        self._prepared: tuple[keras.Model, list[tuple]] | None = None
        self._inputs: dict[GatedLayer, Moments] = {}
        self._scores: dict[GatedLayer, np.ndarray] = {}
        self._kernels: dict[GatedLayer, np.ndarray] = {}
        self.sparsity = 0.0

    def combine(self, layer: GatedLayer, kernel: np.ndarray, inputs: Moments) -> np.ndarray:
        """Scores of a layer's weights, array [in, out].

        Args:
            layer: the layer.
            kernel: its weights with their gates, [in, out].
            inputs: what came into it.
        """
        raise NotImplementedError(f"{type(self).__name__} does not say its score")

    def prepare(self, model: keras.Model, dataset: Any) -> None:
        self._prepared = model, first_batches(dataset, self.options.calibration_texts)
        self._forget()

    def stages(self, sparsity: float, competing: Sequence[Sequence[GatedLayer]]) -> Iterator[Stage]:
        self.sparsity = sparsity
        if self._prepared is None:
            # Scores from elsewhere.
            yield from super().stages(sparsity, competing)
            return
        calibration = self._calibration()
        in_order = self.options.calibrate == "sequential"
        alone = all(any(set(layers) <= set(part) for part in calibration.parts) for layers in competing)
        layers = [layer for part in calibration.parts for layer in part]
        if not (in_order and alone):
            self._see(calibration.at_once())
            yield layers, () if in_order else layers
        if in_order and (alone or self.updates_weights):
            done = 0
            for seen in calibration.in_order():
                done += len(seen)
                self.tell(f"to {100 * sparsity:.1f} %: layer {done} of {len(layers)}")
                self._see(seen, scored=alone)
                yield (tuple(seen) if alone else ()), tuple(seen)
        self._forget()

    def _forget(self):
        self._inputs, self._scores, self._kernels = {}, {}, {}

    def _calibration(self) -> Calibration:
        if self._prepared is None:
            raise ValueError(f"{self.name}: prepare gives it the data that it looks at")
        model, batches = self._prepared
        return Calibration(model, layers_of(self.groups), batches, self.products, self.reference)

    def _see(self, inputs: dict[GatedLayer, Moments], scored: bool = True):
        self._inputs = inputs
        if scored:
            # As they are before the mask closes any.
            self._kernels = {layer: gated_kernel(layer) for layer in inputs}
            self._scores = {layer: self.combine(layer, self._kernels[layer], seen) for layer, seen in inputs.items()}

    def scores(self, layer: GatedLayer) -> np.ndarray:
        if layer not in self._scores:
            self._see(self._calibration().at_once())
        return self._scores[layer]


def gated_kernel(layer: GatedLayer) -> np.ndarray:
    """The kernel W [in, out] with the gates of inference, float32."""
    return np.asarray(view(layer.effective_gates()) * np.asarray(view(layer.raw_kernel), np.float32))


def ungated(layer: GatedLayer, kernel: np.ndarray) -> np.ndarray:
    """The weights W [in, out] that by their gates become `kernel`."""
    gates = view(layer.effective_gates())
    return kernel / np.where(gates == 0, 1, gates)
