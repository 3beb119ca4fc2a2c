"""Files written so that a killed process leaves no half one."""

from __future__ import annotations

import csv
import io
import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from gated_bert.support.disk import sync_folder
from gated_bert.support.errors import UserError
from gated_bert.support.partial import partial, remove_leftovers

if TYPE_CHECKING:
    import pandas as pd


@contextmanager
def replaced_file(path: str | os.PathLike) -> Iterator[BinaryIO]:
    """A file under a temporary name in the same folder, synced to disk and renamed to `path` if the block ends well.

    Raises:
        UserError: the folder cannot be made or written.
    """
    path = Path(path)
    temporary = partial(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(path)
        try:
            with open(temporary, "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
            sync_folder(path.parent)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror}); choose a folder you may write, with space left"
                        ) from error  # fmt: skip


def write_bytes_atomic(path: str | os.PathLike, content: bytes) -> Path:
    """Writes `content` as `replaced_file` does."""
    with replaced_file(path) as file:
        file.write(content)
    return Path(path)


def write_json_atomic(path: str | os.PathLike, content: object) -> Path:
    """Writes `content` as JSON; NaN and infinity become null, NumPy numbers plain ones, paths text."""
    return write_bytes_atomic(path, (json.dumps(_plain(content), indent=2, allow_nan=False) + "\n").encode())


def write_csv_atomic(path: str | os.PathLike, rows: pd.DataFrame | Sequence[Mapping]) -> Path:
    """Writes rows as CSV; a float keeps all its digits, None and NaN become empty cells.

    Args:
        path: the file.
        rows: a data frame, or one mapping per row; the columns are those of all rows, in order of appearance.
    """
    if isinstance(rows, Sequence):
        records = rows
        columns = list(dict.fromkeys(name for record in records for name in record))
    else:
        records = rows.astype(object).where(rows.notna(), None).to_dict("records")
        columns = list(rows.columns)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([_cell(record.get(name)) for name in columns] for record in records)
    return write_bytes_atomic(path, text.getvalue().encode("utf-8", "backslashreplace"))


def _plain(value):
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item) for item in value]
    value = value.item() if hasattr(value, "item") and getattr(value, "ndim", 0) == 0 else value
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if value is None or isinstance(value, str | int | float | bool) else str(value)


def _cell(value):
    value = value.item() if hasattr(value, "item") else value
    return "" if value is None or (isinstance(value, float) and math.isnan(value)) else value
