"""Multi-stage pruning: each stage prunes further, from the last one's weights, in a folder of its own."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from gated_bert.config.criterion_options import CriterionOptions
from gated_bert.config.parts import part_of
from gated_bert.experiments.reports.drawing import files_there, tolerated
from gated_bert.experiments.reports.results import read_run
from gated_bert.experiments.reports.run_layout import MODEL
from gated_bert.experiments.runs.output_folder import set_tables_aside
from gated_bert.experiments.studies.stage_table import stage_rows, write_stage_plot
from gated_bert.experiments.sweeps.jobs import Job, Plan, dense_folder, dense_plan, job_command, run_folder_name
from gated_bert.experiments.sweeps.plan_cost import print_plan
from gated_bert.support.checks import FlagError
from gated_bert.support.errors import UserError
from gated_bert.support.files import write_csv_atomic

GLUE_STAGES = ("25", "35", "50", "55", "60", "65", "70", "75", "80", "85", "90", "95")
SQUAD_STAGES = ("20", "37", "50", "55", "61")
TABLE, PLOT = "stages.csv", "stages.png"


def read_stages(words: Sequence[str] | None, tasks: Sequence[str]) -> tuple[float, ...]:
    """The stages' sparsities in per cent; without `words` those published for the tasks.

    Raises:
        FlagError: no number, or one that is not above the one before.
    """
    words = words or (SQUAD_STAGES if tuple(tasks) == ("squad",) else GLUE_STAGES)
    allowed = "percentages above 0 and below 100 that rise, e.g. 25,50,75"
    try:
        stages = tuple(float(word) for word in words)
    except ValueError:
        raise FlagError.refused("--stages", ",".join(words), allowed) from None
    if not all(0 <= before < stage < 100 for before, stage in zip((0.0, *stages), stages, strict=False)):
        raise FlagError.refused("--stages", ",".join(words), allowed)
    return stages


def use_device(device: int | None) -> None:
    """Leaves the jobs GPU number `device` alone to run on; None changes nothing."""
    if device is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = str(device)


def stage_plans(plan: Plan, stages: Sequence[float]) -> list[Plan]:
    """What is run, a plan with a folder of its own for every stage.

    A stage of a criterion that adds up gradients trains its first epoch at the last stage's sparsity.

    Args:
        plan: one job per method, task and seed; each starts from its `pretrained` weights.
        stages: sparsities in per cent.

    Raises:
        ConfigError: a record that is refused, as that of a criterion which has no epoch to add up gradients in.
    """
    plans: list[Plan] = []
    for number, stage in enumerate(stages, 1):
        folder = plan.output / f"stage_{number:02d}_{stage:g}"
        jobs = [_stage_job(job, stage, folder, plan, plans) for job in plan.jobs]
        plans.append(Plan(dataclasses.replace(plan.settings, output=folder), tuple(jobs)))
    return plans


def run_stages(plan: Plan, plans: Sequence[Plan], stages: Sequence[float], sweep: Callable[[Plan], int]) -> int:
    """Runs what is left of all stages, then writes their table and plot.

    Args:
        plan: as for `stage_plans`.
        plans: what that made of it.
        stages: sparsities in per cent.
        sweep: runs one plan and returns its exit status.

    Returns:
        The exit status of the first stage in which a job failed, else 0.
    """
    if not plan.settings.launcher.resume:
        set_tables_aside(plan.output, (TABLE, PLOT))
    for part in plans:
        status = sweep(part)
        if status:
            return status
    write_table(plan, plans, stages)
    return 0


def print_stages(plans: Sequence[Plan], stages: Sequence[float]) -> int:
    """Shows the configuration, the jobs and the estimated cost of every stage; writes and starts nothing."""
    for number, (part, stage) in enumerate(zip(plans, stages, strict=True), 1):
        print(f"{chr(10) * (number > 1)}Stage {number} of {len(plans)}: {stage:g} %")
        print_plan(part)
    return 0


def _stage_job(job: Job, stage: float, folder: Path, plan: Plan, done: Sequence[Plan]) -> Job:
    changes = {"schedule": "steps", "sparsity_steps": (stage,), "start_sparsity": 0.0, "end_sparsity": stage / 100}
    about = part_of(job.config).options if job.config.criterion else CriterionOptions
    changes["pruning_start_epoch"] = about.first_epoch(at_once=True)
    changes["pruning_end_epoch"] = job.config.epochs
    if done:
        before = done[-1].jobs[plan.jobs.index(job)]
        changes["pretrained"] = str((before.folder / MODEL).resolve())
    config = job.config.replace(**changes)
    several = len(plan.settings.seeds) > 1
    run = folder / run_folder_name(config, numbered=several)
    name = f"{config.label} {config.task}" + (f" seed {config.seed}" if several else "")
    return Job(f"{name} {stage:g} %", config, run, job_command(run))


def starting_points(plan: Plan, mode: str) -> Plan:
    """The plan of a mode: `pretrain` trains dense models into `pretrain/`, `prune` starts from them, or from `-pt`.

    Raises:
        UserError: `prune` has nothing to start from.
    """
    pretrain = plan.output / "pretrain"
    if mode == "pretrain":
        return dense_plan(plan, pretrain)
    if plan.settings.values.get("pretrained"):
        return plan
    jobs = []
    for job in plan.jobs:
        model = dense_folder(pretrain, job.config) / MODEL
        if not model.is_dir():
            raise UserError(
                f"--mode prune: no model in {model}; run --mode pretrain first with the same flags, or name a model "
                "with -pt"
            )
        jobs.append(dataclasses.replace(job, config=job.config.replace(pretrained=str(model.resolve()))))
    return dataclasses.replace(plan, jobs=tuple(jobs))


def write_table(plan: Plan, done: Sequence[Plan], stages: Sequence[float]) -> None:
    """Writes `stages.csv` and `stages.png`, and prints the table without its columns per layer."""
    import pandas as pd

    rows = []
    for stage, part in zip(stages, done, strict=True):
        for job in part.jobs:
            rows.append({"stage": stage} | stage_rows(read_run(job.folder), job.config))
    table = pd.DataFrame(rows)
    write_csv_atomic(plan.output / TABLE, table)
    shown = [name for name in table.columns if not name.startswith(("layer_", "folder"))]
    print(table[shown].to_string(index=False, float_format=lambda value: f"{value:.4g}"))
    with tolerated(plan.output / PLOT):
        write_stage_plot(table, plan.output / PLOT)
    print(f"\n{files_there(plan.output, TABLE, PLOT)} in {plan.output}")
