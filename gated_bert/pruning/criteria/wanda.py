"""Wanda: weights times the norms of what comes in."""

from __future__ import annotations

import numpy as np

from gated_bert.models.gated_dense import GatedLayer
from gated_bert.pruning.calibration import Moments
from gated_bert.pruning.criteria.calibrated import Calibrated


class Wanda(Calibrated):
    """|W_io| ‖x_i‖₂, over all real positions of the calibration data, ranked inside each output column (Sun et al.
    2023, A Simple and Effective Pruning Approach for Large Language Models)."""

    def combine(self, layer: GatedLayer, kernel: np.ndarray, inputs: Moments) -> np.ndarray:
        return np.abs(kernel) * np.sqrt(inputs.squares)[:, None]
