"""How far the run in a folder has come, by what it wrote of itself."""

from __future__ import annotations

from pathlib import Path

from gated_bert.experiments.reports.run_layout import METADATA, STATUS_FILE, TRACKING
from gated_bert.experiments.reports.run_record import order_of
from gated_bert.support.files import write_json_atomic
from gated_bert.support.records import read_record
from gated_bert.support.schemas import JobStatus, RunState, TrackedRun


def read_status(folder: Path) -> dict:
    """What the job in `folder` last said of itself; empty before it said anything."""
    return read_record(folder / STATUS_FILE, JobStatus, nan=True, tolerant=True) or {}


def newest_metadata(folder: Path) -> dict:
    """What the newest run in `folder` wrote of itself; empty where there is none."""
    written = [read_record(path, RunState, tolerant=True) or {} for path in sorted(folder.glob(METADATA))]
    return max(written, key=lambda each: order_of(each, ""), default={})


def is_finished(folder: Path) -> bool:
    """Whether the run in `folder` came to its end."""
    return read_status(folder).get("state") == "finished"


def track_below(sweep: Path, folder: Path) -> None:
    """Names the tracked runs of a sweep as those that the run in `folder`, which is not running, stands below.

    Args:
        sweep: the folder of the sweep.
        folder: that of one of its runs.
    """
    above, known = (read_record(each / TRACKING, TrackedRun, tolerant=True) or {} for each in (sweep, folder))
    found = {"group": above.get("group"), "parents": above.get("runs", {})}
    write_json_atomic(folder / TRACKING, {**known, **found})
