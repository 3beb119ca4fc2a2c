"""Files of a folder from elsewhere: nothing outside of it is read, wherever links in it lead."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import BinaryIO


def open_inside(path: Path, root: Path) -> BinaryIO:
    """Opens a file for reading.

    Args:
        path: the file.
        root: the folder; links inside of it are followed, also that to itself.

    Raises:
        OSError: no file, none that is regular, or one that a link leads to outside of the folder.
    """
    try:
        place = path.resolve()
    except RuntimeError as error:
        # What Python before 3.13 says of a link to itself.
        raise OSError(f"{path} leads nowhere: {error}") from error
    if not place.is_relative_to(root.resolve()):
        raise PermissionError(f"{path} leads out of {root}")
    # A link that takes the file's place meanwhile is not followed, and a pipe holds nothing up.
    number = os.open(place, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
    if not stat.S_ISREG(os.fstat(number).st_mode):
        # By itself `open` leaves a folder's number open.
        os.close(number)
        raise OSError(f"{path} is no regular file")
    return open(number, "rb")
