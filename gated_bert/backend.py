"""The one thing Keras 3 has no common name for: compiling a function of tensors."""

from __future__ import annotations

from collections.abc import Callable

import keras


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
    raise RuntimeError(f"KERAS_BACKEND={backend}: gated_bert runs on tensorflow or jax")
