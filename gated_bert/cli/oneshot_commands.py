"""The command line of `gated-bert oneshot`."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping

from gated_bert.cli.common import prepare_environment, typed_flags
from gated_bert.cli.settings import read_settings
from gated_bert.config.flag_table import DEFAULTS, SWEEP_FLAGS, Flag
from gated_bert.config.methods import OF_TRAINED_MODELS
from gated_bert.experiments.studies.oneshot import PRUNABLE_ROLES, Point, describe, oneshot_plans, run_oneshot
from gated_bert.support.checks import FlagError
from gated_bert.support.environ import verbosity

_GROUP = "one-shot pruning"
_DECIDED = {
    "methods", "criterion", "schedule", "start_sparsity", "end_sparsity", "pruning_start_epoch", "pruning_end_epoch",
    "sparsity_steps", "stages", "mode", "device", "movement_schedule", "movement_pruning_frequency_steps",
    "pruning_every", "pruning_warmup", "pruning_cooldown",
}  # fmt: skip
"""Flags of a sweep that have no meaning where everything is pruned at once, before fine-tuning."""

AT_ONCE = {
    "schedule": "one_shot", "pruning_start_epoch": 1, "pruning_end_epoch": 1,
    "start_sparsity": 0.0, "end_sparsity": 0.5,
}  # fmt: skip
"""Fields of a run that prunes before it fine-tunes; each job has an end sparsity of its own."""

SHARED = (
    Flag(("--strategy",), "methods", "list", "what ranks the weights", _GROUP, "NAME", OF_TRAINED_MODELS,
         names=OF_TRAINED_MODELS),
    Flag(("--dense-epochs",), "dense_epochs", "int", "epochs of dense training before; 0 prunes the -pt weights as "
         "they are; by default as many as -e", _GROUP, low=0),
    *(flag for flag in SWEEP_FLAGS if flag.name not in _DECIDED),
)  # fmt: skip
"""Flags of every command that prunes at once."""

FLAGS = (
    Flag(("--compression",), "compression", "list", "parameters before ÷ after: 2,3.5,4", _GROUP, "RATIO"),
    Flag(("--compression-of",), "compression_of", "text", "what compression counts: all parameters, or the prunable",
         _GROUP, "WHICH", ("all", "prunable")),
    Flag(("--sparsities",), "sparsities", "list", "instead, per cent of the pattern's matrices: 64,91.4,96", _GROUP,
         "PERCENT"),
    *SHARED,
)  # fmt: skip


def oneshot_command(words: list[str]) -> int:
    """`gated-bert oneshot`: strategies × compressions from the same dense models."""
    text = "Prunes trained models at once by several strategies to several compressions, fine-tunes and compares them."
    shown = {**DEFAULTS, "methods": "LayerMagWeight", "compression_of": "all", "dense_epochs": "as -e"}
    typed = typed_flags("gated-bert oneshot", text, FLAGS, words, shown)
    points = _points(typed)
    dense_epochs = dense_epochs_of(typed)
    alone = prunes_alone(typed, dense_epochs, os.environ)
    typed = {"methods": ("LayerMagWeight",), "prunable_roles": PRUNABLE_ROLES, **typed, **AT_ONCE}
    settings = read_settings(typed, {}, os.environ)
    verbosity(os.environ)
    from gated_bert.experiments.sweeps.jobs import plan_jobs

    plan = plan_jobs(settings)
    if typed.get("check"):
        return 0
    prepare_environment()
    epochs = settings.values["epochs"] if dense_epochs is None else dense_epochs
    dense, pruned = oneshot_plans(plan, points, epochs, tuned=not alone)
    print(describe(dense, pruned, with_jobs=bool(typed.get("dry_run"))), flush=True)
    if typed.get("dry_run"):
        return 0
    from gated_bert.experiments.sweeps.sweep import sweep

    return run_oneshot(dense, pruned, lambda part: sweep(part, compared=False))


def dense_epochs_of(typed: dict) -> int | None:
    """Takes the epochs of dense training out of what was typed; None where nothing was.

    Raises:
        FlagError: 0, also that of `-e`, without pretrained weights.
    """
    epochs = typed.pop("dense_epochs", None)
    if "pretrained" not in typed:
        if epochs == 0:
            raise FlagError("--dense-epochs: 0 needs -pt: there is nothing trained to prune")
        if epochs is None and typed.get("epochs") == 0:
            raise FlagError("-e/--epochs: 0 needs -pt, or --dense-epochs: there is nothing trained to prune")
    return epochs


def prunes_alone(typed: dict, dense_epochs: int | None, environ: Mapping[str, str]) -> bool:
    """Whether a dense model is trained first, and what is pruned from it is not trained.

    A record without training names trained weights, which are not there yet; so the settings get the epochs of the
    dense model.

    Args:
        typed: what was typed; its epochs are changed.
        dense_epochs: those of the dense model.
        environ: the environment, whose BENCHMARK_EPOCHS overrules `-e`.
    """
    if "pretrained" in typed or typed.get("epochs") != 0 or environ.get("BENCHMARK_EPOCHS"):
        return False
    typed["epochs"] = dense_epochs
    if "recipe" in typed:
        # Nothing would learn from a recipe's teacher.
        typed.setdefault("teacher", None)
    return True


def _points(typed: dict) -> list[Point]:
    if ("compression" in typed) == ("sparsities" in typed):
        raise FlagError("--compression: give it or --sparsities, one of the two, e.g. --compression 2,3.5,4")
    if "compression_of" in typed and "sparsities" in typed:
        raise FlagError("--compression-of: goes with --compression; --sparsities says what is removed")
    of = typed.pop("compression_of", "all")
    if "compression" in typed:
        values = numbers("--compression", typed.pop("compression"), "numbers from 1 up, e.g. 2,3.5,4", 1, float("inf"))
        return [Point(compression=value, compression_of=of) for value in values]
    allowed = "percentages from 0 to 100, e.g. 64,91.4,96"
    return [Point(sparsity=value / 100) for value in numbers("--sparsities", typed.pop("sparsities"), allowed, 0, 100)]


def numbers(label: str, words: tuple[str, ...], allowed: str, low: float, high: float) -> list[float]:
    """The distinct numbers that `words` are.

    Raises:
        FlagError: no numbers, or one below `low` or above `high`.
    """
    try:
        values = [float(word) for word in words]
    except ValueError:
        values = []
    if not values or not all(low <= value <= high and math.isfinite(value) for value in values):
        raise FlagError.refused(label, ",".join(words), allowed)
    return list(dict.fromkeys(values))
