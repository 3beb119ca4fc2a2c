"""Making sure that what is written goes into the folder it is for, and that it is on the disk."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from pathlib import Path


def own(path: Path) -> Path:
    """A file that is going to be changed in place, rather than replaced: that of a stranger's folder may be a link.

    Raises:
        OSError: it is a link, which leads out of the folder, or no file, as a pipe, which blocks.
    """
    with contextlib.suppress(FileNotFoundError):
        mode = os.lstat(path).st_mode
        if not stat.S_ISREG(mode):
            why = "a link, which is not followed" if stat.S_ISLNK(mode) else "no regular file"
            raise OSError(errno.EINVAL, f"{why}; remove it", os.fspath(path))
    return path


def sync_folder(folder: Path) -> None:
    """Waits until the names in a folder are on the disk, where its file system can tell."""
    with contextlib.suppress(OSError):
        sync_file(folder)


def sync_tree(folder: Path) -> None:
    """Waits until all files below a folder, and their names, are on the disk."""
    for here, _, files in os.walk(folder):
        for name in files:
            sync_file(Path(here) / name)
        sync_folder(Path(here))


def sync_file(path: Path) -> None:
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


def remove_oldest(folder: Path, most: int) -> None:
    """Removes files of a folder that can be made again, those written first, until at most `most` bytes are left.

    What another process removes meanwhile, and what cannot be removed, is no fault.
    """
    try:
        with os.scandir(folder) as entries:
            files = [(entry.stat(follow_symlinks=False), entry.path) for entry in entries
                     if entry.is_file(follow_symlinks=False)]  # fmt: skip
    except OSError:
        return
    left = sum(found.st_size for found, _ in files)
    for found, path in sorted(files, key=lambda file: file[0].st_mtime_ns):
        if left <= most:
            return
        with contextlib.suppress(OSError):
            Path(path).unlink(missing_ok=True)
            left -= found.st_size
