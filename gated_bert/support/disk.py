"""Making sure that what was written is on the disk."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path


def sync_folder(folder: Path):
    """Waits until the names in a folder are on the disk, where its file system can tell."""
    with contextlib.suppress(OSError):
        sync_file(folder)


def sync_tree(folder: Path):
    """Waits until all files below a folder, and their names, are on the disk."""
    for here, _, files in os.walk(folder):
        for name in files:
            sync_file(Path(here) / name)
        sync_folder(Path(here))


def sync_file(path: Path):
    """Waits until a file is on the disk.

    Raises:
        OSError: it cannot be opened.
    """
    # Windows syncs nothing that is open for reading alone.
    file = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)
