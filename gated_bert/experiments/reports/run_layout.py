"""The names of the files in a run's folder, all in one list."""

from __future__ import annotations

from pathlib import Path

JOB_FILE = "job.json"
"""What a launcher asks of the run."""
SWEEP_FILE = "sweep.json"
"""In the folder of a sweep: which runs it is made of."""
STATUS_FILE = "status.json"
"""The live state."""
LOG_FILE = "log.txt"
CHECKPOINT = "checkpoint.npz"
METADATA, ROWS = "metadata_*.json", "results_*.csv"
"""How the run came to be, and a row per epoch; the star is its method and when it began."""
PREDICTIONS = "predictions.json"
"""The answers of the last evaluation, in the format that SQuAD's official script reads."""
RESOURCES = "resources.csv"
TRACKING = "tracking.json"
"""What trackers call the run, or the sweep whose folder it is in, and how far they were told of it."""
TENSORBOARD = "tensorboard"
"""Folder of event files."""
MODEL, BEST_MODEL = "model", "model_best"
INITIAL_MODEL = "model_initial"
"""Model folder, inside a dense run's, of the weights that lottery tickets go back to."""


def named(pattern: str, label: str, stamp: str) -> str:
    """The name that `METADATA` or `ROWS` stands for in the run of a method that began at `stamp`."""
    return pattern.replace("*", f"{label}_{stamp}")


def metadata_beside(rows: Path) -> Path:
    """The metadata of the run whose rows are in `rows`."""
    return rows.with_name(METADATA.replace("*", rows.stem.removeprefix("results_")))


def rows_beside(metadata: Path) -> Path:
    """The rows of the run whose metadata are in `metadata`."""
    return metadata.with_name(ROWS.replace("*", metadata.stem.removeprefix("metadata_")))
