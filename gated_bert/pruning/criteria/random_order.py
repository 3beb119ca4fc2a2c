"""Random: the control that every criterion must beat."""

from __future__ import annotations

import zlib

import numpy as np

from gated_bert.config.criterion_options import RandomOptions
from gated_bert.pruning.criteria.base import Criterion


class Random(Criterion):
    """Uniform scores, fixed by the seed and the layer's label, so that a mask only grows."""

    Options = RandomOptions

    def scores(self, layer):
        rng = np.random.default_rng([self.seed, zlib.crc32(layer.label.encode())])
        return rng.random(tuple(layer.mask_variable.shape), dtype=np.float32)
