"""What planning, going on with and comparing a sweep of 1,000 finished runs costs, beside the runs' own time."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from benchmarks.figures import Figure
from benchmarks.parallel_sweep import sweep
from benchmarks.timing import main
from gated_bert.support.files import write_json_atomic
from gated_bert.support.records import read_record

METHODS = ("baseline", "magnitude", "movement", "random")
SEEDS = 250
# The smallest run there is: two epochs of three steps.
RUN = "-b 16 --train-examples 48 --max-len 16 -e 2 -ps 1 -pe 2 -f 0.5".split()


def grid(folder: Path, methods: tuple[str, ...], seeds: int, *words: str) -> float:
    """Seconds of the launcher with these methods and the seeds from 1."""
    numbers = ",".join(map(str, range(1, seeds + 1)))
    return sweep([*RUN, "-p", ",".join(methods), "--seeds", numbers, *words], str(folder))


def copy_run(run: Path, copy: Path, seed: int):
    """A finished run under another seed; its models are links, for the disk's sake."""
    shutil.copytree(run, copy, copy_function=os.link)
    for path in (copy / "job.json", copy / "status.json", *copy.glob("metadata_*.json")):
        record = read_record(path)
        record["seed"] = seed
        if "config" in record:
            record["config"]["seed"] = seed
        path.unlink()
        write_json_atomic(path, record)


def measure(options) -> list[Figure]:
    """Seconds of `--dry-run` and of `--resume` with nothing left to run, and their share in the runs' own time."""
    methods, seeds = (METHODS[:2], 5) if options.quick else (METHODS, SEEDS)
    runs = len(methods) * seeds
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        run_seconds = grid(folder, methods, 2) / (2 * len(methods))
        for method in methods:
            first = folder / f"results_{method}_sst2_seed1"
            for seed in range(3, seeds + 1):
                copy_run(first, folder / f"results_{method}_sst2_seed{seed}", seed)
        planning = grid(folder, methods, seeds, "--dry-run")
        comparing = grid(folder, methods, seeds, "--resume")
    share = 100 * (planning + comparing) / (runs * run_seconds)
    details = f"2 epochs of 3 steps, {run_seconds:.1f} s a run one after the other, its process with it"
    return [
        Figure(f"dry run of {runs} runs", planning, "s", "", "jobs, commands, cost"),
        Figure(f"going on with {runs} finished runs", comparing, "s", "", "looking at each, tables, plot and report"),
        Figure("both / the time of the smallest runs there are", share, "%", "≤ 1", details),
    ]


if __name__ == "__main__":
    main("many_runs", measure)
