"""PLATON: sensitivity, and how uncertain it is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from keras import ops

from gated_bert.config.criterion_options import PlatonOptions
from gated_bert.models.gated_dense import GatedLayer
from gated_bert.pruning.closed import layers_of
from gated_bert.pruning.criteria.base import Criterion, Loss
from gated_bert.pruning.groups import Group
from gated_bert.support.tensors import Tensor


class Platon(Criterion):
    """Ī · Ū: smoothed sensitivity times smoothed uncertainty (Zhang et al. 2022, PLATON).

    I = |W ⊙ ∂L/∂W'| is averaged over a window of steps; then Ī ← β₁ Ī + (1 − β₁) I and Ū ← β₂ Ū + (1 − β₂) |I − Ī|,
    with the new Ī. The layers' `scores` hold the window's sum, which the optimiser adds up in training's own backward
    pass. Masks follow each window, and what was closed may open again. Before the first window has ended, what there is
    of it ranks, as it would alone. Of units Ī · Ū is pooled.
    """

    Options = PlatonOptions
    default_pooling = "mean"
    gate_rule = "straight_through"
    score_rule = "absolute"
    score_alpha = 1.0
    reopens = True
    every_step = True

    def __init__(self, **options: Any):
        super().__init__(**options)
        self.update_every = self.collect_every = self.options.platon_window

    def bind(
        self, groups: Sequence[Group], seed: int = 0, pooling: str | None = None, loss: Loss | None = None
    ) -> None:
        super().bind(groups, seed, pooling, loss)
        self._layers, self._windows = layers_of(groups), 0
        self._smooth: list[tuple[Tensor, Tensor]] = [
            (ops.zeros(layer.scores.shape), ops.zeros(layer.scores.shape)) for layer in self._layers
        ]

    def collect(self) -> None:
        first, second = self.options.platon_beta1, self.options.platon_beta2
        for place, layer in enumerate(self._layers):
            sensitivity, uncertainty = self._smooth[place]
            mean = ops.convert_to_tensor(layer.scores) / self.options.platon_window
            sensitivity = first * sensitivity + (1 - first) * mean
            uncertainty = second * uncertainty + (1 - second) * ops.abs(mean - sensitivity)
            self._smooth[place] = sensitivity, uncertainty
            layer.scores.assign(ops.zeros_like(mean))
        self._windows += 1

    def score_tensor(self, layer: GatedLayer) -> Tensor:
        if not self._windows:
            return ops.square(ops.convert_to_tensor(layer.scores))
        sensitivity, uncertainty = self._smooth[self._layers.index(layer)]
        return sensitivity * uncertainty

    def state(self) -> dict[str, np.ndarray]:
        arrays = {f"{name}{place}": ops.convert_to_numpy(array)
                for place, smooth in enumerate(self._smooth)
                for name, array in zip(("sensitivity", "uncertainty"), smooth, strict=True)}  # fmt: skip
        return arrays | {"windows": np.array(self._windows)}

    def load_state(self, state: dict[str, np.ndarray]) -> None:
        self._windows = int(state["windows"])
        for place in range(len(self._layers)):
            sensitivity, uncertainty = (ops.convert_to_tensor(state[f"{name}{place}"], "float32")
                                        for name in ("sensitivity", "uncertainty"))  # fmt: skip
            self._smooth[place] = sensitivity, uncertainty
