"""Magnitude: |W|."""

from __future__ import annotations

import numpy as np

from gated_bert.config.criterion_options import MagnitudeOptions
from gated_bert.pruning.criteria.base import Criterion
from gated_bert.support.backend import view


class Magnitude(Criterion):
    """|W| (Han et al. 2015, Learning both weights and connections; Zhu & Gupta 2017)."""

    Options = MagnitudeOptions

    def scores(self, layer):
        return np.abs(view(layer.raw_kernel))
