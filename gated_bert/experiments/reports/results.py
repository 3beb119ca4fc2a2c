"""Run folders: written so that a killed run leaves no half file, read so that one broken run hides no other."""

from __future__ import annotations

import math
import os
import re
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING

from gated_bert.config.presets import PRESETS
from gated_bert.experiments.reports.run_layout import (
    BEST_MODEL,
    LOG_FILE,
    METADATA,
    MODEL,
    ROWS,
    STATUS_FILE,
    metadata_beside,
)
from gated_bert.experiments.reports.run_record import check_metadata, order_of, printable
from gated_bert.support.checks import MOST
from gated_bert.support.errors import UserError, one_line
from gated_bert.support.quiet import log_tail
from gated_bert.support.records import read_record
from gated_bert.support.schemas import JobStatus, RunMetadata

if TYPE_CHECKING:
    import pandas as pd

METRICS = {
    "accuracy": "accuracy",
    "f1": "F1",
    "precision": "precision",
    "recall": "recall",
    "micro_f1": "micro-averaged F1",
    "macro_f1": "macro-averaged F1",
    "subset_accuracy": "subset accuracy",
    "exact_match": "exact match",
    "matthews": "Matthews correlation",
    "pearson": "Pearson correlation",
    "spearman": "Spearman correlation",
}
"""Metrics that tables and plots show times 100, with their titles."""

PATTERN_SPARSITY = "pattern_sparsity"
"""Column of the share closed of the matrices that the pattern is made of; `sparsity` is that of all prunable ones."""

_CSV_NAME = re.compile(r"results_(?P<method>.+?)_(?P<timestamp>\d[\dTZ_:.+-]*)\.csv$")
_RUN_AWAY = 1e30
_SKIPPED = {"saved_results", "__pycache__"}


@dataclass(frozen=True, eq=False)
class Run:
    """One run folder as read: the newest CSV, the metadata beside it, and what a table needs to know of them.

    Args:
        folder: the run folder.
        metadata: the content of `metadata_{method}_{timestamp}.json`.
        rows: one row per epoch; sparsity in fractions, metrics as written.
        csv: the file the rows came from.
    """

    folder: Path
    metadata: dict
    rows: pd.DataFrame
    csv: Path

    @property
    def config(self) -> dict:
        return self.metadata.get("config") or {}

    @property
    def method(self) -> str:
        """The name tables and legends show: the label of a point without a name, else the method."""
        recorded = self.metadata.get("label") or self.metadata.get("method")
        return printable(recorded or _named(self.csv)["method"])

    @property
    def timestamp(self) -> str:
        return _named(self.csv)["timestamp"]

    @property
    def order(self) -> float:
        """Its place in time among other runs, the later the larger."""
        return order_of(self.metadata, self.timestamp)

    @property
    def task(self) -> str:
        return printable(self._task.get("name") or self.config.get("task"))

    @property
    def task_title(self) -> str:
        return printable(self._task.get("title") or self.task)

    @property
    def metric(self) -> str:
        """The primary metric: the task's first one, else the first `val_` column that is not the loss."""
        named = [name for name in self._task.get("metrics") or () if f"val_{name}" in self.rows]
        return named[0] if named else metric_columns(self.rows)[0].removeprefix("val_")

    @property
    def data_label(self) -> str:
        data = self.metadata.get("data") or {}
        label = printable(data.get("label") or self.config.get("data") or "data not recorded")
        return f"{label} (partial training data)" if data.get("partial") and "partial" not in label.lower() else label

    @property
    def seed(self) -> int | None:
        return self.metadata.get("seed", self.config.get("seed"))

    @property
    def model(self) -> str:
        # A run that starts from its teacher stands beside it in tables, as a run of the same model.
        return printable(self.metadata.get("model") or model_label(self.config))

    @property
    def status(self) -> str:
        return printable(self.metadata.get("status") or "unknown")

    @property
    def finished(self) -> bool:
        return self.status == "finished"

    @property
    def _task(self) -> dict:
        task = self.metadata.get("task")
        return task if isinstance(task, dict) else {"name": task}


