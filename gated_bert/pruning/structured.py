"""Heads and neurons of an encoder that go together with the update of what stays, whole families of levels at a time.

Paper: Kurtic et al. 2023, ZipLM (https://arxiv.org/abs/2302.04089). Beyond it, what stays is fitted to what sublayer
and residual path gave together before anything was pruned, and the bias takes up the mean of what is left.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import keras
import numpy as np
from keras import ops

from gated_bert.config.space import REMOVAL_ORDERS
from gated_bert.models.backbone import is_backbone
from gated_bert.models.distillation import soft_loss
from gated_bert.models.gate import gated_layers
from gated_bert.models.gated_dense import GatedLayer
from gated_bert.models.roles import by_block, heads_of
from gated_bert.models.widths import widths
from gated_bert.pruning import patterns
from gated_bert.pruning.calibration import Calibration, Moments, real_tokens
from gated_bert.pruning.criteria.calibrated import gated_kernel, ungated
from gated_bert.pruning.groups import Group
from gated_bert.pruning.level_search import Levels
from gated_bert.pruning.removal import Removal, remove_in_order, remove_units
from gated_bert.pruning.second_order import damped
from gated_bert.support.backend import view
from gated_bert.tasks.kinds import TOKENS

HEADS, NEURONS = "heads", "neurons"
OBS, _, RANDOM = REMOVAL_ORDERS


@dataclass(frozen=True, eq=False)
class Sublayer:
    """An attention or a feed-forward network, whose units can go.

    Attributes:
        block: which encoder block it is in, from 0.
        kind: `heads` or `neurons`.
        layer: the matrix that it ends in.
        group: its units, in all of its matrices.
        left: units of each level, from all down to none.
    """

    block: int
    kind: str
    layer: GatedLayer
    group: Group
    left: tuple[int, ...]

    @property
    def units(self) -> int:
        """How many units there are."""
        return self.group.num_units


def sublayers_of(model: keras.Model) -> list[Sublayer]:
    """The sublayers of a model that have units, from input to output.

    Args:
        model: a model with encoder blocks, or one that `gate` put gates on.
    """
    layers = model.gated_layers() if is_backbone(model) else gated_layers(model)
    num_heads = model.architecture.num_heads if is_backbone(model) else heads_of(layers)
    found = []
    for index, matrices in sorted(by_block(layers).items()):
        for kind, pattern in ((HEADS, patterns.HEADS), (NEURONS, patterns.NEURONS)):
            there = pattern.roles() <= matrices.keys()
            for group in pattern.groups(list(matrices.values()), num_heads) if there else ():
                units = group.num_units
                left = range(units, -1, -1) if kind == HEADS else widths(units)
                found.append(Sublayer(index, kind, group.layers[-1], group, tuple(left)))
    return found


class StructuredRemoval:
    """What becomes of a model when of each sublayer so many units are left.

    `look` removes the units of every sublayer one after another, each sublayer by itself on what comes in while nothing
    is pruned; `loss` says how far the model that is put together of these is from the whole one; `prune` goes through
    the model in order, so that each sublayer also makes up for those before it.

    Args:
        model: the built model, with fixed gates, or one that `gate` put gates on; changed by `loss` (and put back by
            `restore`) and by `prune`. Of the latter residual paths are not known: what stays is fitted to what each
            sublayer alone gave.
        kind: of its task, as `soft_loss` takes it.
        batches: calibration data, (inputs, …) of each batch, without labels.
        judged: batches that `loss` looks at; by default all.
        order: one of `REMOVAL_ORDERS`.
        seed: of a random one.

    Attributes:
        sublayers: those of the model that have units.
        errors: after `look`, ‖Δ output‖² / ‖output‖² of the levels of each.
    """

    def __init__(self, model: keras.Model, kind: str, batches: Sequence[tuple], judged: int | None = None,
                 order: str = OBS, seed: int = 0):  # fmt: skip
        self.model, self.kind, self.batches, self.order = model, kind, list(batches), order
        self._rng = np.random.default_rng(seed)
        self.sublayers = sublayers_of(model)
        self.errors: list[np.ndarray] = []
        self._judged = [batch[0] for batch in self.batches[:judged]]
        self._wanted = [ops.convert_to_numpy(model.predict_on_batch(inputs)) for inputs in self._judged]
        self._whole = [_State.of(sublayer) for sublayer in self.sublayers]
        self._removals: list[Removal] = []
        self._means: list[np.ndarray] = []
        self._now: Levels = (0,) * len(self.sublayers)

    def look(self) -> Iterator[int]:
        """Makes the families of levels; yields how many sublayers are done, of `sublayers`."""
        seen = self._calibration(False).at_once()
        for place, (sublayer, whole) in enumerate(zip(self.sublayers, self._whole, strict=True)):
            moments = seen.pop(sublayer.layer)
            hessian, _ = _hessian(moments, whole.bias is not None)
            gone = [sublayer.units - left for left in sublayer.left]
            if self.order == OBS:
                removal = remove_units(whole.kernel, hessian, sublayer.units, wanted=gone)
            else:
                removal = remove_in_order(whole.kernel, hessian, self._given_order(sublayer), gone)
            self._removals.append(removal)
            self.errors.append(removal.errors[gone])
            self._means.append(moments.mean)
            yield place + 1

    def loss(self, levels: Levels) -> float:
        """The mean over the judged examples of how far the outputs are from those of the whole model.

        Args:
            levels: of each sublayer.

        Returns:
            The Kullback-Leibler divergence, or of a regression the squared difference.
        """
        self._put_all(levels)
        total, count = 0.0, 0
        for inputs, wanted in zip(self._judged, self._wanted, strict=True):
            real = real_tokens(inputs) if self.kind == TOKENS else None
            losses = soft_loss(self.kind, wanted, self.model.predict_on_batch(inputs), 1.0, real)
            total, count = total + float(ops.sum(losses)), count + len(wanted)
        return total / count

    def restore(self) -> None:
        """Puts the model back to what it was."""
        for sublayer, whole in zip(self.sublayers, self._whole, strict=True):
            whole.put(sublayer)
        self._now = (0,) * len(self.sublayers)

    def prune(self, levels: Levels) -> Iterator[int]:
        """Prunes the model, sublayer after sublayer; yields how many are done.

        Args:
            levels: of each sublayer.
        """
        self.restore()
        if self.order != OBS:
            self._put_all(levels)
            yield from range(1, len(self.sublayers) + 1)
            return
        places = {sublayer.layer: place for place, sublayer in enumerate(self.sublayers)}
        for done, seen in enumerate(self._calibration(True).in_order()):
            for layer, moments in seen.items():
                self._prune_one(self.sublayers[places[layer]], moments, levels[places[layer]])
            yield done + 1

    def _calibration(self, reference: bool) -> Calibration:
        layers = [sublayer.layer for sublayer in self.sublayers]
        return Calibration(self.model, layers, self.batches, True, reference=reference, residual=reference)

    def _given_order(self, sublayer: Sublayer) -> np.ndarray:
        if self.order == RANDOM:
            return self._rng.permutation(sublayer.units)
        return np.argsort(sublayer.group.pool([gated_kernel(layer) for layer in sublayer.group.layers], "l2"))

    def _put_all(self, levels: Levels):
        for place, level in enumerate(levels):
            if level != self._now[place]:
                self._put(place, level)
        self._now = tuple(levels)

    def _put(self, place: int, level: int):
        sublayer, whole, removal = self.sublayers[place], self._whole[place], self._removals[place]
        gone = sublayer.units - sublayer.left[level]
        kernel, bias = removal.kernels[gone], whole.bias
        if bias is not None and self.order == OBS:
            bias = bias + self._means[place] @ (whole.kernel - kernel)
        whole.without(sublayer, removal.order[:gone], kernel, bias).put(sublayer)

    def _prune_one(self, sublayer: Sublayer, moments: Moments, level: int):
        now, gone = _State.of(sublayer), sublayer.units - sublayer.left[level]
        has_bias = now.bias is not None
        hessian, added = _hessian(moments, has_bias)
        right = moments.cross(centred=has_bias) + added[:, None] * now.kernel
        removal = remove_units(np.linalg.solve(hessian, right), hessian, sublayer.units, (gone,), most=gone)
        new, bias = removal.kernels[gone], now.bias
        if bias is not None:
            bias = bias + moments.reference_mean - moments.mean @ new
        now.without(sublayer, removal.order, new, bias).put(sublayer)


@dataclass(frozen=True, eq=False)
class _State:
    """A sublayer: the kernel with gates and the bias, if any, of what it ends in, and the masks of all its matrices."""

    kernel: np.ndarray
    bias: np.ndarray | None
    masks: tuple[np.ndarray, ...]

    @classmethod
    def of(cls, sublayer: Sublayer) -> _State:
        """As it is."""
        bias = None if sublayer.layer.bias is None else np.array(view(sublayer.layer.bias))
        masks = tuple(np.array(view(layer.mask_variable)) for layer in sublayer.group.layers)
        return cls(gated_kernel(sublayer.layer), bias, masks)

    def without(self, sublayer: Sublayer, gone: np.ndarray, kernel: np.ndarray, bias: np.ndarray | None) -> _State:
        """The same without some units, with another kernel and bias."""
        is_open = np.ones(sublayer.units, bool)
        is_open[gone] = False
        masks = [mask * factor for mask, factor in zip(self.masks, sublayer.group.expand(is_open), strict=True)]
        # What comes out of the kernel that was made is all of it, whichever of its weights were closed before.
        rows = np.broadcast_to(sublayer.group.expand(is_open)[-1], masks[-1].shape)
        layer = sublayer.layer
        masks[-1] = np.where(rows, 1.0 if layer.gate_trainable else layer.gate_init_value or 1.0, 0.0)
        return _State(kernel, bias, tuple(masks))

    def put(self, sublayer: Sublayer) -> None:
        """Makes it so."""
        layer = sublayer.layer
        for tied, mask in zip(sublayer.group.layers, self.masks, strict=True):
            tied.mask_variable.assign(mask.astype(np.float32))
        layer.set_kernel(ungated(layer, self.kernel).astype(np.float32))
        if self.bias is not None:
            layer.bias.assign(self.bias.astype(np.float32))


def _hessian(moments: Moments, centred: bool) -> tuple[np.ndarray, np.ndarray]:
    """The damped products of the inputs, without their means where a bias takes these up, and what damping added to the
    diagonal."""
    products = moments.hessian(centred)
    found = damped(products)
    return found, np.diag(found) - np.diag(products)


