"""SNIP's sensitivity with momentum."""

from __future__ import annotations

from typing import Any

from keras import ops

from gated_bert.config.criterion_options import SnipMomentumOptions
from gated_bert.models.gated_dense import GatedLayer
from gated_bert.pruning.criteria.base import Criterion
from gated_bert.support.tensors import Tensor


class SnipMomentum(Criterion):
    """S ← β S + |W ⊙ ∂L/∂W'| in every step: the sensitivity of Lee et al. 2019 (SNIP), remembered for a while.

    The layers' `scores` hold S; the optimiser moves it in training's own backward pass. As in Intel Neural Compressor,
    but that a closed weight keeps its value, so that it may open again.
    """

    Options = SnipMomentumOptions
    default_pooling = "mean"
    gate_rule = "straight_through"
    score_rule = "absolute"
    reopens = True
    every_step = True
    update_every = 10

    def __init__(self, **options: Any):
        super().__init__(**options)
        self.score_alpha = self.options.snip_momentum_beta

    def score_tensor(self, layer: GatedLayer) -> Tensor:
        return ops.stop_gradient(layer.scores)
