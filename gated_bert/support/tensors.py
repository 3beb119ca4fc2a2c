"""Types of what the backend computes with: it has classes of its own, which no annotation can name for all of them."""

from __future__ import annotations

from typing import Any, TypeAlias

Tensor: TypeAlias = Any
"""An array of NumPy, a tensor of the backend, or one that stands for it while a model is built."""
Shape: TypeAlias = tuple[int | None, ...]
"""Its sizes, None for the batch and the length."""
