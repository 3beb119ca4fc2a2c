"""Ranks of float32 values that stay on the device they are on, by JAX: only counts come to the host's memory.

It imports JAX, so whoever may run without it imports this where it is needed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

MOST_TIES = 64
"""Equal values of an array among which some can be chosen on the device."""
_TOP = np.uint32(1 << 31)


@dataclass(frozen=True)
class Limit:
    """The k-th smallest value of some arrays together.

    Attributes:
        key: that value as the functions here take it; meaningless where one of the values is NaN.
        below: of each array how many values are smaller.
        equal: of each array how many are equal.
        has_nan: whether a value is NaN.
    """

    key: int
    below: list[int]
    equal: list[int]
    has_nan: bool


def kth_smallest(scopes: Sequence[Sequence[jax.Array]], counts: Sequence[int]) -> list[Limit]:
    """Of every scope the k-th smallest value (k from 1) of all its arrays.

    Args:
        scopes: of each the arrays, of any shape; of another call by the same shapes nothing is compiled anew.
        counts: of each k, at least 1 and at most its values.
    """
    arrays = tuple(tuple(scope) for scope in scopes)
    keys, below, equal, has_nan = jax.device_get(_kth_smallest(arrays, np.asarray(counts, np.int32)))
    return [
        Limit(int(key), [int(one) for one in less], [int(one) for one in same], bool(nan))
        for key, less, same, nan in zip(keys, below, equal, has_nan, strict=True)
    ]


def places_of(array: jax.Array, key: int) -> np.ndarray:
    """Where in the flat array the value of a limit's `key` stands, int array in order; at most `MOST_TIES` places."""
    found = np.asarray(_places_of(array, np.uint32(key)))
    return found[found < array.size]


def raised(array: jax.Array, key: int) -> jax.Array:
    """The array with +∞ in the place of values that are not below the one of a limit's `key`."""
    return _raised(array, np.uint32(key))


def closed_below(
    scores: Sequence[jax.Array],
    gates: Sequence[jax.Array],
    rules: Sequence[tuple[int, bool, np.ndarray]],
    fill: float,
) -> list[jax.Array]:
    """Gates that are zero where a score is small; others keep their value, and where that is zero get `fill`.

    Args:
        scores: an array for each of `gates`, of its shape.
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
    return _closed_below(tuple(scores), tuple(gates), keys, inclusive, places, np.float32(fill))


def _keys_of(array: jax.Array) -> jax.Array:
    """Whole numbers in the order of float32 values; −0 is 0, and what is too small for a normal number is not."""
    bits = jax.lax.bitcast_convert_type(array, jnp.uint32)
    return jnp.where(bits > _TOP, ~bits, bits | _TOP)


def _kth_of_rows(keys: jax.Array, counts: jax.Array) -> jax.Array:
    """Of every row of `keys` [rows, n] the k-th smallest, bit by bit from the first: 32 counts of what is below."""

    def with_bit(place, key):
        larger = key | jnp.right_shift(_TOP, place.astype(jnp.uint32))
        below = jnp.sum(keys < larger[:, None], axis=1, dtype=jnp.int32)
        return jnp.where(below < counts, larger, key)

    return jax.lax.fori_loop(0, 32, with_bit, jnp.zeros(len(keys), jnp.uint32))


@jax.jit
def _kth_smallest(scopes: Sequence[Sequence[jax.Array]], counts: jax.Array) -> tuple:
    """Of every scope the key of its k-th smallest value, per array how many are below and equal, and whether one is
    NaN."""
    flat = [_keys_of(jnp.concatenate([array.ravel() for array in arrays])) for arrays in scopes]
    of_size: dict[int, list[int]] = {}
    for place, array in enumerate(flat):
        of_size.setdefault(array.size, []).append(place)
    found = jnp.zeros(len(flat), jnp.uint32)
    for same in of_size.values():
        chosen = np.array(same)
        found = found.at[chosen].set(_kth_of_rows(jnp.stack([flat[place] for place in same]), counts[chosen]))

    def counted(compare):
        return [[jnp.sum(compare(_keys_of(array), found[place]), dtype=jnp.int32) for array in arrays]
                for place, arrays in enumerate(scopes)]  # fmt: skip

    has_nan = [jnp.stack([jnp.isnan(array).any() for array in arrays]).any() for arrays in scopes]
    return found, counted(jnp.less), counted(jnp.equal), has_nan


@jax.jit
def _places_of(array: jax.Array, key: jax.Array) -> jax.Array:
    return jnp.flatnonzero(_keys_of(array) == key, size=MOST_TIES, fill_value=array.size)


@jax.jit
def _raised(array: jax.Array, key: jax.Array) -> jax.Array:
    return jnp.where(_keys_of(array) >= key, jnp.inf, array)


@jax.jit
def _closed_below(
    scores: Sequence[jax.Array], gates: Sequence[jax.Array], limits: jax.Array, inclusive: jax.Array,
    places: jax.Array, fill: jax.Array,
) -> list[jax.Array]:  # fmt: skip
    made = []
    for place, (array, gate) in enumerate(zip(scores, gates, strict=True)):
        keys = _keys_of(array)
        small = (keys < limits[place]) | ((keys == limits[place]) & inclusive[place])
        small = small.ravel().at[places[place]].set(True, mode="drop").reshape(array.shape)
        made.append(jnp.where(small, 0.0, jnp.where(gate == 0, fill, gate)).astype(gate.dtype))
    return made
