"""Files and folders that are not whole yet: one scheme of names, by which what killed processes left is recognised.

A name says whose it is: `.TARGET.NODE-PID-START-RANDOM.partial`, and `.previous` for a folder set aside while another
takes its place. On this node a process that is gone is known to be; of other nodes on the same disk only the lock of
the folder, or age, says so.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import re
import shutil
import socket
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from gated_bert.support.lock import LOCK, is_locked, lock_folder

if TYPE_CHECKING:
    from filelock import BaseFileLock

_NAME = re.compile(
    r"\.(?P<target>.+)\.(?P<node>[0-9a-f]{8})-(?P<pid>[1-9]\d*)-(?P<start>\d+)-[0-9a-f]{8}"
    r"\.(?P<kind>partial|previous)",
    re.DOTALL | re.ASCII,
)
_LONGEST = 180
"""Bytes of a target's name in that of its temporary one: disks allow 255 in all."""
_SURELY_OVER = 86_400.0
_LOCKED_BY_NOW = 60.0


def partial(target: Path) -> Path:
    """A new name beside `target` for what is going to be `target`."""
    return _name(target, "partial")


def previous(target: Path) -> Path:
    """A new name beside `target` for what was `target`, while another takes its place."""
    return _name(target, "previous")


def surviving(target: Path) -> Path:
    """`target`, or its previous version where a process was killed before another had taken its place."""
    if target.exists():
        return target
    versions = [path for path, match in _entries(target.parent, target.name) if match["kind"] == "previous"]
    return max(versions, key=_modified, default=target)


def remove_leftovers(target: Path):
    """Removes what dead processes left of `target`, once in a process; a previous version that is the only one returns.

    Args:
        target: a file or folder that is about to be written.
    """
    target = target.absolute()
    if target not in _seen:
        _seen.add(target)
        _remove(target.parent, target.name)


_seen: set[Path] = set()


def remove_leftovers_in(folder: Path, held: bool = False, shared: tuple[str, ...] = ()):
    """Removes what dead processes left of any target in `folder`, subfolders apart.

    Args:
        folder: a folder of results.
        held: whether this process holds the folder's lock, so that what processes of other nodes began is left over.
        shared: names that others write there without the lock.
    """
    _remove(folder, None, held, shared)


@contextlib.contextmanager
def partial_folder(target: Path) -> Iterator[Path]:
    """A new folder beside `target`, which is gone after the block unless it was moved.

    Raises:
        OSError: it cannot be made.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    remove_leftovers(target)
    folder = partial(target)
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def take_place(target: Path, new: Path):
    """Puts the folder `new` in the place of `target`, which is never missing but for the moment between two renames.

    Raises:
        OSError: it cannot be renamed; `target` is as it was.
    """
    before = previous(target)
    if target.exists():
        target.rename(before)
    try:
        new.rename(target)
    except BaseException:
        if before.exists() and not target.exists():
            before.rename(target)
        raise
    shutil.rmtree(before, ignore_errors=True)


@contextlib.contextmanager
def temporaries_in(folder: Path) -> Iterator[None]:
    """Makes libraries put their temporary files into `folder`, so that they go with it."""
    before, tempfile.tempdir = tempfile.tempdir, str(folder)
    try:
        yield
    finally:
        tempfile.tempdir = before


@contextlib.contextmanager
def temporary_folder() -> Iterator[Path]:
    """A folder in the system's place for temporary ones, which a later call removes where this process is killed."""
    folder = make_temporary_folder()
    try:
        yield folder
    finally:
        _locks.pop(folder).release()
        shutil.rmtree(folder, ignore_errors=True)


def make_temporary_folder() -> Path:
    """The folder of `temporary_folder`, for the caller to remove."""
    # By user: what others made in the same place cannot be removed anyway.
    user = os.getuid() if hasattr(os, "getuid") else "user"
    target = Path(tempfile.gettempdir()).absolute() / f"gated_bert-{user}"
    _remove(target.parent, target.name)
    folder = partial(target)
    folder.mkdir(mode=0o700)
    # Held as long as this process lives: a node that was started anew has other numbers, and finds it free.
    _locks[folder] = lock_folder(folder)
    return folder


