"""Each criterion's own options: declared here once; flags, checks, help and the criterion itself read them."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

from gated_bert.config.option import PRUNING, RUN, FilledIn, check_declared, declared_fields, option, value_types
from gated_bert.config.space import PATTERNS
from gated_bert.support.checks import ConfigError, did_you_mean
from gated_bert.support.records import type_fault

_option = functools.partial(option, group=PRUNING, any_model=True)
_Own = TypeVar("_Own", bound="CriterionOptions")


@dataclass(frozen=True)
class CriterionOptions:
    """Base of the options of criteria, and what has to be known of a criterion before a framework is imported.

    Class attributes:
        PREFIX: what the names begin with in a flat record, and may be left out where the criterion is made by itself:
            `Movement(learning_rate=0.1)` for `movement_learning_rate`.
        TRAINS_SCORES: scores come about during training: of a trained model alone the criterion knows nothing.
        SIGNED: scores have a sign, so that a unit's is the mean of its weights': a norm would keep what is to go.
        ELEMENT_ONLY: it closes single weights and no larger units.
        PATTERNS: those that it goes with alone; empty: all.
        RANKS: it ranks what competes in a scope; else its gates close by themselves, and scopes mean nothing.
        ADAM_ONLY: the gradients of its scores are too small for SGD.
        SCORES_UNITS: it scores units, not weights, so that units must stay the same.
        GATHERS: before any step it knows nothing, so nothing can be closed at the very beginning.
        NUMBERS_A_WEIGHT: numbers of four bytes kept for every weight beside its gate: those that a resume point holds
            too, and others.
        INSIDE_EPOCHS: its masks may change inside an epoch.
        FIRST_EPOCH: epoch, from 1, in which pruning may start.
        LABELLED: fields whose values stand in a run's label where they are not the default.
        PLACE: where tables list the method; None: after those that have a place, by name.
    """

    PREFIX: ClassVar[str] = ""
    TRAINS_SCORES: ClassVar[bool] = False
    SIGNED: ClassVar[bool] = False
    ELEMENT_ONLY: ClassVar[bool] = False
    PATTERNS: ClassVar[tuple[str, ...]] = ()
    RANKS: ClassVar[bool] = True
    ADAM_ONLY: ClassVar[bool] = False
    SCORES_UNITS: ClassVar[bool] = False
    GATHERS: ClassVar[bool] = False
    NUMBERS_A_WEIGHT: ClassVar[tuple[int, int]] = (0, 0)
    INSIDE_EPOCHS: ClassVar[bool] = False
    FIRST_EPOCH: ClassVar[int] = 1
    LABELLED: ClassVar[tuple[str, ...]] = ()
    PLACE: ClassVar[int | None] = None

    @classmethod
    def first_epoch(cls, at_once: bool) -> int:
        """The first epoch, from 1, in which something can be closed; `at_once` says whether the first event closes."""
        return max(cls.FIRST_EPOCH, 1 + (at_once and cls.GATHERS))

    @classmethod
    def of(cls: type[_Own], **values: Any) -> _Own:
        """The options with `values`, whose names may lack the prefix.

        Raises:
            ConfigError: an unknown name, or a value of another type or out of its range.
        """
        fields = declared_fields(cls)
        kinds = value_types(cls) if values else {}
        # Those that it has from another criterion's options have that one's prefix.
        prefixes = ["", *(vars(each)["PREFIX"] for each in cls.__mro__ if "PREFIX" in vars(each))]
        full = {next((each + name for each in prefixes if each + name in fields), name): value
                for name, value in values.items()}  # fmt: skip
        for (given, value), name in zip(values.items(), full, strict=True):
            if name not in fields:
                known = ", ".join(_short(each, prefixes) for each in fields) or "no option"
                raise ConfigError(given, value, known + did_you_mean(given, fields))
            allowed = type_fault(value, kinds[name])
            if allowed is not None:
                raise ConfigError(given, value, allowed)
        made = cls(**full)
        check_declared(made)
        return made

    @classmethod
    def numbers_a_weight(cls, pattern: str) -> tuple[int, int]:
        """`NUMBERS_A_WEIGHT` of a run that prunes by `pattern`."""
        return cls.NUMBERS_A_WEIGHT

    def passing_bytes(self, weights: int) -> int:
        """Bytes that a mask update takes for so many weights beside these numbers."""
        return 0


def _short(name: str, prefixes: list[str]) -> str:
    return name.removeprefix(next((each for each in prefixes if each and name.startswith(each)), ""))


@dataclass(frozen=True)
class MagnitudeOptions(CriterionOptions):
    """Of `magnitude`, which has none."""

    PLACE: ClassVar[int | None] = 1


@dataclass(frozen=True)
class RandomOptions(CriterionOptions):
    """Of `random`, which has none."""

    PLACE: ClassVar[int | None] = 6


@dataclass(frozen=True)
class TaylorOptions(CriterionOptions):
    """Of `taylor`."""

    PREFIX: ClassVar[str] = "taylor_"
    TRAINS_SCORES: ClassVar[bool] = True
    NUMBERS_A_WEIGHT: ClassVar[tuple[int, int]] = (1, 1)
    FIRST_EPOCH: ClassVar[int] = 2
    LABELLED: ClassVar[tuple[str, ...]] = ("taylor_variant",)
    taylor_variant: str = _option("default", "default, published", "--taylor-variant",
                                  choices=("default", "published"))  # fmt: skip


@dataclass(frozen=True)
class ActivationOptions(CriterionOptions):
    """Of `activation_magnitude`."""

    PREFIX: ClassVar[str] = "activation_"
    LABELLED: ClassVar[tuple[str, ...]] = ("activation_variant",)
    activation_variant: str = _option("default", "of activation_magnitude: default (mean |x|), or published (|mean x|)",
                                      "--activation-variant", choices=("default", "published"))  # fmt: skip


@dataclass(frozen=True)
class SptOptions(CriterionOptions):
    """Of `spt`."""

    PREFIX: ClassVar[str] = "spt_"
    TRAINS_SCORES: ClassVar[bool] = True
    SIGNED: ClassVar[bool] = True
    SCORES_UNITS: ClassVar[bool] = True
    LABELLED: ClassVar[tuple[str, ...]] = ("spt_reward", "spt_credit", "spt_variant")
    PLACE: ClassVar[int | None] = 5
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

    @classmethod
    def numbers_a_weight(cls, pattern: str) -> tuple[int, int]:
        # Reward and count of every unit; larger ones are few.
        return (2, 0) if pattern == "element" else (0, 0)


@dataclass(frozen=True)
class SptTaylorOptions(SptOptions):
    """Of `spt` whose rewards are of first order: the layers' scores hold them."""

    SCORES_UNITS: ClassVar[bool] = False

    @classmethod
    def numbers_a_weight(cls, pattern: str) -> tuple[int, int]:
        return 1, 1


