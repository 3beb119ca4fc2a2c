"""Whether a smaller model gives what the model it was made of gives, tried on inputs that are made up."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from gated_bert.models.roles import walk
from gated_bert.support.errors import UserError, one_line

BATCH, LENGTH = 2, 4
"""Examples that are made up, and how long what has any length is made."""
ROUNDING, COARSE_ROUNDING = 1e-4, 0.1
"""How far outputs may differ, relative to the largest; the latter in half precision and on accelerators, which round
factors."""


def check_alike(model: keras.Model, small: keras.Model) -> None:
    """Refuses a smaller model that gives something else in inference.

    Nothing is said of a model that does not run on inputs that are made up, nor of one that is random in inference.

    Args:
        model: a functional or sequential model.
        small: one of the same inputs.

    Raises:
        UserError: outputs differ by more than rounding.
    """
    try:
        inputs = _made_up(model)
        wanted = _outputs(model, inputs)
    except Exception:  # Whatever layers say of inputs that mean nothing.
        return
    try:
        found = _outputs(small, inputs)
    except Exception as error:
        raise UserError(f"shrink: {model.name} is refused, since what is made of it does not run ({one_line(error)}); "
                        "allowed: layers of Keras that work on any number of units") from error  # fmt: skip
    away, allowed = _distance(wanted, found), _allowed(model)
    if away > allowed and _distance(wanted, _outputs(model, inputs)) <= allowed:
        raise UserError(f"shrink: {model.name} is refused, since what is made of it gives other outputs, {away:.2g} "
                        "of the largest away; allowed: calls that read layers, none of their weights")  # fmt: skip


def _made_up(model: keras.Model) -> Any:
    rng = np.random.default_rng(0)

    def drawn(tensor: Any) -> np.ndarray:
        shape = [BATCH, *(LENGTH if size is None else size for size in tensor.shape[1:])]
        # Numbers stand for words, kinds of segments, or say what is no padding: there are always two.
        values = rng.normal(size=shape) if "float" in tensor.dtype else rng.integers(0, 2, shape)
        return values.astype("float32" if tensor.dtype == "bfloat16" else tensor.dtype)

    given = model.inputs[0] if isinstance(model, keras.Sequential) else model.input
    return keras.tree.map_structure(drawn, given)


def _outputs(model: keras.Model, inputs: Any) -> list[np.ndarray]:
    given = keras.tree.map_structure(keras.ops.convert_to_tensor, inputs)
    return [keras.ops.convert_to_numpy(keras.ops.cast(each, "float32"))
            for each in keras.tree.flatten(model(given, training=False))]  # fmt: skip


def _distance(wanted: list[np.ndarray], found: list[np.ndarray]) -> float:
    """How far outputs are from one another, relative to the largest; 0 of what is not finite anyway."""
    pairs = [(one, other) for one, other in zip(wanted, found, strict=True) if one.size and np.isfinite(one).all()]
    # Outputs that are next to nothing are rounding themselves.
    largest = max([0.1, *(np.abs(one).max() for one, _ in pairs)])
    away = [0.0, *(np.abs(one - other).max() / largest for one, other in pairs)]
    return float(max(away)) if np.isfinite(away).all() else np.inf


def _allowed(model: keras.Model) -> float:
    whole = all(part.compute_dtype in ("float32", "float64") for part in walk(model))
    plain = all(device.lower().startswith("cpu") for device in keras.distribution.list_devices())
    return ROUNDING if whole and plain else COARSE_ROUNDING
