"""What every criterion offers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from gated_bert.config import GatedBertConfig
from gated_bert.models.gated_dense import GatedLayer
from gated_bert.pruning.groups import Group


@dataclass
class StepContext:
    """What a criterion may look at after an optimiser step.

    Args:
        model: the model in training.
        inputs: the step's inputs, dict of int arrays [batch, length].
        labels: array [batch].
        step: steps done since the run began, this one included.
    """

    model: object
    inputs: dict[str, np.ndarray]
    labels: np.ndarray
    step: int


class Criterion:
    """Importance of weights: larger is kept.

    Class attributes:
        default_pooling: how units pool their weights' scores where the record does not say; see `Group.pool`. A norm
            would rank strongly negative scores first, so scores with a sign, and squares, take the mean.
        gate_rule: the rule of `gated_bert.models.gate_rules` that the model must be built with.
        score_rule: how the optimiser moves the layers' `scores`: `gradient`, `reward` or `squared`.
        reopens: a mask may open again what an earlier one closed.
        selects: masks are chosen by ranking scores; else the gate rule closes weights itself.
        every_step: masks may change inside an epoch.
        needs_batch: `after_step` wants the step's batch.
        needs_data: `prepare` must be called before every mask update.
        columns: names of the columns that `report` adds to the results.

    Args:
        config: the run's record.
        groups: the groups that compete.
    """

    default_pooling = "l2"
    gate_rule = "fixed"
    score_rule = "gradient"
    reopens = False
    selects = True
    every_step = False
    needs_batch = False
    needs_data = False
    columns: tuple[str, ...] = ()

    def __init__(self, config: GatedBertConfig, groups: Sequence[Group]):
        self.config, self.groups = config, groups
        self.pooling = config.pooling or self.default_pooling
        self.roles = list(dict.fromkeys(group.role for group in groups))

    def prepare(self, model, dataset):
        """Computes the scores of `needs_data` criteria.

        Args:
            model: the compiled and built model, as it is.
            dataset: indexable by batch: (inputs, labels, …); the first `config.score_batches` are used.
        """

    def scores(self, layer: GatedLayer) -> np.ndarray:
        """Importance of each weight of `layer`, array [in, out]."""
        raise NotImplementedError(f"{type(self).__name__} scores no single weights")

    def unit_scores(
        self, index: int, group: Group, is_open: Callable[[GatedLayer], np.ndarray] | None = None
    ) -> np.ndarray:
        """Importance of each unit of group number `index`, array [num_units].

        Args:
            index: number of the group.
            group: the group.
            is_open: where single weights inside units are closed, which weights of a layer are open, bool [in, out]:
                the closed ones have no importance.
        """
        scores = [self.scores(layer) if is_open is None else self.scores(layer) * is_open(layer)
                  for layer in group.layers]  # fmt: skip
        return group.pool(scores, self.pooling)

    def after_step(self, context: StepContext):
        """Looks at a step that was just done."""

    def after_update(self):
        """Called after every mask update."""

    def report(self) -> dict[str, float]:
        """The values of `columns`, at the end of an epoch."""
        return {}

    def state(self) -> dict[str, np.ndarray]:
        """Arrays outside the model that a stopped run needs to go on."""
        return {}

    def load_state(self, state: dict[str, np.ndarray]):
        """Takes back what `state` gave."""
