"""The command line of `gated-bert lottery`."""

from __future__ import annotations

import os
from typing import Any

from gated_bert.cli.common import prepare_environment, typed_flags
from gated_bert.cli.settings import read_settings
from gated_bert.config.flag_table import DEFAULTS, SWEEP_FLAGS, Flag
from gated_bert.config.space import TICKET_CONTROLS
from gated_bert.experiments.studies.lottery import Lottery, lottery_parts, print_lottery, round_sparsities, run_lottery
from gated_bert.experiments.sweeps.jobs import plan_jobs
from gated_bert.support.checks import FlagError
from gated_bert.support.environ import verbosity

_GROUP = "lottery tickets"
MOST_ROUNDS = 1000
"""Each has a training of its own, and the smallest share leaves no weight long before."""
FLAGS = (
    Flag(("--rounds",), "rounds", "int", "rounds of scoring and training again; with -f each removes the same share "
         "of what is left, so that the last reaches -f; else --round-share each", _GROUP, low=1, high=MOST_ROUNDS),
    Flag(("--round-share",), "round_share", "float", "share of the remaining weights that a round removes", _GROUP,
         "FRACTION"),
    Flag(("--rewind-step",), "rewind_step", "int", "go back to the weights after so many steps of the dense training; "
         "0: to the initial ones", _GROUP, low=0),
    Flag(("--controls",), "controls", "list", "random (a mask as sparse in every matrix), reinitialized (the ticket's "
         "mask on other initial weights), or none", _GROUP, "NAME", (*TICKET_CONTROLS, "none")),
)  # fmt: skip
_LEFT_OUT = ("start_sparsity", "pruning_start_epoch", "pruning_end_epoch", "pruning_every", "pruning_warmup",
            "pruning_cooldown", "sparsity_steps", "schedule", "stages", "mode", "device")  # fmt: skip
"""Flags of a sweep that say when to prune: a ticket's mask is made once, before training."""
_SWEEP_DEFAULTS = {"methods": "magnitude", "end_sparsity": "0.7"}
_DEFAULTS = {"rewind_step": "0", "round_share": "0.1", "controls": ",".join(TICKET_CONTROLS)}


def read_lottery(typed: dict[str, Any]) -> Lottery:
    """What the flags ask for.

    Args:
        typed: name → value of the flags that were given; those of `FLAGS` are taken out.

    Raises:
        FlagError: a refused value, or two that say the same.
    """
    rounds, share = typed.pop("rounds", None), typed.pop("round_share", None)
    step, controls = typed.pop("rewind_step", 0), typed.pop("controls", TICKET_CONTROLS)
    labels = {flag.name: flag.label for flag in FLAGS}
    target = typed.get("end_sparsity")
    if "none" in controls and len(controls) > 1:
        raise FlagError.refused(labels["controls"], " ".join(controls), "none alone, or " + ", ".join(TICKET_CONTROLS))
    if share is not None:
        if not isinstance(share, float) or not 0 < share < 1:
            raise FlagError.refused(labels["round_share"], share, "a number between 0 and 1")
        if rounds is None or target is not None:
            raise FlagError(f"{labels['round_share']}: goes with --rounds, and without -f, which says the share too")
    if target is not None and (not isinstance(target, float) or not 0 < target < 1):
        raise FlagError.refused("-f/--end-sparsity", target, "a number between 0 and 1")
    if rounds is None:
        rounds, target = 1, float(_SWEEP_DEFAULTS["end_sparsity"]) if target is None else target
    sparsities = round_sparsities(rounds, target, float(_DEFAULTS["round_share"]) if share is None else share)
    return Lottery(sparsities, tuple(name for name in dict.fromkeys(controls) if name != "none"), step)


def lottery_command(words: list[str]) -> int:
    """`gated-bert lottery`: lottery tickets and their controls."""
    flags = (*(flag for flag in SWEEP_FLAGS if flag.name not in _LEFT_OUT), *FLAGS)
    text = (
        "Trains dense, closes what scores least in the trained model, goes back to the initial weights and trains "
        "again with the same recipe; beside it the controls that a ticket has to beat."
    )
    typed = typed_flags("gated-bert lottery", text, flags, words, {**DEFAULTS, **_SWEEP_DEFAULTS, **_DEFAULTS})
    lottery = read_lottery(typed)
    settings = read_settings(typed | {"pruning_start_epoch": 1, "pruning_end_epoch": 1}, _SWEEP_DEFAULTS, os.environ)
    verbosity(os.environ)
    plan = plan_jobs(settings)
    parts = lottery_parts(plan, lottery)
    if typed.get("check"):
        return 0
    print_lottery(plan, lottery, parts if typed.get("dry_run") else ())
    if typed.get("dry_run"):
        return 0
    prepare_environment()
    from gated_bert.experiments.sweeps.sweep import sweep

    return run_lottery(plan, parts, lambda part: sweep(part, compared=False))
