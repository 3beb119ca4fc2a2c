"""What a sweep runs: one job per method, task and seed, each with its folder and its command."""

from __future__ import annotations

import dataclasses
import json
import re
import sys
from dataclasses import dataclass
from pathlib import Path

from gated_bert.config import GatedBertConfig
from gated_bert.errors import UserError
from gated_bert.experiments.results import write_json_atomic
from gated_bert.settings import Settings

JOB_FILE = "job.json"
STATUS_FILE = "status.json"
LOG_FILE = "log.txt"
INITIAL_MODEL = "model_initial"
"""Model folder, inside a dense run's, of the weights that lottery tickets go back to."""


@dataclass(frozen=True)
class Job:
    """One run of a sweep.

    Attributes:
        name: how people see it, e.g. "spt sst2 seed 3".
        config: the record of the run.
        folder: where it writes.
        command: the words of its process; `--resume` is added where it goes on.
    """

    name: str
    config: GatedBertConfig
    folder: Path
    command: tuple[str, ...]


@dataclass(frozen=True)
class Plan:
    """A sweep before it starts: the settings and the jobs that follow from them."""

    settings: Settings
    jobs: tuple[Job, ...]

    @property
    def output(self) -> Path:
        """The folder of the results."""
        return self.settings.output


def plan_jobs(settings: Settings) -> Plan:
    """The jobs of every task, seed and method, the methods of one task next to each other.

    Raises:
        FlagError: a combination that has no meaning.
    """
    several = len(settings.seeds) > 1
    jobs = []
    for task in settings.tasks:
        for seed in settings.seeds:
            for method in settings.methods:
                config = settings.config(method, task, seed)
                folder = settings.output / run_folder_name(config, numbered=several)
                name = f"{config.label} {task}" + (f" seed {seed}" if several else "")
                jobs.append(Job(name, config, folder, job_command(folder)))
    return Plan(settings, tuple(jobs))


def run_folder_name(config: GatedBertConfig, numbered: bool = False) -> str:
    """The name of a run's folder: `results_{method}_{task}`, with the seed where several are run."""
    safe = re.sub(r"[^\w.\-]+", "_", config.task)
    return f"results_{config.label}_{safe}" + (f"_seed{config.seed}" if numbered else "")


def dense_plan(plan: Plan, folder: Path, **changes) -> Plan:
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
    return (
        sys.executable,
        "-m",
        "gated_bert",
        "train",
        "--config-file",
        str(folder / JOB_FILE),
        "--run-dir",
        str(folder),
    )


def write_job(job: Job):
    """Makes the job's folder and writes its record there."""
    job.folder.mkdir(parents=True, exist_ok=True)
    write_json_atomic(job.folder / JOB_FILE, dataclasses.asdict(job.config))


def check_same_record(job: Job):
    """Refuses to go on with a run that was started with other values.

    Raises:
        UserError: the record in the folder differs.
    """
    path = job.folder / JOB_FILE
    before = read_json(path)
    now = json.loads(job.config.to_json())
    changed = [name for name in now if name in (before or ()) and before[name] != now[name]]
    if changed and changed != ["checkpoint_steps"]:
        values = ", ".join(f"{name}={before[name]} (now {now[name]})" for name in changed[:3])
        raise UserError(f"--resume: {job.folder} was started with {values}; "
                        "repeat the flags of that sweep, or leave out --resume to start anew")  # fmt: skip


def read_status(folder: Path) -> dict:
    """What the job in `folder` last said of itself; empty before it said anything."""
    return read_json(folder / STATUS_FILE) or {}


def is_finished(folder: Path) -> bool:
    """Whether the run in `folder` came to its end."""
    return read_status(folder).get("state") == "finished"


def mark(job: Job, state: str, message: str):
    """Writes the end of a job that could not say so itself."""
    status = read_status(job.folder)
    known = {"job": job.name, "method": job.config.label, "task": job.config.task, "seed": job.config.seed}
    write_json_atomic(job.folder / STATUS_FILE, known | status | {"state": state, "message": message})


def read_json(path: Path) -> dict | None:
    """The dictionary in a JSON file; `None` where there is none or it is broken."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError, UnicodeDecodeError, json.JSONDecodeError):
        return None
    return content if isinstance(content, dict) else None


def with_command(plan: Plan, make_command) -> Plan:
    """A copy of `plan` whose jobs run `make_command(job)`: how another runner takes the place of training."""
    jobs = tuple(dataclasses.replace(job, command=tuple(make_command(job))) for job in plan.jobs)
    return dataclasses.replace(plan, jobs=jobs)
