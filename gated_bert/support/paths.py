"""Paths as users type them, and names of files made from what users call things."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path

from gated_bert.support.errors import UserError

LONGEST_NAME = 60
"""Letters of a part of a file's name; file systems take 255 bytes, and several parts and an ending go into one name."""


def user_path(word: str | os.PathLike[str]) -> Path:
    """The path that a user means, `~` and `~name` put in full.

    Raises:
        UserError: there is no such user.
    """
    try:
        return Path(word).expanduser()
    except RuntimeError as error:
        raise UserError(f"{word}: no home folder is known for {Path(word).parts[0]}; give the folder's path") from error


def file_name(text: str, longest: int = LONGEST_NAME) -> str:
    """A part of a file's name: letters, digits and `_.-`; what is longer is cut, and told apart by a digest."""
    plain = re.sub(r"[^\w.\-]+", "_", text)
    if len(plain.encode("utf-8", "backslashreplace")) <= longest:
        return plain
    digest = hashlib.sha256(text.encode("utf-8", "backslashreplace")).hexdigest()[:8]
    kept = plain.encode("utf-8", "ignore")[: longest - 9].decode("utf-8", "ignore")
    return f"{kept}_{digest}"
