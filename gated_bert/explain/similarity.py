"""How alike two explanations are, and what many such likenesses say, with intervals."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy import stats

MEASURES = ("cosine", "spearman", "jaccard", "rbo")
PERSISTENCE = 0.9
"""Rank-biased overlap's p: the first ten ranks then have 86 % of the weight."""
CONFIDENCE = 0.95
RESAMPLES = 5000
"""Bootstrap samples; from seed to seed an interval's ends then move by about a hundredth of its width."""

Weights = Mapping[str, float]
"""An explanation: word → weight for a class."""


def similarities(one: Weights, other: Weights, top_k: int) -> dict[str, float]:
    """Every measure of `MEASURES` for two explanations of one document and class.

    Args:
        one: words and their weights.
        other: those of another model, or of another seed.
        top_k: words that the Jaccard index looks at.

    Returns:
        Measure → value in [-1, 1] (`cosine`, `spearman`) or [0, 1] (`jaccard`, `rbo`); NaN where it is not defined.
    """
    return {
        "cosine": cosine(one, other),
        "spearman": spearman(one, other),
        "jaccard": top_k_jaccard(one, other, top_k),
        "rbo": rank_biased_overlap(one, other),
    }


def cosine(one: Weights, other: Weights) -> float:
    """Cosine of the weights over the words of either; a word that one lacks has weight 0 there.

    Returns:
        The cosine; NaN where all weights of one are 0.
    """
    words = [*one, *(word for word in other if word not in one)]
    first, second = (np.array([weights.get(word, 0.0) for word in words]) for weights in (one, other))
    size = float(np.linalg.norm(first) * np.linalg.norm(second))
    return float(np.clip(first @ second / size, -1, 1)) if size else math.nan


def spearman(one: Weights, other: Weights) -> float:
    """Spearman's rank correlation of the signed weights over the words that both explain.

    Returns:
        The correlation, equal weights having the mean of their ranks; NaN for fewer than two such words, or where one
        gives them all the same weight.
    """
    shared = [word for word in one if word in other]
    first, second = (stats.rankdata([weights[word] for word in shared]) for weights in (one, other))
    if len(shared) < 2 or np.ptp(first) == 0 or np.ptp(second) == 0:
        return math.nan
    return float(np.clip(np.corrcoef(first, second)[0, 1], -1, 1))


def top_words(weights: Weights, top_k: int) -> list[str]:
    """The `top_k` words of largest absolute weight, largest first; equal ones in the order of the alphabet."""
    return sorted(weights, key=lambda word: (-abs(weights[word]), word))[:top_k]


def top_k_jaccard(one: Weights, other: Weights, top_k: int) -> float:
    """|A ∩ B| / |A ∪ B| of the `top_k` words of largest absolute weight of each; NaN where neither has any word."""
    first, second = (set(top_words(weights, top_k)) for weights in (one, other))
    return len(first & second) / len(first | second) if first or second else math.nan


def rank_biased_overlap(one: Weights, other: Weights, p: float = PERSISTENCE) -> float:
    """Extrapolated rank-biased overlap of the words ranked by absolute weight.

    Words of equal absolute weight share the rank of the first of them. The shorter list is taken to go on as it agreed
    so far, and both to go on beyond the longer one's end as they agreed there.

    Args:
        one: words and their weights.
        other: words and their weights; it may hold other words, and fewer or more.
        p: weight of a rank over that of the rank before it, in (0, 1).

    Returns:
        The overlap, 1 for equal rankings and 0 where no word is shared; NaN where neither has any word.

    Paper: Webber, Moffat and Zobel, "A similarity measure for indefinite rankings", 2010, equations 23 and 32.
    """
    lists = sorted((_by_rank(one), _by_rank(other)), key=len)
    short, long = map(len, lists)
    if not long:
        return math.nan
    (short_words, short_counts), (long_words, long_counts) = (_seen_by_depth(each, long) for each in lists)
    overlap = [len(a & b) for a, b in zip(short_words, long_words, strict=True)]
    total, at_end = 0.0, 0.0
    for depth in range(1, long + 1):
        if depth <= short:
            agreement = at_end = 2 * overlap[depth - 1] / (short_counts[depth - 1] + long_counts[depth - 1])
        else:
            continued = overlap[depth - 1] + at_end * (depth - short)
            agreement = 2 * continued / (depth + long_counts[depth - 1])
        total += (1 - p) * p ** (depth - 1) * agreement
    return total + p**long * agreement


def _by_rank(weights: Weights) -> list[tuple[int, str]]:
    """(rank, word), first rank 1; words of equal absolute weight share the first of their ranks."""
    words = top_words(weights, len(weights))
    ranks = stats.rankdata([-abs(weights[word]) for word in words], method="min") if words else ()
    return [(int(rank), word) for rank, word in zip(ranks, words, strict=True)]


def _seen_by_depth(ranked: Sequence[tuple[int, str]], depths: int) -> tuple[list[set[str]], list[int]]:
    """The words of rank up to 1, 2, …, `depths`, and their numbers."""
    seen = [{word for rank, word in ranked if rank <= depth} for depth in range(1, depths + 1)]
    return seen, [len(each) for each in seen]


def bootstrap_mean(values: np.ndarray, seed: int) -> dict[str, float]:
    """The mean of the values that are defined, with its bootstrap interval of 95 % (percentiles).

    Args:
        values: one per document, NaN where it is not defined.
        seed: of the resampling.

    Returns:
        `documents` (how many are defined), `mean`, `low` and `high`; the ends of the interval are NaN for fewer than
        two documents, and the mean itself where all are alike.
    """
    known = values[np.isfinite(values)]
    count = len(known)
    mean = float(known.mean()) if count else math.nan
    if count < 2 or np.ptp(known) == 0:
        end = mean if count > 1 else math.nan
        return {"documents": count, "mean": mean, "low": end, "high": end}
    found = stats.bootstrap((known,), np.mean, n_resamples=RESAMPLES, batch=100, confidence_level=CONFIDENCE,
                            method="percentile", rng=np.random.default_rng(seed)).confidence_interval  # fmt: skip
    return {"documents": count, "mean": mean, "low": float(found.low), "high": float(found.high)}


def summarize(values: np.ndarray, noise: np.ndarray, seed: int) -> dict[str, Any]:
    """A variant's similarities in summary, and how far they are from the noise floor, document by document.

    Args:
        values: similarity of the variant to the base model, one per document; NaN where it is not defined.
        noise: similarity of the base model to itself with another seed, for the same documents.
        seed: of the resampling.

    Returns:
        What `bootstrap_mean` gives, and of the differences values − noise `difference`, `difference_low`,
        `difference_high` and `excludes_zero`: whether their interval leaves out 0.
    """
    apart = bootstrap_mean(values - noise, seed)
    excludes = apart["low"] > 0 or apart["high"] < 0
    named = {"difference": apart["mean"], "difference_low": apart["low"], "difference_high": apart["high"]}
    return {**bootstrap_mean(values, seed), **named, "excludes_zero": excludes}
