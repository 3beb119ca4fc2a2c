"""What a sweep runs: one job per method, task and seed, each with its folder and its command."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gated_bert.config import GatedBertConfig
from gated_bert.config.distill_options import DISTILL_FIELDS, SELF, SELF_NOTE
from gated_bert.config.flag_table import PRUNING_FIELDS
from gated_bert.experiments.reports.run_layout import JOB_FILE, MODEL, STATUS_FILE, SWEEP_FILE
from gated_bert.experiments.runs.run_state import newest_metadata, read_status, track_below
from gated_bert.experiments.runs.same_record import config_changes
from gated_bert.experiments.sweeps.request import Settings
from gated_bert.start import python_command
from gated_bert.support.checks import FlagError
from gated_bert.support.errors import UserError
from gated_bert.support.files import write_json_atomic
from gated_bert.support.paths import file_name, number_name
from gated_bert.support.records import read_record

LONGEST_FOLDER = 180
"""Letters of a run's folder, whose name may get a seed, a round or a temporary ending."""


@dataclass(frozen=True)
class Job:
    """One run of a sweep.

    Attributes:
        name: how people see it, e.g. "spt sst2 seed 3".
        config: the record of the run.
        folder: where it writes.
        command: the words of its process; `--resume` is added where it goes on.
        after: the job whose model it starts from and learns from, `--teacher self`; None where it needs none.
    """

    name: str
    config: GatedBertConfig
    folder: Path
    command: tuple[str, ...]
    after: Job | None = None

    @property
    def asked(self) -> GatedBertConfig:
        """The record as it was asked for, which names nothing that another job is yet to make."""
        if self.after is None:
            return self.config
        return self.config.replace(pretrained=self.after.config.pretrained, teacher=SELF)


@dataclass(frozen=True)
class Plan:
    """A sweep before it starts: the settings and the jobs that follow from them."""

    settings: Settings
    jobs: tuple[Job, ...]

    @property
    def output(self) -> Path:
        """The folder of the results."""
        return self.settings.output


def plan_jobs(settings: Settings, point: Mapping[str, object] | None = None) -> Plan:
    """The jobs of every task, seed and method, the methods of one task next to each other.

    Args:
        settings: what is asked for.
        point: fields in which other jobs of the same sweep have other values; they are part of names and folders.

    Raises:
        FlagError: a combination that has no meaning, or a teacher that only `plan_grid` knows.
    """
    plan = _planned(settings, point)
    if any(job.config.teacher == SELF for job in plan.jobs):
        settings.refuse_self()
    return plan


def _planned(settings: Settings, point: Mapping[str, object] | None) -> Plan:
    parts = tuple(_point_part(name, value) for name, value in (point or {}).items())
    several = len(settings.seeds) > 1
    jobs = []
    for task in settings.tasks:
        for seed in settings.seeds:
            for method in settings.methods:
                config = settings.config(method, task, seed)
                folder = settings.output / run_folder_name(config, several, parts)
                name = " ".join((config.label, task, *parts)) + (f" seed {seed}" if several else "")
                jobs.append(Job(name, config, folder, job_command(folder)))
    return Plan(settings, tuple(jobs))


def plan_grid(grid: Mapping[str, Iterable], read: Callable[[Mapping[str, object]], Settings]) -> Plan:
    """The jobs of all combinations of values; of none, those of `plan_jobs`.

    Where the teacher is `self`, the dense jobs that the others learn from are among them, each before its students.

    Args:
        grid: field of the record → its values.
        read: the settings with these values of the fields.

    Raises:
        FlagError: a combination that has no meaning, or two whose folders have the same name.
    """
    jobs: dict[Path, Job] = {}
    notes: dict[str, None] = {}
    first: Settings | None = None
    for values in itertools.product(*grid.values()):
        point = dict(zip(grid, values, strict=True))
        settings = read(point)
        first = first or settings
        notes |= dict.fromkeys(settings.notes)
        of_self = settings.values.get("teacher") == SELF
        notes |= dict.fromkeys([SELF_NOTE] * of_self)
        # How others are pruned is nothing to the dense baseline, nor, where it is their teacher, how they learn from
        # it: one of them stands beside all.
        apart = PRUNING_FIELDS | DISTILL_FIELDS if of_self else PRUNING_FIELDS
        unpruned = {name: value for name, value in point.items() if name not in apart}
        planned = _planned(settings, point).jobs
        dense: dict[tuple[str, int], Job] = {}
        if of_self or (unpruned != point and not all(job.config.enable_pruning for job in planned)):
            # Of the others nothing is asked: what is left of a point need not make sense to a run that prunes.
            alone = dataclasses.replace(read(unpruned), methods=("baseline",))
            dense = {(job.config.task, job.config.seed): job for job in _planned(alone, unpruned).jobs}
        for job in _with_teachers(planned, dense) if of_self else planned:
            if not job.config.enable_pruning:
                job = dense.get((job.config.task, job.config.seed), job)
            refuse_shared_folders((jobs.setdefault(job.folder, job), job))
    if first is None:
        raise FlagError("a sweep without runs is refused; allowed: at least one value of each field")
    return Plan(dataclasses.replace(first, notes=tuple(notes)), tuple(jobs.values()))


