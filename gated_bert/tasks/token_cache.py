"""What was tokenised, kept between runs by a digest of texts and tokeniser; and how such files are kept."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from gated_bert.support.arrays import DAMAGED, read_npz
from gated_bert.support.errors import UserError
from gated_bert.support.files import replaced_file
from gated_bert.support.paths import cache_folder
from gated_bert.tasks.encoded import IDS, Encoded

CACHED_FROM = 1000
"""Texts from which the cache is used: fewer are tokenised faster than a file is opened."""
_OFFSETS = "offsets"


def cache_file(how: str, texts: Sequence[str], pairs: Sequence[str] | None) -> Path:
    """The file of texts that were encoded in one way.

    Args:
        how: all that decides how texts are encoded.
        texts: first texts.
        pairs: second texts, or None.
    """
    digest = hashlib.sha256(how.encode())
    for column in (texts, pairs or ()):
        for text in column:
            data = text.encode()
            digest.update(b"%d:" % len(data))
            digest.update(data)
        digest.update(b"|")
    return cache_folder() / "tokens" / f"{digest.hexdigest()}.npz"


def read_cache(path: Path, rows: int, names: Sequence[str], tokens: int, pad_id: int) -> Encoded | None:
    """What is kept; None where there is nothing whole.

    Args:
        path: of `cache_file`.
        rows: examples.
        names: the inputs that each token has a value of.
        tokens: the tokeniser's; ids are below.
        pad_id: token id of the padding, which is not kept.
    """
    try:
        arrays = read_npz(path)
    except DAMAGED:
        return None
    if arrays.keys() != {*names, _OFFSETS}:
        return None
    if not all(array.ndim == 1 and array.dtype.kind == "i" for array in arrays.values()):
        return None
    encoded = Encoded({name: arrays[name] for name in names}, arrays[_OFFSETS], pad_id)
    # A file of another's, whose places or ids lie outside, is made again.
    whole = len(encoded) == rows and encoded.offsets[0] == 0 and (encoded.lengths >= 0).all()
    whole = whole and {len(values) for values in encoded.inputs.values()} == {int(encoded.offsets[-1])}
    return encoded if whole and _ids_below(encoded.inputs[IDS], tokens) else None


def _ids_below(ids: np.ndarray, tokens: int) -> bool:
    return not len(ids) or (ids.min() >= 0 and ids.max() < tokens)


def write_cache(path: Path, encoded: Encoded) -> None:
    """Keeps what was encoded; a folder that cannot be written to is no fault."""
    arrays: dict[str, Any] = {**encoded.inputs, _OFFSETS: encoded.offsets}
    keep(path, lambda file: np.savez(file, **arrays))


def keep(path: Path, write: Callable[[BinaryIO], None]) -> None:
    """Keeps a derived file, as a whole or not at all; a folder that cannot be written to is no fault.

    Args:
        path: the file, below `cache_folder`.
        write: writes its content into an open file.
    """
    try:
        with replaced_file(path) as file:
            write(file)
    except UserError:
        # The cache saves time only: a home folder that cannot be written to must not stop a run.
        return
