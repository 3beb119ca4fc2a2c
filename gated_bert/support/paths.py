"""Paths as users type them, and names of files made from what users call things."""

from __future__ import annotations

import hashlib
import json
import os
import re
from decimal import Decimal
from pathlib import Path

from gated_bert.support.errors import UserError

MOVED_VARIABLE = "GATED_BERT_MOVED"
"""Set where the folder of the results is another than in the records, as on a node without a shared disk: both, as a
list in JSON."""
LONGEST_NAME = 60
"""Letters of a part of a file's name; file systems take 255 bytes, and several parts and an ending go into one name."""


def user_path(word: str | os.PathLike[str]) -> Path:
    """The path that a user means, `~` and `~name` put in full; of what has moved, where it is now.

    Raises:
        UserError: there is no such user.
    """
    try:
        return _moved(Path(word).expanduser())
    except RuntimeError as error:
        raise UserError(f"{word}: no home folder is known for {Path(word).parts[0]}; give the folder's path") from error


def _moved(path: Path) -> Path:
    if MOVED_VARIABLE not in os.environ:
        return path
    before, now = json.loads(os.environ[MOVED_VARIABLE])
    return Path(now) / path.relative_to(before) if path.is_relative_to(before) else path


def file_name(text: str, longest: int = LONGEST_NAME) -> str:
    """A part of a file's name: letters, digits and `_.-`; what is longer is cut, and told apart by a digest."""
    plain = re.sub(r"[^\w.\-]+", "_", text)
    if len(plain.encode("utf-8", "backslashreplace")) <= longest:
        return plain
    digest = hashlib.sha256(text.encode("utf-8", "backslashreplace")).hexdigest()[:8]
    kept = plain.encode("utf-8", "ignore")[: longest - 9].decode("utf-8", "ignore")
    return f"{kept}_{digest}"


def number_name(value: float) -> str:
    """A number in a file's name: 20, 91.4, 0.00001; with as many of its first twelve digits as it has."""
    return f"{Decimal(f'{value:.12g}'):f}"


def cache_folder() -> Path:
    """Where derived files are kept between runs: `gated_bert` in XDG_CACHE_HOME or ~/.cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "gated_bert"
