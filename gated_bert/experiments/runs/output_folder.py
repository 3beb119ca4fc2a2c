"""The folder of a sweep: writable, with room, used by one launcher, and never losing what was there."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from gated_bert.experiments.reports.run_layout import CHECKPOINT, JOB_FILE, LOG_FILE, STATUS_FILE
from gated_bert.support.checks import ConfigError
from gated_bert.support.environ import verbosity
from gated_bert.support.errors import UserError
from gated_bert.support.lock import LOCK, InUseError, check_free, lock_folder
from gated_bert.support.partial import remove_leftovers_in

SAVED = "saved_results"
OUTPUT = "-o/--output-dir"


@contextmanager
def locked(output: Path, flag: str = OUTPUT) -> Iterator[None]:
    """Makes `output`, a folder of one run or of several, and holds its lock, so that no two ever write into it.

    Args:
        output: the folder.
        flag: what named it, for messages.

    Raises:
        UserError: it cannot be written, or another process uses it.
    """
    made = [path for path in (output, *output.parents) if not path.exists()]
    try:
        output.mkdir(parents=True, exist_ok=True)
        lock = lock_folder(output)
    except InUseError as error:
        raise _in_use(output, error, flag) from None
    except OSError as error:
        raise UserError(f"{flag}: {output} cannot be written ({error.strerror}); choose another folder") from None
    try:
        # A launcher writes these of its jobs, which hold the lock.
        remove_leftovers_in(output, held=True, shared=(JOB_FILE, STATUS_FILE))
        yield
    finally:
        unused = made and [path.name for path in output.iterdir()] == [LOCK]
        # Windows removes no file that is open; elsewhere nobody may take the lock of what is going to be removed.
        if os.name == "nt":
            lock.release()
        # What was refused leaves no folder behind.
        if unused:
            shutil.rmtree(output)
            with contextlib.suppress(OSError):
                for path in made[1:]:
                    path.rmdir()
        lock.release()


@contextmanager
def opened_run(folder: Path, resume: bool, flag: str = OUTPUT) -> Iterator[None]:
    """The folder of a run, locked; without `resume` what was there is set aside, and put back if the block is refused.

    Args:
        folder: the run's folder.
        resume: whether the run goes on with what is there.
        flag: what named the folder, for messages.

    Raises:
        UserError: it cannot be written or moved, or another process uses it.
    """
    aside = None if resume else set_run_aside(folder, flag)
    note_set_aside(f"the earlier results in {folder}", aside)
    try:
        with locked(folder, flag):
            yield
    except (UserError, ConfigError):
        # Where a run has begun, its folder is there.
        if aside is not None and not folder.exists():
            os.replace(aside / folder.name, folder)
            with contextlib.suppress(OSError):
                aside.rmdir()
                aside.parent.rmdir()
            say_note(f"no run was begun: the earlier results are in {folder} again")
        raise


@contextmanager
def unchanged_if_refused(folder: Path, has_begun: Callable[[], bool]) -> Iterator[None]:
    """Removes new files, cuts off what was added to the log, and puts the status back where the block is refused.

    Args:
        folder: the run's folder, whose lock is held.
        has_begun: whether the run has got so far that its files stay.
    """
    sizes = {path.name: path.stat().st_size for path in folder.iterdir() if path.is_file()}
    status = (folder / STATUS_FILE).read_bytes() if STATUS_FILE in sizes else b""
    try:
        yield
    except (UserError, ConfigError):
        # A launcher, which wrote the job's record, tells what became of it from these files.
        if has_begun() or (folder / JOB_FILE).exists():
            raise
        for path in folder.iterdir():
            if path.is_file() and path.name not in sizes and path.name != LOCK:
                path.unlink()
        if LOG_FILE in sizes:
            os.truncate(folder / LOG_FILE, sizes[LOG_FILE])
        if STATUS_FILE in sizes:
            (folder / STATUS_FILE).write_bytes(status)
        raise


def check_unused(folder: Path, flag: str = OUTPUT):
    """Refuses a folder that another process holds the lock of.

    Args:
        folder: the folder.
        flag: what named it, for messages.

    Raises:
        UserError: names the process.
    """
    try:
        check_free(folder)
    except InUseError as error:
        raise _in_use(folder, error, flag) from None


def _in_use(folder: Path, error: InUseError, flag: str) -> UserError:
    return UserError(f"{flag}: {folder} is in use by another run (process {error.owner}); wait for it, or choose "
                     "another folder")  # fmt: skip


def set_aside(
    output: Path, folders: Sequence[Path], made_of_them: bool = True, flag: str = OUTPUT
) -> Path | None:
    """Moves what earlier commands left to `saved_results/{timestamp}/`.

    Args:
        output: the folder that `saved_results` is in.
        folders: folders, or files, in `output` that are going to be made anew.
        made_of_them: whether the tables, plots and pages in `output` are made anew, too.
        flag: what named the folder, for messages.

    Returns:
        Where they are now; `None` if there were none.

    Raises:
        UserError: one of them is in use, or cannot be moved.
    """
    there = [folder for folder in folders if folder.exists()]
    if not there:
        return None
    for folder in there:
        check_unused(folder, flag)
    place = output / SAVED / time.strftime("%Y%m%d-%H%M%S")
    while place.exists():
        place = place.with_name(place.name + "-again")
    tables = [path for path in output.iterdir() if path.is_file() and path.suffix in (".csv", ".png", ".html")]
    try:
        place.mkdir(parents=True)
        for folder in there:
            remove_leftovers_in(folder)
        for path in [*there, *tables * made_of_them]:
            os.replace(path, place / path.name)
    except OSError as error:
        raise UserError(f"{flag}: what is in {output} cannot be moved to {place} ({error.strerror}); choose another "
                        "folder") from None  # fmt: skip
    return place


def set_run_aside(folder: Path, flag: str = OUTPUT) -> Path | None:
    """Moves the run in `folder` to `saved_results/{timestamp}/` beside it, as a sweep does with its earlier runs.

    A folder with nothing but a log, a status and a record, as launchers make it for a job, stays.

    Returns:
        Where it is now; None if there was none.

    Raises:
        UserError: it is in use, or cannot be moved.
    """
    holds_run = (folder / CHECKPOINT).exists() or any(folder.glob("results_*.csv")) or any(folder.glob("model*"))
    return set_aside(folder.parent, [folder], False, flag) if holds_run else None


def set_tables_aside(output: Path, names: Sequence[str]):
    """Moves tables and plots that are going to be made anew to `saved_results/{timestamp}/`, and says so."""
    place = set_aside(output, [output / name for name in names], made_of_them=False)
    note_set_aside(f"the earlier tables in {output}", place)


def note_set_aside(what: str, place: Path | None):
    """Says where what was there before is now."""
    if place is not None:
        say_note(f"{what} are now in {place}; --resume would have gone on with them")


def say_note(note: str):
    """Prints a sentence that VERBOSE=0 keeps back."""
    if verbosity(os.environ):
        print(f"note: {note}", flush=True)
