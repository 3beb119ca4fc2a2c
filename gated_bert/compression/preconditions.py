"""Whether a command can start, told with the standard library alone."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from numbers import Real
from pathlib import Path

from gated_bert.support.errors import UserError
from gated_bert.support.partial import remove_leftovers

PRECISIONS = ("int8", "fp16", "int8-static")
"""What an exported model of 32 bits can be quantised to."""
PRECISIONS_OF = {"fused": ("int8", "fp16"), "tiled": ("fp16",)}
"""Graph → those of `PRECISIONS` that it can be quantised to, where that is not all."""
RUNTIMES, SERVED_PRECISIONS, SERVED_GRAPHS = ("onnx", "keras"), ("fp32", "int8"), ("fused", "standard")
"""What predictions whose time counts are made by."""


def speed_targets(speedups: Sequence[float]) -> list[float]:
    """Speeds that are asked for, rising, each once as the names of folders tell them apart.

    Raises:
        UserError: anything but numbers above 1.
    """
    given = [] if isinstance(speedups, str) or not isinstance(speedups, Iterable) else list(speedups)
    found = {as_target(each) for each in given}
    if not found or None in found:
        raise UserError(f"speedups: {given or speedups!r} is refused; allowed: numbers above 1, e.g. [2, 4]")
    return sorted(filter(None, found))


def as_target(number: object) -> float | None:
    """A speed as the names of folders have it; None of what is no number above 1."""
    if not isinstance(number, Real):
        return None
    try:
        rounded = float(f"{float(number):g}")
    except OverflowError:
        return None
    return rounded if 1 < rounded < math.inf else None


def check_folders(source: Path, out: Path) -> None:
    """Refuses a model that is not there, and an output folder that holds something.

    Args:
        source: folder of the model.
        out: folder to be made.

    Raises:
        UserError: one of these.
    """
    if not source.is_dir():
        raise UserError(f"{source}: no such folder; give a model folder, or a Hugging Face folder")
    _refuse_run(source)
    remove_leftovers(out)
    if out.is_dir() and any(out.iterdir()):
        raise UserError(f"{out}: not empty; choose another folder, or remove what is in it")


def check_model(source: Path) -> None:
    """Refuses what is neither a folder nor an ONNX file.

    Args:
        source: the model.

    Raises:
        UserError: it is not there, another file, or the folder of a whole run.
    """
    if not source.exists():
        raise UserError(f"{source}: no such file or folder; give a model folder or an ONNX file")
    _refuse_run(source)
    if source.is_file() and source.suffix != ".onnx":
        raise UserError(f"{source}: no model; give a model folder or an ONNX file, NAME.onnx")


def has_utf8_name(path: Path) -> bool:
    """Whether a path is UTF-8, as native libraries want it."""
    try:
        path.as_posix().encode()
    except UnicodeEncodeError:
        return False
    return True


def session_source(path: Path) -> str | bytes:
    """What ONNX Runtime opens a file by: its name, or its content where the name is not UTF-8."""
    return str(path) if has_utf8_name(path) else path.read_bytes()


def check_file(out: Path) -> None:
    """Refuses a file to be written that is there already.

    Raises:
        UserError: it is.
    """
    # Also where it is refused: a process may have been killed when all but its tidying up was done.
    remove_leftovers(out)
    if out.exists():
        raise UserError(f"{out}: is there already; choose another name, or remove it")


def _refuse_run(source: Path):
    if (source / "model" / "model.keras").is_file() and not (source / "model.keras").is_file():
        raise UserError(f"{source}: the folder of a run; give its model, {source / 'model'}")
