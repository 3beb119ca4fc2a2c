"""Whether what a command is going to write can be written, told before anything is read or computed."""

from __future__ import annotations

import os

from gated_bert.support.errors import UserError
from gated_bert.support.paths import user_path

NAMES = ("output", "run_dir", "picked", "publish")
"""Flags that name what is written."""


def check_working_folder() -> None:
    """Refuses to work in a folder that is no more.

    Raises:
        UserError: it has been removed.
    """
    try:
        os.getcwd()
    except OSError:
        raise UserError("the working folder has been removed; change into one that is there") from None


def check_writable(label: str, name: str, is_folder: bool) -> None:
    """Refuses a folder or file that can neither be written nor be made.

    Args:
        label: the flag, for the message.
        name: the folder or file.
        is_folder: which of the two.

    Raises:
        UserError: the wrong one is there, or no place where it could be made.
    """
    try:
        path = user_path(name)
        if "\0" in name:
            raise ValueError("a NUL character is in it")
        place = next(each for each in (path, *path.absolute().parents) if each.exists())
        if is_folder and place == path and not place.is_dir():
            why = "a file is there"
        elif place != path and not place.is_dir():
            why = f"{place} is a file"
        elif place.is_dir() and not os.access(place, os.W_OK | os.X_OK):
            why = f"{place} cannot be written"
        else:
            return
    # A name that is too long, or that holds a NUL.
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or str(error)
    what = "folder" if is_folder else "file"
    raise UserError(f"{label}: {name!r:.200} is refused ({why}); allowed: a {what} that can be written or made")
