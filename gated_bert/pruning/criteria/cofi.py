"""CoFi: gates of heads, neurons and sublayers that are trained to a sparsity (Xia et al. 2022)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import special

from gated_bert.config import ConfigError
from gated_bert.config.criterion_options import CofiOptions
from gated_bert.config.presets import SCORE_RATES, SCORE_STEPS
from gated_bert.models.gate_rules import HARD_CONCRETE_SHIFT, UNIT_ROWS
from gated_bert.pruning.closed import openness
from gated_bert.pruning.criteria.base import Loss
from gated_bert.pruning.criteria.movement import Movement
from gated_bert.pruning.groups import Group, TiedGroup
from gated_bert.support.backend import view

_BETAS = np.array([[0.9], [0.999]])
_BOUND = math.log(100)


class Cofi(Movement):
    """Hard-concrete gates of heads, neurons and sublayers under λ₁ (s − t) + λ₂ (s − t)², the multipliers ascending.

    s is the share of the groups' weights that is expected to be closed, t what the schedule asks for. Gates and
    multipliers take steps of Adam at the rate of the scores, which stays as it is, and are not clipped. The Lagrangian
    times `cofi_penalty` is added to the loss; the scores get its gradient through the slopes that each sublayer's
    `penalty_weight` holds. log α stays within ± log 100, as in the published code. Outside training the units least
    likely to be open are closed, all over the groups, so that their weights are the share s, to within half a unit (the
    published code rounds in each sublayer); whole sublayers may go, whatever `min_kept` says. What a mask closed before
    training counts as closed. Hidden dimensions, which the paper gates as well, stay.

    Paper: Xia et al. 2022, Structured Pruning Learns Compact and Accurate Models (https://arxiv.org/abs/2204.00408).
    """

    Options = CofiOptions
    gate_rule = "unit_hard_concrete"
    score_rule = "apart"
    reopens = False
    selects = False
    aims = True
    usual_update_every = SCORE_STEPS["cofi"]
    columns = ("expected_sparsity", "lambda_1", "lambda_2")

    def __init__(self, **options: Any):
        super().__init__(**options)
        self.score_rate: float = self.options.movement_learning_rate or SCORE_RATES["cofi"]

    def bind(
        self, groups: Sequence[Group], seed: int = 0, pooling: str | None = None, loss: Loss | None = None
    ) -> None:
        super().bind(groups, seed, pooling, loss)
        for group in groups:
            if not isinstance(group, TiedGroup) or group.layers[-1].role not in UNIT_ROWS:
                raise ConfigError("pattern", group.name, ", ".join(self.Options.PATTERNS))
            ending = group.layers[-1]
            ending.unit_rows = int(ending.mask_variable.shape[0]) // group.num_units
        # The multipliers, their moments' means, and how many steps these are the means of.
        self._multipliers, self._moments, self._steps = np.zeros(2), np.zeros((2, 2)), 0
        self._shares: list[np.ndarray] = []
        self._ties = np.random.default_rng(seed).permutation(sum(group.num_units for group in groups))

    def aim(self, sparsity: float) -> None:
        for layer in (group.layers[-1] for group in self.groups):
            scores = view(layer.scores)
            if np.abs(scores).max() > _BOUND:
                layer.scores.assign(np.clip(scores, -_BOUND, _BOUND))
        likely = self._likely_open()
        closed = self._closed(likely)
        powers = np.array([closed - sparsity, (closed - sparsity) ** 2])
        self._ascend(powers)
        weighted = self.options.cofi_penalty * self._multipliers
        slope = weighted @ [1.0, 2 * powers[0]]
        # The slopes times what is open now are −slope (1 − s); with the rest the whole is the Lagrangian in value, too.
        rest = (weighted @ powers + slope * (1 - closed)) / len(self.groups)
        for group, shares in zip(self.groups, self._open_shares(), strict=True):
            rows = group.layers[-1].unit_rows
            group.layers[-1].penalty_weight.assign(np.append(np.repeat(-slope * shares / rows, rows), rest))
        self._close(likely)

    def expected_sparsity(self) -> float:
        """Share of the groups' weights that is expected to be closed."""
        return self._closed(self._likely_open())

    def _closed(self, likely: Sequence[np.ndarray]) -> float:
        return 1 - sum(float(shares @ units) for shares, units in zip(self._open_shares(), likely, strict=True))

    def _open_shares(self) -> list[np.ndarray]:
        """What of the groups' weights lies in each unit and was open when training began, [num_units] of each group."""
        if not self._shares:
            total = sum(group.num_units * group.unit_weights for group in self.groups)
            self._shares = [openness(group).astype(np.float64) * group.unit_weights / total for group in self.groups]
        return self._shares

    def _likely_open(self) -> list[np.ndarray]:
        """The probabilities that units and their sublayer are open, float64 [num_units] of each group."""
        found = []
        for group in self.groups:
            scores = np.asarray(view(group.layers[-1].scores), np.float64)
            units = special.expit(scores[:-1].reshape(group.num_units, -1).mean(1) - HARD_CONCRETE_SHIFT)
            found.append(units * special.expit(scores[-1] - HARD_CONCRETE_SHIFT))
        return found

    def _ascend(self, gradient: np.ndarray):
        """A step of Adam, uphill (Kingma & Ba 2015)."""
        self._steps += 1
        self._moments = _BETAS * self._moments + (1 - _BETAS) * np.stack([gradient, gradient**2])
        mean, square = self._moments / (1 - _BETAS**self._steps)
        self._multipliers = self._multipliers + self.score_rate * mean / (np.sqrt(square) + 1e-8)

    def _close(self, likely: Sequence[np.ndarray]):
        shares, together = np.concatenate(self._open_shares()), np.concatenate(likely)
        # By chance among equals: by their place the first layers would be emptied.
        order = self._ties[np.argsort(together[self._ties], kind="stable")]
        closed = np.cumsum(shares[order]) - shares[order] / 2 <= shares @ (1 - together)
        is_open = np.ones(len(together), np.float32)
        is_open[order[closed]] = 0
        ends = np.cumsum([len(units) for units in likely])[:-1]
        for group, units in zip(self.groups, np.split(is_open, ends), strict=True):
            for layer, factor in zip(group.layers, group.expand(units), strict=True):
                if not np.array_equal(view(layer.open), factor):
                    layer.open.assign(factor)

    def report(self) -> dict[str, float]:
        return dict(zip(self.columns, (self.expected_sparsity(), *map(float, self._multipliers)), strict=True))

    def state(self) -> dict[str, np.ndarray]:
        return {"multipliers": np.append(np.stack([self._multipliers, *self._moments]), self._steps)}

    def load_state(self, state: dict[str, np.ndarray]) -> None:
        *values, steps = state["multipliers"]
        self._multipliers, *moments = np.reshape(values, (3, 2))
        self._moments, self._steps = np.stack(moments), int(steps)
