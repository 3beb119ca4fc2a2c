"""Mask tuning: heads and neurons by the Fisher matrix of their masks, and scales of those that stay."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from gated_bert.config import ConfigError
from gated_bert.config.criterion_options import MaskTuningOptions
from gated_bert.models.gated_dense import GatedLayer
from gated_bert.pruning.calibration import Calibration, first_batches, small_batches
from gated_bert.pruning.criteria.base import Criterion, Loss, Stage
from gated_bert.pruning.criteria.calibrated import gated_kernel
from gated_bert.pruning.criteria.observation import observer, variables_of
from gated_bert.pruning.groups import Group, TiedGroup
from gated_bert.pruning.mask_search import best_split, swapped, tuned_scales
from gated_bert.pruning.selection import refuse_nan
from gated_bert.support.backend import view

_LAST = ("attention_output", "ffn_output")


class MaskTuning(Criterion):
    """Σ (∂L/∂m)² of the masks m of heads and neurons over small batches, in inference; no single weights.

    Of every split of what is to close between heads and neurons the one that loses least of it is taken; inside each
    layer swaps then lower ‖Σ_closed ∂L/∂m‖². What stays is scaled, sublayer after sublayer, each after the pruned
    ones before it, to the least squares of what sublayer and residual path gave together in the unpruned model (of a
    model whose residual paths are not known, of what the sublayer gave). The scales become part of the kernels of
    `attention_output` and `ffn_output`.

    Paper: Kwon et al. 2022, A Fast Post-Training Pruning Framework for Transformers (https://arxiv.org/abs/2204.00656).
    """

    Options = MaskTuningOptions
    needs_data = True
    chooses = True

    def bind(
        self, groups: Sequence[Group], seed: int = 0, pooling: str | None = None, loss: Loss | None = None
    ) -> None:
        super().bind(groups, seed, pooling, loss)
        for group in groups:
            if not isinstance(group, TiedGroup) or group.layers[-1].role not in _LAST or group.axes[-1]:
                raise ConfigError("pattern", group.name, f"{', '.join(self.Options.PATTERNS)}: {self.name} tunes the "
                                  "masks of heads and neurons")  # fmt: skip
        self._groups = {group.layers[-1]: group for group in groups}
        self._observe: Any = None
        self._forget()

    def _forget(self):
        self._prepared: tuple[keras.Model, list[tuple]] | None = None
        self._gradients: dict[GatedLayer, np.ndarray] = {}
        self._scales: dict[GatedLayer, np.ndarray] = {}

    def prepare(self, model: keras.Model, dataset: Any) -> None:
        self._prepared = model, first_batches(dataset, self.options.mask_tuning_texts)
        layers, size = list(self._groups), self.options.mask_tuning_batch_size
        if self._observe is None:
            self._observe = observer(model, layers, ("gradients",), self.probe, self.seed)
        # The identity: no gradient could be taken of a variable that stands on several devices under TensorFlow.
        values = [ops.stop_gradient(variable) for variable in variables_of(model)]
        masks = [view(layer.mask_variable) for layer in layers]
        found: list[list[np.ndarray]] = []
        for batch in small_batches(self._prepared[1], size, -(-self.options.mask_tuning_texts // size)):
            seen = self._observe(values, *batch, np.zeros(2, np.uint32))["gradients"]
            found.append([self._of_units(layer, mask * np.asarray(gradients))
                          for layer, mask, gradients in zip(layers, masks, seen, strict=True)])  # fmt: skip
        self._gradients = {layer: np.stack(own) for layer, own in zip(layers, zip(*found, strict=True), strict=True)}

    def _of_units(self, layer: GatedLayer, gradients: np.ndarray) -> np.ndarray:
        return gradients.reshape(self._groups[layer].num_units, -1).sum(1)

    def choose(
        self, numbers: Sequence[int], gains: Sequence[np.ndarray], weights: float, floors: Sequence[int]
    ) -> list[np.ndarray]:
        groups = [self.groups[number] for number in numbers]
        importance = [self.unit_scores(*each) for each in zip(numbers, groups, strict=True)]
        for group, own in zip(groups, importance, strict=True):
            refuse_nan(own, group.name)
        found = best_split(importance, gains, [group.role for group in groups], weights, floors)
        known = [self._gradients.get(group.layers[-1]) for group in groups]
        return [closing if gradients is None else swapped(closing, gradients, gain)
                for closing, gradients, gain in zip(found, known, gains, strict=True)]  # fmt: skip

    def unit_scores(
        self, index: int, group: Group, is_open: Callable[[GatedLayer], np.ndarray] | None = None
    ) -> np.ndarray:
        gradients = self._gradients.get(group.layers[-1])
        return super().unit_scores(index, group, is_open) if gradients is None else np.square(gradients).sum(0)

    def stages(self, sparsity: float, competing: Sequence[Sequence[GatedLayer]]) -> Iterator[Stage]:
        if self._prepared is None:
            # Scores from elsewhere.
            yield from super().stages(sparsity, competing)
            return
        model, batches = self._prepared
        calibration = None
        if self.updates_weights:
            calibration = Calibration(model, list(self._groups), batches, products=True, reference=True, residual=True)
        yield next(super().stages(sparsity, competing))[0], ()
        for seen in calibration.in_order() if calibration else ():
            for layer, moments in seen.items():
                units = self._groups[layer].num_units
                self._scales = {layer: tuned_scales(gated_kernel(layer), moments, units)}
                yield (), (layer,)
        self._forget()

    def new_kernel(self, layer: GatedLayer, keep: np.ndarray) -> np.ndarray | None:
        scales = self._scales.pop(layer, None)
        if scales is None:
            return None
        return view(layer.raw_kernel) * np.repeat(scales, len(keep) // len(scales))[:, None].astype(np.float32)
