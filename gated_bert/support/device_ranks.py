"""Ranks of values that stay on the device they are on, under JAX: only counts come to the host's memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import keras
import numpy as np

from gated_bert.support.tensors import Tensor

MOST_TIES = 64
"""Equal values of an array among which some can be chosen on the device."""


@dataclass(frozen=True)
class Limit:
    """The k-th smallest value of some arrays together.

    Attributes:
        key: that value as `closed_below` and `places_of` take it; meaningless where one of them is NaN.
        below: of each array how many values are smaller.
        equal: of each array how many are equal.
        has_nan: whether a value is NaN.
    """

    key: int
    below: list[int]
    equal: list[int]
    has_nan: bool


def outside_the_host() -> bool:
    """Whether values are on one device with memory of its own, such as a GPU, and JAX computes there."""
    if keras.backend.backend() != "jax" or keras.distribution.distribution() is not None:
        return False
    import jax

    return jax.default_backend() != "cpu"


def kth_smallest(scopes: Sequence[Sequence[Tensor]], counts: Sequence[int]) -> list[Limit]:
    """Of every scope the k-th smallest value (k from 1) of all its arrays, which are float32.

    Args:
        scopes: of each the arrays, of any shape; of another call by the same shapes nothing is compiled anew.
        counts: of each k, at least 1 and at most its values.
    """
    import jax

    from gated_bert.support import jax_ranks

    arrays = tuple(tuple(scope) for scope in scopes)
    keys, below, equal, has_nan = jax.device_get(jax_ranks.kth_smallest(arrays, np.asarray(counts, np.int32)))
    return [
        Limit(int(key), [int(one) for one in less], [int(one) for one in same], bool(nan))
        for key, less, same, nan in zip(keys, below, equal, has_nan, strict=True)
    ]


def places_of(array: Tensor, key: int) -> np.ndarray:
    """Where in the flat array the value of a limit's `key` stands, in order; at most `MOST_TIES` places."""
    from gated_bert.support import jax_ranks

    found = np.asarray(jax_ranks.places_of(array, np.uint32(key), MOST_TIES))
    return found[found < array.size]


def raised(array: Tensor, key: int) -> Tensor:
    """The array with +∞ in the place of values that are not below the one of a limit's `key`."""
    from gated_bert.support import jax_ranks

    return jax_ranks.raised(array, np.uint32(key))


def closed_below(
    scores: Sequence[Tensor], gates: Sequence[Tensor], rules: Sequence[tuple[int, bool, np.ndarray]], fill: float
) -> list[Tensor]:
    """Gates that are zero where a score is small; others keep their value, and where that is zero get `fill`.

    Args:
        scores: an array for each of `gates`.
        gates: what there is.
        rules: for each the key of the limit below which a score closes (0: none), whether one equal to it closes, too,
            and places in the flat array that close besides, at most `MOST_TIES`.
        fill: what opens a gate.
    """
    from gated_bert.support import jax_ranks

    places = np.stack([
        np.pad(places, (0, MOST_TIES - len(places)), constant_values=array.size)
        for array, (_, _, places) in zip(scores, rules, strict=True)
    ]).astype(np.int32)  # fmt: skip
    keys, inclusive = np.array([key for key, _, _ in rules], np.uint32), np.array([too for _, too, _ in rules])
    return jax_ranks.closed_below(tuple(scores), tuple(gates), keys, inclusive, places, np.float32(fill))
