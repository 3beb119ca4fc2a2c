"""Magnitude: |W|."""

from __future__ import annotations

import numpy as np
from keras import ops

from gated_bert.pruning.criteria.base import Criterion


class Magnitude(Criterion):
    """|W| (Han et al. 2015, Learning both weights and connections; Zhu & Gupta 2017)."""

    def scores(self, layer):
        return np.abs(ops.convert_to_numpy(layer.raw_kernel))
