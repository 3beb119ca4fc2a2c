"""Criteria by name, the package's and a user's: what a command line has to know of them, and where they are."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gated_bert.config.criterion_options import (
    CRITERION_SECTIONS,
    ActivationSaliencyOptions,
    CalibrationOptions,
    CofiOptions,
    CriterionOptions,
    L0Options,
    MagnitudeOptions,
    MaskTuningOptions,
    MovementOptions,
    ObertOptions,
    PlatonOptions,
    RandomOptions,
    SaliencyOptions,
    SnipMomentumOptions,
    SoftMovementOptions,
    SparseGptOptions,
    SptOptions,
    SptTaylorOptions,
    TaylorOptions,
)
from gated_bert.config.option import declared_fields
from gated_bert.support.checks import ConfigError, did_you_mean
from gated_bert.support.errors import UserError

if TYPE_CHECKING:
    from gated_bert.config import GatedBertConfig

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
_WORDS = ("none", "all")
_SHARED = frozenset(name for section in CRITERION_SECTIONS for name in declared_fields(section))


@dataclass(frozen=True)
class Part:
    """A criterion as a command line knows it.

    Attributes:
        options: the class of its options, which also says what has to be known of it without a framework.
        implementation: its class, or `module:Class` inside `gated_bert.pruning.criteria`.
    """

    options: type[CriterionOptions]
    implementation: type[Any] | str


CRITERIA = {
    "magnitude": Part(MagnitudeOptions, "magnitude:Magnitude"),
    "movement": Part(MovementOptions, "movement:Movement"),
    "spt": Part(SptOptions, "spt:Spt"),
    "soft_movement": Part(SoftMovementOptions, "movement:SoftMovement"),
    "l0": Part(L0Options, "movement:L0"),
    "cofi": Part(CofiOptions, "cofi:Cofi"),
    "taylor": Part(TaylorOptions, "taylor:Taylor"),
    "random": Part(RandomOptions, "random_order:Random"),
    "gradient_magnitude": Part(SaliencyOptions, "saliency:GradientMagnitude"),
    "activation_magnitude": Part(ActivationSaliencyOptions, "saliency:ActivationMagnitude"),
    "grad_cam": Part(SaliencyOptions, "saliency:GradCam"),
    "smooth_grad": Part(SaliencyOptions, "saliency:SmoothGrad"),
    "smooth_grad_cam": Part(SaliencyOptions, "saliency:SmoothGradCam"),
    "grad_cam_shift": Part(SaliencyOptions, "saliency:GradCamShift"),
    "smooth_grad_cam_shift": Part(SaliencyOptions, "saliency:SmoothGradCamShift"),
    "platon": Part(PlatonOptions, "platon:Platon"),
    "snip_momentum": Part(SnipMomentumOptions, "snip_momentum:SnipMomentum"),
    "wanda": Part(CalibrationOptions, "wanda:Wanda"),
    "sparsegpt": Part(SparseGptOptions, "sparsegpt:SparseGpt"),
    "obert": Part(ObertOptions, "obert:Obert"),
    "mask_tuning": Part(MaskTuningOptions, "mask_tuning:MaskTuning"),
}
"""Every criterion that a record may name."""

BUILT_IN = frozenset(CRITERIA)
"""Those of the package."""

VARIANTS = {
    ("spt", "spt_reward", "taylor"): Part(SptTaylorOptions, "spt:SptTaylor"),
    ("taylor", "taylor_variant", "published"): Part(TaylorOptions, "taylor:PublishedTaylor"),
    ("activation_magnitude", "activation_variant", "published"): Part(
        ActivationSaliencyOptions, "saliency:PublishedActivationMagnitude"
    ),
}
"""Criterion, option and its value → what stands in for the criterion then."""

REGISTERED: list[str] = []
"""What was registered beside the package's own parts, in order: `criterion depth` …"""


def part_of(config: GatedBertConfig) -> Part:
    """The criterion of a record, with its variant.

    Raises:
        ValueError: the record prunes nothing.
    """
    if config.criterion is None:
        raise ValueError("part_of: the record prunes nothing")
    for (criterion, field, value), part in VARIANTS.items():
        if config.criterion == criterion and getattr(config, field) == value:
            return part
    return CRITERIA[config.criterion]


def acts_inside_epochs(config: GatedBertConfig) -> bool:
    """Whether the masks of a record's criterion may change inside an epoch."""
    part = part_of(config)
    return part.options.INSIDE_EPOCHS if isinstance(part.implementation, str) else part.implementation.every_step


def options_of(config: GatedBertConfig) -> CriterionOptions:
    """The options of a record's criterion: fields of the record, and of a criterion of a user's own also its
    `criterion_options`.

    Raises:
        ConfigError: a name or a value among these that the criterion does not take.
    """
    options, given = part_of(config).options, config.criterion_options or {}
    shared = {name: getattr(config, name) for name in declared_fields(options) if name in _SHARED}
    own = own_options(options)
    for name, value in given.items():
        if name not in own:
            allowed = (f"{', '.join(own)}{did_you_mean(name, own)}" if own else "no option, but by flags of their own")
            raise ConfigError("criterion_options", name, f"{allowed}, of the criterion {config.criterion}")
        try:
            options.of(**{name: value})
        except ConfigError as error:
            raise ConfigError("criterion_options", f"{name}={value}", f"for {name} {error.allowed}") from None
    # What the record holds is checked already, with the standard library alone.
    return options.of(**shared, **given) if given else options(**shared)


def own_options(options: type[CriterionOptions]) -> tuple[str, ...]:
    """The options of a criterion that are no fields of a record."""
    return tuple(name for name in declared_fields(options) if name not in _SHARED)


def options_of_others(criterion: str | None) -> frozenset[str]:
    """Fields of a record that say nothing of a run by `criterion`: the options of other criteria of the package.

    None of a criterion of a user's own, which may read what it likes.
    """
    if criterion is not None and criterion not in BUILT_IN:
        return frozenset()
    parts = [CRITERIA[criterion]] if criterion else []
    parts += [part for (name, _, _), part in VARIANTS.items() if name == criterion]
    return _SHARED - {name for part in parts for name in declared_fields(part.options)}


def trained() -> tuple[str, ...]:
    """Criteria whose scores come about during training: of a trained model alone they know nothing."""
    return tuple(name for name, part in CRITERIA.items() if part.options.TRAINS_SCORES)


def calibrated() -> tuple[str, ...]:
    """Criteria that look at texts without labels, of a file where there is one."""
    return tuple(name for name, part in CRITERIA.items() if issubclass(part.options, CalibrationOptions))


def claim(kind: str, name: str, taken: Collection[str]) -> None:
    """Takes a name for a part of a user's own.

    Raises:
        UserError: no name that flags and folders can have, or one that is taken.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise UserError(f"register_{kind}: {name!r} is refused; allowed: a name of letters, digits and _")
    if name in taken or name in _WORDS:
        raise UserError(f"register_{kind}: the name {name!r} is taken; choose another")
    REGISTERED.append(f"{kind} {name}")
