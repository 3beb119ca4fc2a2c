"""Dense layers whose kernel is multiplied by gates."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
from keras import ops

from gated_bert.config.presets import MIN_KEPT
from gated_bert.models.gate_rules import get_gate_rule
from gated_bert.support.tensors import Shape, Tensor

_HOOK: ContextVar[Callable | None] = ContextVar("output_hook", default=None)


@contextlib.contextmanager
def output_hook(hook: Callable) -> Iterator[None]:
    """Lets `hook(layer, inputs, outputs)` see every gated layer's call and return what it outputs instead.

    Outputs are those before the activation function. In a compiled function the hook acts while that is traced.
    """
    token = _HOOK.set(hook)
    try:
        yield
    finally:
        _HOOK.reset(token)


# Of which layer it is a mixin, its subclasses say.
if TYPE_CHECKING:
    from keras.layers import Layer as _Layer
else:
    _Layer = object


class GatedLayer(_Layer):
    """Mixin over `Dense` and `EinsumDense`: a gate on every weight of the kernel.

    Everything that prunes sees a kernel as a matrix W [in, out]. With `gate_trainable` the gates are trained and a
    fixed mask M stands beside them, W ⊙ G ⊙ M, so that a closed weight stays closed. Gates, mask and scores are
    weights of the layer and are saved with it.

    Args:
        role: what the layer does in a transformer block (`query`, `ffn_output`, …), or None.
        layer_index: encoder block it stands in, counted from 0, or None.
        gate_init_value: initial value of all gates.
        gate_trainable: whether the gates are trained.
        gate_rule: name of the rule that gives the gates, see `gated_bert.models.gate_rules`.
        min_kept: fraction of the weights that stay whatever the scores, under a rule whose scores alone close weights.
        **kwargs: those of the layer without gates.

    Attributes:
        label: what errors and tables call the layer; its name, unless that is not unique.
        threshold, penalty_weight, open: variables of the gate rules that have them.
        unit_rows: rows of a unit that are gated together, under a rule with gates of units.
        whole_heads: whether columns of a head go together or not at all, as those of queries and keys that are rotated.
    """

    whole_heads = False
    unit_rows = 1

    kernel: Any
    bias: Any
    activation: Any
    _kernel: keras.Variable
    threshold: keras.Variable
    penalty_weight: keras.Variable
    open: keras.Variable

    def __init__(
        self,
        *args: Any,
        role: str | None = None,
        layer_index: int | None = None,
        gate_init_value: float = 1.0,
        gate_trainable: bool = False,
        gate_rule: str = "fixed",
        min_kept: float = MIN_KEPT,
        **kwargs: Any,
    ):
        super().__init__(*args, **kwargs)
        self._set_gate_options(role, layer_index, gate_init_value, gate_trainable, gate_rule, min_kept)

    def _set_gate_options(self, role, layer_index, gate_init_value, gate_trainable, gate_rule, min_kept=MIN_KEPT):
        self.role = role
        self.layer_index = layer_index
        self.gate_init_value = gate_init_value
        self.gate_trainable = gate_trainable
        self.gate_rule = gate_rule
        self.min_kept = min_kept
        self.rule = get_gate_rule(gate_rule)
        self.scores = None
        self.label = self.name

    def build(self, input_shape: Shape) -> None:
        super().build(input_shape)
        self._add_gates()

    def _add_gates(self):
        shape = self._matrix_shape()
        self.gates = self.add_weight(
            name="gates",
            shape=shape,
            initializer=keras.initializers.Constant(self.gate_init_value),
            trainable=self.gate_trainable,
        )
        if self.gate_trainable:
            self.mask = self.add_weight(name="mask", shape=shape, initializer="ones", trainable=False)
        self.rule.build(self, shape)

    def _remove_gates(self):
        for name in self.gate_variables:
            self._untrack_variable(getattr(self, name))
            # Past the layer's own, which collects garbage after every single variable.
            super(keras.layers.Layer, self).__delattr__(name)
        self.rule.remove(self)

    def _matrix_shape(self) -> tuple[int, int]:
        """Shape of W."""
        raise NotImplementedError

    @property
    def raw_kernel(self) -> Tensor:
        """The kernel without gates as a matrix W [in, out]."""
        raise NotImplementedError

    def set_kernel(self, matrix: np.ndarray) -> None:
        """Takes new values of W [in, out], without gates."""
        # Through NumPy: under JAX one variable must not take over another's buffer.
        self._kernel.assign(ops.convert_to_numpy(self.kernel_shaped(ops.convert_to_tensor(matrix))))

    def kernel_shaped(self, matrix: Tensor) -> Tensor:
        """`matrix` [in, out] in the shape of the layer's own kernel."""
        return matrix

    def input_features(self, inputs: Tensor) -> Tensor:
        """Inputs of a call as a tensor [..., in]."""
        return inputs

    def output_features(self, outputs: Tensor) -> Tensor:
        """Outputs of a call as a tensor [..., out]."""
        return outputs

    def _product(self, inputs, kernel):
        """Inputs times a kernel of the layer's own shape."""
        raise NotImplementedError

    @property
    def mask_variable(self) -> keras.Variable:
        """The variable [in, out] that pruning closes: the gates, or the mask where the gates are trained."""
        return self.mask if self.gate_trainable else self.gates

    def effective_gates(self, training: bool = False) -> Tensor:
        """Everything that multiplies the kernel.

        Args:
            training: whether stochastic gates are drawn; otherwise they take their deterministic value.

        Returns:
            Tensor [in, out].
        """
        gates = self.rule.gates(self, training)
        return ops.multiply(self.gates, gates) if self.gate_trainable else gates

    def call(self, inputs: Tensor, training: bool | None = None) -> Tensor:
        gates = ops.cast(self.effective_gates(training=bool(training)), self.compute_dtype)
        outputs = self._product(inputs, ops.multiply(self.kernel, self.kernel_shaped(gates)))
        if self.bias is not None:
            outputs = ops.add(outputs, self.bias)
        hook = _HOOK.get()
        if hook is not None:
            outputs = hook(self, inputs, outputs)
        if self.activation is not None:
            outputs = self.activation(outputs)
        if training:
            penalty = self.rule.penalty(self)
            if penalty is not None:
                self.add_loss(penalty)
        return outputs

    @property
    def gate_variables(self) -> list[str]:
        """Names of the attributes that hold what the gates add to the layer's weights."""
        return ["gates", *(["mask"] if self.gate_trainable else []), *self.rule.variables]

    @property
    def variable_serialization_spec(self) -> dict:
        spec = dict(super().variable_serialization_spec)
        # The layer saves only what is listed here; what is not listed would be lost without an error.
        spec[None] = [*spec[None], *self.gate_variables]
        return spec

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "role": self.role,
            "layer_index": self.layer_index,
            "gate_init_value": self.gate_init_value,
            "gate_trainable": self.gate_trainable,
            "gate_rule": self.gate_rule,
            "min_kept": self.min_kept,
        }


@keras.saving.register_keras_serializable(package="gated_bert")
class GatedDense(GatedLayer, keras.layers.Dense):
    """`Dense` with a gate on every weight: y = activation(x (W ⊙ G) + b).

    With all gates at 1 it is `Dense`, bit for bit.

    Args:
        units: size of the output.
        **kwargs: those of `GatedLayer` and of `keras.layers.Dense`.

    Example:

    ```python
    layer = GatedDense(2)
    layer.build((None, 3))
    layer.gates.assign([[1, 0], [1, 1], [0, 1]])
    ```
    """

    def _matrix_shape(self):
        return tuple(self._kernel.shape)

    @property
    def raw_kernel(self) -> Tensor:
        """The variable W [in, out], without gates."""
        return self._kernel

    def _product(self, inputs, kernel):
        return ops.matmul(inputs, kernel)
