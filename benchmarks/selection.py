"""The global choice of weights among 85 and 300 million scores, against NumPy's and PyTorch's k-th smallest."""

from __future__ import annotations

from functools import partial

import numpy as np

from benchmarks.figures import Figure
from benchmarks.timing import extra_memory, interleave, main, ratio, spread
from gated_bert.pruning.selection import Pool, smallest

SIZES = {85: 72, 300: 144}
"""Millions of prunable weights → matrices that hold them, of BERT base and large."""
SHARE = 0.5


def choose(scores: list[np.ndarray]) -> int:
    """The toolkit's choice of half of all scores; how many were chosen."""
    pools = [Pool(lambda every, part=part: part[::every], len(part)) for part in scores]
    counts = []
    wanted = round(SHARE * sum(map(len, scores)))
    smallest(pools, wanted, np.random.default_rng(0), lambda _, chosen: counts.append(np.count_nonzero(chosen)))
    return sum(counts)


def partition(scores: list[np.ndarray]) -> int:
    """The same by `np.partition` of all scores end to end."""
    flat = np.concatenate(scores)
    k = round(SHARE * len(flat))
    return int(np.count_nonzero(flat < np.partition(flat, k)[k]))


def kthvalue(scores: list[np.ndarray]) -> int:
    """The same by `torch.kthvalue` of all scores end to end."""
    import torch

    flat = torch.cat([torch.from_numpy(part) for part in scores])
    return int((flat <= flat.kthvalue(round(SHARE * len(flat))).values).sum())


def measure(options) -> list[Figure]:
    """Seconds and memory of a global choice, its growth with the number of weights, and its ratio to the peers."""
    sizes = {1: 72, 4: 144} if options.quick else SIZES
    figures, medians = [], []
    for millions, matrices in sizes.items():
        rng = np.random.default_rng(0)
        each = round(millions * 1e6 / matrices)
        scores = [np.abs(rng.standard_normal(each, np.float32)) for _ in range(matrices)]
        wanted = round(SHARE * each * matrices)
        sides = {"own": choose, "np.partition": partition, "torch.kthvalue": kthvalue}
        for name, side in sides.items():
            # PyTorch and NumPy leave or take all scores that equal the threshold, some ten among 300 million.
            chosen, apart = side(scores), 0 if name == "own" else max(10, wanted // 10**6)
            if abs(chosen - wanted) > apart:
                raise RuntimeError(f"{name} chose {chosen} of {wanted}; times of them compare nothing")
        times = interleave({name: partial(side, scores) for name, side in sides.items()}, 3 if options.quick else 7)
        medians.append(float(np.median(times["own"].wall)) / millions)
        seconds = medians[-1] * millions
        what = f"{millions} M scores"
        figures.append(Figure(f"global choice, {what}", seconds, "s", "", spread(times["own"].wall)))
        extra = extra_memory(partial(choose, scores))
        figures.append(Figure(f"extra memory, {what}", extra, "MB", "", "highest resident memory above that before"))
        for name in ("np.partition", "torch.kthvalue"):
            value, details = ratio(times["own"], times[name])
            figures.append(Figure(f"own / {name}, {what}", value, "×", "≤ 1.0", details))
    few, many = sizes
    details = f"seconds a weight, {many} M over {few} M: 1 where the time is proportional to the weights"
    return [*figures, Figure("growth of the time a weight", medians[1] / medians[0], "×", "≤ 1.25", details)]


if __name__ == "__main__":
    main("selection", measure)
