"""Masks of single weights that are chosen where the scores are, with the result of a choice in the host's memory.

It imports JAX.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from keras import ops

from gated_bert.models.gated_dense import GatedLayer
from gated_bert.pruning.choice import Choice
from gated_bert.pruning.closed import OpenUnits, count_weights, is_of_weights, layers_of
from gated_bert.pruning.selection import places_of_ties
from gated_bert.support.jax_ranks import MOST_TIES, Limit, closed_below, kth_smallest, places_of, raised
from gated_bert.support.tensors import Tensor

if TYPE_CHECKING:
    from gated_bert.pruning.pruner import Pruner

_NOTHING = np.zeros(0, np.int64)
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


def chosen_on_device(pruner: Pruner, choice: Choice, sparsity: float, step: int, now: OpenUnits) -> bool:
    """Sets a pruner's masks without a copy of the scores to the host, where all that counts is their order.

    Args:
        pruner: the pruner.
        choice: how it chooses units.
        sparsity: fraction of the weights that is to be closed.
        step: steps done so far.
        now: what is open.

    Returns:
        Whether it did.
    """
    ((pattern, share), *more) = pruner.pattern.steps(sparsity)
    if more or pattern.restores or pattern.on_top or pattern.closes(1, share) is not None:
        return False
    if pruner.scope == "output" or pruner.normalize_scores:
        return False
    if len(pruner.layers_of_groups()) != len(pruner.groups) or not all(map(is_of_weights, pruner.groups)):
        return False
    if not (pruner.criterion.reopens and pruner.criterion.ranks_tensors):
        return False
    scopes = []
    for members in pruner.competitors(pruner.groups, pruner.scope):
        groups = [pruner.groups[index] for index in members]
        layers = layers_of(groups)
        weights = count_weights(layers)
        scopes.append(Scope(layers, min(max(round(share * weights), 0), weights), choice.floors(groups, now)))
    return choose_on_device(scopes, pruner.criterion.score_tensor, np.random.default_rng([pruner.seed, step]))


def choose_on_device(
    scopes: Sequence[Scope], scores: Callable[[GatedLayer], Tensor | None], rng: np.random.Generator
) -> bool:
    """Sets the masks of all scopes' layers as `selection.smallest_above_floors` chooses them from the same scores.

    Args:
        scopes: what competes with what.
        scores: of a layer, tensor [in, out].
        rng: breaks ties, as there.

    Returns:
        Whether it did. What it leaves to the host, and then no mask is changed: scores that are no float32 tensor of a
        matrix' shape, a score that is NaN, many equal scores, and floors that leave less to close than is asked for.
    """
    arrays: list[list[Tensor]] = []
    for scope in scopes:
        found = [_scores(layer, scores(layer)) for layer in scope.layers]
        if any(array is None for array in found):
            return False
        arrays.append(found)
    own, protected = rng.spawn(len(scopes)), [set[int]() for _ in scopes]
    # Of nothing that closes.
    rules: list[list[_Rule]] = [[(0, False, _NOTHING)] * len(scope.layers) for scope in scopes]
    left = [place for place, scope in enumerate(scopes) if scope.count]
    while left:
        limits = kth_smallest(arrays, [max(1, scope.count) for scope in scopes])
        for place in tuple(left):
            made = None if limits[place].has_nan else _rules(scopes[place], arrays[place], limits[place], own[place])
            if made is None:
                return False
            rules[place], poor = made
            if not poor:
                left.remove(place)
            elif not poor - protected[place] or not all(_protect(scopes[place], arrays[place], one) for one in poor):
                return False
            protected[place] |= poor
    _set_masks(scopes, arrays, rules)
    return True


def _scores(layer: GatedLayer, found: Tensor | None) -> Tensor | None:
    """As they are ranked here; None of what NumPy would rank otherwise."""
    if found is None or str(found.dtype) != "float32" or tuple(found.shape) != tuple(layer.mask_variable.shape):
        return None
    return ops.stop_gradient(found)


def _rules(
    scope: Scope, scored: Sequence[Tensor], limit: Limit, rng: np.random.Generator
) -> tuple[list[_Rule], set[int]] | None:
    """What closes of each layer, and which layers would keep less than their floors; None where ties are too many."""
    wanted, left = scope.count - sum(limit.below), sum(limit.equal)
    rules: list[_Rule] = []
    poor = set()
    for place, layer in enumerate(scope.layers):
        here = limit.equal[place]
        ties = places_of_ties(rng, wanted, left, here)
        wanted, left = wanted - len(ties), left - here
        if count_weights([layer]) - limit.below[place] - len(ties) < scope.floors[place]:
            poor.add(place)
        if len(ties) in (0, here):
            rules.append((limit.key, len(ties) == here, _NOTHING))
        elif here <= MOST_TIES:
            rules.append((limit.key, False, places_of(scored[place], limit.key)[ties]))
        else:
            return None
    return rules, poor


def _protect(scope: Scope, scored: list[Tensor], place: int) -> bool:
    """Raises the best scores of a layer, as many as it keeps, above all others, unless some are equal to the next."""
    floor, size = scope.floors[place], count_weights([scope.layers[place]])
    (limit,) = kth_smallest([[scored[place]]], [size - floor + 1])
    if limit.below[0] != size - floor:
        return False
    scored[place] = raised(scored[place], limit.key)
    return True


def _set_masks(scopes: Sequence[Scope], arrays: Sequence[Sequence[Tensor]], rules: Sequence[Sequence[_Rule]]):
    of_fill: dict[float, list[tuple[GatedLayer, Tensor, _Rule]]] = {}
    for scope, scored, chosen in zip(scopes, arrays, rules, strict=True):
        for layer, array, rule in zip(scope.layers, scored, chosen, strict=True):
            fill = 1.0 if layer.gate_trainable else layer.gate_init_value
            of_fill.setdefault(fill, []).append((layer, array, rule))
    for fill, alike in of_fill.items():
        layers, scored, chosen = zip(*alike, strict=True)
        gates = [ops.stop_gradient(layer.mask_variable) for layer in layers]
        for layer, mask in zip(layers, closed_below(scored, gates, chosen, fill), strict=True):
            layer.mask_variable.assign(mask)
