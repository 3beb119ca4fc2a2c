"""What comes into gated layers over calibration data: of all layers in one pass, or layer after layer."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from gated_bert.models.backbone import is_backbone
from gated_bert.models.encoder import EncoderBlock, padding_bias
from gated_bert.models.gated_dense import GatedLayer, output_hook
from gated_bert.pruning.closed import Before
from gated_bert.support.backend import view
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


class Moments:
    """What came into a layer, over all real positions.

    Added up around the first batch's mean: of inputs that hardly vary, sums of products in single precision would leave
    nothing of how they do.

    Args:
        size: inputs of the layer.
        products: whether all products of two inputs are added up, or their squares alone.
        reference: numbers a position that are set beside it, what came in before anything was pruned or what is to come
            out; 0: none.

    Attributes:
        rows: positions.
        has_reference: whether there are.
    """

    def __init__(self, size: int, products: bool, reference: int):
        self.rows, self.has_reference = 0, reference > 0
        self._sums, self._known_sums = np.zeros(size, np.float32), np.zeros(reference, np.float32)
        self._products = np.zeros((size, size) if products else size, np.float32)
        self._cross = np.zeros((size, reference), np.float32)
        self._shift: np.ndarray = np.zeros(size)
        self._known_shift: np.ndarray = np.zeros(size)

    def add(self, rows: np.ndarray, known: np.ndarray | None = None) -> None:
        """Adds positions [rows, in], and what is set beside them [rows, reference]."""
        if not len(rows):
            return
        if not self.rows:
            self._shift = rows.mean(0)
            self._known_shift = self._shift if known is None else known.mean(0)
        self.rows += len(rows)
        rows = rows - self._shift
        self._sums += rows.sum(0)
        self._products += rows.T @ rows if self._products.ndim == 2 else np.square(rows).sum(0)
        if known is not None:
            known = known - self._known_shift
            self._known_sums += known.sum(0)
            self._cross += rows.T @ known

    @property
    def mean(self) -> np.ndarray:
        """[in], float64."""
        return self._shift + self._sums.astype(np.float64) / max(self.rows, 1)

    @property
    def reference_mean(self) -> np.ndarray:
        """The mean of the reference, [reference], float64; without one that of what came in."""
        return self._known_shift + self._known_sums.astype(np.float64) / max(self.rows, 1) if self.has_reference else (
            self.mean)  # fmt: skip

    @property
    def squares(self) -> np.ndarray:
        """Sums of the squares, [in], float64."""
        own = np.diag(self._products) if self._products.ndim == 2 else self._products
        return np.maximum(own - self.rows * np.square(self.mean - self._shift), 0) + self.rows * np.square(self.mean)

    def products(self, centred: bool = False) -> np.ndarray:
        """Sums of the products of every two inputs, or of what they are above their means, [in, in], float64."""
        return self._around(self._products, self.mean - self._shift, self.mean - self._shift, self.mean, self.mean,
                            centred)  # fmt: skip

    def hessian(self, centred: bool = False) -> np.ndarray:
        """As `products`, with zeros for inputs that are constant, of which only rounding is left; not yet damped."""
        found = self.products(centred)
        constant = np.diag(found) <= 1e-10 * self.squares
        found[constant] = found[:, constant] = 0
        return found

    def cross(self, centred: bool = False) -> np.ndarray:
        """The same of the inputs and the reference, [in, reference], float64."""
        known = self.reference_mean
        return self._around(self._cross, self.mean - self._shift, known - self._known_shift, self.mean, known, centred)

    def _around(self, sums, off, known_off, mean, known_mean, centred: bool) -> np.ndarray:
        found = sums - self.rows * np.outer(off, known_off)
        return found if centred else found + self.rows * np.outer(mean, known_mean)


class _Seen:
    """A hook that keeps the real rows, float32 [rows, in], of what some layers are called with, or of what they put out
    without bias and activation function."""

    def __init__(self, layers: Collection[GatedLayer], mask: np.ndarray | None, outputs: bool = False):
        self.mask, self.outputs = mask, outputs
        self._found: dict[GatedLayer, list[np.ndarray]] = {layer: [] for layer in layers}

    def __call__(self, layer: GatedLayer, inputs: Tensor, outputs: Tensor) -> Tensor:
        if layer in self._found:
            features = layer.output_features(outputs) if self.outputs else layer.input_features(inputs)
            added = np.ravel(view(layer.bias)) if self.outputs and layer.bias is not None else 0
            self._found[layer].append(real_rows(features, self.mask) - added)
        return outputs

    def rows(self, layer: GatedLayer) -> np.ndarray:
        """Of all calls, those of none where there was none."""
        found = self._found[layer]
        width = layer.mask_variable.shape[int(self.outputs)]
        return np.concatenate(found) if found else np.empty((0, width), np.float32)


def real_rows(features: Tensor, mask: np.ndarray | None) -> np.ndarray:
    """The rows of a call's inputs [..., in] that are no padding, float32 [rows, in]."""
    found = np.asarray(ops.convert_to_numpy(features), np.float32)
    if mask is not None and found.shape[:-1] == mask.shape:
        return found[mask != 0]
    return found.reshape(-1, found.shape[-1])


