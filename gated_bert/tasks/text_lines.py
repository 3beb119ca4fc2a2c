"""Lines of files of data, packed or not, with errors that name file and line."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path

from gated_bert.support.errors import UserError

MOST_LINE = 2**28
"""Bytes of the longest line; a data set in JSON may be a single one."""


def table_suffix(path: Path) -> str:
    """The suffix that decides the format: the last one, `.gz` aside."""
    return Path(path.name.removesuffix(".gz")).suffix.lower()


def read_text(path: Path) -> str:
    """The whole file as text, unpacked where its name ends in .gz; a byte-order mark is dropped.

    Raises:
        UserError: a missing, unreadable, damaged or non-UTF-8 file.
    """
    return "".join(read_lines(path))


def read_lines(path: Path) -> Iterator[str]:
    """The lines of a file with their ends, each when it is asked for; otherwise as `read_text`.

    Raises:
        UserError: a missing, unreadable, damaged or non-UTF-8 file.
    """
    number = 0
    try:
        if not path.is_file():
            raise UserError(f"{path}: cannot be read (no file of that name); check its name and its rights")
        with gzip.open(path) if path.name.endswith(".gz") else path.open("rb") as file:
            while line := file.readline(MOST_LINE + 1):
                number += 1
                if len(line) > MOST_LINE:
                    raise UserError(f"{path}, line {number}: more than {MOST_LINE:,} bytes; break it into several")
                yield line.decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}, line {number}: not UTF-8 text; save the file in UTF-8") from error
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise UserError(f"{path}: damaged gzip file ({error}); fetch it again") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); check its name and its rights") from error
