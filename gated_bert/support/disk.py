"""Making sure that what was written is on the disk."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path


def sync_folder(folder: Path):
    """Waits until the names in a folder are on the disk, where its file system can tell."""
    with contextlib.suppress(OSError):
        _sync(folder)


def sync_tree(folder: Path):
    """Waits until all files below a folder, and their names, are on the disk."""
    for here, _, files in os.walk(folder):
        for name in files:
            _sync(Path(here) / name)
        sync_folder(Path(here))


def _sync(path: Path):
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)
