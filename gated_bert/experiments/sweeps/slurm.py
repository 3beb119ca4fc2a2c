"""A sweep as an array job of Slurm: one script, whose task number n runs the record of job n; and one for teachers."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path

from gated_bert.experiments.reports.run_layout import LOG_FILE, STATUS_FILE
from gated_bert.experiments.runs.lifecycle import FINISHED
from gated_bert.experiments.runs.output_folder import locked, say_note
from gated_bert.experiments.runs.tracking import tracked_sweep
from gated_bert.experiments.sweeps.data_checks import check_data
from gated_bert.experiments.sweeps.jobs import Job, Plan, job_command, write_job, write_sweep
from gated_bert.experiments.sweeps.plan_cost import check_room
from gated_bert.experiments.sweeps.resources import job_memory
from gated_bert.experiments.sweeps.sweep import earlier_runs, trackers_of
from gated_bert.start import import_path
from gated_bert.support.checks import FlagError
from gated_bert.support.files import write_bytes_atomic
from gated_bert.support.machine import thread_environment

CORES = 4
"""Cores of a task, where nothing is said to sbatch."""
_FOLDER = "$folder"


def write_array_job(plan: Plan, script: Path) -> int:
    """Writes the records of all runs and the script that submits them; starts nothing.

    Args:
        plan: the jobs. Finished ones are left out where it goes on from an earlier start, else set aside.
        script: the file to write.

    Returns:
        The exit status 0.

    Raises:
        UserError: the output folder, the data or the script's folder cannot be used.
    """
    if script.is_dir() or not script.absolute().parent.is_dir():
        raise FlagError.refused("--slurm", str(script), "a file in an existing folder")
    trackers = trackers_of(plan.jobs)
    with locked(plan.output):
        finished, _ = earlier_runs(plan, plan.settings.launcher.resume)
        left = [job for job in plan.jobs if job not in finished]
        parts = _in_order(script, left)
        at_a_time = min(plan.settings.launcher.max_parallel_jobs or len(left), len(left))
        if left:
            for note in check_data(left):
                say_note(note)
            check_room(plan.output, left, at_a_time)
            # What the runs stand below is there before they are; they end on their own.
            with tracked_sweep(trackers, plan.output, plan.settings.launcher.resume) as tracking:
                write_sweep(plan)
                for job in left:
                    write_job(job)
                tracking.end(FINISHED)
            for path, jobs in parts.items():
                write_bytes_atomic(path, os.fsencode(array_script(jobs, min(at_a_time, len(jobs)))))
    output = shlex.quote(str(plan.output))
    if not left:
        print(f"all {len(plan.jobs)} runs in {plan.output} are finished; gated-bert compare {output} -o {output}")
        return 0
    submit = " ".join(["sbatch", *_waits_for(script, parts), shlex.quote(str(script))])
    print(f"wrote {', '.join(map(str, parts))}: {len(left)} runs, up to {at_a_time} at a time; their records are in "
          f"{plan.output}\n"
          f"submit:   {submit}   (what is typed wins: sbatch --gres=gpu:1 --time=8:00:00 …)\n"
          f"go on:    the same sbatch again; what is finished ends at once\n"
          f"compare:  gated-bert compare {output} -o {output}")  # fmt: skip
    return 0


def _in_order(script: Path, jobs: Sequence[Job]) -> dict[Path, list[Job]]:
    """Script → the jobs of its array: those that others start and learn from have one of their own, to be run first."""
    awaited = {job.after.folder for job in jobs if job.after}
    first = [job for job in jobs if job.folder in awaited]
    rest = [job for job in jobs if job.folder not in awaited]
    return {script.with_stem(f"{script.stem}_teachers"): first, script: rest} if first else {script: rest}


def _waits_for(script: Path, parts: Iterable[Path]) -> list[str]:
    """The words of sbatch that let an array wait for that of the teachers, whatever became of these."""
    return [f"--dependency=afterany:$(sbatch --parsable {shlex.quote(str(path))})" for path in parts if path != script]


def array_script(jobs: Sequence[Job], at_a_time: int) -> str:
    """The script for sbatch. Paths are absolute; nodes have to see them, and this Python.

    Args:
        jobs: what the tasks 0 to n − 1 run.
        at_a_time: how many of them at a time.
    """
    memory = max(job_memory(job.asked, on_gpu=False) for job in jobs)
    folders = "\n".join(f"    {shlex.quote(str(job.folder.resolve()))}" for job in jobs)
    # The words that every job has, its folder left to the shell.
    words = job_command(Path(_FOLDER))
    command = " ".join(f'"{word}"' if word.startswith(_FOLDER) else shlex.quote(word) for word in words)
    threads = " ".join(f'{name}="$threads"' for name in thread_environment(CORES))
    return f"""#!/usr/bin/env bash
# {len(jobs)} runs of gated_bert, one for each task of the array; options given to sbatch win over those below.
#SBATCH --job-name=gated_bert
#SBATCH --array=0-{len(jobs) - 1}%{at_a_time}
#SBATCH --cpus-per-task={CORES}
#SBATCH --mem={memory // 2**20 + 1}M
#SBATCH --requeue
#SBATCH --output=/dev/null
set -euo pipefail

folders=(
{folders}
)
folder="${{folders[${{SLURM_ARRAY_TASK_ID:?submit this script by sbatch}}]}}"
if grep -qs '"state": "finished"' "$folder/{STATUS_FILE}"; then
    exit 0
fi
exec >>"$folder/{LOG_FILE}" 2>&1 </dev/null
threads="${{SLURM_CPUS_PER_TASK:-{CORES}}}"
export {threads}
export PYTHONUNBUFFERED=1 PYTHONPATH={shlex.quote(import_path())}
# After a requeue, or where the script is submitted again, the run goes on from its last checkpoint.
exec {command} --resume
"""
