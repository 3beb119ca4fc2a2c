"""What every criterion offers."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from gated_bert.config import ConfigError
from gated_bert.config.criterion_options import CriterionOptions, WeightUpdateOptions
from gated_bert.config.option import declared_fields
from gated_bert.config.parts import CRITERIA, VARIANTS, Part, options_of
from gated_bert.models.gated_dense import GatedLayer
from gated_bert.pruning.groups import Group
from gated_bert.support.backend import view
from gated_bert.support.tensors import Tensor

if TYPE_CHECKING:
    import keras

    from gated_bert.config import GatedBertConfig

Loss = Callable[..., object]
"""`loss(model, inputs, labels, training=False)`: the scalar of a batch that a criterion probes."""

Stage = tuple[Collection[GatedLayer], Collection[GatedLayer]]
"""Layers whose masks are chosen at once, and layers that are then asked for new weights."""


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

    Made from its own options, `Movement(learning_rate=0.1)`; the pruner says by `bind` what it scores.

    Class attributes:
        Options: the class of its options, which also says what a command line has to know of it.
        default_pooling: how units pool their weights' scores where the record does not say; see `Group.pool`. A norm
            would rank strongly negative scores first, so scores with a sign, and squares, take the mean.
        gate_rule: the rule of `gated_bert.models.gate_rules` that the model must be built with.
        score_rule: how the optimiser moves the layers' `scores`: `gradient`, `apart`, `reward`, `squared` or
            `absolute`.
        reopens: a mask may open again what an earlier one closed.
        selects: masks are chosen by ranking scores; else the gate rule closes weights itself.
        aims: of criteria that do not select masks, those that come near a sparsity: `aim` takes the place of
            `set_progress`.
        chooses: `choose` says which units close, where no ranking can.
        every_step: masks may change inside an epoch.
        needs_batch: `after_step` wants the step's batch.
        needs_data: `prepare` must be called before every mask update.
        needs_labels: of these data it looks at labels, too, or at a loss of them.
        updates_weights: `new_kernel` is asked in every mask update; where its options are `WeightUpdateOptions`, they
            say it.
        columns: names of the columns that `report` adds to the results.
        update_every: steps between two mask updates, of `every_step` criteria.
        score_multiplier: learning rate of trained scores as a multiple of the weights', where an optimiser of a user's
            own does not say it.
        score_rate: learning rate of scores that are trained `apart`.
        score_alpha: weight of a new value in the moving average of `reward` scores, and of the old one in `absolute`
            ones.
        collect_every: steps between two calls of `collect`; 0: none.

    Args:
        **options: fields of `Options`, whose prefix may be left out.

    Attributes:
        options: the options, an `Options`.
        groups: the groups that compete.
        seed: what random choices depend on.
        pooling: how units pool their weights' scores.
        loss: what it probes; None: the model's compiled loss.
        listener: what `tell` calls; None: nothing.

    Raises:
        ConfigError: an unknown option or a refused value.
    """

    Options: ClassVar[type[CriterionOptions]] = CriterionOptions
    options: Any

    default_pooling = "l2"
    gate_rule = "fixed"
    score_rule = "gradient"
    reopens = False
    selects = True
    aims = False
    chooses = False
    every_step = False
    needs_batch = False
    needs_data = False
    needs_labels = True
    updates_weights = False
    columns: tuple[str, ...] = ()
    update_every = 1
    score_multiplier: float | None = 10.0
    score_rate: float | None = None
    score_alpha = 0.125
    collect_every = 0
    listener: Callable[[str], None] | None = None

    def __init__(self, **options: Any):
        self.options = self.Options.of(**options)
        if isinstance(self.options, WeightUpdateOptions):
            self.updates_weights = not self.options.no_update
        for (name, field, value), part in VARIANTS.items():
            if type(self) is class_of(CRITERIA[name]) and getattr(self.options, field) == value:
                other = class_of(part).__name__
                raise ConfigError(field, value, f"another value; {other}() is the criterion of this one")

    @classmethod
    def from_config(cls, config: GatedBertConfig) -> Criterion:
        """The criterion with the options of a run's record."""
        options = options_of(config)
        usual = {name: declared.default for name, declared in declared_fields(type(options)).items()}
        return cls(**{name: getattr(options, name) for name in usual if getattr(options, name) != usual[name]})

    @property
    def name(self) -> str:
        """What messages call it."""
        return type(self).__name__

    def bind(
        self, groups: Sequence[Group], seed: int = 0, pooling: str | None = None, loss: Loss | None = None
    ) -> None:
        """Makes it ready to score `groups`, with nothing remembered; the pruner calls this.

        Args:
            groups: the groups that compete.
            seed: what random choices depend on.
            pooling: how units pool their weights' scores; None: the mean of scores with a sign, else `default_pooling`.
            loss: what it probes; None: the model's compiled loss.

        Raises:
            ConfigError: groups that it cannot score.
        """
        self.groups, self.seed, self.loss = list(groups), seed, loss
        self.pooling = pooling or ("mean" if self.Options.SIGNED else self.default_pooling)
        self.roles = list(dict.fromkeys(group.role for group in groups))

    def tell(self, how_far: str) -> None:
        """Says how far a mask update has come, of criteria whose updates take a while."""
        if self.listener is not None:
            self.listener(how_far)

    def probe(self, model: Any, inputs: Any, labels: Any) -> Tensor:
        """The loss of a batch in inference mode, a scalar, with `model`'s variables as they are."""
        if self.loss is not None:
            return self.loss(model, inputs, labels, training=False)
        return model.compute_loss(inputs, labels, model(inputs, training=False), training=False)

    def prepare(self, model: keras.Model, dataset: Any) -> None:
        """Computes the scores of `needs_data` criteria.

        Args:
            model: the compiled and built model, as it is.
            dataset: indexable by batch: (inputs, labels, …); the first ones are used.
        """

    def targets(self, sparsity: float) -> Sequence[float]:
        """Sparsities that closing up to `sparsity` goes through, the last of them, each with scores of its own."""
        return (sparsity,)

    def stages(self, sparsity: float, competing: Sequence[Sequence[GatedLayer]]) -> Iterator[Stage]:
        """What a mask update does one after another: whoever computes scores of some layers at a time does it here.

        Args:
            sparsity: fraction of the weights that is to be closed.
            competing: the layers of every scope, which are to be chosen in one stage.
        """
        layers = list(dict.fromkeys(layer for scope in competing for layer in scope))
        yield layers, layers

    def score_tensor(self, layer: GatedLayer) -> Tensor | None:
        """Importance of each weight of `layer`, float32 tensor [in, out], of a criterion that has it as one.

        On a GPU masks of single weights are then chosen there, unless a class overrides `scores`, `unit_scores` or
        `stages` as well, or updates weights.
        """
        return None

    def scores(self, layer: GatedLayer) -> np.ndarray:
        """Importance of each weight of `layer`, array [in, out]; by default what `score_tensor` says.

        Raises:
            NotImplementedError: a criterion that scores whole units only.
        """
        found = self.score_tensor(layer)
        if found is None:
            raise NotImplementedError(f"{type(self).__name__} scores no single weights")
        return view(found)

    @property
    def ranks_tensors(self) -> bool:
        """Whether an update is the order of what `score_tensor` says of single weights, and nothing besides."""
        usual = {name: getattr(getattr(self, name), "__func__", None) is getattr(Criterion, name)
                 for name in ("score_tensor", "scores", "unit_scores", "stages")}  # fmt: skip
        return not usual.pop("score_tensor") and all(usual.values()) and not (self.updates_weights or self.chooses)

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

    def choose(
        self, numbers: Sequence[int], gains: Sequence[np.ndarray], weights: float, floors: Sequence[int]
    ) -> list[np.ndarray]:
        """Which units of groups that compete close now, of a criterion that `chooses`.

        Args:
            numbers: of the groups.
            gains: weights that closing each unit adds, an int array [num_units] of each group; 0 where it is closed.
            weights: how many are to close.
            floors: units that each group keeps open, at least.

        Returns:
            A bool array [num_units] of each group.
        """
        raise NotImplementedError(f"{type(self).__name__} chooses no units")

    def after_step(self, context: StepContext) -> None:
        """Looks at a step that was just done."""

    def collect(self) -> None:
        """Takes up what the layers' scores have gathered since it was called last."""

    def new_kernel(self, layer: GatedLayer, keep: np.ndarray) -> np.ndarray | None:
        """Weights that take the place of a layer's, in a mask update of a criterion that `updates_weights`.

        They are saved and resumed as weights are; what else it must remember goes into `state`.

        Args:
            layer: a layer of the groups, with the weights it had and the new mask.
            keep: which weights are open now, bool [in, out].

        Returns:
            The kernel W [in, out], or None where it stays as it is.
        """
        return None

    def after_update(self) -> None:
        """Called after every mask update."""

    def aim(self, sparsity: float) -> None:
        """Closes weights towards the sparsity that is due, a fraction, of criteria that aim at one."""
        raise NotImplementedError(f"{type(self).__name__} does not say how it comes to a sparsity")

    def set_progress(self, progress: float) -> None:
        """Closes weights as is due at a share `progress` of the schedule, of criteria that do not select masks."""
        raise NotImplementedError(f"{type(self).__name__} does not say how it closes weights")

    def report(self) -> dict[str, float]:
        """The values of `columns`, at the end of an epoch."""
        return {}

    def state(self) -> dict[str, np.ndarray]:
        """Arrays outside the model that a stopped run needs to go on.

        One that is there from the beginning keeps its shape: a checkpoint with another one is refused as another run's.
        """
        return {}

    def load_state(self, state: dict[str, np.ndarray]) -> None:
        """Takes back what `state` gave."""


def class_of(part: Part) -> type[Criterion]:
    """The class that a name of a criterion stands for, imported when it is asked for."""
    if not isinstance(part.implementation, str):
        return part.implementation
    module, _, name = part.implementation.partition(":")
    return getattr(importlib.import_module(f"gated_bert.pruning.criteria.{module}"), name)