@dataclass(frozen=True)
class MovementOptions(CriterionOptions):
    """Of `movement` and those whose scores are trained as its are."""

    PREFIX: ClassVar[str] = "movement_"
    TRAINS_SCORES: ClassVar[bool] = True
    SIGNED: ClassVar[bool] = True
    INSIDE_EPOCHS: ClassVar[bool] = True
    # The scores and the optimiser's two moments of them; their gradient.
    NUMBERS_A_WEIGHT: ClassVar[tuple[int, int]] = (3, 1)
    PLACE: ClassVar[int | None] = 2
    movement_pruning_frequency_steps: FilledIn[int] = _option(None, "steps between two masks", "--movement-frequency",
                                                              low=1)  # fmt: skip
    movement_schedule: str = _option("linear", "linear, cubic", "--movement-schedule", choices=("linear", "cubic"))
    movement_learning_rate: FilledIn[float] = _option(
        None, "rate of the scores; with Adam, from scores of 0, its size changes no rank of movement",
        "--movement-learning-rate", metavar="RATE", low=0, high=1e3, open_low=True, any_model=False)  # fmt: skip


@dataclass(frozen=True)
class PenaltyOptions(MovementOptions):
    """Of criteria whose scores a penalty lowers."""

    RANKS: ClassVar[bool] = False
    penalty_over: str = _option("matrices", "what a penalty is the mean over: matrices (each the mean of its weights), "
                                "or all weights", "--penalty-over", choices=("matrices", "weights"))  # fmt: skip


@dataclass(frozen=True)
class SoftMovementOptions(PenaltyOptions):
    """Of `soft_movement`."""

    PREFIX: ClassVar[str] = "soft_movement_"
    ELEMENT_ONLY: ClassVar[bool] = True
    PLACE: ClassVar[int | None] = 3
    soft_movement_threshold: float = _option(0.1, "final threshold", "--soft-movement-threshold", metavar="VALUE",
                                             low=0, high=0.9999)  # fmt: skip
    soft_movement_penalty: float = _option(400.0, "weight of its penalty", "--soft-movement-penalty", metavar="WEIGHT",
                                           low=0, high=1e6)  # fmt: skip


@dataclass(frozen=True)
class L0Options(PenaltyOptions):
    """Of `l0`."""

    PREFIX: ClassVar[str] = "l0_"
    ELEMENT_ONLY: ClassVar[bool] = True
    PLACE: ClassVar[int | None] = 4
    l0_penalty: float = _option(125.0, "weight of the expected-L0 penalty", "--l0-penalty", metavar="WEIGHT", low=0,
                                high=1e6)  # fmt: skip


