"""Wanda: weights times the norms of what comes in."""

from __future__ import annotations

import numpy as np

from gated_bert.pruning.criteria.saliency import Saliency


class Wanda(Saliency):
    """|W_io| ‖x_i‖₂, over all real positions of the batches, ranked inside each output column (Sun et al. 2023, A
    Simple and Effective Pruning Approach for Large Language Models)."""

    observes = ("input_norms",)

    def combine(self, kernel, input_norms):
        return np.abs(kernel) * input_norms[:, None]
