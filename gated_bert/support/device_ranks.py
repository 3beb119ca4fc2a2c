"""Ranks of values that stay on the device they are on, under JAX: only counts come to the host's memory."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

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


def are_faster() -> bool:
    """Whether values are ranked where they are: by JAX on one device with memory of its own, such as a GPU.

    NumPy ranks what is in the host's memory eight times as fast as XLA's code for a processor does.
    """
    if keras.backend.backend() != "jax" or keras.distribution.distribution() is not None:
        return False
    import jax

    return jax.default_backend() != "cpu"


def kth_smallest(scopes: Sequence[Sequence[Tensor]], counts: Sequence[int]) -> list[Limit]:
    """Of every scope the k-th smallest value (k from 1) of all its arrays, float32, by 32 counts of what is below.

    Args:
        scopes: of each the arrays, of any shape; of another call by the same shapes nothing is compiled anew.
        counts: of each k, at least 1 and at most its values.
    """
    import jax

    arrays = tuple(tuple(scope) for scope in scopes)
    keys, below, equal, has_nan = jax.device_get(_functions()[0](arrays, np.asarray(counts, np.int32)))
    return [
        Limit(int(key), [int(one) for one in less], [int(one) for one in same], bool(nan))
        for key, less, same, nan in zip(keys, below, equal, has_nan, strict=True)
    ]


def places_of(array: Tensor, key: int) -> np.ndarray:
    """Where in the flat array the value of a limit's `key` stands, in order; at most `MOST_TIES` places."""
    found = np.asarray(_functions()[1](array, np.uint32(key)))
    return found[found < array.size]


def raised(array: Tensor, key: int) -> Tensor:
    """The array with +∞ in the place of values that are not below the one of a limit's `key`."""
    return _functions()[3](array, np.uint32(key))


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
    places = np.stack([
        np.pad(places, (0, MOST_TIES - len(places)), constant_values=array.size)
        for array, (_, _, places) in zip(scores, rules, strict=True)
    ]).astype(np.int32)  # fmt: skip
    keys, inclusive = np.array([key for key, _, _ in rules], np.uint32), np.array([too for _, too, _ in rules])
    return list(_functions()[2](tuple(scores), tuple(gates), keys, inclusive, places, np.float32(fill)))


@functools.cache
def _functions() -> tuple[Any, Any, Any, Any]:
    """`kth_smallest`, `places_of`, `closed_below` and `raised` as JAX compiles them."""
    import jax
    import jax.numpy as jnp

    top = np.uint32(1 << 31)

    def keys_of(array):
        """Whole numbers in the order of the values; −0 is 0, and what is too small for a normal number is not."""
        bits = jax.lax.bitcast_convert_type(array, jnp.uint32)
        return jnp.where(bits > top, ~bits, bits | top)

    def kth_of_rows(keys, counts):
        def with_bit(place, key):
            larger = key | jnp.right_shift(top, place.astype(jnp.uint32))
            below = jnp.sum(keys < larger[:, None], axis=1, dtype=jnp.int32)
            return jnp.where(below < counts, larger, key)

        return jax.lax.fori_loop(0, 32, with_bit, jnp.zeros(len(keys), jnp.uint32))

    def kth(scopes, counts):
        flat = [keys_of(jnp.concatenate([array.ravel() for array in arrays])) for arrays in scopes]
        of_size: dict[int, list[int]] = {}
        for place, array in enumerate(flat):
            of_size.setdefault(array.size, []).append(place)
        found = jnp.zeros(len(flat), jnp.uint32)
        for same in of_size.values():
            chosen = np.array(same)
            found = found.at[chosen].set(kth_of_rows(jnp.stack([flat[place] for place in same]), counts[chosen]))

        def counted(compare):
            return [[jnp.sum(compare(keys_of(array), found[place]), dtype=jnp.int32) for array in arrays]
                    for place, arrays in enumerate(scopes)]  # fmt: skip

        has_nan = [jnp.stack([jnp.isnan(array).any() for array in arrays]).any() for arrays in scopes]
        return found, counted(jnp.less), counted(jnp.equal), has_nan

    def places(array, key):
        return jnp.flatnonzero(keys_of(array) == key, size=MOST_TIES, fill_value=array.size)

    def closed(scores, gates, limits, inclusive, places, fill):
        made = []
        for place, (array, gate) in enumerate(zip(scores, gates, strict=True)):
            keys = keys_of(array)
            small = (keys < limits[place]) | ((keys == limits[place]) & inclusive[place])
            small = small.ravel().at[places[place]].set(True, mode="drop").reshape(array.shape)
            made.append(jnp.where(small, 0.0, jnp.where(gate == 0, fill, gate)).astype(gate.dtype))
        return made

    def raise_from(array, key):
        return jnp.where(keys_of(array) >= key, jnp.inf, array)

    return jax.jit(kth), jax.jit(places), jax.jit(closed), jax.jit(raise_from)
