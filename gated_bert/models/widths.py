"""Widths of feed-forward networks that are tried one after another."""

from __future__ import annotations

RATIO = 0.9
"""A width over the one before it (Kurtic et al. 2023, ZipLM, https://arxiv.org/abs/2302.04089)."""


def widths(neurons: int, ratio: float = RATIO) -> list[int]:
    """How many of so many neurons are left: a geometric series that ends at a hundredth, and none.

    Args:
        neurons: the first, from 1 up.
        ratio: of the series.
    """
    found, width = [], float(neurons)
    while width >= max(neurons / 100, 1):
        found.append(round(width))
        width *= ratio
    return [*dict.fromkeys(found), 0]
