"""SparseGPT: what stays of a layer makes up for what closes, so that its outputs change least."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gated_bert.config.criterion_options import SparseGptOptions
from gated_bert.models.gated_dense import GatedLayer
from gated_bert.pruning.calibration import Moments
from gated_bert.pruning.closed import is_of_weights
from gated_bert.pruning.criteria.base import Loss
from gated_bert.pruning.criteria.calibrated import Calibrated, ungated
from gated_bert.pruning.groups import BalancedGroup, Group
from gated_bert.pruning.second_order import BLOCK, DAMPING, damped, inverse_factor, optimal_update, ordered_update
from gated_bert.support.backend import view
from gated_bert.support.errors import UserError


@dataclass
class _Quadratic:
    """The quadratic problem of layers that read the same inputs.

    Attributes:
        hessian: H, damped, of the inputs (without their means where a bias takes these up), [in, in].
        factor: U with H⁻¹ = UᵀU.
        added: what damping added to H's diagonal, [in].
        dead: inputs that never come, or never change where a bias takes up what they give, bool [in].
    """

    hessian: np.ndarray
    factor: np.ndarray
    added: np.ndarray
    dead: np.ndarray

    @classmethod
    def of(cls, hessian: np.ndarray) -> _Quadratic:
        """That of an undamped H; damped by more where rounding has left it without a factor."""
        if np.isfinite(hessian).all():
            for damping in DAMPING * np.array([1, 10, 100]):
                found = damped(hessian, damping)
                with contextlib.suppress(np.linalg.LinAlgError):
                    return cls(found, inverse_factor(found), np.diag(found) - np.diag(hessian), np.diag(hessian) == 0)
        raise UserError("sparsegpt: what comes into a layer is no finite number; look for weights that are NaN")

    def solution(self, kernel: np.ndarray, cross: np.ndarray) -> np.ndarray:
        """The kernel without closed weights that is nearest to what `kernel` made of other inputs, [in, out].

        Args:
            kernel: W, [in, out].
            cross: sums of the inputs times those others, [in, in].
        """
        right = cross @ kernel.astype(np.float64) + self.added[:, None] * kernel
        return self.factor.T @ (self.factor @ right)


class SparseGpt(Calibrated):
    """w² / [H⁻¹]_jj, with H the products of the layer's inputs; the weights that stay are updated.

    By rank `blocks` a layer is gone through in blocks of 128 inputs, each of which closes its share of the smallest
    w² / U_jj² of the weights as the blocks before have left them (of n of m, each m inputs). `obs` ranks whole scopes
    by what closing a weight alone would cost, `wanda` as Wanda does. Updates are those of the mask, whoever chose it.
    Dead inputs (H_ii = 0) close first.

    Beyond the paper, and off with `sparsegpt_target="layer"`: W is first replaced by the least squares of what the
    layer gave before anything was pruned, on what comes in now, so that every layer also makes up for those before it,
    and the bias takes up the mean of what is left.

    Paper: Frantar & Alistarh 2023, SparseGPT (https://arxiv.org/abs/2301.00774).
    """

    Options = SparseGptOptions
    products = True
    # Of squares.
    default_pooling = "mean"

    def __init__(self, **options: Any):
        super().__init__(**options)
        self.reference = self.updates_weights and self.options.sparsegpt_target == "model"

    def bind(
        self, groups: Sequence[Group], seed: int = 0, pooling: str | None = None, loss: Loss | None = None
    ) -> None:
        super().bind(groups, seed, pooling, loss)
        self._runs = {group.layers[0]: _run(group) for group in groups if _run(group)}

    def _forget(self):
        super()._forget()
        self._problems: dict[tuple[int, bool], _Quadratic] = {}
        self._solved: dict[GatedLayer, tuple[np.ndarray, np.ndarray]] = {}

    def _see(self, inputs, scored=True):
        # Those of the layers before are not needed again.
        self._problems, self._solved = {}, {}
        super()._see(inputs, scored)

    def combine(self, layer: GatedLayer, kernel: np.ndarray, inputs: Moments) -> np.ndarray:
        target, run = self._target(layer, kernel, inputs), self._runs.get(layer)
        if self.options.sparsegpt_rank == "wanda":
            scores = np.abs(target) * np.sqrt(inputs.squares)[:, None]
        elif self.options.sparsegpt_rank == "blocks" and run:
            scores = self._block_ranks(layer, kernel != 0, target, inputs, run)
        else:
            scores = np.square(target) / np.square(self._problem(layer, inputs).factor).sum(0)[:, None]
        scores = scores.astype(np.float32)
        scores[self._problem(layer, inputs).dead] = -1
        return scores

    def _moves_bias(self, layer: GatedLayer) -> bool:
        """Whether the layer's bias takes up the means: there is one number of it for each output."""
        outputs = int(layer.mask_variable.shape[1])
        return self.reference and layer.bias is not None and math.prod(layer.bias.shape) == outputs

    def _problem(self, layer: GatedLayer, inputs: Moments) -> _Quadratic:
        centred = self._moves_bias(layer)
        key = id(inputs), centred
        if key not in self._problems:
            self._problems[key] = _Quadratic.of(inputs.hessian(centred))
        return self._problems[key]

    def _target(self, layer: GatedLayer, kernel: np.ndarray, inputs: Moments) -> np.ndarray:
        """The kernel that weights are closed in."""
        if not inputs.has_reference:
            return kernel
        cross = inputs.cross(self._moves_bias(layer))
        return self._problem(layer, inputs).solution(kernel, cross).astype(np.float32)

    def _block_ranks(self, layer: GatedLayer, is_open: np.ndarray, target: np.ndarray, inputs: Moments,
                     run: tuple[int, bool]) -> np.ndarray:  # fmt: skip
        """Of each weight its rank in its block, or in its column of it, between 0 and 1."""
        rows, in_columns = run
        ranks = np.empty(target.shape, np.float32)

        def choose(own: slice, costs: np.ndarray) -> np.ndarray:
            costs = np.where(is_open[own], costs, -1.0)
            axis = 0 if in_columns else None
            order = np.argsort(np.argsort(costs, axis=axis, kind="stable"), axis=axis).reshape(costs.shape)
            size = len(costs) if in_columns else costs.size
            ranks[own] = (order + 0.5) / size
            return order >= round(self.sparsity * size)

        solved = ordered_update(target, self._problem(layer, inputs).factor, is_open, choose, rows)
        if self.updates_weights and self.options.sparsegpt_update == "ordered":
            self._solved[layer] = solved
        return ranks

    def new_kernel(self, layer: GatedLayer, keep: np.ndarray) -> np.ndarray | None:
        if layer not in self._inputs:
            return None
        kernel, inputs = self._kernels.pop(layer), self._inputs[layer]
        new, kept = self._solved.pop(layer, (kernel, None))
        if kept is None or not np.array_equal(kept, keep):
            problem, target = self._problem(layer, inputs), self._target(layer, kernel, inputs)
            exact = self.options.sparsegpt_update == "exact"
            new = (optimal_update(target, problem.hessian, keep) if exact
                   else ordered_update(target, problem.factor, keep)[0])  # fmt: skip
        if self._moves_bias(layer):
            missing = inputs.reference_mean @ kernel - inputs.mean @ new
            layer.bias.assign(view(layer.bias) + missing.reshape(tuple(layer.bias.shape)))
        return ungated(layer, new)


def _run(group: Group) -> tuple[int, bool] | None:
    """Inputs that a group's weights are chosen from together, and whether in columns alone; None of larger units."""
    if is_of_weights(group):
        return BLOCK, False
    if isinstance(group, BalancedGroup) and is_of_weights(group.base) and group.axis == 1 and len(group.shape) == 3:
        return group.num_units, True
    return None
