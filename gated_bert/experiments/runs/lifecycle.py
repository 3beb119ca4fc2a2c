"""How work that goes on after a stop says that it runs, and how it ended."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from gated_bert.support.disk import own

LOGGER = logging.getLogger("gated_bert")

RUNNING, FINISHED, STOPPED, FAILED = "running", "finished", "stopped", "failed"


@dataclass
class Work:
    """Work that is being done.

    Attributes:
        reached: what there is to say of it when it is finished.
    """

    reached: str = ""


@contextmanager
def lifecycle(
    write: Callable[[str, str], None],
    interrupted: Callable[[], str],
    failed: Callable[[BaseException], None] = lambda error: None,
) -> Iterator[Work]:
    """Writes the state of the work in the block: finished, stopped by a person, or failed with a message of one line.

    Args:
        write: writes a state and a sentence.
        interrupted: makes of what is there what can be made of it, and says what that is.
        failed: called with what went wrong, after it was written.

    Raises:
        KeyboardInterrupt: stopped; its text is that sentence.
    """
    work = Work()
    try:
        yield work
    except KeyboardInterrupt:
        message = interrupted()
        write(STOPPED, message)
        raise KeyboardInterrupt(message) from None
    except BaseException as error:
        write(FAILED, f"{type(error).__name__}: {error}".splitlines()[0])
        failed(error)
        raise
    write(FINISHED, work.reached)


@contextmanager
def logged(path: Path) -> Iterator[None]:
    """Writes what is logged meanwhile to a file, after what is there."""
    handler = logging.FileHandler(own(path), encoding="utf-8", errors="backslashreplace")
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    LOGGER.addHandler(handler)
    LOGGER.setLevel(logging.DEBUG if os.environ.get("VERBOSE") == "2" else logging.INFO)
    LOGGER.propagate = False
    try:
        yield
    finally:
        LOGGER.removeHandler(handler)
        handler.close()
