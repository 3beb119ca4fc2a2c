"""The sizes of one encoder layer."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class LayerSizes:
    """Sizes of one encoder layer.

    A layer with `num_heads` 0 keeps its residual path and a constant in place of attention; one with
    `intermediate_size` 0 keeps them in place of the feed-forward network.

    Args:
        num_heads: attention heads.
        query_key_dim: size of one head's queries and keys.
        value_dim: size of one head's values.
        intermediate_size: neurons of the feed-forward network.
    """

    num_heads: int
    query_key_dim: int
    value_dim: int
    intermediate_size: int

    def describe(self) -> str:
        """The sizes in words: `12 heads of 64, 3,072 neurons`."""
        dims = f"{self.query_key_dim}"
        if self.query_key_dim != self.value_dim:
            dims = f"{self.query_key_dim} (query and key) and {self.value_dim} (value)"
        heads = f"{self.num_heads} head{'s' * (self.num_heads > 1)} of {dims}" if self.num_heads else "no heads"
        neurons = f"{self.intermediate_size:,} neuron{'s' * (self.intermediate_size > 1)}"
        return f"{heads}, {neurons if self.intermediate_size else 'no neurons'}"
