"""Which epoch of a run is its best."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TypeVar

_Row = TypeVar("_Row", bound=Mapping)

SAME_SPARSITY = 1e-3
"""Sparsities (fractions) that differ by less are the same: whole units seldom add up to one twice."""
NEAR_TARGET = 0.01
"""What a criterion that aims at a sparsity may lack of it, or a run end beside what was asked of it."""


def best_row(rows: Sequence[_Row], metric: str, aims: bool = False) -> _Row:
    """The best epoch at the highest sparsity that a run has reached.

    It is either the last row or the best of the rows before it, so that a run which keeps the model of its best row
    after every epoch has the right one at its end. Of equals the first counts. Rows whose metric is no number compete
    only where there are no others.

    Args:
        rows: at least one row, in the order of the epochs, with `sparsity` and the metric.
        metric: column that decides; larger is better.
        aims: what is closed swings about the target: near it or beyond it is all the same.
    """
    known = [row for row in rows if math.isfinite(row[metric])] or list(rows)
    reached = _near_target if aims else _closed
    best, highest = known[0], reached(known[0])
    for row in known[1:]:
        highest = max(highest, reached(row))
        least = highest - SAME_SPARSITY
        if reached(best) < least or (reached(row) >= least and row[metric] > best[metric]):
            best = row
    return best


def _closed(row: Mapping) -> float:
    return row["sparsity"]


def _near_target(row: Mapping) -> float:
    closed, target = row["pattern_sparsity"], row["target_sparsity"]
    return target if closed >= target - NEAR_TARGET else closed
