"""What a sweep would run and about what it would cost, told before it starts."""

from __future__ import annotations

import csv
import shlex
import shutil
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from gated_bert.config import GatedBertConfig
from gated_bert.experiments.reports.run_layout import METADATA, rows_beside
from gated_bert.experiments.runs.output_folder import OUTPUT
from gated_bert.experiments.runs.run_state import is_finished
from gated_bert.experiments.sweeps.jobs import Job, Plan
from gated_bert.experiments.sweeps.overview import clock, configuration_text
from gated_bert.experiments.sweeps.resources import job_memory, kept_disk, working_disk
from gated_bert.support.checks import MOST
from gated_bert.support.errors import UserError
from gated_bert.support.machine import GIB
from gated_bert.support.records import read_record
from gated_bert.support.schemas import RunMetadata

_PACE_FIELDS = (
    "model_size", "num_layers", "d_model", "num_heads", "dff", "pretrained", "task", "data", "train_examples",
    "max_len", "batch_size", "optimizer", "precision", "jit_compile", "devices", "pruning_method",
    "criterion", "pattern", "distill_layers",
)  # fmt: skip
"""Two runs that agree in these take about the same time for an epoch."""

Paces = dict[tuple, list[tuple[float, float]]]
"""By what decides them, the pairs of seconds that `read_paces` finds."""


def print_plan(plan: Plan) -> int:
    """Shows the configuration, the jobs and their estimated cost; writes and starts nothing.

    Memory and disk follow from the models' sizes. Time is told only for jobs like finished runs in the output folder:
    their mean seconds per epoch × epochs, and what those runs took besides.
    """
    print(configuration_text(plan))
    resumed = plan.settings.launcher.resume
    finished = {job for job in plan.jobs if resumed and is_finished(job.folder)}
    left = [job for job in plan.jobs if job not in finished]
    paces = read_paces(plan.output)
    left_out = f", {len(finished)} of them finished" if finished else ""
    print(f"\nJobs ({len(plan.jobs)}{left_out})")
    for job in plan.jobs:
        cost = "finished" if job in finished else job_cost(job, paces)
        cost += f"; after {job.after.name}" if job.after else ""
        print(f"  {job.name}: {job.folder}\n    {cost}\n    {shlex.join(job.command)}")
    if left:
        launcher = plan.settings.launcher
        # How many fit is decided where and when the sweep starts.
        fitting = launcher.parallel or launcher.backend == "ray" or launcher.slurm
        at_a_time = launcher.max_parallel_jobs or (None if fitting else 1)
        print("\n".join(("\nEstimated cost", *(f"  {line}" for line in _totals(left, paces, at_a_time)))))
    return 0


def job_cost(job: Job, paces: Paces) -> str:
    """One line: memory, disk and, where runs like it are finished, time."""
    config = job.asked
    seconds = _seconds(job.config, paces)
    time = "time unknown" if seconds is None else f"about {clock(seconds)}"
    return (f"{_gib(job_memory(config, on_gpu=False))} of memory, {_gib(kept_disk(config))} of disk "
            f"(and {_gib(working_disk(config))} while it runs), {time}")  # fmt: skip


def _totals(jobs: list[Job], paces: Paces, at_a_time: int | None) -> list[str]:
    memory = sorted((job_memory(job.asked, on_gpu=False) for job in jobs), reverse=True)
    working = sorted((working_disk(job.asked) for job in jobs), reverse=True)
    kept = sum(kept_disk(job.asked) for job in jobs)
    known = [seconds for job in jobs if (seconds := _seconds(job.config, paces)) is not None]
    together = "as many at a time as there is room for"
    if at_a_time:
        together = f"{_gib(sum(memory[:at_a_time]))} for {min(at_a_time, len(jobs))} at a time"
    lines = [
        f"memory  {together}, without a GPU; the largest job {_gib(memory[0])}",
        f"disk    {_gib(kept)} at the end, {_gib(kept + sum(working[:at_a_time]))} at most",
    ]
    if not known:
        return [*lines, "time    unknown: no run like these is finished in the output folder"]
    rest = f", and {len(jobs) - len(known)} job(s) unlike any finished run" if len(known) < len(jobs) else ""
    return [*lines, f"time    about {clock(sum(known))} of single jobs, by runs like them that are finished{rest}"]


def _gib(size: float) -> str:
    return f"{size / GIB:.2g} GiB" if size < 10 * GIB else f"{size / GIB:.0f} GiB"


def _seconds(config: GatedBertConfig, paces: Paces) -> float | None:
    found = paces.get(_pace_key(asdict(config)))
    if not found:
        return None
    beside, epoch = (statistics.median(column) for column in zip(*found, strict=True))
    return beside + epoch * config.epochs


def _pace_key(config: Mapping) -> tuple:
    return tuple(str(config.get(name)) for name in _PACE_FIELDS)


def read_paces(output: Path) -> Paces:
    """Of every finished run in `output` the seconds beside its epochs and the mean of its epochs, by what decides them.

    Beside the epochs are data, model, first compilation and the files at the end, not the start of the process.
    """
    found: Paces = {}
    for path in output.glob(f"results_*/{METADATA}"):
        metadata = read_record(path, RunMetadata, tolerant=True) or {}
        rows = rows_beside(path)
        seconds = _epoch_seconds(rows) if metadata.get("status") == "finished" else []
        if seconds:
            # A resumed run has the seconds since then alone.
            beside = min(MOST, max(0.0, (metadata.get("seconds") or 0.0) - sum(seconds)))
            pace = (beside, statistics.mean(seconds))
            found.setdefault(_pace_key(metadata.get("config") or {}), []).append(pace)
    return found


def _epoch_seconds(rows: Path) -> list[float]:
    """The seconds of a run's epochs; none of a table that cannot be read, for the estimate is one without it."""
    if not rows.is_file():
        return []
    try:
        with open(rows, newline="", encoding="utf-8") as file:
            seconds = [float(row["seconds"]) for row in csv.DictReader(file) if row.get("seconds")]
    except (OSError, ValueError, csv.Error):
        return []
    return seconds if all(0 <= each <= MOST for each in seconds) else []


def check_room(output: Path, jobs: Sequence[Job], slots: int) -> None:
    """Refuses a sweep whose models do not fit on the disk.

    Args:
        output: its folder.
        jobs: what it is going to run.
        slots: how many of them at a time.

    Raises:
        UserError: too little space.
    """
    working = sorted((working_disk(job.asked) for job in jobs), reverse=True)[:slots]
    need, free = sum(kept_disk(job.asked) for job in jobs) + sum(working), shutil.disk_usage(output).free
    if free < need:
        raise UserError(f"{OUTPUT}: {output} has {free / GIB:.2f} GiB of free space, and {len(jobs)} job(s) need about "
                        f"{need / GIB:.2f} GiB; free some, or choose another folder")  # fmt: skip