@dataclass(frozen=True)
class CofiOptions(MovementOptions):
    """Of `cofi`."""

    PREFIX: ClassVar[str] = "cofi_"
    RANKS: ClassVar[bool] = False
    ADAM_ONLY: ClassVar[bool] = True
    PATTERNS: ClassVar[tuple[str, ...]] = ("head_neuron", "head", "neuron")
    # A score for a row.
    NUMBERS_A_WEIGHT: ClassVar[tuple[int, int]] = (0, 0)
    PLACE: ClassVar[int | None] = None
    cofi_penalty: float = _option(1.0, "weight of the Lagrangian in the loss", "--cofi-penalty", metavar="WEIGHT",
                                  low=0, high=1e6, open_low=True)  # fmt: skip


@dataclass(frozen=True)
class PlatonOptions(CriterionOptions):
    """Of `platon`."""

    PREFIX: ClassVar[str] = "platon_"
    TRAINS_SCORES: ClassVar[bool] = True
    GATHERS: ClassVar[bool] = True
    INSIDE_EPOCHS: ClassVar[bool] = True
    # A window's sum, the smoothed sensitivity and its uncertainty; the sum's gradient.
    NUMBERS_A_WEIGHT: ClassVar[tuple[int, int]] = (3, 1)
    platon_window: int = _option(10, "steps that a sensitivity is the mean of, and between two masks",
                                 "--platon-window", low=1)  # fmt: skip
    platon_beta1: float = _option(0.85, "what stays of the smoothed sensitivity when a new one comes",
                                  "--platon-beta1", metavar="BETA", low=0, high=0.9999)  # fmt: skip
    platon_beta2: float = _option(0.85, "the same of its uncertainty; published runs have 0.65 to 0.95",
                                  "--platon-beta2", metavar="BETA", low=0, high=0.9999)  # fmt: skip


@dataclass(frozen=True)
class SnipMomentumOptions(CriterionOptions):
    """Of `snip_momentum`."""

    PREFIX: ClassVar[str] = "snip_momentum_"
    TRAINS_SCORES: ClassVar[bool] = True
    GATHERS: ClassVar[bool] = True
    INSIDE_EPOCHS: ClassVar[bool] = True
    NUMBERS_A_WEIGHT: ClassVar[tuple[int, int]] = (1, 1)
    snip_momentum_beta: float = _option(0.9, "what stays of a score when a new sensitivity comes",
                                        "--snip-momentum-beta", metavar="BETA", low=0, high=0.9999)  # fmt: skip


@dataclass(frozen=True)
class SaliencyOptions(CriterionOptions):
    """Of criteria that are scored on batches of data."""

    NUMBERS_A_WEIGHT: ClassVar[tuple[int, int]] = (0, 1)
    score_batches: int = _option(8, "batches that saliency scores are summed over", "--score-batches", low=1)
    noise: str = _option("constant", "of smooth_grad…: constant, or activation (times the deviation of a layer's "
                         "inputs)", "--noise", metavar="KIND", choices=("constant", "activation"))  # fmt: skip
    noise_std: float = _option(1e-3, "standard deviation of that noise", "--noise-std", metavar="VALUE", low=0,
                               high=1e3)  # fmt: skip
    smooth_passes: int = _option(10, "noisy passes of a batch that smooth_grad… averages", "--smooth-passes",
                                 low=1)  # fmt: skip


@dataclass(frozen=True)
class ActivationSaliencyOptions(SaliencyOptions, ActivationOptions):
    """Of `activation_magnitude`, which is scored on batches."""


@dataclass(frozen=True)
class CalibrationOptions(CriterionOptions):
    """Of criteria that look at what comes into layers over calibration data."""

    NUMBERS_A_WEIGHT: ClassVar[tuple[int, int]] = (0, 1)
    calibration_texts: int = _option(1024, "training examples, their labels unused, on which wanda and sparsegpt see "
                                     "what comes into layers", "--calibration-texts", metavar="N", low=1)  # fmt: skip
    calibration_file: str | None = _option(None, "a .txt (one text a line), .tsv, .csv or .jsonl file of texts without "
                                           "labels that they see instead", "--calibration-file",
                                           metavar="FILE")  # fmt: skip
    calibrate: str = _option("sequential", "sequential (layer by layer, each after the pruned ones before it), or "
                             "parallel (all in one pass)", "--calibrate", metavar="HOW",
                             choices=("sequential", "parallel"))  # fmt: skip


