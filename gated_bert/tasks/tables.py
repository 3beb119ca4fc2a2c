"""Reading TSV, CSV and JSONL files into columns, with errors that name file, line and remedy."""

from __future__ import annotations

import csv
import gzip
import io
import json
import math
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gated_bert.errors import UserError

SUFFIXES = (".tsv", ".csv", ".jsonl")


@dataclass(frozen=True)
class Table:
    """Named columns of text, all of one length.

    Attributes:
        path: the file, for messages.
        columns: cells as text by column name; `None` marks a missing JSON field.
        lines: line of each row in the file, counted from 1.
    """

    path: Path
    columns: dict[str, list]
    lines: list[int]

    def column(self, name: str, remedy: str) -> list:
        """The cells of column `name`.

        Raises:
            UserError: no such column; the message lists those found and ends with `remedy`.
        """
        if name not in self.columns:
            raise UserError(f"{self.path}: no column {name!r}; found: {', '.join(self.columns)}; {remedy}")
        return self.columns[name]

    def texts(self, name: str, remedy: str = "check the header") -> list[str]:
        """Column `name` as texts.

        Raises:
            UserError: a missing column, or a cell that is empty or not text.
        """
        cells = self.column(name, remedy)
        for row, cell in enumerate(cells):
            if not isinstance(cell, str):
                raise UserError(f"{self.where(row)}: {name!r} holds {cell!r}, not a text; correct or remove the line")
            if not cell.strip():
                raise UserError(f"{self.where(row)}: empty text in column {name!r}; fill it in or remove the line")
        return cells

    def classes(self, name: str, labels: Sequence[str], remedy: str = "check the header") -> np.ndarray:
        """Column `name` as indices into `labels`.

        Raises:
            UserError: a missing column or an unknown label.
        """
        known = {label: index for index, label in enumerate(labels)}
        values = [label_text(cell) for cell in self.column(name, remedy)]
        for row, value in enumerate(values):
            if value not in known:
                raise UserError(
                    f"{self.where(row)}: unknown label {value!r} in column {name!r}; allowed: {shorten(labels)}"
                )
        return np.array([known[value] for value in values], dtype=np.int32)

    def targets(self, name: str, low: float = -math.inf, high: float = math.inf, remedy: str = "check the header"):
        """Column `name` as float32 targets in [`low`, `high`].

        Raises:
            UserError: a missing column, or a cell that is no finite number in the range.
        """
        targets = np.empty(len(self.lines), dtype=np.float32)
        allowed = "a finite number" if math.isinf(low) else f"a number from {low:g} to {high:g}"
        for row, cell in enumerate(self.column(name, remedy)):
            value = as_number(cell)
            if not (math.isfinite(value) and low <= value <= high):
                raise UserError(f"{self.where(row)}: {cell!r} in column {name!r} is refused; allowed: {allowed}")
            targets[row] = value
        return targets

    def where(self, row: int) -> str:
        """The place of row `row` (from 0) as file and line."""
        return f"{self.path}, line {self.lines[row]}"


def read_table(path: Path, header: Sequence[str] | None = None) -> Table:
    """Reads a .tsv (quoting off, as GLUE), .csv or .jsonl file, gzip accepted.

    Args:
        path: the file; its suffix decides the format, `.gz` may follow.
        header: column names of a file that has no header line.

    Raises:
        UserError: an unreadable, malformed or empty file.
    """
    text = read_text(path)
    suffix = table_suffix(path)
    if suffix == ".jsonl":
        return _read_jsonl(path, text)
    rows = _tsv_rows(text) if suffix == ".tsv" else _csv_rows(path, text)
    if header is None:
        _, header = next(rows, (0, []))
        repeated = sorted({name for name in header if header.count(name) > 1})
        if repeated:
            raise UserError(f"{path}, line 1: column {repeated[0]!r} appears twice; give every column its own name")
    return _collect(path, header, rows)


def table_suffix(path: Path) -> str:
    """The suffix that decides the format: the last one, `.gz` aside."""
    return Path(path.name.removesuffix(".gz")).suffix.lower()


def read_text(path: Path) -> str:
    """The whole file as text, unpacked where its name ends in .gz; a byte-order mark is dropped.

    Raises:
        UserError: a missing, unreadable, damaged or non-UTF-8 file.
    """
    try:
        data = path.read_bytes()
        if path.name.endswith(".gz"):
            data = gzip.decompress(data)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise UserError(f"{path}: damaged gzip file ({error}); fetch it again") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); check its name and its rights") from error
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UserError(f"{path}, line {line}: not UTF-8 text; save the file in UTF-8") from error


def as_number(cell: object) -> float:
    """The cell as a number, NaN where it is none."""
    if isinstance(cell, bool):
        return math.nan
    try:
        return float(cell)
    except (TypeError, ValueError):
        return math.nan


def label_text(cell: object) -> str | None:
    """A label cell as text: numbers and booleans of a JSONL file by their usual spelling."""
    return cell.strip() if isinstance(cell, str) else None if cell is None else str(cell)


def shorten(names: Iterable[str], most: int = 10) -> str:
    """Names for a message, cut after `most`."""
    names = list(names)
    return ", ".join(names[:most]) + (f", … ({len(names)} in all)" if len(names) > most else "")


def _tsv_rows(text: str) -> Iterator[tuple[int, list[str]]]:
    # Not str.splitlines: it also breaks lines at characters that stand inside GLUE sentences.
    for number, line in enumerate(text.split("\n"), 1):
        line = line.removesuffix("\r")
        if line:
            yield number, line.split("\t")


def _csv_rows(path: Path, text: str) -> Iterator[tuple[int, list[str]]]:
    csv.field_size_limit(2**31 - 1)
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    start = 1
    try:
        for cells in reader:
            if cells:
                yield start, cells
            start = reader.line_num + 1
    except csv.Error as error:
        raise UserError(f"{path}, line {start}: malformed CSV ({error}); check the quotes") from error


def _collect(path: Path, header: Sequence[str], rows: Iterator[tuple[int, list[str]]]) -> Table:
    lines, cells = [], []
    for number, row in rows:
        if len(row) != len(header):
            raise UserError(
                f"{path}, line {number}: {len(row)} columns instead of {len(header)} ({shorten(header)}); "
                "correct or remove the line"
            )
        lines.append(number)
        cells.append(row)
    if not lines:
        raise UserError(f"{path}: no examples in it; give a file with at least one row of data")
    return Table(path, dict(zip(header, (list(column) for column in zip(*cells, strict=True)), strict=True)), lines)


def _read_jsonl(path: Path, text: str) -> Table:
    lines, records = [], []
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            raise UserError(f"{path}, line {number}: malformed JSON ({error.msg}); one object per line") from error
        if not isinstance(record, dict):
            raise UserError(f"{path}, line {number}: not a JSON object; write one object per line")
        lines.append(number)
        records.append(record)
    if not records:
        raise UserError(f"{path}: no examples in it; give a file with at least one row of data")
    names = list(dict.fromkeys(name for record in records for name in record))
    return Table(path, {name: [record.get(name) for record in records] for name in names}, lines)
