"""Taylor: squared first-order effect of removing a weight."""

from __future__ import annotations

import numpy as np

from gated_bert.config.criterion_options import TaylorOptions
from gated_bert.pruning.criteria.base import Criterion
from gated_bert.support.backend import view


class Taylor(Criterion):
    """Σ (∂L/∂G)² = Σ (W ⊙ ∂L/∂W')² over the steps of a stage (Molchanov et al. 2019, Importance Estimation for Neural
    Network Pruning).

    The layers' `scores` hold the sum: their gradient is ∂L/∂G, from training's own backward pass, and the optimiser
    adds up its squares. A stage lasts from one mask update to the next.
    """

    Options = TaylorOptions
    default_pooling = "mean"
    gate_rule = "straight_through"
    score_rule = "squared"

    def scores(self, layer):
        return view(layer.scores)

    def after_update(self):
        for layer in dict.fromkeys(layer for group in self.groups for layer in group.layers):
            layer.scores.assign(np.zeros(tuple(layer.scores.shape), np.float32))


class PublishedTaylor(Taylor):
    """Σ (W' ∂L/∂G)², as TileSparsity's code has it: one factor W more, so large weights count more."""

    gate_rule = "weighted_straight_through"
