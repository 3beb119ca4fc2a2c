"""Which heads and neurons close, by the diagonal and the blocks of the Fisher matrix of their masks; and what scales
the outputs of those that stay.

Paper: Kwon et al. 2022, A Fast Post-Training Pruning Framework for Transformers (https://arxiv.org/abs/2204.00656).
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np

from gated_bert.pruning.calibration import Moments
from gated_bert.pruning.second_order import damped

LARGEST_SCALE = 10.0
"""A layer of which a unit would be scaled by more, or by less than its negative, stays as it is."""


def best_split(
    importance: Sequence[np.ndarray], gains: Sequence[np.ndarray], kinds: Sequence[Hashable], weights: float,
    floors: Sequence[int],
) -> list[np.ndarray]:  # fmt: skip
    """Which units close: for every number of larger ones smaller ones make up the rest, and of these splits the one
    with the largest sum of importance left wins.

    Args:
        importance: of each group's units, float [units].
        gains: weights that closing each adds, int [units]; 0 where it is closed.
        kinds: of each group what its units are, at most two kinds in all; units of a kind are of one size.
        weights: to be closed, which the splits do to within half a smaller unit where they can.
        floors: open units that each group keeps, its most important ones.

    Returns:
        Of each group which units close, bool [units].
    """
    flat, size = np.concatenate(importance).astype(np.float64), np.concatenate(gains)
    ends = np.cumsum([len(each) for each in gains])
    free = size > 0
    for first, last, floor in zip(ends - [len(each) for each in gains], ends, floors, strict=True):
        is_open = first + np.flatnonzero(size[first:last])
        free[is_open[np.argsort(flat[is_open])[max(len(is_open) - floor, 0) :]]] = False
    kind = np.repeat([list(dict.fromkeys(kinds)).index(each) for each in kinds], [len(each) for each in gains])
    orders = [np.flatnonzero(free & (kind == each)) for each in range(2)]
    small, large = sorted(orders, key=lambda units: size[units].max(initial=0))
    if not len(small):
        small, large = large, small
    small, large = (units[np.argsort(flat[units])] for units in (small, large))
    closes, costs = _sums(size[large]), _sums(flat[large])
    others, other_costs = _sums(size[small]), _sums(flat[small])
    counts = np.searchsorted((others[1:] + others[:-1]) / 2, weights - closes)
    missed = np.abs(closes + others[counts] - weights)
    fits = missed <= max(missed.min(), size[small].max(initial=0) / 2)
    number = int(np.argmin(np.where(fits, costs + other_costs[counts], np.inf)))
    closed = np.zeros(len(flat), bool)
    closed[large[:number]] = closed[small[: counts[number]]] = True
    return np.split(closed, ends[:-1])


def _sums(values: np.ndarray) -> np.ndarray:
    """Of the first 0, 1, 2 … values."""
    return np.concatenate([np.zeros(1), np.cumsum(values, dtype=np.float64)])


def swapped(closed: np.ndarray, gradients: np.ndarray, gains: np.ndarray) -> np.ndarray:
    """Units of a layer that close, after swaps that lower ‖Σ_closed g‖², the loss by the layer's Fisher matrix.

    Once for each open unit, the less important first, it closes in the place of the unit whose opening lowers it most.

    Args:
        closed: which close, bool [units].
        gradients: of the units' masks, [batches, units].
        gains: weights that closing each adds, int [units]; only those of as many weights are swapped.

    Returns:
        Which close, as many, bool [units].
    """
    closed, gradients = closed.copy(), gradients.astype(np.float64)
    squares = np.square(gradients).sum(0)
    total = gradients[:, closed].sum(1)
    is_open = np.flatnonzero(~closed & (gains > 0))
    for unit in is_open[np.argsort(squares[is_open], kind="stable")]:
        others = np.flatnonzero(closed & (gains == gains[unit]))
        if not len(others):
            continue
        both = total + gradients[:, unit]
        lengths = both @ both - 2 * both @ gradients[:, others] + squares[others]
        best = others[np.argmin(lengths)]
        swap = both - gradients[:, best]
        if swap @ swap < total @ total:
            closed[unit], closed[best], total = True, False, swap
    return closed


def tuned_scales(kernel: np.ndarray, seen: Moments, units: int) -> np.ndarray:
    """Scales of the units of a sublayer, the damped least squares of their contributions to what it is to give.

    A unit contributes x_u W_u, with x_u its inputs of the sublayer's last layer. Least is
    ‖Σ s_u x_u W_u − y‖² + λ ‖s − 1‖², λ a hundredth of the mean over open units of ‖x_u W_u‖².

    Args:
        kernel: W of that layer, 0 in the rows of closed units, [in, out].
        seen: its inputs, with y [out] of every position beside them.
        units: consecutive runs of rows.

    Returns:
        Float64 [units]; all 1 where one of them would leave [−10, 10]. Of closed units it is 1.
    """
    w = kernel.astype(np.float64)
    gram = (seen.products() * (w @ w.T)).reshape(units, len(w) // units, units, -1).sum((1, 3))
    right = (w * seen.cross()).reshape(units, -1).sum(1)
    scales = 1 + np.linalg.solve(damped(gram), right - gram.sum(1))
    return scales if np.all(np.abs(scales) <= LARGEST_SCALE) else np.ones(units)
