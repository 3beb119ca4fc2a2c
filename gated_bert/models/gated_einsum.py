"""An einsum layer whose kernel is multiplied by gates."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

import keras
import numpy as np
from keras import ops

from gated_bert.models.gated_dense import GatedLayer
from gated_bert.support.tensors import Tensor

_EQUATION = re.compile(r"(\.\.\.)?([a-zA-Z]+)(?:\.\.\.)?,([a-zA-Z]+)->(?:\.\.\.)?([a-zA-Z]+)(?:\.\.\.)?")


@dataclass(frozen=True)
class MatrixView:
    """How an einsum's kernel is a matrix [in, out]: what the equation sums over are rows, what it keeps columns.

    Args:
        order: axes of the kernel, those of the rows first.
        rows: how many they are.
        input_axes: axes of the inputs that the rows meet, in their order.
        output_axes: axes of the outputs that the columns become, in their order.
    """

    order: tuple[int, ...]
    rows: int
    input_axes: tuple[int, ...]
    output_axes: tuple[int, ...]


def matrix_view(equation: str) -> MatrixView:
    """The view of an `EinsumDense` equation's kernel as a matrix.

    `abc,cde->abde` (queries of an attention layer) has the rows c and the columns d, e; `abcd,cde->abe` (its output)
    the rows c, d and the columns e.

    Raises:
        ValueError: no view, because an axis of the kernel counts positions too (`abc,bcd->abd`, a matrix for each b),
            or because the kernel has no rows or no columns.
    """
    found = _EQUATION.fullmatch(equation)
    if not found:
        raise ValueError(f"equation {equation!r} is not of two operands")
    ellipsis, inputs, kernel, outputs = found.groups()
    rows = [letter for letter in kernel if letter in inputs and letter not in outputs]
    columns = [letter for letter in kernel if letter in outputs and letter not in inputs]
    if len(rows) + len(columns) < len(kernel) or not rows or not columns:
        raise ValueError(f"the kernel of equation {equation!r} is not one matrix from inputs to outputs")
    # Axes are counted from the end where the ellipsis stands in front.
    before = (len(inputs), len(outputs)) if ellipsis else (0, 0)
    return MatrixView(
        tuple(kernel.index(letter) for letter in rows + columns),
        len(rows),
        tuple(inputs.index(letter) - before[0] for letter in rows),
        tuple(outputs.index(letter) - before[1] for letter in columns),
    )


@keras.saving.register_keras_serializable(package="gated_bert")
class GatedEinsumDense(GatedLayer, keras.layers.EinsumDense):
    """`EinsumDense` with a gate on every weight; gates, mask and scores lie in the view of `matrix_view`.

    With all gates at 1 it is `EinsumDense`, bit for bit.

    Args:
        equation: as for `keras.layers.EinsumDense`.
        output_shape: as for `keras.layers.EinsumDense`.
        **kwargs: those of `GatedLayer` and of `keras.layers.EinsumDense`.

    Raises:
        ValueError: the equation's kernel is not one matrix.
    """

    def _set_gate_options(self, *args):
        super()._set_gate_options(*args)
        self._view = matrix_view(self.equation)

    def _matrix_shape(self):
        sizes = [self._kernel.shape[axis] for axis in self._view.order]
        return math.prod(sizes[: self._view.rows]), math.prod(sizes[self._view.rows :])

    @property
    def raw_kernel(self) -> Tensor:
        """The kernel without gates as a tensor W [in, out]."""
        return ops.reshape(ops.transpose(self._kernel, self._view.order), self._matrix_shape())

    def kernel_shaped(self, matrix: Tensor) -> Tensor:
        order = self._view.order
        sizes = [self._kernel.shape[axis] for axis in order]
        return ops.transpose(ops.reshape(matrix, sizes), [int(axis) for axis in np.argsort(order)])

    def input_features(self, inputs: Tensor) -> Tensor:
        return _last(inputs, self._view.input_axes)

    def output_features(self, outputs: Tensor) -> Tensor:
        return _last(outputs, self._view.output_axes)

    def _product(self, inputs, kernel):
        return ops.einsum(self.equation, inputs, kernel)


def _last(values, axes: tuple[int, ...]):
    """`values` with `axes` moved to the end and joined into one."""
    values = ops.moveaxis(values, axes, tuple(range(-len(axes), 0)))
    return ops.reshape(values, (*ops.shape(values)[: -len(axes)], math.prod(values.shape[-len(axes) :])))
