"""When pruning begins and ends: by epochs, or by a warm-up and a cool-down in steps."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from gated_bert.support.checks import ConfigError
from gated_bert.support.errors import UserError

if TYPE_CHECKING:
    from gated_bert.config import GatedBertConfig

STEPS_INSTEAD = {"pruning_start_epoch": "pruning_warmup", "pruning_end_epoch": "pruning_cooldown"}
"""Field in epochs → the field in steps, or a share of them, that takes its place where it is given."""


def closes_at_once(schedule: str | None, start_sparsity: float) -> bool:
    """Whether the first event of a schedule closes something, rather than rise from nothing."""
    return start_sparsity > 0 or schedule in ("one_shot", "steps", "auto")


def epochs_of_window(config: GatedBertConfig, given: dict[str, Any]) -> dict[str, int]:
    """The epochs in which a warm-up and a cool-down begin and end pruning, for what asks for whole epochs.

    Of steps whose number in an epoch nobody knows yet these are all epochs. Without training all is done at once.

    Args:
        config: the run's record.
        given: fields that it was made from.

    Raises:
        ConfigError: an epoch is given as well, and says otherwise.
    """
    if config.epochs == 0:
        return {name: 1 for name in STEPS_INSTEAD if name not in given}
    found: dict[str, int] = {}
    warmup, cooldown = (
        # Other values are refused where all are.
        value if isinstance(value, int | float) and value >= 0 and isinstance(config.epochs, int) else None
        for value in (config.pruning_warmup, config.pruning_cooldown)
    )
    if warmup is not None:
        share = warmup * config.epochs if warmup < 1 else 0
        found["pruning_start_epoch"] = min(int(round(1 + share, 9)), config.epochs)
    if cooldown is not None:
        share = cooldown * config.epochs if cooldown < 1 else 0
        found["pruning_end_epoch"] = min(math.ceil(round(1 + config.epochs - share, 9)), config.epochs)
    for name, epoch in found.items():
        if given.get(name, epoch) != epoch:
            raise ConfigError(name, given[name], f"{epoch}, or without {STEPS_INSTEAD[name]}, which says it")
    return found


def pruning_window(
    config: GatedBertConfig, steps_per_epoch: float | None = None, inside_epochs: bool = True
) -> tuple[float, float]:
    """When pruning begins and is to have come to its end, in epochs, counted from 1: 4.5 is the middle of epoch 4.

    Args:
        config: the run's record.
        steps_per_epoch: steps of an epoch; only a warm-up or cool-down that is given in steps asks for it.
        inside_epochs: whether the criterion changes masks inside epochs; else the last chance to do so is the beginning
            of the last epoch.

    Raises:
        ConfigError: a warm-up and cool-down that leave no steps for pruning.
        UserError: steps are given, but not how many an epoch has.
    """

    def epochs(name: str) -> float:
        value = getattr(config, name)
        if value < 1:
            return value * config.epochs
        if steps_per_epoch is None:
            raise UserError(f"{name}: {value:g} steps are refused; allowed: a share of the run's, or steps_per_epoch")
        return value / steps_per_epoch

    first: float
    last: float
    first, last = config.pruning_start_epoch, min(config.pruning_end_epoch, max(config.epochs, 1))
    # Rounded, so that shares such as 2/30 of 30 epochs are whole epochs.
    if config.pruning_warmup is not None:
        first = round(1 + epochs("pruning_warmup"), 9)
    if config.pruning_cooldown is not None:
        last = round(1 + config.epochs - epochs("pruning_cooldown"), 9)
    if (config.pruning_warmup, config.pruning_cooldown) != (None, None) and first >= last:
        name = "pruning_cooldown" if config.pruning_warmup is None else "pruning_warmup"
        raise ConfigError(name, getattr(config, name), f"less: of {config.epochs} epochs warm-up and cool-down leave "
                          "no steps for pruning")  # fmt: skip
    if not inside_epochs and last > max(config.epochs, 1):
        last = float(config.epochs)
        if first > last:
            raise ConfigError("pruning_warmup", config.pruning_warmup, f"less: {config.criterion} moves masks at the "
                              f"beginning of an epoch, and the last one begins after {config.epochs - 1}; or more "
                              "epochs")  # fmt: skip
    return first, last
