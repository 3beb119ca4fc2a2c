"""SparseGPT: what stays of a layer makes up for what closes, so that its outputs change least."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from gated_bert.config.criterion_options import SparseGptOptions
from gated_bert.models.gated_dense import GatedLayer
from gated_bert.pruning.closed import is_of_weights
from gated_bert.pruning.criteria.base import Loss
from gated_bert.pruning.criteria.calibrated import Calibrated, ungated
from gated_bert.pruning.groups import BalancedGroup, Group
from gated_bert.pruning.second_order import BLOCK, damped, inverse_factor, optimal_update, ordered_update


class SparseGpt(Calibrated):
    """w² / [H⁻¹]_jj, with H the products of the layer's inputs; the weights that stay are updated.

    By rank `blocks` a layer is gone through in blocks of 128 inputs, each of which closes its share of the smallest
    w² / U_jj² of the weights as the blocks before have left them (of n of m, each m inputs). `obs` ranks whole scopes
    by what closing a weight alone would cost, `wanda` as Wanda does. Updates are those of the mask, whoever chose it.
    Inputs that never come (H_ii = 0) close first.

    Paper: Frantar & Alistarh 2023, SparseGPT (https://arxiv.org/abs/2301.00774).
    """

    Options = SparseGptOptions
    products = True
    # Of squares.
    default_pooling = "mean"

    def __init__(self, **options: Any):
        super().__init__(**options)
        self.updates_weights = not self.options.no_update

    def bind(
        self, groups: Sequence[Group], seed: int = 0, pooling: str | None = None, loss: Loss | None = None
    ) -> None:
        super().bind(groups, seed, pooling, loss)
        self._runs = {group.layers[0]: _run(group) for group in groups if _run(group)}

    def _forget(self):
        super()._forget()
        self._factors: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        self._solved: dict[GatedLayer, tuple[np.ndarray, np.ndarray]] = {}

    def _see(self, inputs, scored=True):
        # Those of the layers before are not needed again.
        self._factors, self._solved = {}, {}
        super()._see(inputs, scored)

    def combine(self, layer: GatedLayer, kernel: np.ndarray, inputs: np.ndarray) -> np.ndarray:
        if self.options.sparsegpt_rank == "wanda":
            scores = np.abs(kernel) * np.sqrt(np.diag(inputs))[:, None]
        else:
            factor = self._factor(inputs)[1]
            run = self._runs.get(layer)
            if self.options.sparsegpt_rank == "blocks" and run:
                scores = self._block_ranks(layer, kernel, factor, run)
            else:
                scores = np.square(kernel) / np.square(factor).sum(0)[:, None]
        scores = scores.astype(np.float32)
        scores[np.diag(inputs) == 0] = -1
        return scores

    def _factor(self, inputs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The damped H and its factor; layers that read the same inputs share both."""
        if id(inputs) not in self._factors:
            h = damped(inputs)
            self._factors[id(inputs)] = h, inverse_factor(h)
        return self._factors[id(inputs)]

    def _block_ranks(self, layer: GatedLayer, kernel: np.ndarray, factor: np.ndarray, run: tuple[int, bool]):
        """Of each weight its rank in its block, or in its column of it, between 0 and 1."""
        rows, in_columns = run
        is_open, ranks = kernel != 0, np.empty(kernel.shape, np.float32)

        def choose(own: slice, costs: np.ndarray) -> np.ndarray:
            costs = np.where(is_open[own], costs, -1.0)
            axis = 0 if in_columns else None
            order = np.argsort(np.argsort(costs, axis=axis, kind="stable"), axis=axis).reshape(costs.shape)
            size = len(costs) if in_columns else costs.size
            ranks[own] = (order + 0.5) / size
            return order >= round(self.sparsity * size)

        solved = ordered_update(kernel, factor, is_open, choose, rows)
        if self.updates_weights and self.options.sparsegpt_update == "ordered":
            self._solved[layer] = solved
        return ranks

    def new_kernel(self, layer: GatedLayer, keep: np.ndarray) -> np.ndarray | None:
        if layer not in self._inputs:
            return None
        kernel, inputs = self._kernels.pop(layer), self._inputs[layer]
        new, kept = self._solved.pop(layer, (kernel, None))
        if kept is None or not np.array_equal(kept, keep):
            h, factor = self._factor(inputs)
            exact = self.options.sparsegpt_update == "exact"
            new = optimal_update(kernel, h, keep) if exact else ordered_update(kernel, factor, keep)[0]
        return ungated(layer, new)


def _run(group: Group) -> tuple[int, bool] | None:
    """Inputs that a group's weights are chosen from together, and whether in columns alone; None of larger units."""
    if is_of_weights(group):
        return BLOCK, False
    if isinstance(group, BalancedGroup) and is_of_weights(group.base) and group.axis == 1 and len(group.shape) == 3:
        return group.num_units, True
    return None
