"""What Keras 3 has no common name for: compiling, gradients, looking at a variable without a copy, GPU memory."""

from __future__ import annotations

from collections.abc import Callable

import keras
import numpy as np


def compiled(function: Callable) -> Callable:
    """`function` (arrays and tensors in, tensors out) compiled by the backend in use.

    Raises:
        RuntimeError: a Keras backend other than TensorFlow and JAX.
    """
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow

        return tensorflow.function(function, reduce_retracing=True)
    if backend == "jax":
        import jax

        return jax.jit(function)
    raise _unknown_backend()


def with_gradients(function: Callable, arrays: list) -> tuple:
    """`function(arrays)` and the gradients of its first result; for use inside a compiled function.

    Args:
        function: returns a scalar, and anything else made of tensors.
        arrays: tensors.

    Returns:
        What `function` returned besides the scalar, and one gradient per array; zero where the scalar does not depend
        on it.

    Raises:
        RuntimeError: a Keras backend other than TensorFlow and JAX.
    """
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow

        with tensorflow.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(arrays)
            scalar, rest = function(arrays)
        return rest, tape.gradient(scalar, arrays, unconnected_gradients=tensorflow.UnconnectedGradients.ZERO)
    if backend == "jax":
        import jax

        gradients, rest = jax.grad(function, has_aux=True)(arrays)
        return rest, gradients
    raise _unknown_backend()


def _unknown_backend() -> RuntimeError:
    return RuntimeError(f"KERAS_BACKEND={keras.backend.backend()}: gated_bert runs on tensorflow or jax")


def view(variable: keras.Variable) -> np.ndarray:
    """The variable's values now, read-only, copied only where they are not in the host's memory.

    `np.asarray(variable)` and `ops.convert_to_numpy` copy; a snapshot of the value (here the identity that stops
    gradients) lends its buffer.
    """
    return np.asarray(keras.ops.stop_gradient(variable))


def gpu_memory() -> tuple[int, int] | None:
    """Bytes that the backend's arrays take on the first GPU, now and at most so far; None where there is none."""
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow

        if not tensorflow.config.list_logical_devices("GPU"):
            return None
        found = tensorflow.config.experimental.get_memory_info("GPU:0")
        return found["current"], found["peak"]
    if backend == "jax":
        import jax

        found = jax.local_devices()[0].memory_stats() if jax.default_backend() == "gpu" else None
        return (found["bytes_in_use"], found["peak_bytes_in_use"]) if found else None
    return None