@dataclass(frozen=True)
class Failure:
    """A job that did not end well: its name, one line that says why, and the last lines of its log."""

    job: str
    message: str
    log_tail: str = ""


def metric_columns(rows: pd.DataFrame) -> list[str]:
    """The `val_` columns of `rows` other than the loss, in their order."""
    return [name for name in rows.columns if name.startswith("val_") and name != "val_loss"]


def metric_title(metric: str) -> str:
    """How an axis or a table head names `metric`, with its unit."""
    title = _known_title(metric)
    if title is None:
        return metric
    return f"{title} × 100" if "correlation" in title else f"{title} (%)"


def _known_title(metric: str) -> str | None:
    """The title of a metric of `METRICS`, on whichever development set."""
    for ending, words in (("", ""), ("_test", " (test)"), ("_mismatched", " (mismatched)")):
        if metric.endswith(ending) and metric.removesuffix(ending) in METRICS:
            return METRICS[metric.removesuffix(ending)] + words
    return None


def metric_scale(metric: str) -> float:
    """100 for the metrics shown in per cent, 1 for one this toolkit does not know."""
    return 1.0 if _known_title(metric) is None else 100.0


def model_label(config: Mapping) -> str:
    """The model of a config in words: the preset or the pretrained weights, and the sizes that differ from it."""
    layers, hidden, heads, dff = (config.get(name) for name in ("num_layers", "d_model", "num_heads", "dff"))
    if config.get("pretrained"):
        path = Path(str(config["pretrained"]))
        name = path.name or str(path)
        if name in (MODEL, BEST_MODEL):
            name = re.sub(r"_seed\d+$", "", path.parent.name)
        return f"{name}, {_count(layers, 'layer')}" if layers else name
    size = str(config.get("model_size") or "model not recorded")
    preset = PRESETS.get(size)
    parts = [
        text
        for value, usual, text in (
            (layers, preset and preset.num_layers, _count(layers, "layer")),
            (hidden, preset and preset.d_model, f"hidden size {hidden}"),
            (heads, preset and preset.num_heads, _count(heads, "head")),
            (dff, preset and preset.dff, f"FFN {dff}"),
        )
        if value is not None and value != usual
    ]
    return ", ".join([size, *parts])


