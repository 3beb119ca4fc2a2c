"""Magnitude: |W|."""

from __future__ import annotations

import numpy as np

from gated_bert.backend import view
from gated_bert.pruning.criteria.base import Criterion


class Magnitude(Criterion):
    """|W| (Han et al. 2015, Learning both weights and connections; Zhu & Gupta 2017)."""

    def scores(self, layer):
        return np.abs(view(layer.raw_kernel))
