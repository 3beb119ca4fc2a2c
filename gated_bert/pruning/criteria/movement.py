"""Movement and soft movement pruning (Sanh et al. 2020), and L0 regularisation (Louizos et al. 2018)."""

from __future__ import annotations

from typing import Any

import numpy as np
from keras import ops

from gated_bert.config import GatedBertConfig
from gated_bert.config.criterion_options import L0Options, MovementOptions, SoftMovementOptions
from gated_bert.config.presets import MOVEMENT_FREQUENCY
from gated_bert.models.gated_dense import GatedLayer
from gated_bert.pruning.criteria.base import Criterion
from gated_bert.support.tensors import Tensor


class Movement(Criterion):
    """Scores S that training moves: S ← S − η ∂L/∂G (Sanh et al. 2020, Movement Pruning)."""

    Options = MovementOptions
    default_pooling = "mean"
    gate_rule = "straight_through"
    reopens = True
    every_step = True
    usual_update_every = MOVEMENT_FREQUENCY

    def __init__(self, **options: Any):
        super().__init__(**options)
        if not {"learning_rate", "movement_learning_rate"}.isdisjoint(options):
            self.score_multiplier = None
        self.update_every = self.options.movement_pruning_frequency_steps or self.usual_update_every

    @classmethod
    def from_config(cls, config: GatedBertConfig) -> Criterion:
        made = super().from_config(config)
        # A run's own optimiser has the rate of the record; `PruningCallback.optimizer` goes by the weights' rate.
        made.score_multiplier = cls.score_multiplier
        return made

    def score_tensor(self, layer: GatedLayer) -> Tensor:
        return ops.stop_gradient(layer.scores)


class Penalised(Movement):
    """Base of criteria whose gates close by themselves under a rising penalty, the mean over matrices."""

    selects = False
    score_multiplier = 100.0
    columns: tuple[str, ...] = ("penalty_weight",)

    def final_penalty(self) -> float:
        """Weight of the penalty at the end of the schedule."""
        raise NotImplementedError(f"{type(self).__name__} does not say its penalty")

    def set_progress(self, progress: float) -> None:
        """Moves the penalty to a share `progress` of its final weight."""
        layers = [group.layers[0] for group in self.groups]
        sizes = [int(np.prod(layer.mask_variable.shape)) for layer in layers]
        if self.options.penalty_over == "matrices":
            sizes = [1] * len(layers)
        for layer, size in zip(layers, sizes, strict=True):
            layer.penalty_weight.assign(progress * self.final_penalty() * size / sum(sizes))

    def report(self) -> dict[str, float]:
        weights = [float(ops.convert_to_numpy(group.layers[0].penalty_weight)) for group in self.groups]
        return {"penalty_weight": sum(weights)}


class SoftMovement(Penalised):
    """Weights stay while σ(S) is above a rising threshold; a penalty on mean σ(S) lowers scores (Sanh et al. 2020)."""

    Options = SoftMovementOptions
    gate_rule = "soft_threshold"
    columns = ("threshold", "penalty_weight")

    def final_penalty(self) -> float:
        return self.options.soft_movement_penalty

    def set_progress(self, progress: float) -> None:
        super().set_progress(progress)
        for group in self.groups:
            group.layers[0].threshold.assign(progress * self.options.soft_movement_threshold)

    def report(self) -> dict[str, float]:
        return {"threshold": float(ops.convert_to_numpy(self.groups[0].layers[0].threshold)), **super().report()}


class L0(Penalised):
    """Hard-concrete gates with an expected-L0 penalty (Louizos et al. 2018, Learning sparse networks through L0)."""

    Options = L0Options
    gate_rule = "hard_concrete"

    def final_penalty(self) -> float:
        return self.options.l0_penalty