def _count(number: int | None, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def find_runs(*folders: str | os.PathLike) -> list[Path]:
    """The run folders among `folders` and below them, sorted, each once; `saved_results` is left out.

    Raises:
        UserError: a folder that does not exist.
    """
    found: dict[Path, Path] = {}
    for folder in map(Path, folders):
        if not folder.is_dir():
            raise UserError(f"{folder}: no such folder; give a run folder (results_…) or any folder above some")
        for here, below, files in os.walk(folder):
            if _is_run(Path(here).resolve().name, files):
                found.setdefault(Path(here).resolve(), Path(here))
                below.clear()
            below[:] = sorted(name for name in below if name not in _SKIPPED and not name.startswith("."))
    return [found[path] for path in sorted(found)]


def _is_run(name: str, files: Iterable[str]) -> bool:
    files = set(files)
    return (
        any(_CSV_NAME.match(file) or fnmatchcase(file, METADATA) for file in files)
        or STATUS_FILE in files
        or (name.startswith("results_") and LOG_FILE in files)
    )


def read_run(folder: str | os.PathLike) -> Run:
    """Reads the newest results of a run folder, whether the run has ended or not.

    Args:
        folder: a run folder.

    Returns:
        The run with one row per epoch written so far.

    Raises:
        UserError: no CSV, a broken one, or no readable metadata beside it.
    """
    folder = Path(folder)
    files = [path for path in folder.glob(ROWS) if _CSV_NAME.match(path.name) and path.is_file()]
    if not files:
        raise UserError(f"{folder}: no results_*.csv: no epoch of this run is finished")
    path = max(files, key=_age) if len(files) > 1 else files[0]
    rows, about = _read_rows(path), metadata_beside(path)
    metadata = read_record(about, RunMetadata, remedy="without it the data and the configuration are unknown")
    check_metadata(about, metadata)
    return Run(folder, metadata, rows, path)


def _named(csv: Path) -> dict[str, str]:
    """Method and timestamp in the name of a run's table."""
    match = _CSV_NAME.match(csv.name)
    return match.groupdict() if match else {"method": csv.stem, "timestamp": ""}


def _age(file: Path) -> tuple[float, str, float]:
    """The time of the file comes last: copying a folder changes it."""
    timestamp = _named(file)["timestamp"]
    metadata = read_record(metadata_beside(file), tolerant=True) or {}
    return order_of(metadata, timestamp), re.sub(r"\D", "", timestamp), file.stat().st_mtime


def _read_rows(path: Path) -> pd.DataFrame:
    import pandas as pd

    try:
        with warnings.catch_warnings():
            # What a row has beyond the columns belongs to none.
            warnings.simplefilter("ignore", pd.errors.ParserWarning)
            rows = pd.read_csv(path, dtype=str, index_col=False)
    except (ValueError, OSError) as error:
        raise UserError(f"{path}: cannot be read as CSV ({one_line(error)})") from error
    missing = [name for name in ("epoch", "sparsity", "val_loss") if name not in rows]
    if missing or not metric_columns(rows):
        raise UserError(f"{path}: no column {', '.join(missing or ['val_<metric>'])}")
    if rows.empty:
        raise UserError(f"{path}: only a header: no epoch of this run is finished")
    rows = pd.DataFrame({name: _numbers(path, name, rows[name]) for name in rows.columns})
    if rows["epoch"].isna().any() or rows["epoch"].duplicated().any():
        raise UserError(f"{path}: column epoch: an epoch is empty or written twice")
    if not (rows["epoch"].between(0, MOST) & (rows["epoch"] % 1 == 0)).all():
        raise UserError(f"{path}: column epoch: a value is no whole number from 0 to {MOST}")
    if not rows["sparsity"].between(0, 1).all():
        raise UserError(f"{path}: column sparsity: a value is empty or not a fraction from 0 to 1")
    if PATTERN_SPARSITY not in rows:
        # Runs of versions that recorded only that of all weights.
        rows[PATTERN_SPARSITY] = math.nan
    return rows.astype({"epoch": int}).sort_values("epoch", ignore_index=True)


def _numbers(path: Path, column: str, cells: Iterable) -> list[float]:
    """The cells as floats with all their digits, which pandas' own parser does not keep."""
    numbers = []
    for row, cell in enumerate(cells, start=2):
        try:
            number = float(cell)
            # A loss that has run away stands for no point of a plot, and for nothing a mean can be taken of.
            numbers.append(number if abs(number) < _RUN_AWAY else math.nan)
        except ValueError:
            raise UserError(f"{path}: row {row}, column {column}: {cell!r} is no number") from None
    return numbers


def read_runs(folders: Iterable[str | os.PathLike]) -> tuple[list[Run], list[str]]:
    """Reads every run that can be read.

    Args:
        folders: run folders, as `find_runs` gives them.

    Returns:
        The runs, and one line for each folder that was left out.
    """
    runs, problems = [], []
    for folder in folders:
        try:
            runs.append(read_run(folder))
        except UserError as error:
            problems.append(str(error))
    return runs, problems


def read_failure(folder: str | os.PathLike, lines: int = 15) -> Failure | None:
    """What a failed run left behind: `status.json`'s message and its log's last lines; None if it did not fail."""
    folder = Path(folder)
    status = read_record(folder / STATUS_FILE, JobStatus, nan=True, tolerant=True)
    if status is None or status.get("state") != "failed":
        return None
    return Failure(str(status.get("job") or folder.name), str(status.get("message") or "failed"),
                   log_tail(folder / LOG_FILE, lines))  # fmt: skip
