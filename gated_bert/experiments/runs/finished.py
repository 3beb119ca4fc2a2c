"""A run that has come to its end: told from others, read again, and left as it is."""

from __future__ import annotations

from pathlib import Path

from gated_bert.experiments.reports.results import Run, read_run
from gated_bert.experiments.runs.checkpoint import stored_place
from gated_bert.experiments.runs.run_state import CHECKPOINT
from gated_bert.support.errors import UserError


def finished_run(folder: Path) -> Run | None:
    """The finished run in a folder; None where there is none, or where a later one was begun.

    Its metadata decide: they are on the disk before the checkpoint goes, and before `status.json` says so.
    """
    try:
        run = read_run(folder)
    except UserError:
        return None
    begun = (stored_place(folder / CHECKPOINT) or {}).get("stamp")
    return run if run.finished and begun in (None, run.timestamp) else None


def rows_of(run: Run) -> tuple[list[dict], dict, dict]:
    """All rows of a finished run, its best one and its last."""
    rows = run.rows.to_dict("records")
    best = (run.metadata.get("best") or {}).get("epoch")
    return rows, next((row for row in rows if row["epoch"] == best), rows[-1]), rows[-1]


def headline(row: dict, primary: str) -> str:
    """What a run reached: `val_accuracy 0.9125 at sparsity 0.9000`."""
    return f"{primary} {row[primary]:.4f} at sparsity {row['sparsity']:.4f}"


def has_plots(run: Run) -> bool:
    """Whether the plots of a run are there."""
    suffix = f"_sparsity_{run.csv.stem.removeprefix('results_')}.png"
    return all((run.folder / f"{kind}{suffix}").is_file() for kind in ("accuracy", "loss"))
