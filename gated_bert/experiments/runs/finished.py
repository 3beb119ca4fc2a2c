"""A run that has come to its end: told from others, read again, and left as it is."""

from __future__ import annotations

import math
from pathlib import Path

from gated_bert.config import GatedBertConfig
from gated_bert.experiments.reports.best import NEAR_TARGET
from gated_bert.experiments.reports.results import PATTERN_SPARSITY, Run, read_run
from gated_bert.experiments.reports.run_layout import CHECKPOINT, MODEL
from gated_bert.experiments.runs.checkpoint import Checkpoint, last_checkpoint, stored_place
from gated_bert.experiments.runs.lifecycle import FINISHED
from gated_bert.experiments.runs.run_state import newest_metadata
from gated_bert.experiments.runs.same_record import refuse_other_config
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


def checkpoint_to_go_on_from(folder: Path, config: GatedBertConfig) -> tuple[Checkpoint | None, str]:
    """The checkpoint of an unfinished run, None where it starts afresh, and what there is to say of it.

    Raises:
        UserError: the run was begun with another record, or is finished but cannot be read.
    """
    checkpoint, note = last_checkpoint(folder)
    before = newest_metadata(folder)
    refuse_other_config(folder, checkpoint.place["config"] if checkpoint else before.get("config"), config)
    if not checkpoint and (before.get("status") == FINISHED or (folder / MODEL).exists()):
        raise UserError(f"{folder}: the run here is finished, but its results_*.csv or metadata_*.json cannot be read; "
                        "leave --resume out to set it aside and start afresh")  # fmt: skip
    return checkpoint, note


def rows_of(run: Run) -> tuple[list[dict], dict, dict]:
    """All rows of a finished run, its best one and its last."""
    rows = run.rows.to_dict("records")
    best = (run.metadata.get("best") or {}).get("epoch")
    return rows, next((row for row in rows if row["epoch"] == best), rows[-1]), rows[-1]


def headline(row: dict, primary: str) -> str:
    """What a run reached: `val_accuracy 0.9125 at sparsity 0.9000`, and where that is not what it was to reach."""
    closed, target = row.get(PATTERN_SPARSITY, math.nan), row.get("target_sparsity", math.nan)
    reached = f"{primary} {row[primary]:.4f} at sparsity {row['sparsity']:.4f}"
    if abs(closed - target) > NEAR_TARGET:
        reached += f"; {closed:.4f} of the pattern's weights closed, {target:.4f} asked"
    return reached


def has_plots(run: Run) -> bool:
    """Whether the plots of a run are there."""
    suffix = f"_sparsity_{run.csv.stem.removeprefix('results_')}.png"
    return all((run.folder / f"{kind}{suffix}").is_file() for kind in ("accuracy", "loss"))
