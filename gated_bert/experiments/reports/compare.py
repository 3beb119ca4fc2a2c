"""The comparison of any set of runs: what `gated-bert compare` does."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from gated_bert.experiments.reports.results import Failure, find_runs, read_failure, read_runs
from gated_bert.support.errors import UserError


def compare(folders: Sequence[str | Path], out: str | Path, say: Callable[[str], None] = print,
            failures: Iterable[Failure] = ()) -> list[Path]:  # fmt: skip
    """Writes tables, comparison plot and report of the runs in and below `folders`.

    Args:
        folders: run folders or folders above them.
        out: where `comparison.csv`, `comparison_summary.csv`, the comparison PNG and `report.html` go.
        say: gets one line for each run left out or kept apart and each file written.
        failures: failed jobs that left no run folder to find them by.

    Returns:
        The files written.

    Raises:
        UserError: a folder that is not there, no readable run in any of them, or `out` that cannot be written.
    """
    found, failures = find_runs(*folders), tuple(failures)
    if not found and not failures:
        raise UserError(f"{', '.join(map(str, folders))}: no runs here; a run is a folder results_<method>_<task> with "
                        "results_*.csv and metadata_*.json")  # fmt: skip
    runs, problems = read_runs(found)
    failed = {folder: failure for folder in found if (failure := read_failure(folder))}
    told = tuple(f"{folder}{end}" for folder in failed for end in ":/")
    problems = [line for line in problems if not line.startswith(told)]
    known = {failure.job: failure for failure in (*failed.values(), *failures)}
    if not runs and not known:
        raise UserError(f"none of {len(found)} run folder(s) can be read; the first: {problems[0]}")
    from gated_bert.experiments.reports.aggregate import group_runs, write_comparison
    from gated_bert.experiments.reports.plots import COMPARISON_PNG
    from gated_bert.experiments.reports.report import write_report

    for line in problems:
        say(f"left out: {line}")
    for failure in known.values():
        say(f"failed: {failure.job}: {failure.message}")
    for line in group_runs(runs)[1]:
        say(f"note: {line}")
    out, files = Path(out), []
    if runs:
        files = list(write_comparison(out, runs))
    report = write_report(out, runs, known.values(), problems)
    files += [path for path in (out / COMPARISON_PNG, report) if path.exists()]
    for path in files:
        say(f"wrote {path}")
    return files
