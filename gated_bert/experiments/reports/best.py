"""Which epoch of a run is its best."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TypeVar

_Row = TypeVar("_Row", bound=Mapping)

SAME_SPARSITY = 1e-3
"""Sparsities (fractions) that differ by less are the same: whole units seldom add up to one twice."""


def best_row(rows: Sequence[_Row], metric: str) -> _Row:
    """The best epoch at the highest sparsity that a run has reached.

    It is either the last row or the best of the rows before it, so that a run which keeps the model of its best row
    after every epoch has the right one at its end. Of equals the first counts. Rows whose metric is no number compete
    only where there are no others.

    Args:
        rows: at least one row, in the order of the epochs, with `sparsity` and the metric.
        metric: column that decides; larger is better.
    """
    known = [row for row in rows if math.isfinite(row[metric])] or list(rows)
    best, highest = known[0], known[0]["sparsity"]
    for row in known[1:]:
        highest = max(highest, row["sparsity"])
        least = highest - SAME_SPARSITY
        if best["sparsity"] < least or (row["sparsity"] >= least and row[metric] > best[metric]):
            best = row
    return best
