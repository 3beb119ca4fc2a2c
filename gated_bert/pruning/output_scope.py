"""Choosing inside every column of a matrix alone, all columns at once."""

from __future__ import annotations

import math

import numpy as np

from gated_bert.pruning.selection import refuse_nan


def choose_in_columns(
    scores: np.ndarray, sparsity: float, min_kept: float, rng: np.random.Generator, name: str = "scores"
) -> np.ndarray:
    """Closes the smallest scores of every column, equally many of each.

    Ties fall at random. What is closed for good scores −∞, and goes first; a column in which more is closed stays as it
    is.

    Args:
        scores: array [in, out].
        sparsity: fraction of each column to close, to within half a weight.
        min_kept: fraction of each column that stays; at least one weight does.
        rng: breaks ties.
        name: shown in errors.

    Returns:
        Bits, packed, 1 where a weight is closed.

    Raises:
        NanScoreError: a score is NaN.
    """
    refuse_nan(scores, name)
    rows = len(scores)
    count = _count(rows, sparsity, min_kept)
    if not count:
        return np.packbits(np.zeros(scores.size, bool))
    # By columns, so that what is ranked lies side by side.
    columns = np.ascontiguousarray(scores.T)
    limits = np.partition(columns, count - 1, axis=1)[:, count - 1, None]
    closed, ties = columns < limits, columns == limits
    missing = count - np.count_nonzero(closed, axis=1)
    several = np.flatnonzero(np.count_nonzero(ties, axis=1) > missing)
    if len(several):
        drawn = np.where(ties[several], rng.random((len(several), rows), np.float32), np.float32(2))
        ranks = np.argsort(np.argsort(drawn, axis=1), axis=1)
        ties[several] &= ranks < missing[several, None]
    return np.packbits((closed | ties).T)


def is_due_in_columns(is_open: np.ndarray, sparsity: float, min_kept: float) -> bool:
    """Whether a column has fewer weights closed than `choose_in_columns` would close; `is_open` is bool [in, out]."""
    rows = len(is_open)
    return bool(np.any(rows - np.count_nonzero(is_open, axis=0) < _count(rows, sparsity, min_kept)))


def _count(rows: int, sparsity: float, min_kept: float) -> int:
    """Weights of a column to close."""
    return min(round(sparsity * rows), rows - max(1, math.ceil(min_kept * rows)))
