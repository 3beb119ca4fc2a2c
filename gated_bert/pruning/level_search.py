"""Which level each part of a model is pruned to: a knapsack of costs, and a search for how much each part matters.

Paper: Frantar & Alistarh 2022, SPDY (https://arxiv.org/abs/2201.13096).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

BUCKETS = 10_000
"""Steps in which a budget is counted."""
_CHANGED = (1.0, 0.1)
"""Share of the parts whose weight is changed, at the beginning of the search and at its end."""
_SPREAD = 1.2
"""Standard deviation of the logarithm of what a weight is multiplied by: two in three change by 3.3 times at most."""
_LEAST = 1e-6
"""The smallest weight, as a share of the largest: no part is free."""

Levels = tuple[int, ...]


class Unreachable(ValueError):
    """No choice of levels costs as little as that.

    Attributes:
        least: what the cheapest choice costs.
    """

    def __init__(self, least: float):
        super().__init__(f"the cheapest levels cost {least:g}")
        self.least = least


def best_levels(
    costs: Sequence[np.ndarray], errors: Sequence[np.ndarray], budget: float, buckets: int = BUCKETS
) -> Levels:
    """The level of every part with the smallest sum of errors whose costs do not exceed a budget together.

    Costs are rounded up to steps of budget / buckets, so that the budget holds, and what is best is so to within that.

    Args:
        costs: of each part's levels, not negative, float [levels].
        errors: the same.
        budget: what all may cost.
        buckets: steps.

    Raises:
        Unreachable: even the cheapest levels cost more.
    """
    least = sum(float(np.min(each)) for each in costs)
    if least > budget:
        raise Unreachable(least)
    # What the cheapest levels cost is beside the budget that there is to choose in, and is not rounded.
    step = max(budget - least, 1e-12 * max(budget, 1e-12)) / buckets
    best, chosen = np.zeros(buckets + 1), []
    for cost, error in zip(costs, errors, strict=True):
        above = np.minimum(np.ceil((np.asarray(cost) - np.min(cost)) / step - 1e-9), buckets + 1).astype(np.int64)
        found, level = np.full(buckets + 1, np.inf), np.zeros(buckets + 1, np.int32)
        for index, (extra, value) in enumerate(zip(above, error, strict=True)):
            if extra <= buckets:
                total = best[: buckets + 1 - extra] + value
                better = total < found[extra:]
                found[extra:][better], level[extra:][better] = total[better], index
        best = found
        chosen.append((above, level))
    levels, left = [], buckets
    for above, level in reversed(chosen):
        index = int(level[left])
        levels.append(index)
        left -= int(above[index])
    return tuple(reversed(levels))


@dataclass(frozen=True)
class Found:
    """What a search has come to.

    Attributes:
        weights: how much each part's error counts, float [parts].
        levels: the best levels by them.
        loss: what `evaluate` gave of these.
        tried: different choices of levels that were evaluated.
    """

    weights: np.ndarray
    levels: Levels
    loss: float
    tried: int


def measured_weights(
    costs: Sequence[np.ndarray], errors: Sequence[np.ndarray], evaluate: Callable[[Levels], float]
) -> Iterator[float]:
    """How much the error of each part counts: what is lost where it alone costs half as much, over its error there.

    Errors are relative to what a part gives, and say nothing of how much that matters to what comes after it. SPDY
    draws weights from the start; what measuring them brings `python -m benchmarks.level_search` tells.

    Args:
        costs: see `best_levels`.
        errors: see `best_levels`.
        evaluate: levels → loss of the model that is pruned so, 0 of one that is not.

    Yields:
        The weight of each part, not negative; 1 of one whose levels are all without error.
    """
    for part, (cost, error) in enumerate(zip(costs, errors, strict=True)):
        lossy = np.flatnonzero(np.asarray(error) > 0)
        if not len(lossy):
            yield 1.0
            continue
        level = int(lossy[np.argmin(np.abs(np.asarray(cost)[lossy] - cost[0] / 2))])
        yield max(evaluate(tuple(level * (each == part) for each in range(len(costs)))), 0.0) / float(error[level])


def search_levels(
    costs: Sequence[np.ndarray], errors: Sequence[np.ndarray], budget: float, evaluate: Callable[[Levels], float],
    steps: int, seed: int = 0, weights: Sequence[float] | None = None,
) -> Iterator[Found]:  # fmt: skip
    """Looks for weights of the parts' errors with which the best levels lose least.

    Each step changes those of some parts, fewer and fewer, and keeps what is better. Levels that were met before are
    not evaluated again.

    Args:
        costs: see `best_levels`.
        errors: see `best_levels`.
        budget: what all may cost.
        evaluate: levels → loss of the model that is pruned so.
        steps: draws.
        seed: of the draws.
        weights: to begin with, as of `measured_weights`; by default all alike.

    Yields:
        The best so far, after the start and after each step.

    Raises:
        Unreachable: even the cheapest levels cost more.
    """
    rng, known = np.random.default_rng(seed), {}

    def of(weights: np.ndarray) -> tuple[Levels, float]:
        levels = best_levels(costs, [weight * error for weight, error in zip(weights, errors, strict=True)], budget)
        if levels not in known:
            known[levels] = evaluate(levels)
        return levels, known[levels]

    now = np.ones(len(costs)) if weights is None else np.array(weights, float)
    now = np.maximum(now, _LEAST * now.max(initial=1e-12))
    levels, loss = of(now)
    yield Found(now, levels, loss, len(known))
    for step in range(steps):
        share = _CHANGED[0] + (_CHANGED[1] - _CHANGED[0]) * step / max(steps - 1, 1)
        drawn = now.copy()
        places = rng.choice(len(drawn), max(1, round(share * len(drawn))), replace=False)
        # Weights differ by orders of magnitude rather than by amounts.
        drawn[places] *= np.exp(rng.normal(0, _SPREAD, len(places)))
        others, other_loss = of(drawn)
        if other_loss < loss:
            now, levels, loss = drawn, others, other_loss
        yield Found(now, levels, loss, len(known))
