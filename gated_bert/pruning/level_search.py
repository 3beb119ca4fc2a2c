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
"""Share of the parts whose weight is drawn anew, at the beginning of the search and at its end."""

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


def search_levels(
    costs: Sequence[np.ndarray], errors: Sequence[np.ndarray], budget: float, evaluate: Callable[[Levels], float],
    steps: int, seed: int = 0,
) -> Iterator[Found]:  # fmt: skip
    """Looks for weights of the parts' errors with which the best levels lose least.

    Begins with all alike; each step draws those of some parts anew, fewer and fewer, and keeps what is better. Levels
    that were met before are not evaluated again.

    Args:
        costs: see `best_levels`.
        errors: see `best_levels`.
        budget: what all may cost.
        evaluate: levels → loss of the model that is pruned so.
        steps: draws.
        seed: of the draws.

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

    weights = np.ones(len(costs))
    levels, loss = of(weights)
    yield Found(weights, levels, loss, len(known))
    for step in range(steps):
        share = _CHANGED[0] + (_CHANGED[1] - _CHANGED[0]) * step / max(steps - 1, 1)
        drawn = weights.copy()
        places = rng.choice(len(drawn), max(1, round(share * len(drawn))), replace=False)
        # Weights differ by orders of magnitude rather than by amounts.
        drawn[places] = np.exp(rng.uniform(np.log(0.1), np.log(10), len(places)))
        others, other_loss = of(drawn)
        if other_loss < loss:
            weights, levels, loss = drawn, others, other_loss
        yield Found(weights, levels, loss, len(known))
