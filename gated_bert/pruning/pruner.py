"""The pruner: criterion + pattern + scope → masks."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from keras import ops

from gated_bert.config import GatedBertConfig
from gated_bert.config.presets import MIN_KEPT
from gated_bert.config.space import POOLINGS, SCOPES
from gated_bert.models.gated_dense import GatedLayer
from gated_bert.pruning.check_parts import check_classes, check_parts
from gated_bert.pruning.closed import Before, OpenUnits, count_weights, layers_of, open_weights, openness, outside
from gated_bert.pruning.criteria import Criterion, Loss, criterion_of
from gated_bert.pruning.groups import BalancedGroup, Group
from gated_bert.pruning.output_scope import choose_in_columns, is_due_in_columns
from gated_bert.pruning.patterns import Block, Pattern, get_pattern
from gated_bert.pruning.schedules import Schedule, build_schedule
from gated_bert.pruning.selection import Pool, smallest_above_floors, threads
from gated_bert.support.checks import choose, number

Read = Callable[[int, Group, int], np.ndarray]
"""Scores of every so manyth unit (third argument) of a group (second; the first is its number)."""


@dataclass(frozen=True)
class Target:
    """How much one step of a mask update closes.

    Args:
        pattern: the step's pattern.
        sparsity: fraction of the weights of a scope.
        now: what is open before the step.
        limit: of a step whose sparsity counts whole units only, what may be closed of all weights.
        before: of a step that restores single weights, the gates before the update; they may be restored, no others.
    """

    pattern: Pattern
    sparsity: float
    now: OpenUnits
    limit: float | None = None
    before: dict[GatedLayer, Before] | None = None


class Pruner:
    """Closes the least important units of a model's gated layers.

    The gates say what is closed, whoever closed it. A criterion that only closes opens none of it again, and counts all
    of it towards the sparsity asked for, also single weights inside units. A criterion that opens units again chooses
    all masks anew.

    Args:
        layers: the prunable layers.
        criterion: how important a weight is; it belongs to this pruner from then on.
        pattern: what is removed at once; by default single weights.
        scope: what competes: `layer`, `global`, `role`, or `output`, each column of a matrix alone.
        schedule: sparsity over time, for the callback; `update` is told a sparsity.
        num_heads: attention heads of each encoder block; only patterns made of heads read it.
        seed: what random choices depend on.
        min_kept: fraction of every matrix (under the scope `output` of every column) that always stays.
        pooling: how units pool their weights' scores, see `Group.pool`; None: as the criterion has it.
        normalize_scores: whether the scores of each group are scaled to a root mean square of 1.
        loss: what the criterion probes, `loss(model, inputs, labels, training=False)`; None: the compiled loss.

    Raises:
        ConfigError: parts that do not go together, or a value that is not allowed.

    Example:

    ```python
    pruner = Pruner(gated_layers(model), Magnitude(), Block(4, 1), scope="global")
    pruner.update(0.5)
    ```
    """

    def __init__(
        self,
        layers: Sequence[GatedLayer],
        criterion: Criterion,
        pattern: Pattern | None = None,
        scope: str = "layer",
        *,
        schedule: Schedule | None = None,
        num_heads: Sequence[int] = (),
        seed: int = 0,
        min_kept: float = MIN_KEPT,
        pooling: str | None = None,
        normalize_scores: bool = False,
        loss: Loss | None = None,
    ):
        check_classes(criterion=(criterion, Criterion), pattern=(pattern, Pattern, None),
                      schedule=(schedule, Schedule, None))  # fmt: skip
        choose("scope", scope, SCOPES)
        number("min_kept", min_kept, 0, 1)
        if pooling is not None:
            choose("pooling", pooling, POOLINGS)
        self.layers, self.num_heads, self.schedule = list(layers), num_heads, schedule
        self.criterion, self.pattern, self.scope = criterion, Block() if pattern is None else pattern, scope
        self.seed, self.min_kept, self.normalize_scores = seed, min_kept, normalize_scores
        self.groups = self.pattern.groups(self.layers, num_heads)
        check_parts(criterion, self.pattern, self.groups, scope, pooling)
        criterion.bind(self.groups, seed, pooling, loss)

    @classmethod
    def from_config(
        cls,
        config: GatedBertConfig,
        layers: Sequence[GatedLayer],
        num_heads: Sequence[int] = (),
        loss: Loss | None = None,
    ) -> Pruner:
        """The pruner of a run's record; the arguments are those of the class."""
        return cls(
            layers, criterion_of(config), get_pattern(config), config.scope, schedule=build_schedule(config),
            num_heads=num_heads, seed=config.seed, min_kept=config.min_kept, pooling=config.pooling,
            normalize_scores=config.normalize_scores, loss=loss,
        )  # fmt: skip

    def layers_of_groups(self) -> list[GatedLayer]:
        """The layers that the pattern prunes, each once."""
        return layers_of(self.groups)

    def competitors(self, groups: Sequence[Group], scope: str) -> list[list[int]]:
        """Numbers of the groups that are ranked together, scope by scope; of `output`, those of a matrix."""
        return list(self._scopes(groups, scope).values())

    def _scopes(self, groups: Sequence[Group], scope: str) -> dict[object, list[int]]:
        keys = {
            "global": lambda group: 0,
            "layer": lambda group: tuple(id(layer) for layer in group.layers),
            "output": lambda group: tuple(id(layer) for layer in group.layers),
            "role": lambda group: group.role,
        }
        scopes: dict[object, list[int]] = {}
        for index, group in enumerate(groups):
            scopes.setdefault(keys[scope](group), []).append(index)
        return scopes

    def due(self, sparsity: float) -> bool:
        """Whether `update` may change a mask.

        It may where the criterion opens units again, and else where less of a scope is closed than is asked for and a
        unit above the floors would bring it nearer.
        """
        return self._is_due(sparsity, OpenUnits())

    def _is_due(self, sparsity: float, now: OpenUnits) -> bool:
        steps = self.pattern.steps(sparsity)
        if self.criterion.reopens or self._few_closed(steps, now):
            return True
        last, share = steps[-1]
        if last.closes(1, share) is not None:
            return False
        if self.scope == "output":
            return any(is_due_in_columns(now.is_open(layer), share, self.min_kept) for layer in self.layers_of_groups())
        for members in self.competitors(self.groups, "global" if last.restores else self.scope):
            groups = [self.groups[index] for index in members]
            floors = self._floors(groups, now)
            gains = [now.least_closable(group, floor) for group, floor in zip(groups, floors, strict=True)]
            least = min((gain for gain in gains if gain), default=math.inf)
            layers = layers_of(groups)
            weights = count_weights(layers)
            missing = share * weights - (weights - now.weights_of(groups, layers))
            if missing >= 0.5 * (min(least, 1) if last.restores else least):
                return True
        return False

    def _few_closed(self, steps: Sequence[tuple[Pattern, float]], now: OpenUnits) -> bool:
        """Whether a pattern that counts units has fewer of them closed than it would close."""
        for pattern, share in steps:
            if pattern.closes(1, share) is None:
                continue
            groups = self.groups if len(steps) == 1 else pattern.groups(self.layers, self.num_heads)
            for members in self.competitors(groups, self.scope):
                ranked = [groups[index] for index in members]
                units, left = sum(group.num_units for group in ranked), sum(map(now.count, ranked))
                if left > max(units - pattern.closes(units, share), sum(self._floors(ranked, now))):
                    return True
        return False

    def update(self, sparsity: float, step: int = 0):
        """Sets the masks so that `sparsity` of the groups' weights are closed, to within one unit of every scope.

        Of a criterion that only closes, a scope in which more is closed stays as it is, and others do not pay for it.

        Args:
            sparsity: fraction of the weights.
            step: steps done so far; with the seed it decides how ties are broken.
        """
        now = OpenUnits()
        if self._is_due(sparsity, now):
            rng = np.random.default_rng([self.seed, step])
            steps = self.pattern.steps(sparsity)
            last, share = steps[-1]
            # Steps that count units all look at the gates as they were.
            counts = len(steps) > 1 and last.closes(1, share) is not None
            before = {layer: Before(layer) for layer in self.layers} if last.restores or counts else None
            ranking = OpenUnits(lambda layer: before[layer].open) if counts else None
            for number, (pattern, share) in enumerate(steps):
                groups = self.groups if len(steps) == 1 else pattern.groups(self.layers, self.num_heads)
                now = now if number == 0 else OpenUnits()
                groups = [self._arranged(index, group, rng, now) for index, group in enumerate(groups)]
                if pattern.restores:
                    target = Target(pattern, share, now, before=before)
                    self._prune(groups, rng, target, self._kept_open(before), "global")
                else:
                    following = steps[number + 1] if number + 1 < len(steps) else None
                    limit = following[1] if following and not following[0].restores else None
                    read = functools.partial(self._ranked, ranking or now)
                    self._prune(groups, rng, Target(pattern, share, now, limit), read, on_top=pattern.on_top)
            if self.criterion.updates_weights:
                self._update_weights()
        self.criterion.after_update()

    def _update_weights(self):
        for layer in self.layers_of_groups():
            kernel = self.criterion.new_kernel(layer, open_weights(layer))
            if kernel is not None:
                layer.set_kernel(kernel)

    def _arranged(self, index: int, group: Group, rng: np.random.Generator, now: OpenUnits) -> Group:
        if not isinstance(group, BalancedGroup):
            return group
        return group.sorted_by(self._ranked(now, index, group.base, 1), rng)

    def _prune(
        self,
        groups: Sequence[Group],
        rng: np.random.Generator,
        target: Target,
        read: Read,
        scope: str = "",
        on_top: bool = False,
    ):
        scopes = self._scopes(groups, scope or self.scope)
        # Of the pattern as a whole: where a step leaves out matrices, what is closed of them counts all the same.
        layers = {
            key: layers_of([self.groups[index] for index in members])
            for key, members in self._scopes(self.groups, scope or self.scope).items()
        }

        def choose(key: object, own: np.random.Generator) -> list[np.ndarray]:
            return self._choose([groups[index] for index in scopes[key]], scopes[key], layers[key], own, target, read)

        chosen: dict[GatedLayer, list[tuple[Group, int, np.ndarray]]] = {}
        # Scopes are independent, and NumPy lets other threads run meanwhile.
        with ThreadPoolExecutor(threads()) as workers:
            for key, choices in zip(scopes, workers.map(choose, scopes, rng.spawn(len(scopes))), strict=True):
                for index, closed in zip(scopes[key], choices, strict=True):
                    for place, layer in enumerate(groups[index].layers):
                        chosen.setdefault(layer, []).append((groups[index], place, closed))
        for layer, choices in chosen.items():
            self._write(layer, choices, on_top, target.before)

    def _choose(
        self, groups: Sequence[Group], numbers: Sequence[int], layers: Sequence[GatedLayer], rng: np.random.Generator,
        target: Target, read: Read,
    ) -> list[np.ndarray]:  # fmt: skip
        """Bits, packed, 1 where a unit is closed."""
        if self.scope == "output":
            ((number, group),) = zip(numbers, groups, strict=True)
            scores = read(number, group, 1).reshape(group.layers[0].mask_variable.shape)
            return [choose_in_columns(scores, target.sparsity, self.min_kept, rng, group.name)]
        pools = [
            Pool(functools.partial(read, number, group), group.num_units, group.unit_weights, group.name)
            for number, group in zip(numbers, groups, strict=True)
        ]
        floors, weights = self._floors(groups, target.now, target.before), count_weights(layers)
        count = target.pattern.closes(sum(group.num_units for group in groups), target.sparsity)
        if count is not None:
            counted = [dataclasses.replace(pool, unit_weights=1) for pool in pools]
            return smallest_above_floors(counted, count, floors, rng, others_pay=False)
        if self.criterion.reopens:
            return smallest_above_floors(pools, target.sparsity * weights - outside(groups, layers), floors, rng)
        if target.before:
            closed = sum(target.before[layer].closed for layer in layers)
            return smallest_above_floors(pools, max(target.sparsity * weights, closed), floors, rng)
        return self._close_more(pools, groups, layers, floors, rng, target)

    def _close_more(
        self, pools: Sequence[Pool], groups: Sequence[Group], layers: Sequence[GatedLayer], floors: Sequence[int],
        rng: np.random.Generator, target: Target,
    ) -> list[np.ndarray]:  # fmt: skip
        """As `_choose` where closed weights stay closed, and count wherever they are."""
        weights, others = count_weights(layers), outside(groups, layers)
        closed = weights - target.now.weights_of(groups, layers)
        whole = sum((group.num_units - target.now.count(group)) * group.unit_weights for group in groups)
        sparsity = target.sparsity
        if target.limit is not None:
            found = smallest_above_floors(pools, max(sparsity * weights - others, whole), floors, rng)
            added = sum(int(gain[np.unpackbits(bits, count=len(gain)) == 1].sum(dtype=np.int64))
                        for gain, bits in zip(map(target.now.gains, groups), found, strict=True))  # fmt: skip
            if closed + added <= target.limit * weights + groups[0].unit_weights / 2:
                return found
            sparsity = target.limit
        if whole + others == closed and len({group.unit_weights for group in groups}) == 1:
            return smallest_above_floors(pools, max(sparsity * weights - others, whole), floors, rng)
        pools = [
            dataclasses.replace(pool, gains=target.now.gains(group), ordered=isinstance(group, BalancedGroup))
            for pool, group in zip(pools, groups, strict=True)
        ]
        return smallest_above_floors(pools, max(sparsity * weights - closed, 0), floors, rng)

    def _floors(
        self, groups: Sequence[Group], now: OpenUnits, before: dict[GatedLayer, Before] | None = None
    ) -> list[int]:
        """Units that each group keeps; of the groups of one matrix the first answers for it."""
        floors, seen = [], set()
        for group in groups:
            floor = 0 if group.layers in seen else max(1, math.ceil(self.min_kept * group.num_units))
            if floor and not self.criterion.reopens:
                # What is closed below the floor stays closed.
                floor = min(floor, group.num_units - before[group.layers[0]].closed if before else now.count(group))
            floors.append(floor)
            seen.add(group.layers)
        return floors

    def _ranked(self, seen: OpenUnits, index: int, group: Group, every: int) -> np.ndarray:
        """Scores of every so manyth unit, −inf where what was `seen` is closed."""
        if self.criterion.reopens:
            return self._normalized(self.criterion.unit_scores(index, group))[::every]
        if group.unit_weights == 1 or not seen.in_part(group):
            scores = self._normalized(self.criterion.unit_scores(index, group))
        else:
            scores = self._normalized(self.criterion.unit_scores(index, group, seen.is_open))
            if isinstance(group, BalancedGroup):
                # Of every set the least important go first, however few are open of some.
                scores = np.maximum.accumulate(scores)
        ceiling = seen.ceiling(group, every)
        return np.minimum(scores[::every], ceiling, out=ceiling)

    def _kept_open(self, before: dict[GatedLayer, Before]) -> Read:
        """Scores of single weights: +inf where open now, −inf where closed before for good."""

        def read(index: int, group: Group, every: int) -> np.ndarray:
            scores = self._normalized(self.criterion.unit_scores(index, group))
            if not self.criterion.reopens:
                scores = np.where(before[group.layers[0]].open.ravel(), scores, -np.float32(np.inf))
            return np.where(open_weights(group.layers[0]).ravel(), np.float32(np.inf), scores)[::every]

        return read

    def _normalized(self, scores: np.ndarray) -> np.ndarray:
        if not self.normalize_scores:
            return scores
        size = float(np.sqrt(np.mean(np.square(scores), dtype=np.float64)))
        return scores / np.float32(size) if size else scores

    def closed(self, group: Group) -> np.ndarray:
        """Which units of `group` are closed now, bool [num_units]."""
        return openness(group) == 0

    def _write(
        self,
        layer: GatedLayer,
        chosen: list[tuple[Group, int, np.ndarray]],
        on_top: bool,
        before: dict[GatedLayer, Before] | None,
    ):
        mask = layer.mask_variable
        factors = [
            group.expand(np.logical_not(np.unpackbits(closed, count=group.num_units)))[place]
            for group, place, closed in chosen
        ]
        # Of a criterion that only closes the mask itself says it, unless the gate beside it is zero.
        if before is None and (on_top if self.criterion.reopens else layer.gate_trainable):
            factors.append(open_weights(layer))
        factor = functools.reduce(np.logical_and, factors)
        # As one byte a weight to the backend, which widens them faster than NumPy would.
        kept = ops.convert_to_tensor(np.broadcast_to(factor, tuple(mask.shape)))
        # Gates that stay open keep their values, which need not be those that gates begin with.
        values = ops.stop_gradient(mask)
        if self.criterion.reopens:
            values = ops.where(values == 0, 1.0 if layer.gate_trainable else layer.gate_init_value, values)
        elif before is not None:
            values = ops.convert_to_tensor(before[layer].values)
        mask.assign(ops.where(kept, values, 0.0))


def sparsity(layers: Sequence[GatedLayer]) -> float:
    """Closed weights of `layers` as a fraction of all their weights."""
    closed = sum(int(np.count_nonzero(ops.convert_to_numpy(layer.effective_gates()) == 0)) for layer in layers)
    return closed / sum(math.prod(layer.mask_variable.shape) for layer in layers)
