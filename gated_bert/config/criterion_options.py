"""Each criterion's own options: declared here once; flags, checks, help and the criterion itself read them."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import ClassVar

from gated_bert.config.option import PRUNING, RUN, FilledIn, option
from gated_bert.config.space import PATTERNS

_option = functools.partial(option, group=PRUNING, any_model=True)


@dataclass(frozen=True)
class CriterionOptions:
    """Base of the options of criteria; a criterion without any takes this.

    Class attributes:
        PREFIX: what the names begin with in a flat record, and may be left out where the criterion is made by itself:
            `Movement(learning_rate=0.1)` for `movement_learning_rate`.
    """

    PREFIX: ClassVar[str] = ""

    @classmethod
    def of(cls, **values) -> CriterionOptions:
        """The options with `values`, whose names may lack the prefix.

        Raises:
            TypeError: an unknown name.
        """
        fields = cls.__dataclass_fields__
        return cls(**{name if name in fields else cls.PREFIX + name: value for name, value in values.items()})


@dataclass(frozen=True)
class TaylorOptions(CriterionOptions):
    """Of `taylor`."""

    PREFIX: ClassVar[str] = "taylor_"
    taylor_variant: str = _option("default", "default, published", "--taylor-variant",
                                  choices=("default", "published"))  # fmt: skip


@dataclass(frozen=True)
class ActivationOptions(CriterionOptions):
    """Of `activation_magnitude`."""

    PREFIX: ClassVar[str] = "activation_"
    activation_variant: str = _option("default", "of activation_magnitude: default (mean |x|), or published (|mean x|)",
                                      "--activation-variant", choices=("default", "published"))  # fmt: skip


@dataclass(frozen=True)
class SptOptions(CriterionOptions):
    """Of `spt`."""

    PREFIX: ClassVar[str] = "spt_"
    spt_epsilon: FilledIn[float] = _option(None, "fraction of the open units explored a step", "--spt-epsilon",
                                           metavar="FRACTION", low=0, high=1, open_low=True)  # fmt: skip
    spt_explore_per_layer: bool = _option(False, "SPT explores one layer role a batch instead of all", "-se",
                                          "--spt-explore", group=RUN)  # fmt: skip
    spt_reward_alpha: float = _option(0.125, "weight of a new reward in the mean", "--spt-reward-alpha",
                                      metavar="ALPHA", low=0, high=1, open_low=True)  # fmt: skip
    spt_unit: FilledIn[str] = _option(None, "what SPT explores; its pattern", "--spt-unit", choices=PATTERNS,
                                      any_model=False)  # fmt: skip
    spt_reward: str = _option("measured", "measured, taylor", "--spt-reward", choices=("measured", "taylor"))
    spt_credit: str = _option("mean", "mean, regression", "--spt-credit", choices=("mean", "regression"))
    spt_variant: str = _option("default", "default, published", "--spt-variant", choices=("default", "published"))


@dataclass(frozen=True)
class MovementOptions(CriterionOptions):
    """Of `movement` and those whose scores are trained as its are."""

    PREFIX: ClassVar[str] = "movement_"
    movement_pruning_frequency_steps: FilledIn[int] = _option(None, "steps between two masks", "--movement-frequency",
                                                              low=1)  # fmt: skip
    movement_schedule: str = _option("linear", "linear, cubic", "--movement-schedule", choices=("linear", "cubic"))
    movement_learning_rate: float = _option(
        1e-2, "rate of the scores; with Adam, from scores of 0, its size changes no rank of movement",
        "--movement-learning-rate", metavar="RATE", low=0, high=1e3, open_low=True, any_model=False)  # fmt: skip


@dataclass(frozen=True)
class SoftMovementOptions(MovementOptions):
    """Of `soft_movement`."""

    PREFIX: ClassVar[str] = "soft_movement_"
    soft_movement_threshold: float = _option(0.1, "final threshold", "--soft-movement-threshold", metavar="VALUE",
                                             low=0, high=0.9999)  # fmt: skip
    soft_movement_penalty: float = _option(25.0, "weight of its penalty", "--soft-movement-penalty", metavar="WEIGHT",
                                           low=0, high=1e6)  # fmt: skip


@dataclass(frozen=True)
class L0Options(MovementOptions):
    """Of `l0`."""

    PREFIX: ClassVar[str] = "l0_"
    l0_penalty: float = _option(25.0, "weight of the expected-L0 penalty", "--l0-penalty", metavar="WEIGHT", low=0,
                                high=1e6)  # fmt: skip


@dataclass(frozen=True)
class SaliencyOptions(CriterionOptions):
    """Of criteria that are scored on batches of data."""

    score_batches: int = _option(8, "batches that saliency scores are summed over", "--score-batches", low=1)
    noise: str = _option("constant", "of smooth_grad…: constant, or activation (times the deviation of a layer's "
                         "inputs)", "--noise", metavar="KIND", choices=("constant", "activation"))  # fmt: skip
    noise_std: float = _option(1e-3, "standard deviation of that noise", "--noise-std", metavar="VALUE", low=0,
                               high=1e3)  # fmt: skip
    smooth_passes: int = _option(10, "noisy passes of a batch that smooth_grad… averages", "--smooth-passes",
                                 low=1)  # fmt: skip


CRITERION_SECTIONS = (TaylorOptions, ActivationOptions, SptOptions, MovementOptions, SoftMovementOptions, L0Options,
                      SaliencyOptions)  # fmt: skip
"""In the order of a record."""
