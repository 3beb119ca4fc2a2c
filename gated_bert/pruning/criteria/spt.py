"""SPT, structured pruning with training: close a few units, see what the loss does, remember it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from gated_bert.config import ConfigError
from gated_bert.config.criterion_options import SptOptions, SptTaylorOptions
from gated_bert.config.presets import spt_epsilon
from gated_bert.models.gated_dense import GatedLayer
from gated_bert.pruning.closed import open_weights, openness
from gated_bert.pruning.criteria.base import Criterion, Loss, StepContext
from gated_bert.pruning.criteria.observation import variables_of
from gated_bert.pruning.criteria.ridge import RidgeCredit
from gated_bert.pruning.groups import BalancedGroup, Group
from gated_bert.support.backend import compiled, view

_SMALL_GROUP = 4096


class Spt(Criterion):
    """Exploration rewards: Q ← α r + (1 − α) Q with r = L(some units closed) − L(open).

    The published text writes the difference the other way round but ranks like this: a positive reward means that the
    units matter. Variants, each an option: `spt_unit` (what is closed together), `spt_explore_per_layer`
    (one layer role a batch), `spt_credit="regression"` (ridge regression of rewards on explored sets). Units never
    explored rank at the mean Q; `spt_variant="published"` ranks them at 0.
    """

    Options = SptOptions
    default_pooling = "mean"
    needs_batch = True

    def bind(
        self, groups: Sequence[Group], seed: int = 0, pooling: str | None = None, loss: Loss | None = None
    ) -> None:
        super().bind(groups, seed, pooling, loss)
        moving = next((group for group in groups if isinstance(group, BalancedGroup)), None)
        if moving is not None:
            raise ConfigError("pattern", moving.name, "one whose units stay the same, or SptTaylor")
        self.columns = tuple(f"reward_{role}" for role in self.roles)
        self.q = [np.full(group.num_units, np.nan, np.float32) for group in groups]
        self.explored = [np.zeros(group.num_units, np.int32) for group in groups]
        self._probes: dict[Any, Any] = {}
        self._ridge = None
        if self.options.spt_credit == "regression":
            self._offsets = np.cumsum([0, *(group.num_units for group in groups)])
            self._ridge = RidgeCredit(int(self._offsets[-1]))

    def after_step(self, context: StepContext) -> None:
        """Explores on the batch of the step just done (model in inference mode)."""
        role = self.roles[context.step % len(self.roles)] if self.options.spt_explore_per_layer else None
        members = [i for i, group in enumerate(self.groups) if role in (None, group.role)]
        rng = np.random.default_rng([self.seed, context.step])
        chosen = [self._choose(index, rng) for index in members]
        if role not in self._probes:
            self._probes[role] = compiled(self._probe(context.model, members))
        model = context.model
        values = [variable.value for variable in variables_of(model)]
        loss_closed, loss_open = self._probes[role](values, context.inputs, context.labels, chosen)
        self.credit(members, chosen, float(loss_closed) - float(loss_open))

    def _choose(self, index: int, rng: np.random.Generator) -> np.ndarray:
        """Units to explore: always the same number, so that the probe is compiled once."""
        size = self.groups[index].num_units
        epsilon = spt_epsilon("base") if self.options.spt_epsilon is None else self.options.spt_epsilon
        count = max(1, round(epsilon * size))
        if size > _SMALL_GROUP:
            # Closed units among them change nothing, and of the open ones a fraction ε is met.
            return rng.integers(0, size, count, dtype=np.int32)
        left = np.flatnonzero(self._open(index))
        # Where nothing is open any unit will do: closing it changes nothing.
        return rng.choice(left if len(left) else size, count).astype(np.int32)

    def _open(self, index: int) -> np.ndarray:
        return openness(self.groups[index]) > 0

    def _probe(self, model, members):
        variables = variables_of(model)
        places = {id(variable): place for place, variable in enumerate(variables)}

        def loss(values, inputs, labels):
            with keras.StatelessScope(state_mapping=list(zip(variables, values, strict=True))):
                return self.probe(model, inputs, labels)

        def probe(values, inputs, labels, chosen):
            closed = list(values)
            for index, units in zip(members, chosen, strict=True):
                group = self.groups[index]
                keep = ops.scatter_update(ops.ones(group.num_units), units[:, None], ops.zeros(units.shape[0]))
                for layer, factor in zip(group.layers, group.expand(keep, ops), strict=True):
                    place = places[id(layer.mask_variable)]
                    closed[place] = closed[place] * ops.cast(factor, closed[place].dtype)
            return loss(closed, inputs, labels), loss(values, inputs, labels)

        return probe

    def credit(self, members: list[int], chosen: list[np.ndarray], reward: float) -> None:
        """Gives `reward` to the explored units: `chosen[i]` are unit indices of group `members[i]`."""
        alpha = self.options.spt_reward_alpha
        for index, units in zip(members, chosen, strict=True):
            q = self.q[index]
            before = q[units]
            q[units] = np.where(np.isnan(before), reward, alpha * reward + (1 - alpha) * before)
            self.explored[index][np.unique(units)] += 1
        if self._ridge is not None:
            together = [self._offsets[index] + units for index, units in zip(members, chosen, strict=True)]
            self._ridge.add(np.unique(np.concatenate(together)), reward)

    def unit_scores(
        self, index: int, group: Group, is_open: Callable[[GatedLayer], np.ndarray] | None = None
    ) -> np.ndarray:
        if self._ridge is not None:
            return self._ridge.solve()[self._offsets[index] : self._offsets[index + 1]]
        return np.where(np.isnan(self.q[index]), np.float32(self._rank_of_unexplored()), self.q[index])

    def _rank_of_unexplored(self) -> float:
        if self.options.spt_variant == "published":
            return 0.0
        count = sum(int(np.count_nonzero(~np.isnan(q))) for q in self.q)
        return sum(float(np.nansum(q, dtype=np.float64)) for q in self.q) / count if count else 0.0

    def report(self) -> dict[str, float]:
        """Mean Q of the explored open units of each role; NaN before any was explored."""
        rewards = {}
        for role in self.roles:
            values = [
                self.q[index][self._open(index) & (self.explored[index] > 0)]
                for index, group in enumerate(self.groups) if group.role == role
            ]  # fmt: skip
            earned = np.concatenate(values)
            rewards[f"reward_{role}"] = float(earned.mean(dtype=np.float64)) if len(earned) else float("nan")
        return rewards

    def state(self) -> dict[str, np.ndarray]:
        arrays = {f"q{i}": q for i, q in enumerate(self.q)} | {f"n{i}": n for i, n in enumerate(self.explored)}
        return arrays | (self._ridge.state() if self._ridge else {})

    def load_state(self, state: dict[str, np.ndarray]) -> None:
        for i in range(len(self.groups)):
            self.q[i][:], self.explored[i][:] = state[f"q{i}"], state[f"n{i}"]
        if self._ridge:
            self._ridge.load_state(state)


class SptTaylor(Criterion):
    """SPT with first-order rewards: r = −Σ W ⊙ ∂L/∂W' over every open unit, from training's own backward pass.

    The layers' `scores` hold Q; their gradient is ∂L/∂G, which the optimiser turns into the moving average.
    """

    Options = SptTaylorOptions
    default_pooling = "mean"
    gate_rule = "straight_through"
    score_rule = "reward"

    def __init__(self, **options: Any):
        super().__init__(**options)
        self.score_alpha = self.options.spt_reward_alpha

    def bind(
        self, groups: Sequence[Group], seed: int = 0, pooling: str | None = None, loss: Loss | None = None
    ) -> None:
        super().bind(groups, seed, pooling, loss)
        self.columns = tuple(f"reward_{role}" for role in self.roles)

    def scores(self, layer: GatedLayer) -> np.ndarray:
        return view(layer.scores)

    def report(self) -> dict[str, float]:
        """Mean Q of the open weights of each role."""
        rewards = {}
        for role in self.roles:
            layers = [layer for group in self.groups if group.role == role for layer in group.layers]
            values = np.concatenate([self.scores(layer)[open_weights(layer)] for layer in layers])
            rewards[f"reward_{role}"] = float(values.mean(dtype=np.float64)) if len(values) else float("nan")
        return rewards
