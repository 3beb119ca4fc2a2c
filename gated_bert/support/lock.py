"""Locks of folders: held by one process, free as soon as it is gone, and telling which process it is."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from gated_bert.support.disk import own

if TYPE_CHECKING:
    from filelock import BaseFileLock

LOCK = ".lock"
"""The file in a folder whose lock the process that writes there holds."""


class InUseError(Exception):
    """A lock that another holds.

    Attributes:
        owner: the number of its process, or `unknown`.
    """

    def __init__(self, owner: str):
        self.owner = owner
        super().__init__(f"in use by process {owner}")


def lock_folder(folder: Path) -> BaseFileLock:
    """Takes the lock of a folder, till its `release` is called or this process is gone.

    Raises:
        InUseError: another process, or another part of this one, holds it.
        OSError: its file cannot be written.
    """
    lock = _acquired(folder / LOCK)
    # A byte before the number: on Windows nobody else may read the first one.
    with open(own(folder / LOCK), "r+b") as file:
        if os.name == "nt":
            file.seek(1)
        content = f"\n{os.getpid()}\n".encode()
        file.write(content[file.tell() :])
        file.truncate()
    return lock


@contextmanager
def folder_lock(folder: Path) -> Iterator[None]:
    """Holds the lock of a folder, see `lock_folder`."""
    lock = lock_folder(folder)
    try:
        yield
    finally:
        lock.release()


def is_locked(folder: Path) -> bool | None:
    """Whether somebody holds the lock of a folder; None where there is no lock, or none that can be tried."""
    if not os.path.lexists(folder / LOCK):
        return None
    try:
        _acquired(folder / LOCK).release()
    except InUseError:
        return True
    except OSError:
        return None
    return False


def check_free(folder: Path):
    """Sees that nobody holds the lock of a folder.

    Raises:
        InUseError: somebody does.
        OSError: it cannot be tried.
    """
    if os.path.lexists(folder / LOCK):
        _acquired(folder / LOCK).release()


def _acquired(path: Path) -> BaseFileLock:
    # Not above: a refused command line waits for the standard library alone.
    from filelock import FileLock, Timeout

    # Not of a thread: what one takes another may give back.
    lock = FileLock(own(path), thread_local=False)
    try:
        return lock.acquire(timeout=0).lock
    except Timeout:
        raise InUseError(_owner(path)) from None


def _owner(path: Path) -> str:
    try:
        with open(path, "rb") as file:
            file.seek(1 if os.name == "nt" else 0)
            return file.read().split()[0].decode()
    except (OSError, IndexError, UnicodeDecodeError):
        return "unknown"
