"""Reading TSV, CSV and JSONL files into columns, with errors that name file, line and remedy."""

from __future__ import annotations

import csv
import io
import itertools
import json
import math
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from decimal import Context, Decimal
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from gated_bert.support.errors import UserError
from gated_bert.support.records import parse_record
from gated_bert.tasks.conll import CONLL, conll_records, is_conll
from gated_bert.tasks.text_lines import read_lines, table_suffix

SUFFIXES = (".tsv", ".csv", ".jsonl", *CONLL)
"""Files that hold texts and labels; a .txt holds texts alone, or is such a file of words."""
TEXT = "text"
"""The only column of a .txt file."""

_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_DECIMAL = re.compile(r"[+-]?(?:(?:0|[1-9][0-9]*)(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-][0-9]{2,3})?")
"""Numbers as tools write them. Others that Python would read as numbers are names: `1_0`, `1e3`, `007`, `nan`."""


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

    def lists(self, name: str, split: Callable[[str], list[str]], remedy: str = "check the header") -> list[list[str]]:
        """Column `name` as lists of texts: words, tags or labels; a cell that is one text is split.

        Raises:
            UserError: a missing column, or a cell that is no such list.
        """
        found = []
        for row, cell in enumerate(self.column(name, remedy)):
            cell = split(cell) if isinstance(cell, str) else cell
            whole = isinstance(cell, list) and not any(each is None or isinstance(each, list | dict) for each in cell)
            if not whole:
                raise UserError(f"{self.where(row)}: {name!r} holds {str(cell)!r:.60}, not a list of texts; correct or "
                                "remove the line")  # fmt: skip
            found.append([each if isinstance(each, str) else label_text(each) or str(each) for each in cell])
        return found

    def classes(self, name: str, labels: Sequence[str], remedy: str = "check the header") -> np.ndarray:
        """Column `name` as indices into `labels`.

        Raises:
            UserError: a missing column or an unknown label.
        """
        known = _known_labels(labels)
        indices = np.empty(len(self.lines), dtype=np.int32)
        for row, cell in enumerate(self.column(name, remedy)):
            text = label_text(cell)
            index = None if text is None else known.get(text)
            if index is None:
                # Models of old have Python's spelling of truth values.
                other = str(cell) if isinstance(cell, bool) else decimal_text(text or "")
                index = None if other is None else known.get(other)
            if index is None:
                raise UserError(
                    f"{self.where(row)}: unknown label {text!r} in column {name!r}; allowed: {shorten(labels)}"
                )
            indices[row] = index
        return indices

    def targets(
        self, name: str, low: float = -math.inf, high: float = math.inf, remedy: str = "check the header"
    ) -> np.ndarray:
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
    """Reads a .tsv (quoting off, as GLUE), .csv or .jsonl file, one of words in columns, or a .txt of one text a line;
    gzip accepted.

    Args:
        path: the file; its suffix decides the format, `.gz` may follow.
        header: column names of a file that has no header line.

    Raises:
        UserError: an unreadable, malformed or empty file.
    """
    return next(read_chunks(path, None, header))


def read_chunks(path: Path, rows: int | None, header: Sequence[str] | None = None) -> Iterator[Table]:
    """Reads a file as tables of at most `rows` rows (None: one of them all), each when it is asked for.

    Other arguments and errors are those of `read_table`; columns of a .jsonl file are all that have been met so far,
    and `conll.conll_records` says those of a file of words.
    """
    if table_suffix(path) == ".jsonl" or is_conll(path):
        make = partial(_jsonl_table, path, {})
        source: Iterator[tuple[int, Any]] = conll_records(path) if is_conll(path) else _jsonl_records(path)
    else:
        columns, source = _rows(path, header)
        make = partial(_table, path, columns)
    empty = True
    while chunk := list(itertools.islice(source, rows)):
        empty = False
        yield make(chunk)
    if empty:
        raise UserError(f"{path}: no examples in it; give a file with at least one row of data")


def first_row(path: Path) -> list[str]:
    """The cells of the first row of a .tsv or .csv file, header or not; nothing of an empty file.

    Raises:
        UserError: an unreadable or malformed file.
    """
    return next(_cells(path), (0, []))[1]


def as_number(cell: object) -> float:
    """The cell as a number, NaN where it is none; of text only digits, point, signs and exponent are read."""
    if isinstance(cell, bool) or not isinstance(cell, int | float | str):
        return math.nan
    if isinstance(cell, str) and not _NUMBER.fullmatch(cell.strip()):
        return math.nan
    try:
        return float(cell)
    except OverflowError:
        return math.inf


