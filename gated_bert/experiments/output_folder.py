"""The folder of a sweep: writable, with room, used by one launcher, and never losing what was there."""

from __future__ import annotations

import fcntl
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from gated_bert.errors import UserError
from gated_bert.experiments.jobs import JOB_FILE, STATUS_FILE, Job
from gated_bert.experiments.resources import GIB, kept_disk, working_disk
from gated_bert.partial import LOCK, remove_leftovers_in

SAVED = "saved_results"
_FLAG = "-o/--output-dir"


@contextmanager
def locked(output: Path) -> Iterator[None]:
    """Makes `output`, a folder of one run or of several, and holds its lock, so that no two ever write into it.

    Raises:
        UserError: it cannot be written, or another process uses it.
    """
    made = not output.exists()
    try:
        output.mkdir(parents=True, exist_ok=True)
        file = open(output / LOCK, "a+")
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
        # A launcher writes these of its jobs, which hold the lock.
        remove_leftovers_in(output, held=True, shared=(JOB_FILE, STATUS_FILE))
        try:
            yield
        finally:
            # A sweep that was refused leaves no folder behind.
            if made and [path.name for path in output.iterdir()] == [LOCK]:
                shutil.rmtree(output)


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
    for folder in there:
        remove_leftovers_in(folder)
    made = [path for path in output.iterdir() if path.is_file() and path.suffix in (".csv", ".png", ".html")]
    for path in [*there, *made]:
        os.replace(path, place / path.name)
    return place
