"""What comes into gated layers over calibration data: of all layers in one pass, or layer after layer."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from gated_bert.models.backbone import is_backbone
from gated_bert.models.encoder import padding_bias
from gated_bert.models.gated_dense import GatedLayer, output_hook
from gated_bert.support.tensors import Tensor

Part = list[GatedLayer]
"""Layers that read the same tensor, as query, key and value do."""


class _Order:
    """A hook of gated layers that keeps which tensors each is called with."""

    def __init__(self) -> None:
        self.calls: dict[GatedLayer, list[Tensor]] = {}

    def __call__(self, layer: GatedLayer, inputs: Tensor, outputs: Tensor) -> Tensor:
        self.calls.setdefault(layer, []).append(inputs)
        return outputs

    def parts(self, layers: Collection[GatedLayer]) -> list[Part]:
        """`layers` in the order of their first call, those that are never called last, each alone."""
        found: dict[tuple, Part] = {}
        for layer, tensors in self.calls.items():
            if layer in layers:
                found.setdefault(tuple(map(id, tensors)), []).append(layer)
        return [*found.values(), *([layer] for layer in layers if layer not in self.calls)]


class _Sums:
    """A hook that adds up the squares, or all products, of the inputs of parts over real positions.

    Attributes:
        sums: of each part an array [in], or [in, in]; float32.
    """

    def __init__(self, parts: Sequence[Part], products: bool):
        self.products = products
        self.mask: np.ndarray | None = None
        self._places = {part[0]: place for place, part in enumerate(parts)}
        sizes = [int(part[0].mask_variable.shape[0]) for part in parts]
        self.sums = [np.zeros((size, size) if products else size, np.float32) for size in sizes]

    def __call__(self, layer: GatedLayer, inputs: Tensor, outputs: Tensor) -> Tensor:
        place = self._places.get(layer)
        if place is not None:
            rows = self._real(np.asarray(ops.convert_to_numpy(layer.input_features(inputs)), np.float32))
            self.sums[place] += rows.T @ rows if self.products else np.square(rows).sum(0)
        return outputs

    def _real(self, features: np.ndarray) -> np.ndarray:
        """The rows of a call's inputs [..., in] that are no padding, [rows, in]."""
        if self.mask is not None and features.shape[:-1] == self.mask.shape:
            return features[self.mask != 0]
        return features.reshape(-1, features.shape[-1])


class Calibration:
    """Inputs of gated layers over calibration data, of the model in inference as it is when they are asked for.

    Of an encoder the hidden states between its blocks are kept, so that going through all layers costs a few passes; of
    any other model every part is a pass of its own.

    Args:
        model: the built model.
        layers: the layers to look at.
        batches: (inputs, labels, …) of each batch.
        products: whether all products of two inputs are added up, or the squares alone.

    Attributes:
        parts: the layers in the order in which the model calls them.
    """

    def __init__(self, model: keras.Model, layers: Collection[GatedLayer], batches: Sequence[tuple], products: bool):
        self.model, self.products = model, products
        self.batches = [batch[0] for batch in batches]
        order = _Order()
        with output_hook(order):
            model(self.batches[0], training=False)
        self.parts = order.parts(layers)

    def at_once(self) -> dict[GatedLayer, np.ndarray]:
        """The sums over all positions of all layers' inputs, squared [in] or their products [in, in], from one pass.

        Layers of one part share an array.
        """
        return self._seen(self.parts, self._whole)

    def in_order(self) -> Iterator[dict[GatedLayer, np.ndarray]]:
        """The same part after part, each by the model as it is when that part's turn comes."""
        blocks = list(self.model.encoder.blocks) if is_backbone(self.model) else []
        within = [set(block.matrices().values()) for block in blocks]
        hidden = [self.model.encoder.embed(inputs, training=False) for inputs in self.batches] if blocks else []
        for block, own in zip(blocks, within, strict=True):

            def forward(place: int, block: Any = block, hidden: Sequence[Tensor] = hidden) -> Tensor:
                return block(hidden[place], self._bias(place), training=False)

            for part in self.parts:
                if own.issuperset(part):
                    yield self._seen([part], forward)
            hidden = [forward(place) for place in range(len(hidden))]
        for part in self.parts:
            if not any(own.issuperset(part) for own in within):
                yield self._seen([part], self._whole)

    def _whole(self, place: int) -> Tensor:
        return self.model(self.batches[place], training=False)

    def _mask(self, place: int) -> Any:
        inputs = self.batches[place]
        return inputs.get("attention_mask") if isinstance(inputs, dict) else None

    def _bias(self, place: int) -> Tensor:
        mask = self._mask(place)
        return padding_bias(ops.ones(ops.shape(self.batches[place]["input_ids"])) if mask is None else mask)

    def _seen(self, parts: Sequence[Part], forward: Callable[[int], Tensor]) -> dict[GatedLayer, np.ndarray]:
        sums = _Sums(parts, self.products)
        with output_hook(sums):
            for place in range(len(self.batches)):
                mask = self._mask(place)
                sums.mask = None if mask is None else np.asarray(ops.convert_to_numpy(mask))
                forward(place)
        return {layer: total for part, total in zip(parts, sums.sums, strict=True) for layer in part}


def first_batches(dataset: Any, texts: int) -> list[tuple]:
    """The first batches of a data set that hold so many examples, all of it where it holds fewer.

    Args:
        dataset: indexable by batch: (inputs, labels, …).
        texts: examples.
    """
    found: list[tuple] = []
    for index in range(len(dataset)):
        if texts <= 0:
            break
        found.append(dataset[index])
        texts -= len(keras.tree.flatten(found[-1][0])[0])
    return found
