"""SP-LIME: few documents whose explanations stand for all."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

_TIE = 1e-12
"""Gains that differ by less, relative to all that can be covered, are equal but for the order of their sums."""


def word_matrix(explanations: Sequence[Mapping[str, float]]) -> tuple[np.ndarray, list[str]]:
    """Explanations as vectors over all their words.

    Args:
        explanations: word → weight, a mapping per document.

    Returns:
        Weights [documents, words], 0 where a word is not in an explanation, and the words.
    """
    places: dict[str, int] = {}
    for weights in explanations:
        for word in weights:
            places.setdefault(word, len(places))
    matrix = np.zeros((len(explanations), len(places)))
    for row, weights in enumerate(explanations):
        matrix[row, [places[word] for word in weights]] = list(weights.values())
    return matrix, list(places)


def pick_by_coverage(weights: np.ndarray, count: int) -> tuple[list[int], list[float]]:
    """Submodular pick: the greedy choice of documents whose words cover most importance.

    A word is covered by a document with a weight for it; its importance is the root of its summed absolute weights.
    Of documents that cover the same, the last is taken, as by the library's `SubmodularPick`; those without any weight
    stand for nothing and are not picked.

    Args:
        weights: [documents, words].
        count: documents to pick, at most all with a weight.

    Returns:
        Rows in the order of picking, and the share of all importance that is covered after each.

    Paper: Ribeiro, Singh and Guestrin 2016, "Why Should I Trust You?" (https://arxiv.org/abs/1602.04938).
    """
    has, importance = weights != 0, np.sqrt(np.abs(weights).sum(axis=0))
    total = importance.sum()
    covered = np.zeros(weights.shape[1], bool)
    left = has.any(axis=1)
    picked, shares = [], []
    for _ in range(min(count, int(np.count_nonzero(left)))):
        gains = np.where(left, (has & ~covered) @ importance, -np.inf)
        picked.append(int(np.flatnonzero(gains >= gains.max() - _TIE * total)[-1]))
        left[picked[-1]] = False
        covered |= has[picked[-1]]
        shares.append(float(importance[covered].sum() / total))
    return picked, shares


def pick_by_diversity(weights: np.ndarray, count: int) -> tuple[list[int], list[float]]:
    """Diversity pick: the greedy choice of the document that is least like those picked before.

    The first is the one least like all others; each next one has the least sum of cosines with those picked. Of equal
    ones the first is taken. A document without any weight has no cosine and is not picked.

    Args:
        weights: [documents, words].
        count: documents to pick, at most all with a weight.

    Returns:
        Rows in the order of picking, and the mean cosine of each with those picked before it (of the first, with all
        others).
    """
    norms = np.linalg.norm(weights, axis=1, keepdims=True)
    unit = weights / np.where(norms > 0, norms, 1.0)
    cosines = unit @ unit.T
    sums = cosines.sum(axis=1) - np.diag(cosines)
    left = norms[:, 0] > 0
    known = int(np.count_nonzero(left))
    picked: list[int] = []
    means: list[float] = []
    for _ in range(min(count, known)):
        place = int(np.where(left, sums, np.inf).argmin())
        means.append(float(sums[place] / (len(picked) or max(1, known - 1))))
        sums = cosines[place] + (sums if picked else 0.0)
        picked.append(place)
        left[place] = False
    return picked, means


PICKS: dict[str, Callable[[np.ndarray, int], tuple[list[int], list[float]]]] = {
    "coverage": pick_by_coverage,
    "diversity": pick_by_diversity,
}
"""Name of a pick → its function."""
