"""What comes into gated layers over calibration data: of all layers in one pass, or layer after layer."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from gated_bert.models.backbone import is_backbone
from gated_bert.models.encoder import EncoderBlock, padding_bias
from gated_bert.models.gated_dense import GatedLayer, output_hook
from gated_bert.support.tensors import Tensor

Part = Sequence[GatedLayer]
"""Layers that read the same tensor, as query, key and value do."""


class _Order:
    """A hook of gated layers that keeps which tensors each is called with."""

    def __init__(self) -> None:
        self.calls: dict[GatedLayer, list[Tensor]] = {}

    def __call__(self, layer: GatedLayer, inputs: Tensor, outputs: Tensor) -> Tensor:
        self.calls.setdefault(layer, []).append(inputs)
        return outputs

    def parts(self, layers: Collection[GatedLayer]) -> list[list[GatedLayer]]:
        """`layers` in the order of their first call, those that are never called last, each alone."""
        found: dict[tuple, list[GatedLayer]] = {}
        for layer, tensors in self.calls.items():
            if layer in layers:
                found.setdefault(tuple(map(id, tensors)), []).append(layer)
        return [*found.values(), *([layer] for layer in layers if layer not in self.calls)]


class _Sums:
    """A hook that adds up the squares, or all products, of the inputs of parts over real positions.

    Args:
        parts: the parts.
        products: whether all products of two inputs are added up.

    Attributes:
        mask: of the batch, int [batch, length], or None.
        sums: of each part an array [in], or [in, in]; float32.
    """

    def __init__(self, parts: Sequence[Part], products: bool):
        self.products = products
        self.mask: np.ndarray | None = None
        self._places = {part[0]: place for place, part in enumerate(parts)}
        sizes = [int(part[0].mask_variable.shape[0]) for part in parts]
        self.sums = [np.zeros((size, size) if products else size, np.float32) for size in sizes]

    def __call__(self, layer: GatedLayer, inputs: Tensor, outputs: Tensor) -> Tensor:
        if layer in self._places:
            self.add(layer, inputs)
        return outputs

    def add(self, layer: GatedLayer, inputs: Tensor) -> None:
        """Adds a call's inputs; `layer` is the first of its part."""
        rows = self._real(np.asarray(ops.convert_to_numpy(layer.input_features(inputs)), np.float32))
        self.sums[self._places[layer]] += rows.T @ rows if self.products else np.square(rows).sum(0)

    def _real(self, features: np.ndarray) -> np.ndarray:
        """The rows of a call's inputs [..., in] that are no padding, [rows, in]."""
        if self.mask is not None and features.shape[:-1] == self.mask.shape:
            return features[self.mask != 0]
        return features.reshape(-1, features.shape[-1])


class Calibration:
    """Inputs of gated layers over calibration data, of the model in inference as it is when they are asked for.

    Going through the layers of an encoder in order takes about one pass, since what comes out of each is kept; of any
    other model every part takes a pass of its own.

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
        return self._hooked(self.parts)

    def in_order(self) -> Iterator[dict[GatedLayer, np.ndarray]]:
        """The same part after part, each by the model as it is when that part's turn comes."""
        wanted = {layer for part in self.parts for layer in part}
        if is_backbone(self.model):
            for part, inputs in self._through_blocks():
                own = [layer for layer in part if layer in wanted]
                if own:
                    yield self._summed(own, inputs)
                wanted.difference_update(own)
        for part in self.parts:
            if wanted.issuperset(part):
                yield self._hooked([part])

    def _through_blocks(self) -> Iterator[tuple[Part, Callable[[int], Tensor]]]:
        hidden = [self.model.encoder.embed(inputs, training=False) for inputs in self.batches]
        biases = [padding_bias(ops.ones(ops.shape(inputs["input_ids"])) if self._mask(place) is None
                               else self._mask(place)) for place, inputs in enumerate(self.batches)]  # fmt: skip
        for block in self.model.encoder.blocks:
            hidden = yield from _through(block, hidden, biases)

    def _mask(self, place: int) -> Any:
        inputs = self.batches[place]
        return inputs.get("attention_mask") if isinstance(inputs, dict) else None

    def _sums(self, parts: Sequence[Part], add: Callable[[int, _Sums], object]) -> dict[GatedLayer, np.ndarray]:
        sums = _Sums(parts, self.products)
        for place in range(len(self.batches)):
            mask = self._mask(place)
            sums.mask = None if mask is None else np.asarray(ops.convert_to_numpy(mask))
            add(place, sums)
        return {layer: total for part, total in zip(parts, sums.sums, strict=True) for layer in part}

    def _summed(self, part: Part, inputs: Callable[[int], Tensor]) -> dict[GatedLayer, np.ndarray]:
        return self._sums([part], lambda place, sums: sums.add(part[0], inputs(place)))

    def _hooked(self, parts: Sequence[Part]) -> dict[GatedLayer, np.ndarray]:
        def add(place: int, sums: _Sums):
            with output_hook(sums):
                self.model(self.batches[place], training=False)

        return self._sums(parts, add)


def _through(block: EncoderBlock, hidden: Sequence[Tensor], biases: Sequence[Tensor]):
    """A block's parts with what gives a batch's inputs of each; what follows is by the block as it is then.

    Args:
        block: the block.
        hidden: what comes into it, [batch, length, hidden_size] of each batch.
        biases: what keeps attention off the padding of each batch.

    Returns:
        What comes out of it.
    """
    attention, ffn, projections = block.attention, block.ffn, block.attention.projections()
    attended = hidden
    if projections is not None:
        yield projections, hidden.__getitem__
        attended = [attention.attend(each, bias, training=False)[0]
                    for each, bias in zip(hidden, biases, strict=True)]  # fmt: skip
    yield [attention.output_dense], attended.__getitem__
    middle = [block.attention_norm(each + attention.output_dense(context))
              for each, context in zip(hidden, attended, strict=True)]  # fmt: skip

    def emitted(place: int) -> Tensor:
        # Not kept: four times as wide as what is.
        return middle[place] if ffn.intermediate is None else ffn.activation(ffn.intermediate(middle[place]))

    if ffn.intermediate is not None:
        yield [ffn.intermediate], middle.__getitem__
    yield [ffn.output_dense], emitted
    return [block.ffn_norm(each + ffn.output_dense(emitted(place))) for place, each in enumerate(middle)]


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
