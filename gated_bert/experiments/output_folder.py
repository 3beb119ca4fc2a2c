"""The folder of a sweep: writable, with room, used by one launcher, and never losing what was there."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from gated_bert.errors import UserError
from gated_bert.experiments.jobs import LOG_FILE, STATUS_FILE, Job
from gated_bert.experiments.resources import GIB, kept_disk, working_disk

SAVED = "saved_results"
_FLAG = "-o/--output-dir"


@contextmanager
def locked(output: Path) -> Iterator[None]:
    """Makes `output`, a folder of one run or of several, and holds its lock, so that no two ever write into it.

    Raises:
        UserError: it cannot be written, or another process uses it.
    """
    made = [path for path in (output, *output.parents) if not path.exists()]
    try:
        output.mkdir(parents=True, exist_ok=True)
        file = open(output / ".lock", "a+")
    except OSError as error:
        raise UserError(f"{_FLAG}: {output} cannot be written ({error.strerror}); choose another folder") from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            owner = file.read().strip()
            raise UserError(f"{_FLAG}: {output} is in use by another run (process {owner or 'unknown'}); "
                            "wait for it, or choose another folder") from None  # fmt: skip
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        try:
            yield
        finally:
            # What was refused leaves no folder behind.
            if made and [path.name for path in output.iterdir()] == [".lock"]:
                shutil.rmtree(output)
                with contextlib.suppress(OSError):
                    for path in made[1:]:
                        path.rmdir()


class Before:
    """What a run's folder held, to be put back where the run is refused before it has begun.

    Args:
        folder: the folder, whose lock is held.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self._sizes = {path.name: path.stat().st_size for path in folder.iterdir() if path.is_file()}
        status = folder / STATUS_FILE
        self._status = status.read_bytes() if STATUS_FILE in self._sizes else b""

    def restore(self):
        """Removes new files, cuts off what was added to the log, and puts the status back."""
        for path in self.folder.iterdir():
            if path.is_file() and path.name not in self._sizes and path.name != ".lock":
                path.unlink()
        if LOG_FILE in self._sizes:
            os.truncate(self.folder / LOG_FILE, self._sizes[LOG_FILE])
        if STATUS_FILE in self._sizes:
            (self.folder / STATUS_FILE).write_bytes(self._status)


def check_room(output: Path, jobs: Sequence[Job], slots: int):
    """Refuses a sweep whose models do not fit on the disk.

    Args:
        output: its folder.
        jobs: what it is going to run.
        slots: how many of them at a time.

    Raises:
        UserError: too little space.
    """
    working = sorted((working_disk(job.config) for job in jobs), reverse=True)[:slots]
    need, free = sum(kept_disk(job.config) for job in jobs) + sum(working), shutil.disk_usage(output).free
    if free < need:
        raise UserError(f"{_FLAG}: {output} has {free / GIB:.2f} GiB of free space, and {len(jobs)} job(s) need about "
                        f"{need / GIB:.2f} GiB; free some, or choose another folder")  # fmt: skip


def set_aside(output: Path, folders: Sequence[Path]) -> Path | None:
    """Moves earlier runs, and the comparison made of them, to `saved_results/{timestamp}/`.

    Returns:
        Where they are now; `None` if there were none.
    """
    there = [folder for folder in folders if folder.exists()]
    if not there:
        return None
    place = output / SAVED / time.strftime("%Y%m%d-%H%M%S")
    while place.exists():
        place = place.with_name(place.name + "-again")
    place.mkdir(parents=True)
    made = [path for path in output.iterdir() if path.is_file() and path.suffix in (".csv", ".png", ".html")]
    for path in [*there, *made]:
        os.replace(path, place / path.name)
    return place
