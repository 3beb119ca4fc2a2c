"""The pruner: criterion + pattern + scope → masks."""

from __future__ import annotations

import functools
import math
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import keras
import numpy as np
from keras import ops

from gated_bert.config import GatedBertConfig
from gated_bert.config.presets import MIN_KEPT
from gated_bert.config.space import POOLINGS, SCOPES
from gated_bert.models.gated_dense import GatedLayer
from gated_bert.models.roles import heads_of
from gated_bert.pruning.check_parts import check_classes, check_parts
from gated_bert.pruning.choice import Choice, Read, Target
from gated_bert.pruning.closed import Before, OpenUnits, layers_of, open_weights, openness
from gated_bert.pruning.criteria import Criterion, Loss, criterion_of
from gated_bert.pruning.due import Due
from gated_bert.pruning.groups import BalancedGroup, Group
from gated_bert.pruning.named_patterns import get_pattern
from gated_bert.pruning.patterns import Block, Pattern
from gated_bert.pruning.schedules import Schedule, build_schedule
from gated_bert.pruning.selection import threads
from gated_bert.support.backend import on_accelerator
from gated_bert.support.checks import choose, number
from gated_bert.support.errors import UserError


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
        num_heads: attention heads of each encoder block; only patterns made of heads read it. Of a model that
            `gate` put gates on it is seen.
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
        self.layers, self.num_heads, self.schedule = list(layers), num_heads or heads_of(layers), schedule
        self.criterion, self.pattern, self.scope = criterion, Block() if pattern is None else pattern, scope
        self.seed, self.min_kept, self.normalize_scores = seed, min_kept, normalize_scores
        self.groups = self.pattern.groups(self.layers, self.num_heads)
        check_parts(criterion, self.pattern, self.groups, scope, pooling)
        criterion.bind(self.groups, seed, pooling, loss)
        self._choice = Choice(criterion.reopens, min_kept, in_columns=scope == "output",
                              choose=criterion.choose if criterion.chooses else None)  # fmt: skip
        self._due = Due(self, self._choice)

    @classmethod
    def from_config(
        cls,
        config: GatedBertConfig,
        layers: Sequence[GatedLayer],
        num_heads: Sequence[int] = (),
        loss: Loss | None = None,
        steps_per_epoch: int | None = None,
    ) -> Pruner:
        """The pruner of a run's record; the arguments are those of the class, and `steps_per_epoch`, without which no
        schedule is made of steps."""
        criterion = criterion_of(config)
        schedule = build_schedule(config, steps_per_epoch, criterion.every_step)
        return cls(
            layers, criterion, get_pattern(config), config.scope, schedule=schedule,
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
        unit above the floors would bring it nearer; but not where the last update was to the same sparsity and nothing
        has opened since: what it did not close, it will not close now.
        """
        return self._due(sparsity, OpenUnits())

    def settle(self, sparsity: float) -> None:
        """Takes the gates as they are for what an update to `sparsity` leaves, as of a stopped run that goes on."""
        self._due.settle(sparsity)

    def update(self, sparsity: float, step: int = 0) -> None:
        """Sets the masks so that `sparsity` of the groups' weights are closed, to within one unit of every scope.

        Of a criterion that only closes, a scope in which more is closed stays as it is, and others do not pay for it.

        Args:
            sparsity: fraction of the weights.
            step: steps done so far; with the seed it decides how ties are broken.

        Raises:
            UserError: a criterion whose gates close by themselves.
        """
        if not self.criterion.selects:
            raise UserError(f"Pruner.update: {self.criterion.name} chooses no masks, its gates close by themselves; "
                            "PruningCallback moves it along a schedule")  # fmt: skip
        now = OpenUnits()
        if self._due(sparsity, now) and not self._chosen_on_device(sparsity, step, now):
            rng = np.random.default_rng([self.seed, step])
            # What is restored competes as a whole.
            scope = "global" if any(pattern.restores for pattern, _ in self.pattern.steps(sparsity)) else self.scope
            competing = [layers_of([self.groups[index] for index in members])
                         for members in self.competitors(self.groups, scope)]  # fmt: skip
            for chosen, updated in self.criterion.stages(sparsity, competing):
                if chosen:
                    self._choose_masks(sparsity, rng, frozenset(chosen), now)
                    now = OpenUnits()
                if self.criterion.updates_weights:
                    self._update_weights(updated)
            self.settle(sparsity)
        self.criterion.after_update()

    def _chosen_on_device(self, sparsity: float, step: int, now: OpenUnits) -> bool:
        if not on_accelerator():
            return False
        from gated_bert.pruning.device_choice import chosen_on_device

        return chosen_on_device(self, self._choice, sparsity, step, now)

    def prune(self, sparsity: float, model: keras.Model, dataset: Any = None, step: int = 0) -> None:
        """As `update`, with the scores computed before that the criterion takes from data, where something is due.

        Args:
            sparsity: fraction of the weights.
            model: the model that the layers are part of, as `Criterion.prepare` takes it.
            dataset: the data, as `Criterion.prepare` takes them; criteria that score on none need none.
            step: steps done so far.
        """
        for target in self.criterion.targets(sparsity):
            if self.criterion.needs_data:
                # Such scores cost passes over data: only where something may close.
                if not self.due(target):
                    continue
                self.criterion.prepare(model, dataset)
            self.update(target, step)

    def _choose_masks(
        self, sparsity: float, rng: np.random.Generator, chosen: frozenset[GatedLayer], now: OpenUnits
    ):
        """Masks of the layers that a stage chooses; the others of its scopes are among them."""
        steps = self.pattern.steps(sparsity)
        last, share = steps[-1]
        # Steps that count units all look at the gates as they were.
        counts = len(steps) > 1 and last.closes(1, share) is not None
        before = {layer: Before(layer) for layer in chosen} if last.restores or counts else {}
        ranking = OpenUnits(lambda layer: before[layer].open) if counts else None
        for place, (pattern, share) in enumerate(steps):
            groups = self.groups if len(steps) == 1 else pattern.groups(self.layers, self.num_heads)
            now = now if place == 0 else OpenUnits()
            groups = [self._arranged(index, group, rng, now) if chosen.issuperset(group.layers) else group
                      for index, group in enumerate(groups)]  # fmt: skip
            if pattern.restores:
                target = Target(pattern, share, now, before=before)
                self._prune(groups, rng, target, self._kept_open(before), chosen, "global")
            else:
                following = steps[place + 1] if place + 1 < len(steps) else None
                limit = following[1] if following and not following[0].restores else None
                read = functools.partial(self._ranked, ranking or now)
                self._prune(groups, rng, Target(pattern, share, now, limit), read, chosen, on_top=pattern.on_top)

    def _update_weights(self, updated: Collection[GatedLayer]):
        for layer in updated:
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
        within: frozenset[GatedLayer],
        scope: str = "",
        on_top: bool = False,
    ):
        scopes = {key: members for key, members in self._scopes(groups, scope or self.scope).items()
                  if all(within.issuperset(groups[index].layers) for index in members)}  # fmt: skip
        # Of the pattern as a whole: where a step leaves out matrices, what is closed of them counts all the same.
        layers = {
            key: layers_of([self.groups[index] for index in members])
            for key, members in self._scopes(self.groups, scope or self.scope).items()
        }

        def choose(key: object, own: np.random.Generator) -> list[np.ndarray]:
            members = [groups[index] for index in scopes[key]]
            return self._choice.closed_units(members, scopes[key], layers[key], own, target, read)

        chosen: dict[GatedLayer, list[tuple[Group, int, np.ndarray]]] = {}
        # Scopes are independent, and NumPy lets other threads run meanwhile.
        with ThreadPoolExecutor(threads()) as workers:
            for key, choices in zip(scopes, workers.map(choose, scopes, rng.spawn(len(scopes))), strict=True):
                for index, closed in zip(scopes[key], choices, strict=True):
                    for place, layer in enumerate(groups[index].layers):
                        chosen.setdefault(layer, []).append((groups[index], place, closed))
        for layer, units in chosen.items():
            self._write(layer, units, on_top, target.before)

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
