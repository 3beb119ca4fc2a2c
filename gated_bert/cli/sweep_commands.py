"""The command lines of `gated-bert sweep` and `gated-bert stages`."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

from gated_bert.cli.common import prepare_environment, typed_flags
from gated_bert.cli.parsing import read_assignments
from gated_bert.cli.settings import read_settings
from gated_bert.cli.sweep_file import SweepFile, read_sweep_file
from gated_bert.config.flag_table import DEFAULTS, LAUNCHER_FLAGS, SWEEP_FLAGS, Flag
from gated_bert.config.launcher_options import BEYOND
from gated_bert.experiments.sweeps.jobs import Plan, plan_grid
from gated_bert.support.checks import FlagError
from gated_bert.support.environ import verbosity
from gated_bert.support.paths import user_path

FLAGS = (
    *SWEEP_FLAGS,
    Flag(("--sweep-file",), "sweep_file", "text", "methods, tasks, sizes, seeds, sparsities and other flags of a run "
         "from a YAML file; a flag beside it wins", BEYOND, "FILE"),
    *(LAUNCHER_FLAGS[name] for name in ("backend", "ray_address", "slurm")),
)  # fmt: skip
_SHOWN = {"backend": "local"}
_STAGES = ("stages", "mode", "device")
_DECIDED = ("start_sparsity", "end_sparsity", "sparsity_steps", "schedule", "movement_schedule", "pruning_start_epoch",
            "pruning_end_epoch", "pruning_every", "pruning_warmup", "pruning_cooldown")  # fmt: skip
"""Flags that say when to prune, and how much: every stage prunes once, to its own sparsity."""


def sweep_command(words: list[str], in_stages: bool = False) -> int:
    """`gated-bert sweep`: methods × tasks × seeds, each run in a process of its own."""
    words, defaults = _take_defaults(words)
    prog = "./run_experiments.sh" if defaults else f"gated-bert {'stages' if in_stages else 'sweep'}"
    text = "Trains BERT pruned by several methods on one or more tasks, and compares the methods."
    typed = typed_flags(prog, text, FLAGS, words, {**DEFAULTS, **_SHOWN, **defaults})
    in_stages = in_stages or bool(typed.keys() & set(_STAGES))
    _check_together(typed, in_stages)
    if in_stages:
        # Each stage prunes once: after its first epoch where a criterion adds up gradients, else before.
        typed["pruning_start_epoch"] = 1 if typed.get("epochs") == 1 else 2
    plan, stages = read_plan(typed, defaults, os.environ), None
    if in_stages and any(job.after for job in plan.jobs):
        # Also where a recipe sets it.
        plan.settings.refuse_self()
    verbosity(os.environ)
    if in_stages:
        from gated_bert.experiments.studies.stages import (
            print_stages,
            read_stages,
            run_stages,
            stage_plans,
            starting_points,
            use_device,
        )

        stages = read_stages(typed.get("stages"), plan.settings.tasks)
        use_device(typed.get("device"))
        if "mode" in typed:
            plan = starting_points(plan, typed["mode"])
            stages = None if typed["mode"] == "pretrain" else stages
        parts = stage_plans(plan, stages) if stages else ()
    if typed.get("check"):
        return 0
    if typed.get("dry_run"):
        from gated_bert.experiments.sweeps.plan_cost import print_plan

        return print_stages(parts, stages) if stages else print_plan(plan)
    prepare_environment()
    if "slurm" in typed:
        from gated_bert.experiments.sweeps.slurm import write_array_job

        return write_array_job(plan, user_path(typed["slurm"]))
    from gated_bert.experiments.sweeps.sweep import sweep

    return run_stages(plan, parts, stages, sweep) if stages else sweep(plan)


def stages_command(words: list[str]) -> int:
    """`gated-bert stages`: multi-stage pruning, at the published sparsities where none are given."""
    return sweep_command(words, in_stages=True)


def read_plan(typed: dict[str, Any], defaults: Mapping[str, str], environ: Mapping[str, str]) -> Plan:
    """The runs that the flags of a sweep and its file ask for.

    Args:
        typed: what was typed.
        defaults: a script's defaults, name → text.
        environ: the environment.

    Raises:
        FlagError: a refused value.
    """
    file = SweepFile()
    if "sweep_file" in typed:
        set_already = {*typed, *(["epochs"] if environ.get("BENCHMARK_EPOCHS") else [])}
        file = read_sweep_file(typed["sweep_file"], set_already)

    def read(point: Mapping[str, Any]):
        return read_settings({**file.values, **typed, **point}, defaults, environ, file.labels)

    return plan_grid(file.grid, read)


def _check_together(typed: dict[str, Any], in_stages: bool):
    labels = {flag.name: flag.label for flag in FLAGS}
    remote: list[str] = [name for name in ("slurm", "ray_address", "sweep_file") if name in typed]
    remote += ["backend"] if typed.get("backend") == "ray" else []
    if in_stages and remote:
        raise FlagError(f"{labels[remote[0]]}: not with stages, each of which starts from the last one's weights here")
    decided = [name for name in _DECIDED if name in typed]
    if in_stages and decided:
        raise FlagError(f"{labels[decided[0]]}: not with stages, each of which prunes once, to its own of the "
                        f"sparsities in {labels['stages']}")  # fmt: skip
    if in_stages and typed.get("epochs") == 0:
        raise FlagError.refused(labels["epochs"], 0, "1 up with stages, each of which trains")
    if "ray_address" in typed and typed.get("backend") != "ray":
        raise FlagError(f"{labels['ray_address']}: goes with --backend ray")
    if not re.fullmatch(r"auto|[^\s/:]+:\d+", str(typed.get("ray_address", "auto"))):
        raise FlagError.refused(labels["ray_address"], typed["ray_address"], "auto, or HOST:PORT, e.g. 10.0.0.1:6379")
    if "slurm" in typed and "backend" in typed:
        raise FlagError(f"{labels['slurm']}: not together with {labels['backend']}: Slurm runs the jobs")


def _take_defaults(words: list[str]) -> tuple[list[str], dict[str, str]]:
    if words[:1] != ["--defaults"]:
        return words, {}
    return words[2:], read_assignments(words[1] if len(words) > 1 else "")
