"""Which values of a record go together."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING

from gated_bert.config.distill_options import check_distillation
from gated_bert.config.input_options import check_stride
from gated_bert.config.methods import method_of_criterion
from gated_bert.config.parts import acts_inside_epochs, options_of, part_of, trained
from gated_bert.config.presets import STEP_PRESETS, schedule_size
from gated_bert.config.pruning_window import closes_at_once, pruning_window
from gated_bert.config.space import ROLES, TIED_ROLES
from gated_bert.support.checks import ConfigError, choose

if TYPE_CHECKING:
    from gated_bert.config import GatedBertConfig

def _check_devices(config: GatedBertConfig):
    devices = config.devices
    if devices == "all":
        return
    if not isinstance(devices, int) or isinstance(devices, bool) or devices < 1:
        raise ConfigError("devices", devices, "a whole number from 1 up, or all")
    if config.batch_size % devices:
        raise ConfigError("batch_size", config.batch_size, f"a multiple of devices={devices}, which share each batch")


def check_together(config: GatedBertConfig) -> None:
    """Refuses values that do not fit together, each of which is allowed alone.

    Raises:
        ConfigError: the first of them.
    """
    _check_devices(config)
    _check_checkpoint_dir(config.checkpoint_dir)
    if not config.prunable_roles:
        raise ConfigError("prunable_roles", (), "at least one of " + ", ".join(ROLES))
    if len(config.block_size) != 2:
        raise ConfigError("block_size", config.block_size, "rows and columns, e.g. 32x32")
    check_stride(config)
    check_distillation(config)
    if config.lr_cycle_epochs is not None and config.lr_schedule != "cyclic":
        raise ConfigError("lr_cycle_epochs", config.lr_cycle_epochs, "None without lr_schedule cyclic")
    if config.d_model and config.num_heads and config.d_model % config.num_heads:
        raise ConfigError("num_heads", config.num_heads, f"a divisor of d_model={config.d_model}")
    if isinstance(config.sparsity_steps, str):
        choose("sparsity_steps", config.sparsity_steps, ("auto", "a list of percentages, e.g. 10 25 50"))
    if config.schedule == "auto" and schedule_size(config.model_size) not in STEP_PRESETS:
        raise ConfigError("schedule", "auto", f"a size with a step preset: {', '.join(STEP_PRESETS)}")
    if config.criterion == "spt" and config.spt_unit != config.pattern:
        raise ConfigError(
            "spt_unit",
            config.spt_unit,
            f"the pattern that is pruned ({config.pattern}): what SPT explores is what it removes",
        )
    if config.spt_credit == "regression" and config.spt_unit == "element":
        raise ConfigError(
            "spt_credit",
            "regression",
            "a unit larger than one weight (spt_unit head, neuron, row "
            "or column): a ridge regression over every single weight does not fit in memory",
        )
    if config.spt_credit == "regression" and config.spt_reward == "taylor":
        raise ConfigError("spt_credit", "regression", "spt_reward measured: a Taylor reward is already per unit")
    if config.criterion and part_of(config).options.ELEMENT_ONLY and config.pattern != "element":
        raise ConfigError(
            "pattern", config.pattern, f"element: {config.criterion} closes single weights by a threshold"
        )
    patterns = part_of(config).options.PATTERNS if config.criterion else ()
    if patterns and config.pattern not in patterns:
        raise ConfigError("pattern", config.pattern, f"{', '.join(patterns)}, what {config.criterion} is made for")
    _check_ticket(config)
    _check_untrained(config)
    if config.criterion is None:
        return
    options_of(config)
    _check_pattern(config)
    _check_gates(config)
    if config.start_sparsity > config.end_sparsity:
        raise ConfigError("start_sparsity", config.start_sparsity, f"at most end_sparsity={config.end_sparsity}")
    _check_window(config)
    if config.pruning_start_epoch > min(config.pruning_end_epoch, max(config.epochs, 1)):
        raise ConfigError(
            "pruning_start_epoch",
            config.pruning_start_epoch,
            f"1 to {min(config.pruning_end_epoch, max(config.epochs, 1))} "
            f"(pruning_end_epoch={config.pruning_end_epoch}, epochs={config.epochs})",
        )
    if config.schedule == "steps":
        _check_steps(config)


def _check_window(config: GatedBertConfig):
    steps = {name: value for name in ("pruning_warmup", "pruning_cooldown")
             if (value := getattr(config, name)) is not None}  # fmt: skip
    for name, value in steps.items():
        if value >= 1 and value != int(value):
            raise ConfigError(name, value, "a share of the run's steps below 1, or a whole number of steps")
        if config.schedule in ("steps", "auto"):
            raise ConfigError(name, value, f"no value with schedule={config.schedule}, which counts epochs")
    if all(value < 1 for value in steps.values()):
        pruning_window(config, inside_epochs=acts_inside_epochs(config))


def _units_move(config: GatedBertConfig) -> bool:
    """Whether the weights of a unit depend on the scores."""
    of_two_steps = config.pattern == "tile" and config.tile_dims == "kn"
    # TileSparsity's code gives the matrices that are not Q, K and V tiles, each of which loses its own least runs.
    with_tiles = config.tilesparsity_variant == "code" and config.pattern in ("head", "qkv_row")
    return of_two_steps or with_tiles or config.pattern in ("head_dim", "k_tile", "vector", "tile_element")


def _pattern_named(config: GatedBertConfig) -> str:
    by_code = config.tilesparsity_variant == "code"
    return f"pruning_type={config.pruning_type} of TileSparsity's code" if by_code else f"pattern {config.pattern}"


def _check_ticket(config: GatedBertConfig):
    if config.ticket is None:
        if config.ticket_control is not None:
            raise ConfigError("ticket_control", config.ticket_control, "None without a ticket")
        return
    if config.criterion is None or config.criterion in trained():
        raise ConfigError(
            "pruning_method", config.pruning_method, "for a lottery ticket one that ranks the weights of a trained "
            f"model as it is; not baseline, and not {', '.join(trained())}, which score during training",
        )  # fmt: skip
    if config.pretrained is None:
        raise ConfigError("pretrained", None, "with a ticket, the folder of the initial weights")
    if config.ticket_control == "random" and _units_move(config):
        raise ConfigError(
            "ticket_control", "random", f"reinitialized; with {_pattern_named(config)} units exist only by their "
            "scores, so none can be drawn at random",
        )  # fmt: skip


def _check_untrained(config: GatedBertConfig):
    if config.epochs:
        return
    if config.ticket or config.rewind_step is not None:
        raise ConfigError("epochs", 0, "1 up: a lottery ticket is what training makes of it")
    if config.pretrained is None:
        raise ConfigError("epochs", 0, "a whole number from 1 up; 0 is for trained weights (pretrained, -pt)")
    if config.teacher is not None:
        raise ConfigError("teacher", config.teacher, "none with epochs=0: nothing learns from it")
    if config.criterion and config.criterion in trained():
        raise ConfigError("epochs", 0, f"1 up: {config.criterion} scores during training")
    if config.criterion and config.schedule != "one_shot":
        raise ConfigError("epochs", 0, f"1 up, or with schedule one_shot; {config.schedule} closes over epochs")
    for name in ("pruning_warmup", "pruning_cooldown"):
        if getattr(config, name) is not None:
            raise ConfigError(name, getattr(config, name), "no value with epochs=0: there are no steps")


def _check_pattern(config: GatedBertConfig):
    criterion = part_of(config).options
    tied = TIED_ROLES.get(config.pattern, ()) if config.tilesparsity_variant != "code" else ()
    missing = [role for role in tied if role not in config.prunable_roles]
    if missing:
        raise ConfigError(
            "prunable_roles", ", ".join(config.prunable_roles),
            f"also {', '.join(missing)}: pattern {config.pattern} closes {', '.join(tied)} together",
        )  # fmt: skip
    if criterion.SCORES_UNITS and _units_move(config):
        raise ConfigError(
            "pattern", config.pattern, "one whose units stay the same, or spt_reward taylor: what SPT measured of a "
            "unit means nothing once its weights belong to another",
        )  # fmt: skip
    if config.pooling not in (None, "mean") and criterion.SIGNED and not criterion.ELEMENT_ONLY:
        raise ConfigError("pooling", config.pooling, f"mean: a norm would keep what {config.criterion} wants removed")
    two_steps = config.tile_dims == "kn" and config.pattern in ("k_tile", "tile", "tile_element")
    if config.sparsity_per_dim and not two_steps:
        raise ConfigError("sparsity_per_dim", True, "pattern k_tile, tile or tile_element with tile_dims kn: two steps")
    first = criterion.FIRST_EPOCH
    warmup = config.pruning_warmup
    if config.pruning_start_epoch < first and (warmup is None or warmup < 1):
        named, what = ("pruning_start_epoch", "") if warmup is None else ("pruning_warmup", "whole epochs, for epoch ")
        raise ConfigError(named, getattr(config, named),
                          f"{what}{first} up: {config.criterion} adds up gradients first")  # fmt: skip
    at_once = closes_at_once(config.schedule, config.start_sparsity)
    if criterion.GATHERS and config.pruning_start_epoch == 1 and not warmup and at_once:
        raise ConfigError("pruning_start_epoch", 1, f"2 up, or a schedule that rises from 0: {config.criterion} knows "
                          "nothing before the first steps")  # fmt: skip
    if config.scope == "output" and config.pattern != "element":
        raise ConfigError("scope", "output", f"layer, global or role; pattern {config.pattern} has no units inside "
                          "single columns, as element has")  # fmt: skip


def _check_gates(config: GatedBertConfig):
    """Refuses what means nothing to gates that close by themselves."""
    criterion = part_of(config).options
    if not criterion.RANKS:
        usual, why = method_of_criterion(config.criterion).scope, f"{config.criterion} closes by itself, no ranks"
        if config.scope != usual:
            raise ConfigError("scope", config.scope, f"{usual}: {why}")
        if config.normalize_scores:
            raise ConfigError("normalize_scores", True, f"False: {why}")
    if criterion.ADAM_ONLY and config.optimizer == "sgd":
        raise ConfigError("optimizer", "sgd", f"adamw, adam: the gradients of {config.criterion}'s gates are too small "
                          "for its steps")  # fmt: skip


def _check_steps(config: GatedBertConfig):
    steps = config.sparsity_steps
    if not isinstance(steps, tuple) or not steps:
        raise ConfigError("sparsity_steps", steps, "a list of percentages, e.g. 10 25 50")
    for before, step in zip((0.0, *steps), steps, strict=False):
        if not (math.isfinite(step) and 0 <= step <= 100 and step >= before):
            raise ConfigError("sparsity_steps", step, "percentages from 0 to 100 that never fall")
    room = config.epochs - config.pruning_start_epoch + 1
    if len(steps) > room:
        raise ConfigError(
            "sparsity_steps",
            " ".join(f"{step:g}" for step in steps),
            f"at most {room} values: epochs {config.pruning_start_epoch} to {config.epochs}",
        )


def _check_checkpoint_dir(place: object):
    allowed = "a folder, or the URL of a place that fsspec knows, e.g. s3://bucket/folder"
    if place is not None and (not isinstance(place, str) or not place or "::" in place):
        raise ConfigError("checkpoint_dir", place, allowed)
    # It is written into the records of the run.
    if place is not None and re.match(r"[^/]+://[^/@]*:[^/@]*@", place):
        raise ConfigError("checkpoint_dir", re.sub(r"//[^/@]*@", "//…@", place), f"{allowed}, without a password in it")
