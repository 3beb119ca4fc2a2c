"""Lottery tickets: dense training, a mask of the trained weights, the initial weights again, the same training."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

from gated_bert.config import GatedBertConfig
from gated_bert.experiments.reports.drawing import files_there, tolerated
from gated_bert.experiments.reports.run_layout import INITIAL_MODEL
from gated_bert.experiments.runs.output_folder import set_tables_aside
from gated_bert.experiments.studies.lottery_table import lottery_summary, lottery_table, write_lottery_plot
from gated_bert.experiments.sweeps.jobs import Job, Plan, job_command, run_folder_name
from gated_bert.experiments.sweeps.overview import configuration_text
from gated_bert.experiments.sweeps.request import Settings
from gated_bert.support.files import write_csv_atomic

TABLE, SUMMARY, PLOT = "lottery.csv", "lottery_summary.csv", "lottery.png"


@dataclasses.dataclass(frozen=True)
class Lottery:
    """What is run for every method, task and seed.

    Attributes:
        sparsities: of each round, fractions, rising.
        controls: controls of the last round's ticket.
        rewind_step: steps of the dense training after which the weights are taken that tickets go back to.
    """

    sparsities: tuple[float, ...]
    controls: tuple[str, ...]
    rewind_step: int


def round_sparsities(rounds: int, target: float | None, share: float) -> tuple[float, ...]:
    """The sparsity of each round; each removes the same share of the weights that the one before left.

    Args:
        rounds: number of rounds.
        target: sparsity of the last round; None if `share` decides.
        share: of the remaining weights, removed each round.
    """
    kept = 1 - share if target is None else (1 - target) ** (1 / rounds)
    # Rounded: a record that is written down must be the same when the command is repeated.
    return tuple(round(1 - kept**number, 6) for number in range(1, rounds + 1))


def print_lottery(plan: Plan, lottery: Lottery, parts: Sequence[tuple[str, Plan]] = ()):
    """Shows the configuration, and the jobs of `parts`."""
    rounds = ", ".join(f"{100 * sparsity:.3g}" for sparsity in lottery.sparsities)
    extra = [
        ("rounds", f"{len(lottery.sparsities)}, to {rounds} % sparsity"),
        ("weights of step", str(lottery.rewind_step)),
        ("controls", ", ".join(lottery.controls) or "none"),
    ]
    print(configuration_text(_one_shot(plan, lottery.sparsities[-1]), extra), flush=True)
    for title, part in parts:
        print(f"\n{title}")
        for job in part.jobs:
            print(f"  {job.name}: {job.folder}")


def _one_shot(plan: Plan, sparsity: float) -> Plan:
    changes = {"schedule": "one_shot", "start_sparsity": 0.0, "end_sparsity": sparsity}
    changes |= {"pruning_start_epoch": 1, "pruning_end_epoch": 1}
    jobs = tuple(dataclasses.replace(job, config=job.config.replace(**changes)) for job in plan.jobs)
    return dataclasses.replace(plan, jobs=jobs)


def run_lottery(plan: Plan, parts: Sequence[tuple[str, Plan]], sweep: Callable[[Plan], int]) -> int:
    """Runs what is left of the parts of a lottery, one after another, then writes their table and plot.

    Args:
        plan: one job per method, task and seed.
        parts: as `lottery_parts` gives them.
        sweep: runs one plan and returns its exit status.

    Returns:
        The exit status of the first part in which a job failed, else 0.
    """
    if not plan.settings.launcher.resume:
        set_tables_aside(plan.output, (TABLE, SUMMARY, PLOT))
    for title, part in parts:
        print(f"\n{title}", flush=True)
        status = sweep(part)
        if status:
            return status
    write_table(plan.output, parts)
    return 0


def lottery_parts(plan: Plan, lottery: Lottery) -> list[tuple[str, Plan]]:
    """The parts of a lottery in order, each a plan with a folder of its own: `dense`, `round_01` …, `control_random` …

    Raises:
        ConfigError: a method that ranks nothing without training, or a control that the pattern has not.
    """
    settings, plan = plan.settings, _one_shot(plan, lottery.sparsities[-1])
    dense = {}
    for job in plan.jobs:
        config = settings.config("baseline", job.config.task, job.config.seed)
        # The same record whatever is pruned from it, so that later commands go on with it.
        config = config.replace(start_sparsity=0.0, end_sparsity=0.0, rewind_step=lottery.rewind_step)
        dense[config.task, config.seed] = _job(plan, "dense", config)
    parts = [("dense", _part(settings, "dense", dense.values()))]
    before = {job: dense[job.config.task, job.config.seed] for job in plan.jobs}
    initial = {job: before[job].folder / INITIAL_MODEL for job in plan.jobs}
    for number, sparsity in enumerate(lottery.sparsities, 1):
        jobs = {
            job: _job(plan, f"round_{number:02d}", _ticket(job, sparsity, initial[job], before[job].folder))
            for job in plan.jobs
        }
        title = f"round {number} of {len(lottery.sparsities)}: {100 * sparsity:.3g} % sparsity"
        parts.append((title, _part(settings, f"round_{number:02d}", jobs.values())))
        before = jobs
    for control in lottery.controls:
        name, last = f"control_{control}", lottery.sparsities[-1]
        jobs = [_job(plan, name, _ticket(job, last, initial[job], before[job].folder, control)) for job in plan.jobs]
        parts.append((f"control: {control}", _part(settings, name, jobs)))
    return parts


def _ticket(job: Job, sparsity: float, initial: Path, scored: Path, control: str | None = None) -> GatedBertConfig:
    return job.config.replace(
        end_sparsity=sparsity,
        pretrained=str(initial.resolve()),
        ticket=str((scored / "model").resolve()),
        ticket_control=control,
    )


def _job(plan: Plan, part: str, config: GatedBertConfig) -> Job:
    several = len(plan.settings.seeds) > 1
    folder = plan.output / part / run_folder_name(config, numbered=several)
    name = f"{config.label} {config.task}" + (f" seed {config.seed}" if several else "")
    return Job(f"{name} {part.replace('_', ' ')}", config, folder, job_command(folder))


def _part(settings: Settings, name: str, jobs: Sequence[Job]) -> Plan:
    return Plan(dataclasses.replace(settings, output=settings.output / name), tuple(jobs))


def write_table(output: Path, parts: Sequence[tuple[str, Plan]]):
    """Writes `lottery.csv`, its means over seeds, which it prints, and `lottery.png`."""
    table = lottery_table(parts)
    write_csv_atomic(output / TABLE, table)
    summary = lottery_summary(table)
    write_csv_atomic(output / SUMMARY, summary)
    print("\n" + summary.to_string(index=False, na_rep="–", float_format=lambda value: f"{value:.4g}"))
    with tolerated(output / PLOT):
        write_lottery_plot(summary, output / PLOT)
    print(f"\n{files_there(output, TABLE, SUMMARY, PLOT)} in {output}")
