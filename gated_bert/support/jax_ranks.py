"""What `device_ranks` counts and changes, compiled by JAX; imported where JAX is."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

_TOP = np.uint32(1 << 31)


def keys_of(array: jax.Array) -> jax.Array:
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
def kth_smallest(scopes: Sequence[Sequence[jax.Array]], counts: jax.Array) -> tuple:
    """Of every scope the key of its k-th smallest value, per array how many are below and equal, and whether one is
    NaN."""
    flat = [keys_of(jnp.concatenate([array.ravel() for array in arrays])) for arrays in scopes]
    of_size: dict[int, list[int]] = {}
    for place, array in enumerate(flat):
        of_size.setdefault(array.size, []).append(place)
    found = jnp.zeros(len(flat), jnp.uint32)
    for same in of_size.values():
        chosen = np.array(same)
        found = found.at[chosen].set(_kth_of_rows(jnp.stack([flat[place] for place in same]), counts[chosen]))

    def counted(compare):
        return [[jnp.sum(compare(keys_of(array), found[place]), dtype=jnp.int32) for array in arrays]
                for place, arrays in enumerate(scopes)]  # fmt: skip

    has_nan = [jnp.stack([jnp.isnan(array).any() for array in arrays]).any() for arrays in scopes]
    return found, counted(jnp.less), counted(jnp.equal), has_nan


@functools.partial(jax.jit, static_argnames="most")
def places_of(array: jax.Array, key: jax.Array, most: int) -> jax.Array:
    """Places in the flat array whose value has `key`, the first `most` of them; where there are fewer, its size."""
    return jnp.flatnonzero(keys_of(array) == key, size=most, fill_value=array.size)


@jax.jit
def raised(array: jax.Array, key: jax.Array) -> jax.Array:
    """The array with +∞ in the place of values whose key is not below `key`."""
    return jnp.where(keys_of(array) >= key, jnp.inf, array)


@jax.jit
def closed_below(
    scores: Sequence[jax.Array], gates: Sequence[jax.Array], limits: jax.Array, inclusive: jax.Array,
    places: jax.Array, fill: jax.Array,
) -> list[jax.Array]:  # fmt: skip
    """New gates: see `device_ranks.closed_below`."""
    made = []
    for place, (array, gate) in enumerate(zip(scores, gates, strict=True)):
        keys = keys_of(array)
        small = (keys < limits[place]) | ((keys == limits[place]) & inclusive[place])
        small = small.ravel().at[places[place]].set(True, mode="drop").reshape(array.shape)
        made.append(jnp.where(small, 0.0, jnp.where(gate == 0, fill, gate)).astype(gate.dtype))
    return made