def refuse_shared_folders(jobs: Iterable[Job]) -> None:
    """Refuses runs of which one would take the place of another.

    Raises:
        FlagError: two records for one folder.
    """
    first: dict[Path, Job] = {}
    for job in jobs:
        if first.setdefault(job.folder, job).config != job.config:
            raise FlagError(f"{job.folder}: two runs would share this folder; allowed: values whose names differ in "
                            "more than signs")  # fmt: skip


def _with_teachers(jobs: Iterable[Job], dense: Mapping[tuple[str, int], Job]) -> Iterator[Job]:
    """The jobs that learn from a dense one, which they start from, and before the first of each that one."""
    told: set[Job] = set()
    for job in jobs:
        teacher = dense[job.config.task, job.config.seed]
        if teacher not in told:
            told.add(teacher)
            yield teacher
        if job.config.enable_pruning:
            model = str((teacher.folder / MODEL).resolve())
            yield dataclasses.replace(job, config=job.config.replace(pretrained=model, teacher=model), after=teacher)


def _point_part(name: str, value: object) -> str:
    """A value in the names of a run: `tiny`, `sparsity90`, `learning_rate0.0001`."""
    if name == "model_size":
        return str(value)
    if name == "end_sparsity" and isinstance(value, float):
        return f"sparsity{number_name(100 * value)}"
    sides = value if isinstance(value, tuple) else (value,)
    text = "x".join(f"{side:g}" if isinstance(side, float) else str(side) for side in sides)
    return name + file_name(text.rstrip("/").rpartition("/")[2])


def run_folder_name(config: GatedBertConfig, numbered: bool = False, parts: Iterable[str] = ()) -> str:
    """The name of a run's folder: `results_{method}_{task}`, then `parts`, then the seed where several are run."""
    named = "_".join(("results", config.label, file_name(config.task), *parts))
    return file_name(named, LONGEST_FOLDER) + (f"_seed{config.seed}" if numbered else "")


def dense_plan(plan: Plan, folder: Path, **changes: Any) -> Plan:
    """The dense runs that those of `plan` can start from, one per task and seed, in `folder`.

    Their records are the same whatever `plan` prunes, so that a command with other methods goes on from them.

    Args:
        plan: any jobs.
        folder: where the dense runs go.
        **changes: further fields of their records.
    """
    jobs = {}
    for job in plan.jobs:
        run = dense_folder(folder, job.config)
        config = plan.settings.config("baseline", job.config.task, job.config.seed)
        config = config.replace(start_sparsity=0.0, end_sparsity=0.0, **changes)
        jobs[run] = Job(f"dense {config.task} seed {config.seed}", config, run, job_command(run))
    return Plan(dataclasses.replace(plan.settings, output=folder, methods=("baseline",)), tuple(jobs.values()))


def dense_folder(folder: Path, config: GatedBertConfig) -> Path:
    """The run in `folder`, of those that `dense_plan` makes, that a run of `config` starts from."""
    return folder / run_folder_name(config.replace(pruning_method="baseline", criterion=None), numbered=True)


def job_command(folder: Path) -> tuple[str, ...]:
    """The words that run the job in `folder` in a process of its own."""
    return python_command("gated_bert", "train", "--config-file", str(folder / JOB_FILE), "--run-dir", str(folder))


def write_job(job: Job) -> None:
    """Makes the job's folder and writes its record there, and what its tracked runs stand below."""
    job.folder.mkdir(parents=True, exist_ok=True)
    write_json_atomic(job.folder / JOB_FILE, dataclasses.asdict(job.config))
    if job.config.track:
        track_below(job.folder.parent, job.folder)


def write_sweep(plan: Plan) -> None:
    """Writes of which runs a sweep is made, for whoever watches it: those that wait have no folder yet."""
    runs = [{"name": job.name, "folder": job.folder.name} for job in plan.jobs]
    write_json_atomic(plan.output / SWEEP_FILE, {"runs": runs})


def check_same_record(job: Job) -> None:
    """Refuses to go on with a run that was started with other values.

    Raises:
        UserError: the record in the folder differs.
    """
    # A run that `gated-bert train` made by flags has no record but its metadata.
    before = read_record(job.folder / JOB_FILE, tolerant=True) or newest_metadata(job.folder).get("config") or {}
    changed = list(config_changes(before, job.config, job.folder).items())
    if changed:
        values = ", ".join(f"{name}={was} (now {now})" for name, (was, now) in changed[:3])
        raise UserError(f"--resume: {job.folder} was started with {values}; repeat these flags, choose another folder "
                        "with -o, or leave out --resume, where it was given, to start anew")  # fmt: skip


def mark(job: Job, state: str, message: str) -> None:
    """Writes the end of a job that could not say so itself."""
    status = read_status(job.folder)
    known = {"job": job.name, "method": job.config.label, "task": job.config.task, "seed": job.config.seed}
    write_json_atomic(job.folder / STATUS_FILE, known | status | {"state": state, "message": message})