_locks: dict[Path, BaseFileLock] = {}


def _name(target: Path, kind: str) -> Path:
    owner = f"{_node()}-{os.getpid()}-{_start(os.getpid()) or 0}-{uuid.uuid4().hex[:8]}"
    return target.with_name(f".{_short(target.name)}.{owner}.{kind}")


def _short(name: str) -> str:
    """The name, or as much of a long one as fits, with a digest of the whole."""
    whole = os.fsencode(name)
    if len(whole) <= _LONGEST:
        return name
    digest = hashlib.sha256(whole).hexdigest()[:12]
    return whole[: _LONGEST - 13].decode("utf-8", "ignore") + "-" + digest


def _entries(folder: Path, name: str | None) -> list[tuple[Path, re.Match]]:
    """The entries of `folder` whose names follow the scheme: those of one target, or of all."""
    try:
        names = os.listdir(folder)
    except OSError:
        return []
    matches = ((folder / each, _NAME.fullmatch(each)) for each in names)
    wanted = None if name is None else _short(name)
    return [(path, match) for path, match in matches if match and wanted in (None, match["target"])]


def _remove(folder: Path, name: str | None, held: bool = False, shared: tuple[str, ...] = ()):
    dead = [
        (path, match)
        for path, match in _entries(folder, name)
        if _is_dead(path, match, held and match["target"] not in shared)
    ]
    # Newest first: of several versions the last one returns.
    for path, match in sorted(dead, key=lambda entry: _modified(entry[0]), reverse=True):
        # A shortened name does not say whose version it is.
        whole = name or (match["target"] if len(os.fsencode(match["target"])) < _LONGEST - 3 else None)
        with contextlib.suppress(OSError):
            if match["kind"] == "partial" or (whole and (folder / whole).exists()):
                _delete(path)
            elif whole:
                path.rename(folder / whole)


def _delete(path: Path):
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink()


def _is_dead(path: Path, match: re.Match, held: bool) -> bool:
    if match["node"] == _node():
        # A job may outlive the process that made its folder by the moment it takes to notice.
        return not _lives(int(match["pid"]), match["start"]) and _is_locked(path) is not True
    if held:
        return True
    try:
        age = time.time() - path.lstat().st_mtime
    except OSError:
        return False
    return age > _SURELY_OVER or (age > _LOCKED_BY_NOW and _is_locked(path) is False)


def _is_locked(folder: Path) -> bool | None:
    """Whether a process holds a lock in `folder` or in a folder there; None without any lock's file."""
    known = [is_locked(path.parent) for path in (folder / LOCK, *folder.glob(f"*/{LOCK}"))]
    return True if True in known else False if False in known else None


def _modified(path: Path) -> float:
    try:
        return path.lstat().st_mtime
    except OSError:
        return 0.0


@functools.cache
def _node() -> str:
    """This machine since it was started, as far as its processes share their numbers: a container is one itself."""
    parts = [socket.gethostname()]
    for read in (lambda: Path("/proc/sys/kernel/random/boot_id").read_text(), lambda: os.readlink("/proc/self/ns/pid")):
        with contextlib.suppress(OSError):
            parts.append(read().strip())
    return hashlib.sha256("\n".join(parts).encode("utf-8", "surrogateescape")).hexdigest()[:8]


def _lives(pid: int, start: str) -> bool:
    if os.name == "nt":
        # There `os.kill` ends the process, whatever the signal.
        import psutil

        return psutil.pid_exists(pid)
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    return _start(pid) in (None, start)


def _start(pid: int) -> str | None:
    """When a process began, which differs from that of another with the same number; None where it is not told."""
    try:
        # After the last parenthesis: a program's name may hold anything.
        state, *fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    return "ended" if state in "ZX" else fields[18]
