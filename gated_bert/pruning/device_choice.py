"""Masks of single weights that are chosen where the scores are, with the result of a choice in the host's memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from keras import ops

from gated_bert.models.gated_dense import GatedLayer
from gated_bert.pruning.closed import count_weights
from gated_bert.pruning.selection import places_of_ties
from gated_bert.support.device_ranks import MOST_TIES, Limit, closed_below, kth_smallest, places_of
from gated_bert.support.tensors import Tensor

_Rule = tuple[int, bool, np.ndarray]
"""Of a layer the key of the limit below which a score closes, whether one equal to it does, and places besides."""


@dataclass(frozen=True)
class Scope:
    """Layers whose single weights compete.

    Args:
        layers: the layers.
        count: weights that close.
        floors: of each layer the weights that it keeps.
    """

    layers: Sequence[GatedLayer]
    count: int
    floors: Sequence[int]


def choose_on_device(
    scopes: Sequence[Scope], scores: Callable[[GatedLayer], Tensor], rng: np.random.Generator
) -> bool:
    """Sets the masks of all scopes' layers as `selection.smallest` chooses them from the same scores.

    Args:
        scopes: what competes with what.
        scores: of a layer, tensor [in, out].
        rng: breaks ties, as there.

    Returns:
        Whether it did. A score that is NaN, a layer that would keep less than its floor, and many equal scores are left
        to the host, and then no mask is changed.
    """
    arrays = [[scores(layer) for layer in scope.layers] for scope in scopes]
    limits = kth_smallest(arrays, [max(1, scope.count) for scope in scopes])
    rules: list[_Rule] = []
    for scope, own, scored, limit in zip(scopes, rng.spawn(len(scopes)), arrays, limits, strict=True):
        found = None if limit.has_nan else _rules(scope, scored, limit, own)
        if found is None:
            return False
        rules += found
    layers = [layer for scope in scopes for layer in scope.layers]
    of_all = [array for scored in arrays for array in scored]
    for fill in {_fill(layer) for layer in layers}:
        alike = [place for place, layer in enumerate(layers) if _fill(layer) == fill]
        gates = [ops.stop_gradient(layers[place].mask_variable) for place in alike]
        made = closed_below([of_all[place] for place in alike], gates, [rules[place] for place in alike], fill)
        for place, mask in zip(alike, made, strict=True):
            layers[place].mask_variable.assign(mask)
    return True


def _fill(layer: GatedLayer) -> float:
    return 1.0 if layer.gate_trainable else layer.gate_init_value


def _rules(scope: Scope, scored: Sequence[Tensor], limit: Limit, rng: np.random.Generator) -> list[_Rule] | None:
    nothing = np.zeros(0, np.int64)
    if scope.count == 0:
        return [(0, False, nothing)] * len(scope.layers)
    wanted, left = scope.count - sum(limit.below), sum(limit.equal)
    rules: list[_Rule] = []
    for place, layer in enumerate(scope.layers):
        here = limit.equal[place]
        ties = places_of_ties(rng, wanted, left, here)
        wanted, left = wanted - len(ties), left - here
        if count_weights([layer]) - limit.below[place] - len(ties) < scope.floors[place]:
            return None
        if len(ties) in (0, here):
            rules.append((limit.key, len(ties) == here, nothing))
        elif here <= MOST_TIES:
            rules.append((limit.key, False, places_of(scored[place], limit.key)[ties]))
        else:
            return None
    return rules
