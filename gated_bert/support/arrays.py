"""Arrays read from NumPy's archives: what a header declares is held against what is stored before memory is taken."""

from __future__ import annotations

import math
import os
import stat
import zipfile
import zlib
from collections.abc import Collection
from pathlib import Path
from typing import BinaryIO

import numpy as np

MOST_UNPACKED = 2**33
"""Bytes that all packed arrays of a file may unpack to."""
_BEST_PACKING = 1032
"""No deflated byte gives more than so many."""
DAMAGED = (
    OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError,
)  # fmt: skip
"""What reading a damaged archive raises."""


def read_npz(file: Path | BinaryIO, names: Collection[str] | None = None) -> dict[str, np.ndarray]:
    """The arrays of an .npz file, in memory.

    Args:
        file: the file, by its name or open.
        names: those that are read, as far as they are there; all where it is None.

    Raises:
        one of `DAMAGED`: a file that is none, an array of objects, or sizes that contradict each other.
    """
    about = os.fstat(file.fileno()) if hasattr(file, "fileno") else os.stat(file)
    # A pipe would be waited for.
    if not stat.S_ISREG(about.st_mode):
        raise OSError("no file that can be read")
    with zipfile.ZipFile(file) as archive:
        check_members(archive)
        for entry in archive.infolist():
            with archive.open(entry) as stored:
                _check_header(stored, entry)
        entries = {entry.filename.removesuffix(".npy"): entry for entry in archive.infolist()}
        return {name: _array(archive, entry) for name, entry in entries.items() if names is None or name in names}


def _array(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> np.ndarray:
    with archive.open(entry) as stored:
        return np.lib.format.read_array(stored, allow_pickle=False)


def check_members(archive: zipfile.ZipFile):
    """Refuses members whose declared sizes no file of this size can unpack to.

    Raises:
        ValueError: one of them, or the same name twice.
    """
    entries, size = archive.infolist(), archive.fp.seek(0, os.SEEK_END)
    if len({entry.filename for entry in entries}) != len(entries):
        raise ValueError("a name is in it twice")
    if sum(entry.compress_size for entry in entries) > size:
        raise ValueError("its members are larger than the file")
    for entry in entries:
        packing = 1 if entry.compress_type == zipfile.ZIP_STORED else _BEST_PACKING
        if entry.file_size > packing * entry.compress_size + _BEST_PACKING:
            raise ValueError(f"{entry.filename} declares {entry.file_size:,} bytes")
    packed = [entry for entry in entries if entry.compress_type != zipfile.ZIP_STORED]
    if sum(entry.file_size for entry in packed) > MOST_UNPACKED:
        raise ValueError(f"it unpacks to more than {MOST_UNPACKED:,} bytes")


def _check_header(file, entry: zipfile.ZipInfo):
    version = np.lib.format.read_magic(file)
    read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}.get(version)
    if read is None:
        raise ValueError(f"{entry.filename} is of format {version}")
    shape, _, dtype = read(file)
    if dtype.hasobject:
        raise ValueError(f"{entry.filename} holds objects")
    declared, stored = math.prod(shape) * dtype.itemsize, entry.file_size - file.tell()
    if declared != stored:
        raise ValueError(f"{entry.filename} declares {declared:,} bytes, and {stored:,} are there")