def decimal_text(text: str) -> str | None:
    """One spelling for all that spell the same number (`1`, `1.0`, `+1`), None where it is no plain decimal number."""
    if not _DECIMAL.fullmatch(text):
        return None
    number = Decimal(text)
    # By default digits after the 28th are rounded away.
    return format(number.normalize(Context(prec=len(text))), "f") if number else "0"


def label_text(cell: object) -> str | None:
    """A label cell as text with composed accents, `None` for no label; a JSON value that is no text, by JSON's own
    spelling, equal numbers by the same one."""
    if cell is None or isinstance(cell, str):
        return cell and unicodedata.normalize("NFC", cell.strip())
    if isinstance(cell, list | dict) or (isinstance(cell, float) and not math.isfinite(cell)):
        return None
    text = json.dumps(cell)
    return decimal_text(text) or text


def _known_labels(labels: Sequence[str]) -> dict[str, int]:
    """Index by spelling, as it is and with composed accents; numbers also by the one of `decimal_text`, where no text
    stands beside a fraction: `1.10` and `1.1` may be versions."""
    known = {unicodedata.normalize("NFC", label): index for index, label in enumerate(labels)}
    known |= {label: index for index, label in enumerate(labels)}
    decimals = {decimal_text(label): index for label, index in known.items()}
    numbers = {text: index for text, index in decimals.items() if text is not None}
    if None in decimals and any("." in text for text in numbers):
        return known
    return numbers | known


def shorten(names: Iterable[str], most: int = 10) -> str:
    """Names for a message, cut after `most`."""
    names = list(names)
    return ", ".join(names[:most]) + (f", … ({len(names)} in all)" if len(names) > most else "")


def _cells(path: Path) -> Iterator[tuple[int, list[str]]]:
    """The rows of a .tsv, .csv or .txt file, each with its line."""
    lines = read_lines(path)
    rows = {".csv": _csv_rows, ".txt": _txt_rows}.get(table_suffix(path), _tsv_rows)
    return rows(path, lines)


def _tsv_rows(path: Path, lines: Iterator[str]) -> Iterator[tuple[int, list[str]]]:
    # Not str.splitlines: it also breaks lines at characters that stand inside GLUE sentences.
    for number, line in enumerate(lines, 1):
        line = line.removesuffix("\n").removesuffix("\r")
        if line:
            yield number, line.split("\t")


def _txt_rows(path: Path, lines: Iterator[str]) -> Iterator[tuple[int, list[str]]]:
    for number, line in enumerate(lines, 1):
        yield number, [line.removesuffix("\n").removesuffix("\r")]


def _csv_rows(path: Path, lines: Iterator[str]) -> Iterator[tuple[int, list[str]]]:
    csv.field_size_limit(2**31 - 1)
    # Lines may also end in a lone carriage return.
    parts = itertools.chain.from_iterable(io.StringIO(line, newline="") for line in lines)
    reader = csv.reader(parts, strict=True)
    start = 1
    try:
        for cells in reader:
            if cells:
                yield start, cells
            start = reader.line_num + 1
    except csv.Error as error:
        raise UserError(f"{path}, line {start}: malformed CSV ({error}); check the quotes") from error


def _rows(path: Path, header: Sequence[str] | None) -> tuple[Sequence[str], Iterator[tuple[int, list[str]]]]:
    """The header, given or read, and the rows after it."""
    rows = _cells(path)
    if table_suffix(path) == ".txt":
        header = (TEXT,)
    if header is None:
        _, header = next(rows, (0, []))
        repeated = sorted({name for name in header if header.count(name) > 1})
        if repeated:
            raise UserError(f"{path}, line 1: column {repeated[0]!r} appears twice; give every column its own name")
    return header, rows


def _table(path: Path, header: Sequence[str], rows: Sequence[tuple[int, list[str]]]) -> Table:
    for number, row in rows:
        if len(row) != len(header):
            raise UserError(
                f"{path}, line {number}: {len(row)} columns instead of {len(header)} ({shorten(header)}); "
                "correct or remove the line"
            )
    lines, cells = zip(*rows, strict=True)
    return Table(path, dict(zip(header, map(list, zip(*cells, strict=True)), strict=True)), list(lines))


def _jsonl_records(path: Path) -> Iterator[tuple[int, dict]]:
    for number, line in enumerate(read_lines(path), 1):
        if not line.strip():
            continue
        where, remedy = f"{path}, line {number}", "write one object per line"
        yield number, parse_record(line, where=where, remedy=remedy, nan=True, file_names=False, lines=False)


def _jsonl_table(path: Path, names: dict[str, None], records: Sequence[tuple[int, dict]]) -> Table:
    names.update(dict.fromkeys(name for _, record in records for name in record))
    columns = {name: [record.get(name) for _, record in records] for name in names}
    return Table(path, columns, [number for number, _ in records])
