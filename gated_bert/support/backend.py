"""What Keras 3 has no common name for: compiling, gradients, several devices, a variable without a copy, GPU memory."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator

import keras
import numpy as np

from gated_bert.support.machine import has_bfloat16
from gated_bert.support.tensors import Tensor


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


def either(condition: Tensor, yes: Callable[[], Tensor], no: Callable[[], Tensor]) -> Tensor:
    """`yes()` where `condition`, a scalar, is true, else `no()`.

    As `ops.cond`, which under JAX is compiled anew by every call outside a compiled function.
    """
    if keras.backend.backend() == "jax":
        import jax

        if not isinstance(condition, jax.core.Tracer):
            return yes() if condition else no()
    return keras.ops.cond(condition, yes, no)


def always_compiles() -> bool:
    """Whether a training step must be compiled by XLA: without, JAX would run it operation by operation."""
    return keras.backend.backend() == "jax"


@contextlib.contextmanager
def data_parallel(count: int) -> Iterator[None]:
    """Models that are made, trained and evaluated inside stand on `count` devices, each with its part of every batch.

    Args:
        count: devices, at most those of `keras.distribution.list_devices()`.

    Raises:
        RuntimeError: a Keras backend other than TensorFlow and JAX.
    """
    devices, backend = keras.distribution.list_devices()[:count], keras.backend.backend()
    if backend == "tensorflow":
        with _strategy(*devices).scope():
            yield
    elif backend == "jax":
        with keras.distribution.DataParallel(devices=devices).scope():
            yield
    else:
        raise _unknown_backend()


@functools.cache
def _strategy(*devices: str):
    # One for all runs of a process: those of a second one take part in sums of the first.
    import tensorflow

    return tensorflow.distribute.MirroredStrategy(devices)


def whole_gradients(gradients: list) -> list:
    """The gradients of a batch as dense tensors of the variables' shapes, inside an optimiser's step.

    TensorFlow gives that of an embedding in pieces, one for each time that a token stands in the batch, whose norm is
    not that of their sum; and on several devices it shows each the gradients of its own part of the batch. JAX has
    added up both.
    """
    if keras.backend.backend() != "tensorflow":
        return gradients
    import tensorflow

    gradients = [tensorflow.convert_to_tensor(gradient) for gradient in gradients]
    context = tensorflow.distribute.get_replica_context()
    if context is not None and context.num_replicas_in_sync > 1:
        return context.all_reduce(tensorflow.distribute.ReduceOp.SUM, gradients)
    return gradients


def has_fused_adam() -> bool:
    """Whether `fused_adam` works here: under TensorFlow, and on one device."""
    if keras.backend.backend() != "tensorflow":
        return False
    import tensorflow

    return not tensorflow.distribute.has_strategy()


def fused_adam(
    variable: keras.Variable | Tensor, gradient: Tensor, momentum: keras.Variable, velocity: keras.Variable,
    step: Tensor, rate: Tensor, beta_1: float, beta_2: float, epsilon: float,
) -> None:  # fmt: skip
    """Adam's step (Kingma & Ba 2015) in one pass over a variable, inside an optimiser's step.

    Args:
        variable: what the optimiser is given, as TensorFlow's variable or Keras'.
        gradient: a tensor of its shape.
        momentum, velocity: Keras variables of its shape.
        step: counted from 1.
        rate, beta_1, beta_2, epsilon: as Keras' Adam has them.
    """
    import tensorflow

    def number(value):
        return tensorflow.cast(value, variable.dtype)

    def handle(one):
        return (one.value if isinstance(one, keras.Variable) else one).handle

    tensorflow.raw_ops.ResourceApplyAdam(
        var=handle(variable),
        m=handle(momentum),
        v=handle(velocity),
        beta1_power=number(beta_1) ** number(step),
        beta2_power=number(beta_2) ** number(step),
        lr=number(rate),
        beta1=number(beta_1),
        beta2=number(beta_2),
        epsilon=number(epsilon),
        grad=number(gradient),
    )


def values_on_devices(variable: keras.Variable) -> np.ndarray:
    """The variable's value; of one that TensorFlow adds up over several devices when it is read, as a metric's, its
    parts [devices, …], since their sum is not enough to go on exactly."""
    parts = _parts(variable)
    return np.stack([np.asarray(part) for part in parts]) if parts else np.array(view(variable))


def assign_on_devices(variable: keras.Variable, values: np.ndarray) -> None:
    """Gives back what `values_on_devices` took, on as many devices."""
    parts = _parts(variable)
    if not parts:
        variable.assign(values)
        return
    for part, value in zip(parts, values, strict=True):
        part.assign(value)


def _parts(variable: keras.Variable) -> tuple:
    if keras.backend.backend() != "tensorflow":
        return ()
    import tensorflow

    value = variable._value
    summed = getattr(value, "synchronization", None) == tensorflow.VariableSynchronization.ON_READ
    return value.values if summed and isinstance(value, tensorflow.distribute.DistributedValues) else ()


def _unknown_backend() -> RuntimeError:
    return RuntimeError(f"KERAS_BACKEND={keras.backend.backend()}: gated_bert runs on tensorflow or jax")


def view(variable: keras.Variable) -> np.ndarray:
    """The variable's values now, read-only, copied only where they are not in the host's memory.

    `np.asarray(variable)` and `ops.convert_to_numpy` copy; a snapshot of the value (here the identity that stops
    gradients) lends its buffer.
    """
    return np.asarray(keras.ops.stop_gradient(variable))


def policy(precision: str, jit_compile: bool) -> str:
    """The Keras dtype policy that `precision` names; of `auto`, mixed_bfloat16 where it makes training faster.

    That is on GPUs from compute capability 8.0 up, on TPUs, and on processors with AVX512-BF16 or AMX where XLA does
    not compile the step: what XLA makes for a processor is slower in 16 bits.

    Args:
        precision: as in a run's record.
        jit_compile: whether XLA compiles the step, which under JAX it does in any case.
    """
    if precision != "auto":
        return precision
    return "mixed_bfloat16" if _is_faster_in_bfloat16(jit_compile) else "float32"


def _is_faster_in_bfloat16(jit_compile: bool) -> bool:
    if keras.backend.backend() == "jax":
        import jax

        device = jax.local_devices()[0]
        if device.platform == "gpu":
            return float(getattr(device, "compute_capability", 0)) >= 8
        return device.platform == "tpu"
    import tensorflow

    gpus = tensorflow.config.list_physical_devices("GPU")
    if gpus:
        details = tensorflow.config.experimental.get_device_details(gpus[0])
        return details.get("compute_capability", (0, 0)) >= (8, 0)
    return not jit_compile and has_bfloat16()


def on_accelerator() -> bool:
    """Whether JAX computes on one device with memory of its own, a GPU or TPU."""
    if keras.backend.backend() != "jax" or keras.distribution.distribution() is not None:
        return False
    import jax

    return jax.default_backend() != "cpu"


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
