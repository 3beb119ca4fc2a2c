"""Movement and soft movement pruning (Sanh et al. 2020), and L0 regularisation (Louizos et al. 2018)."""

from __future__ import annotations

import numpy as np
from keras import ops

from gated_bert.pruning.criteria.base import Criterion


class Movement(Criterion):
    """Scores S that training moves: S ← S − η ∂L/∂G (Sanh et al. 2020, Movement Pruning)."""

    signed = True
    gate_rule = "straight_through"
    reopens = True
    every_step = True

    def scores(self, layer):
        return ops.convert_to_numpy(layer.scores)


class SoftMovement(Movement):
    """Weights stay while σ(S) is above a rising threshold; a penalty on mean σ(S) lowers scores (Sanh et al. 2020)."""

    gate_rule = "soft_threshold"
    selects = False
    columns = ("threshold",)

    def set_progress(self, progress: float):
        """Moves threshold and penalty to a share `progress` of their final values."""
        total = sum(int(np.prod(group.layers[0].raw_kernel.shape)) for group in self.groups)
        for layer in (group.layers[0] for group in self.groups):
            share = int(np.prod(layer.raw_kernel.shape)) / total
            layer.threshold.assign(progress * self.config.soft_movement_threshold)
            layer.penalty_weight.assign(progress * self.config.soft_movement_penalty * share)

    def report(self):
        return {"threshold": float(ops.convert_to_numpy(self.groups[0].layers[0].threshold))}


class L0(Movement):
    """Hard-concrete gates with an expected-L0 penalty (Louizos et al. 2018, Learning sparse networks through L0)."""

    gate_rule = "hard_concrete"
    selects = False
    columns = ("penalty_weight",)

    def set_progress(self, progress: float):
        """Moves the penalty to a share `progress` of its final value."""
        total = sum(int(np.prod(group.layers[0].raw_kernel.shape)) for group in self.groups)
        for layer in (group.layers[0] for group in self.groups):
            layer.penalty_weight.assign(
                progress * self.config.l0_penalty * int(np.prod(layer.raw_kernel.shape)) / total
            )

    def report(self):
        return {
            "penalty_weight": sum(float(ops.convert_to_numpy(group.layers[0].penalty_weight)) for group in self.groups)
        }
