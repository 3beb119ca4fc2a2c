"""Optimal BERT surgeon: second order of the loss, by gradients, and an update of the weights that stay."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from gated_bert.config.criterion_options import OBERT_TOGETHER, ObertOptions
from gated_bert.models.gated_dense import GatedLayer
from gated_bert.pruning.calibration import small_batches
from gated_bert.pruning.closed import OpenUnits, count_weights, layers_of
from gated_bert.pruning.criteria.base import Criterion, Loss, Stage
from gated_bert.pruning.criteria.calibrated import gated_kernel, ungated
from gated_bert.pruning.criteria.observation import LOSS_SCALE, variables_of
from gated_bert.pruning.groups import BlockGroup, Group
from gated_bert.pruning.second_order import (
    add_outer_products,
    as_blocks,
    block_costs,
    from_blocks,
    invert_blocks,
    optimal_in_blocks,
)
from gated_bert.support.backend import compiled, with_gradients
from gated_bert.support.tensors import Tensor


class Obert(Criterion):
    """w² / (2 [F⁻¹]_ii), with F the empirical Fisher matrix of blocks of weights along the inputs of a column.

    F = λI + mean of ggᵀ, with g the gradients of the probed loss with respect to the gated weights, in inference, 0 for
    closed ones. Whole columns, and blocks along them that divide F's, cost ½ w_Bᵀ ([F⁻¹]_BB)⁻¹ w_B. What stays of a
    block moves to where the quadratic loss is least, all that closes there taken together.

    Paper: Kurtic et al. 2022, The Optimal BERT Surgeon (https://arxiv.org/abs/2203.07259).
    """

    Options = ObertOptions
    needs_data = True
    # Of squares.
    default_pooling = "mean"

    def bind(
        self, groups: Sequence[Group], seed: int = 0, pooling: str | None = None, loss: Loss | None = None
    ) -> None:
        super().bind(groups, seed, pooling, loss)
        self.layers = layers_of(groups)
        self._observers: dict[tuple[GatedLayer, ...], Callable] = {}
        self._sparsity = 0.0
        self._forget()

    def _forget(self):
        self._kernels: dict[GatedLayer, np.ndarray] = {}
        self._scores: dict[GatedLayer, np.ndarray] = {}
        self._inverse: dict[GatedLayer, np.ndarray] = {}
        self._costs: dict[int, np.ndarray] = {}

    def targets(self, sparsity: float) -> Sequence[float]:
        now = 1 - OpenUnits().weights(self.layers) / count_weights(self.layers)
        steps = self.options.obert_recomputations or 1
        return [now + max(sparsity - now, 0) * step / steps for step in range(1, steps)] + [sparsity]

    def prepare(self, model: keras.Model, dataset: Any) -> None:
        self._model, self._dataset = model, dataset
        self._forget()
        self._kernels = {layer: gated_kernel(layer) for layer in self.layers}

    def stages(self, sparsity: float, competing: Sequence[Sequence[GatedLayer]]) -> Iterator[Stage]:
        if not self._kernels:
            # Scores from elsewhere.
            yield from super().stages(sparsity, competing)
            return
        self._sparsity, parts = sparsity, self._parts()
        alone = all(any(set(layers) <= set(part) for part in parts) for layers in competing)
        for part in parts:
            self._look_at(part)
            if alone:
                yield part, part
        if not alone:
            yield self.layers, ()
            for part in reversed(parts) if self.updates_weights else ():
                if not self._inverse.keys() >= set(part):
                    self._look_at(part)
                yield (), part
        self._forget()

    def _parts(self) -> list[list[GatedLayer]]:
        """Layers whose matrices are in memory at a time."""
        room = self.options.obert_memory * 2**30
        parts: list[list[GatedLayer]] = []
        left = 0.0
        for layer in self.layers:
            needed = 4.0 * count_weights([layer]) * (self.options.obert_block_size + OBERT_TOGETHER)
            if needed > left:
                parts.append([])
                left = room
            parts[-1].append(layer)
            left -= needed
        return parts

    def _look_at(self, part: Sequence[GatedLayer]):
        """Inverts the matrices of layers, and scores their weights."""
        self._inverse = {}
        self._inverse = self._inverses(part)
        for layer in part:
            inverse, kernel = self._inverse[layer], self._kernels[layer]
            diagonal = from_blocks(np.einsum("obii->obi", inverse), len(kernel))
            self._scores[layer] = np.square(kernel) / (2 * diagonal)
        for index, group in enumerate(self.groups):
            if isinstance(group, BlockGroup) and group.layers[0] in part:
                costs = self._unit_costs(group)
                if costs is not None:
                    self._costs[index] = costs

    def _unit_costs(self, group: BlockGroup) -> np.ndarray | None:
        """What closing each unit costs, [num_units]; None of units that are not made of whole runs along a column."""
        layer, size = group.layers[0], self.options.obert_block_size
        rows, columns = (int(length) for length in layer.mask_variable.shape)
        if group.width > 1 or group.height == 1:
            return None
        weights, inverse = as_blocks(self._kernels[layer], size), self._inverse[layer]
        if group.height == rows:
            return block_costs(weights, inverse, size).sum((1, 2))
        if size % group.height:
            return None
        costs = block_costs(weights, inverse, group.height).reshape(columns, -1)
        return costs[:, : rows // group.height].T.ravel()

    def _inverses(self, part: Sequence[GatedLayer]) -> dict[GatedLayer, np.ndarray]:
        size = self.options.obert_block_size
        shapes = [as_blocks(self._kernels[layer], size).shape for layer in part]
        sums = [np.zeros((*shape, size), np.float32) for shape in shapes]
        waiting: list[list[np.ndarray]] = []
        count = 0
        for gradients in self._all_gradients(part):
            waiting.append(gradients)
            count += 1
            if len(waiting) == OBERT_TOGETHER:
                self._add(sums, part, waiting)
                waiting = []
        if waiting:
            self._add(sums, part, waiting)
        for total in sums:
            invert_blocks(total, max(count, 1), self.options.obert_damping)
        return dict(zip(part, sums, strict=True))

    def _add(self, sums: Sequence[np.ndarray], part: Sequence[GatedLayer], waiting: Sequence[Sequence[np.ndarray]]):
        for total, layer, found in zip(sums, part, zip(*waiting, strict=True), strict=True):
            add_outer_products(total, np.stack(found) * (self._kernels[layer] != 0))

    def _all_gradients(self, part: Sequence[GatedLayer]) -> Iterator[list[np.ndarray]]:
        """The gradients of small batches, a list with an array [in, out] per layer, as many as are asked for."""
        observe = self._observers.setdefault(tuple(part), self._observer(part))
        values = [ops.stop_gradient(variable) for variable in variables_of(self._model)]
        kernels = [self._kernels[layer] for layer in self.layers]
        count = self.options.obert_gradients
        for done, batch in enumerate(small_batches(self._dataset, self.options.obert_batch_size, count), start=1):
            self.tell(f"to {100 * self._sparsity:.1f} %: gradient {done} of {count}")
            yield [np.asarray(array) for array in observe(values, kernels, *batch)]

    def _observer(self, part: Sequence[GatedLayer]) -> Callable:
        """A compiled function that takes the gradients of a batch with respect to the gated weights of `part`."""
        model, layers, variables = self._model, self.layers, variables_of(self._model)

        def observe(values, kernels, inputs, labels):
            places = [layers.index(layer) for layer in part]

            def loss(watched: list[Tensor]):
                given = dict(zip(places, watched, strict=True))
                state = list(zip(variables, values, strict=True))
                for place, layer in enumerate(layers):
                    kernel = given.get(place, kernels[place])
                    state.append((layer._kernel, layer.kernel_shaped(kernel)))
                    gates = [layer.gates, layer.mask_variable]
                    state += [(variable, ops.ones(variable.shape)) for variable in gates]
                with keras.StatelessScope(state_mapping=state):
                    return self.probe(model, inputs, labels) * LOSS_SCALE, []

            found = with_gradients(loss, [ops.convert_to_tensor(kernels[place]) for place in places])[1]
            return [gradient / LOSS_SCALE for gradient in found]

        return compiled(observe)

    def scores(self, layer: GatedLayer) -> np.ndarray:
        if layer not in self._scores:
            self._look_at(next(part for part in self._parts() if layer in part))
        return self._scores[layer]

    def unit_scores(
        self, index: int, group: Group, is_open: Callable[[GatedLayer], np.ndarray] | None = None
    ) -> np.ndarray:
        found = self._costs.get(index)
        return super().unit_scores(index, group, is_open) if found is None else found

    def new_kernel(self, layer: GatedLayer, keep: np.ndarray) -> np.ndarray | None:
        if layer not in self._inverse:
            return None
        size, kernel = self.options.obert_block_size, self._kernels[layer]
        closing = as_blocks(~keep & (kernel != 0), size)
        new = optimal_in_blocks(as_blocks(kernel, size), self._inverse[layer], closing)
        return ungated(layer, from_blocks(new, len(kernel)) * keep)
