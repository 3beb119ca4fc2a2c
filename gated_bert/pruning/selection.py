"""Exact selection of the smallest scores, in O(n) and with little extra memory."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from gated_bert.support.errors import NanScoreError

_SAMPLE = 200_000
# Shortest stride of the sample: sorting more of a small pool costs more than the narrower bracket saves.
_STRIDE = 64


def refuse_nan(scores: np.ndarray, name: str) -> None:
    """Refuses to rank by scores of which one is NaN.

    Raises:
        NanScoreError: names what was to be ranked.
    """
    if np.isnan(np.min(scores)):
        why = "a score is NaN, so nothing can be ranked"
        raise NanScoreError(f"{name}: {why}; look for a loss or a weight that is NaN")


@dataclass(frozen=True)
class Pool:
    """Units that compete: all of one weight count.

    Args:
        read: given a stride, returns the scores of every so manyth unit, float array; called once per pass, so that
            only one pool's scores are in memory at a time. −inf closes a unit whatever the others are, +inf keeps it.
        size: n.
        unit_weights: weights in one unit.
        name: shown in errors.
        gains: weights that choosing each unit adds, int array [size]; None: `unit_weights` of each.
        ordered: of equal units the first go first, where ties are broken at random else.
    """

    read: Callable[[int], np.ndarray]
    size: int
    unit_weights: int = 1
    name: str = "scores"
    gains: np.ndarray | None = None
    ordered: bool = False

    def scores(self) -> np.ndarray:
        """All scores; raises NanScoreError where one of them is NaN."""
        scores = self.read(1)
        refuse_nan(scores, self.name)
        return scores


def kth_smallest(pools: Sequence[Pool], k: int) -> tuple[float, int, int]:
    """The k-th smallest score (k from 1) of all pools together, how many scores are smaller, and how many equal.

    A strided sample brackets the answer; one pass counts what lies below the bracket and gathers what lies
    inside; the bracket is widened in the rare case that it missed.
    """
    total = sum(pool.size for pool in pools)
    stride = _sample_stride(total)
    sample = np.concatenate([pool.read(stride) for pool in pools])
    # Five standard deviations of a rank in the sample, at most √n / 2 each.
    margin = 2.5 * np.sqrt(len(sample)) if stride > 1 else 0
    while True:
        place = (k - 0.5) / total * len(sample)
        first, last = int(np.floor(place - margin)), int(place + margin)
        ends = [end for end in (first, last) if 0 <= end < len(sample)]
        sample = np.partition(sample, ends) if ends else sample
        low = sample[first] if first >= 0 else -np.inf
        high = sample[last] if last < len(sample) else np.inf
        found = _search_bracket(pools, k, low, high)
        if found is not None:
            return found
        margin = 4 * margin + 16


def _sample_stride(total: int) -> int:
    """Every so manyth of `total` scores is looked at first."""
    stride = max(_STRIDE, total // _SAMPLE) if total > _STRIDE**2 else 1
    # One that shares a factor with a matrix' width would see the same few columns in every row.
    while math.gcd(stride, 2 * 3 * 5 * 7) > 1:
        stride += 1
    return stride


def _search_bracket(pools: Sequence[Pool], k: int, low: float, high: float) -> tuple[float, int, int] | None:
    """As `kth_smallest` where the answer lies from `low` to `high`, else None."""
    up_to_low, parts = 0, []
    for pool in pools:
        scores = pool.scores()
        low_enough = scores <= low
        up_to_low += int(np.count_nonzero(low_enough))
        parts.append(scores[(scores < high) > low_enough])
    inside = np.concatenate(parts)
    rank = k - up_to_low
    if 0 < rank <= len(inside):
        value = np.partition(inside, rank - 1)[rank - 1]
        below, equal = up_to_low + int(np.count_nonzero(inside < value)), int(np.count_nonzero(inside == value))
    else:
        value = low if rank <= 0 else high
        below = sum(int(np.count_nonzero(pool.read(1) < value)) for pool in pools)
        equal = sum(int(np.count_nonzero(pool.read(1) == value)) for pool in pools)
    return (float(value), below, equal) if below < k <= below + equal else None


def smallest(
    pools: Sequence[Pool], weights: float, rng: np.random.Generator, use: Callable[[int, np.ndarray], None]
) -> None:
    """Chooses the smallest-scored units until they hold `weights` weights, to within half a unit.

    Ties are broken at random: in index order the first layers would lose everything.

    Args:
        pools: the competing units.
        weights: number of weights to choose.
        rng: breaks ties.
        use: called with a pool's index and its choice, a bool array [n], pool after pool, so that no more than one
            pool's choice need be in memory.
    """
    if len({pool.unit_weights for pool in pools}) > 1 or any(pool.gains is not None for pool in pools):
        _smallest_of_unequal(pools, weights, rng, use)
        return
    if len(pools) == 1:
        # One pool's scores may stay in memory, so one reading serves all passes.
        scores = pools[0].read(1)
        pools = [replace(pools[0], read=lambda every: scores[::every])]
    total = sum(pool.size for pool in pools)
    k = min(max(round(weights / pools[0].unit_weights), 0), total)
    if k in (0, total):
        for index, pool in enumerate(pools):
            use(index, np.full(pool.size, k == total))
        return
    threshold, below, ties_left = kth_smallest(pools, k)
    ties_wanted = k - below
    for index, pool in enumerate(pools):
        scores = pool.read(1)
        chosen = scores < threshold
        ties = np.flatnonzero(scores == threshold)
        taken = places_of_ties(rng, ties_wanted, ties_left, len(ties))
        chosen[ties[taken]] = True
        ties_wanted, ties_left = ties_wanted - len(taken), ties_left - len(ties)
        use(index, chosen)


def places_of_ties(rng: np.random.Generator, wanted: int, left: int, here: int) -> np.ndarray:
    """Which of `here` equal units of a pool are chosen, int array of places among them, where `wanted` are to be chosen
    of the `left` equal ones of this pool and those after it."""
    take = int(rng.hypergeometric(wanted, left - wanted, here)) if here else 0
    return np.arange(here) if take == here else rng.permutation(here)[:take]


def _smallest_of_unequal(pools, weights, rng, use):
    scores = np.concatenate([pool.scores() for pool in pools])
    sizes = np.concatenate(
        [np.full(pool.size, pool.unit_weights) if pool.gains is None else pool.gains for pool in pools], dtype=np.int64
    )
    ties = rng.permutation(len(scores))
    for pool, first in zip(pools, np.cumsum([0, *(pool.size for pool in pools)]), strict=False):
        if pool.ordered:
            ties[first : first + pool.size].sort()
    order = np.lexsort((ties, scores))
    cumulative = np.cumsum(sizes[order])
    count = int(np.searchsorted(cumulative, weights, side="right"))
    if count < len(order):
        before = cumulative[count - 1] if count else 0
        count += bool(cumulative[count] - weights < weights - before)
    chosen = np.zeros(len(scores), bool)
    chosen[order[:count]] = True
    for index, part in enumerate(np.split(chosen, np.cumsum([pool.size for pool in pools])[:-1])):
        use(index, part)


def smallest_above_floors(
    pools: Sequence[Pool],
    weights: float,
    floors: Sequence[int],
    rng: np.random.Generator,
    others_pay: bool = True,
) -> list[np.ndarray]:
    """As `smallest`, but a pool left with fewer units than its floor gets its best ones back, and others pay.

    Args:
        pools: the competing units.
        weights: number of weights to choose.
        floors: of each pool the units that are not chosen, at least; those of all pools win over `weights`.
        rng: breaks ties.
        others_pay: whether units of other pools are chosen in place of those given back.

    Returns:
        Per pool its choice in packed bits: under one scope for all matrices all choices are in memory at once.
    """
    protected: dict[int, np.ndarray] = {}

    def keeping(place: int) -> Pool:
        def read(every: int) -> np.ndarray:
            scores = pools[place].read(every)
            return np.where(protected[place][::every], np.float32(np.inf), scores) if place in protected else scores

        return replace(pools[place], read=read)

    while True:
        chosen: dict[int, np.ndarray] = {}
        left = [0] * len(pools)

        def use(place: int, part: np.ndarray, chosen=chosen, left=left):
            chosen[place], left[place] = np.packbits(part), len(part) - np.count_nonzero(part)

        smallest([keeping(place) for place in range(len(pools))], max(weights, 0), rng, use)
        poor = [place for place in range(len(pools)) if left[place] < floors[place]]
        fresh = set(poor) - protected.keys()
        for place in fresh:
            best = np.argpartition(pools[place].scores(), -floors[place])[-floors[place] :]
            protected[place] = np.zeros(pools[place].size, bool)
            protected[place][best] = True
        if not (fresh and others_pay):
            for place in poor:
                chosen[place] &= ~np.packbits(protected[place])
            return [chosen[place] for place in range(len(pools))]


def threads() -> int:
    """Threads that this process should use: parallel jobs share the cores through this variable."""
    words = os.environ.get("OMP_NUM_THREADS", "")
    return max(1, min(int(words) if words.isdecimal() else os.cpu_count() or 1, 8))
