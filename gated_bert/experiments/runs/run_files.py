"""The files of a run on their way to another place, while the run goes on."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from gated_bert.experiments.reports.run_layout import CHECKPOINT, LOG_FILE, STATUS_FILE
from gated_bert.support.disk import sync_file
from gated_bert.support.partial import partial_folder, take_place

KEEP_VARIABLE = "GATED_BERT_KEEP_RESUME_POINT"
"""Set where a finished run's files are still to be brought from its node: till then what is stored of it stays."""
Stamp = tuple[int, int]
"""Size in bytes and time of the last change in nanoseconds: another one is another content."""
_QUICK = 1.0
_REST = 19
_TRIES = 10


def rest_after(seconds: float) -> float:
    """Seconds to wait after a checkpoint that took so long: 19 times as many, for 5 % of the time, or none if quick."""
    return _REST * seconds if seconds > _QUICK else 0.0


def run_files(folder: Path) -> list[str]:
    """The names of a run's files, from its folder on; the log apart, which is told while it grows."""
    paths = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return sorted(path.as_posix() for path in paths if path.as_posix() != LOG_FILE and not _hidden(path))


def _hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def stamp_of(path: Path) -> Stamp | None:
    """The stamp of a file; None where there is none."""
    try:
        return _stamp(path.stat())
    except OSError:
        return None


def _stamp(status: os.stat_result) -> Stamp:
    return status.st_size, status.st_mtime_ns


class Snapshot:
    """The files of a run as they are now, opened, so that the run may put others in their places.

    What goes with a checkpoint is never older than it: newer is what a run finds that was killed after writing it.

    Args:
        folder: the run's folder.
        known: the stamps of files that need not be opened.
        ended: whether the run is over; it need not have a checkpoint then.

    Attributes:
        stamps: name → stamp of every file.
        files: name → file that is to be sent, and the others of its folder.

    Raises:
        OSError: no checkpoint, or a folder that changes all the time.
    """

    def __init__(self, folder: Path, known: Mapping[str, Stamp], ended: bool = False):
        for _ in range(_TRIES - 1):
            try:
                return self._open(folder, known, ended)
            except OSError:
                self.close()
        self._open(folder, known, ended)

    def _open(self, folder: Path, known: Mapping[str, Stamp], ended: bool):
        self.files: dict[str, BinaryIO] = {}
        names = [] if ended else [CHECKPOINT]
        names += [name for name in run_files(folder) if name not in names]
        for name in names:
            self.files[name] = open(folder / name, "rb")  # noqa: SIM115 -- closed by `close`
        opened = {name: os.fstat(file.fileno()) for name, file in self.files.items()}
        for name, status in opened.items():
            # A folder that is replaced meanwhile would be of two versions.
            if "/" in name and not os.path.samestat(status, (folder / name).stat()):
                raise OSError(f"{folder / name} was replaced")
        self.stamps = {name: _stamp(status) for name, status in opened.items()}
        changed = {_place(name) for name, stamp in self.stamps.items() if known.get(name) != stamp}
        for name in [name for name in self.files if _place(name) not in changed]:
            self.files.pop(name).close()

    def read(self, name: str, start: int, most: int) -> bytes:
        """A part of a file, no more than `most` bytes; empty at its end."""
        self.files[name].seek(start)
        return self.files[name].read(max(0, min(most, self.stamps[name][0] - start)))

    def close(self):
        """Closes the files."""
        for file in self.files.values():
            file.close()


def _place(name: str) -> str:
    return name.partition("/")[0]


@contextmanager
def arriving(folder: Path) -> Iterator[Path]:
    """A folder whose files and folders take their places in `folder` if the block ends well, the checkpoint last.

    Raises:
        OSError: one of them cannot be written.
    """
    with partial_folder(folder / "arriving") as new:
        yield new
        last = (CHECKPOINT, STATUS_FILE)
        for path in sorted(new.iterdir(), key=lambda path: path.name in last and 1 + last.index(path.name)):
            if path.is_dir():
                take_place(folder / path.name, path)
            else:
                sync_file(path)
                path.replace(folder / path.name)
