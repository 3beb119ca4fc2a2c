"""How far the run in a folder has come, by what it wrote of itself."""

from __future__ import annotations

from pathlib import Path

from gated_bert.experiments.reports.run_layout import METADATA, STATUS_FILE
from gated_bert.experiments.reports.run_record import order_of
from gated_bert.support.records import read_record
from gated_bert.support.schemas import JobStatus, RunState


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


LAUNCHER_VARIABLE = "GATED_BERT_LAUNCHER"
"""Holds the process id of the launcher in the environment of its jobs."""