class Calibration:
    """Inputs of gated layers over calibration data, of the model in inference as it is when they are asked for.

    Going through the layers of an encoder in order takes about one pass, since what comes out of each is kept; of any
    other model every part takes a pass of its own. With a reference it is twice that.

    Args:
        model: the built model.
        layers: the layers to look at.
        batches: (inputs, labels, …) of each batch.
        products: whether all products of two inputs are added up, or the squares alone.
        reference: whether what goes through in order is set beside what came in when this was made.
        residual: of layers that end a sublayer of an encoder block, what is set beside it is what would make the sum of
            their outputs, without bias, and the residual path what it was; of a model whose residual paths are not
            known, what they put out, without bias.

    Attributes:
        parts: the layers in the order in which the model calls them.
    """

    def __init__(
        self, model: keras.Model, layers: Collection[GatedLayer], batches: Sequence[tuple], products: bool,
        reference: bool = False, residual: bool = False,
    ):  # fmt: skip
        self.model, self.products, self.reference, self.residual = model, products, reference, residual
        self.batches = [batch[0] for batch in batches]
        self._masks = [_mask_of(inputs) for inputs in self.batches]
        order = _Order()
        with output_hook(order):
            model(self.batches[0], training=False)
        self.parts, self._wanted = order.parts(layers), set(layers)
        self._blocks = list(model.encoder.blocks) if is_backbone(model) else []
        within = {layer for block in self._blocks for layer in block.matrices().values()}
        self._beside = [part for part in self.parts if not within.issuperset(part)]
        self._gates = {layer: Before(layer) for layer in within if reference}
        aside = order.calls if self._beside and reference else ()
        self._before = [(variable, np.array(view(variable))) for layer in layers for variable in layer.variables
                        if layer in aside]  # fmt: skip
        # What ends a sublayer closes together with its other layers.
        self._closing = {layer: Before(layer) for layer in aside if layer not in self._wanted and layer not in within}

    def at_once(self) -> dict[GatedLayer, Moments]:
        """The moments of all layers from one pass; layers of one part share them."""
        return self._hooked(self.parts)

    def in_order(self) -> Iterator[dict[GatedLayer, Moments]]:
        """The same part after part, each by the model as it is when that part's turn comes."""
        for part, inputs, residual, known in self._through_blocks():
            own = [layer for layer in part if layer in self._wanted]
            if own:
                yield self._moments([own], functools.partial(self._pair, own[0], inputs, residual, known))
        for part in self._beside:
            gates = [(layer.mask_variable, before.values) for layer, before in self._closing.items()]
            for own in [[layer] for layer in part] if self.residual else [part]:
                yield self._hooked([own], [*self._before, *gates])

    def _pair(self, layer: GatedLayer, inputs: Callable[[int], Tensor], residual: Callable[[int], Tensor],
              known: list[np.ndarray] | None, place: int) -> Sequence[tuple]:  # fmt: skip
        beside, mask = None if known is None else known[place], self._masks[place]
        if beside is not None and self.residual:
            beside = beside - real_rows(residual(place), mask) - (0 if layer.bias is None else view(layer.bias))
        return [(real_rows(inputs(place), mask), beside)]

    def _through_blocks(self) -> Iterator[tuple]:
        """Of all parts of blocks, in order, what `_through` gives, and the rows of each batch's reference."""
        if not self._blocks:
            return
        hidden = [self.model.encoder.embed(inputs, training=False) for inputs in self.batches]
        biases = [padding_bias(ops.ones(ops.shape(inputs["input_ids"])) if mask is None else mask)
                  for inputs, mask in zip(self.batches, self._masks, strict=True)]  # fmt: skip
        before: Sequence[Tensor] = hidden
        for block in self._blocks:
            known: dict[GatedLayer, list[np.ndarray]] = {}
            if self.reference:
                # Where all masks are chosen at once, those of the layers ahead are no longer what they were.
                gates = [(layer.mask_variable, ops.convert_to_tensor(self._gates[layer].values))
                         for layer in block.matrices().values()]  # fmt: skip
                with keras.StatelessScope(state_mapping=gates):
                    before = self._remember(block, before, biases, known)
            steps = _through(block, hidden, biases)
            while True:
                try:
                    part, inputs, residual = next(steps)
                except StopIteration as end:
                    hidden = end.value
                    break
                yield part, inputs, residual, known.pop(part[0], None)

    def _remember(self, block: EncoderBlock, hidden: Sequence[Tensor], biases: Sequence[Tensor], known: dict):
        steps = _through(block, hidden, biases)
        while True:
            try:
                part, inputs, residual = next(steps)
            except StopIteration as end:
                return end.value
            if self._wanted.isdisjoint(part):
                continue
            known[part[0]] = [
                real_rows(residual(place) + part[0](inputs(place)) if self.residual else inputs(place), mask)
                for place, mask in enumerate(self._masks)
            ]

    def _moments(self, parts: Sequence[Part], rows: Callable[[int], Sequence[tuple]]) -> dict[GatedLayer, Moments]:
        """Adds up what `rows` gives of a batch: for each part its rows, and those before or None."""
        found: list[Moments] = []
        for place in range(len(self.batches)):
            given = rows(place)
            if not found:
                found = [Moments(own.shape[1], self.products, 0 if known is None else known.shape[1])
                         for own, known in given]  # fmt: skip
            for moments, (own, known) in zip(found, given, strict=True):
                moments.add(own, known)
        return {layer: moments for part, moments in zip(parts, found, strict=True) for layer in part}

    def _hooked(self, parts: Sequence[Part], before: Sequence[tuple] = ()) -> dict[GatedLayer, Moments]:
        def rows(place: int) -> Sequence[tuple]:
            own = self._seen(parts, place)
            if not before:
                return [(each, None) for each in own]
            with keras.StatelessScope(state_mapping=[(variable, ops.convert_to_tensor(values))
                                                     for variable, values in before]):  # fmt: skip
                return list(zip(own, self._seen(parts, place, outputs=self.residual), strict=True))

        return self._moments(parts, rows)

    def _seen(self, parts: Sequence[Part], place: int, outputs: bool = False) -> list[np.ndarray]:
        seen = _Seen([part[0] for part in parts], self._masks[place], outputs)
        with output_hook(seen):
            self.model(self.batches[place], training=False)
        return [seen.rows(part[0]) for part in parts]