@dataclass(frozen=True)
class WeightUpdateOptions(CriterionOptions):
    """Of criteria that change the weights that stay."""

    no_update: bool = _option(False, "sparsegpt, obert and mask_tuning close weights and leave the others as "
                              "they are",
                              "--no-update", alone=True)  # fmt: skip


@dataclass(frozen=True)
class SparseGptOptions(CalibrationOptions, WeightUpdateOptions):
    """Of `sparsegpt`."""

    PREFIX: ClassVar[str] = "sparsegpt_"
    # Scores, and the weights as they were.
    NUMBERS_A_WEIGHT: ClassVar[tuple[int, int]] = (0, 2)
    LABELLED: ClassVar[tuple[str, ...]] = ("sparsegpt_rank", "sparsegpt_target", "sparsegpt_update")
    sparsegpt_rank: str = _option("blocks", "what sparsegpt ranks: blocks (of 128 inputs, as published), obs (all "
                                  "weights of a scope by what closing one costs), wanda", "--sparsegpt-rank",
                                  metavar="NAME", choices=("blocks", "obs", "wanda"))  # fmt: skip
    sparsegpt_target: str = _option("model", "what sparsegpt keeps: what a layer of the unpruned model gave (model), "
                                    "so that it makes up for the layers before it, or what its weights make of its "
                                    "own inputs (layer, as published)", "--sparsegpt-target", metavar="NAME",
                                    choices=("model", "layer"))  # fmt: skip
    sparsegpt_update: str = _option("ordered", "what stays makes up for what closes: ordered (input after input, as "
                                    "published), exact (least squares)", "--sparsegpt-update", metavar="NAME",
                                    choices=("ordered", "exact"))  # fmt: skip


OBERT_TOGETHER = 8
"""Gradients that `obert` adds together: each addition goes through all of its matrices once."""


@dataclass(frozen=True)
class ObertOptions(WeightUpdateOptions):
    """Of `obert`."""

    PREFIX: ClassVar[str] = "obert_"
    NUMBERS_A_WEIGHT: ClassVar[tuple[int, int]] = (0, 2)
    obert_block_size: int = _option(50, "weights along a column's inputs whose Fisher matrix obert inverts",
                                    "--obert-block-size", metavar="N", low=1)  # fmt: skip
    obert_gradients: int = _option(1024, "gradients that this matrix is the mean of", "--obert-gradients", metavar="N",
                                   low=1)  # fmt: skip
    obert_batch_size: int = _option(16, "training examples of each of these gradients", "--obert-batch-size",
                                    metavar="N", low=1)  # fmt: skip
    obert_damping: float = _option(1e-7, "what is added to the matrix' diagonal", "--obert-damping", metavar="VALUE",
                                   low=0, high=1e6, open_low=True)  # fmt: skip
    obert_recomputations: FilledIn[int] = _option(None, "equal steps in which obert closes what is due, each with new "
                                                  "gradients; by default 1, and 16 with the schedule one_shot",
                                                  "--obert-recomputations", metavar="N", low=1)  # fmt: skip
    obert_memory: float = _option(4.0, "GiB that obert's matrices may take; what needs more is done in parts, each "
                                  "with passes of its own", "--obert-memory", metavar="GIB", low=0, high=1e5,
                                  open_low=True)  # fmt: skip

    def passing_bytes(self, weights: int) -> int:
        return int(min(self.obert_memory * 2**30, 4.0 * weights * (self.obert_block_size + OBERT_TOGETHER)))


@dataclass(frozen=True)
class MaskTuningOptions(WeightUpdateOptions):
    """Of `mask_tuning`."""

    PREFIX: ClassVar[str] = "mask_tuning_"
    PATTERNS: ClassVar[tuple[str, ...]] = ("head_neuron", "head", "neuron")
    # Gradients of the masks of weights, of which units' are made.
    NUMBERS_A_WEIGHT: ClassVar[tuple[int, int]] = (0, 1)
    mask_tuning_texts: int = _option(2048, "training examples on which mask_tuning takes gradients of masks and tunes "
                                     "them", "--mask-tuning-texts", metavar="N", low=1)  # fmt: skip
    mask_tuning_batch_size: int = _option(32, "of these, examples of each gradient", "--mask-tuning-batch-size",
                                          metavar="N", low=1)  # fmt: skip


CRITERION_SECTIONS = (TaylorOptions, ActivationOptions, SptOptions, MovementOptions, SoftMovementOptions, L0Options,
                      CofiOptions, SaliencyOptions, PlatonOptions, SnipMomentumOptions, SparseGptOptions, ObertOptions,
                      MaskTuningOptions)  # fmt: skip
"""In the order of a record."""