def real_tokens(inputs: Any) -> Tensor | None:
    """The mask [batch, length] among a model's inputs, 1 where a token is real; None where there is none."""
    # keras-hub has the other name.
    names = ("attention_mask", "padding_mask") if isinstance(inputs, dict) else ()
    return next((inputs[name] for name in names if inputs.get(name) is not None), None)


def _mask_of(inputs: Any) -> np.ndarray | None:
    mask = real_tokens(inputs)
    return None if mask is None else np.asarray(ops.convert_to_numpy(mask))


def _through(block: EncoderBlock, hidden: Sequence[Tensor], biases: Sequence[Tensor]):
    """A block's parts, each with what gives a batch's inputs, and what gives the residual path that a layer's outputs
    are added to; what follows is by the block as it is then.

    Args:
        block: the block.
        hidden: what comes into it, [batch, length, hidden_size] of each batch.
        biases: what keeps attention off the padding of each batch.

    Returns:
        What comes out of it.
    """
    attention, ffn, projections = block.attention, block.ffn, block.attention.projections()
    attended = entering = [block.attention_input(each) for each in hidden]
    if projections is not None:
        yield projections, entering.__getitem__, None
        attended = [attention.attend(each, bias, training=False)[0]
                    for each, bias in zip(entering, biases, strict=True)]  # fmt: skip
    yield [attention.output_dense], attended.__getitem__, hidden.__getitem__
    middle = [block.after_attention(each, attention.output_dense(context))
              for each, context in zip(hidden, attended, strict=True)]  # fmt: skip
    normed = [block.ffn_input(each) for each in middle]

    def emitted(place: int) -> Tensor:
        # Not kept: four times as wide as what is.
        return normed[place] if ffn.intermediate is None else ffn.activation(ffn.intermediate(normed[place]))

    if ffn.intermediate is not None:
        yield [ffn.intermediate], normed.__getitem__, None
    yield [ffn.output_dense], emitted, middle.__getitem__
    return [block.after_ffn(each, ffn.output_dense(emitted(place))) for place, each in enumerate(middle)]


def small_batches(dataset: Any, size: int, count: int) -> Iterator[tuple[Any, Any]]:
    """The first batches' inputs and labels in batches of at most `size` examples, at most `count` of these.

    Args:
        dataset: indexable by batch: (inputs, labels, …).
        size: examples.
        count: batches.
    """
    for index in range(len(dataset)):
        whole = tuple(dataset[index][:2])
        for first in range(0, len(keras.tree.flatten(whole[0])[0]), size):
            if not count:
                return
            count -= 1
            own = slice(first, first + size)
            yield keras.tree.map_structure(lambda array, own=own: None if array is None else array[own], whole)


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
