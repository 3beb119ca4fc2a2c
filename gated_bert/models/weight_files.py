"""The tensors of foreign checkpoints: one safetensors file or several, or PyTorch's own format."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from gated_bert.models.checkpoint_checks import check_type
from gated_bert.models.torch_file import as_safetensors
from gated_bert.support.errors import UserError, one_line
from gated_bert.support.records import read_record
from gated_bert.support.weight_schemas import WeightIndex

SAFETENSORS = "model.safetensors"
TORCH = "pytorch_model.bin"
INDEX = ".index.json"
WEIGHT_FILES = (SAFETENSORS, f"{SAFETENSORS}{INDEX}", TORCH, f"{TORCH}{INDEX}")
"""Where a folder holds its weights, the first that is there; an index names the files that hold them in parts."""
_FLOATS = ("F32", "F16", "BF16", "F64")


def find_weights(folder: Path) -> Path | None:
    """The first of `WEIGHT_FILES` in a folder; None where there is none."""
    return next((folder / name for name in WEIGHT_FILES if (folder / name).is_file()), None)


def kind_of(path: Path) -> str:
    """What messages call one of `WEIGHT_FILES`."""
    return "safetensors file" if SAFETENSORS in path.name else "file of PyTorch"


def parts_of(path: Path) -> list[Path]:
    """The files that hold the tensors of one of `WEIGHT_FILES`.

    Raises:
        UserError: a malformed index, or one that names what is no file beside it.
    """
    if not path.name.endswith(INDEX):
        return [path]
    parts = [path.parent / name for name in part_names(path)]
    for part in parts:
        if not part.is_file():
            raise UserError(f"{path.parent}: no {part.name} in it, which {path.name} names; fetch it again")
    return parts


def part_names(index: Path) -> list[str]:
    """The names of the files in an index.

    Raises:
        UserError: a malformed file, or a name that is none of a file beside it.
    """
    record = read_record(index, WeightIndex, remedy="fetch it again", file_names=False)
    names = sorted(set(record["weight_map"].values()))
    wrong = [name for name in names if Path(name).name != name]
    if wrong or not names:
        named = repr(wrong[0])[:80] if wrong else "no file"
        raise UserError(f"{index}: names {named}; allowed: files beside it; fetch it again")
    return names


class Tensors:
    """Open tensors by name.

    Args:
        path: the file that was named, for messages.
        files: name of a tensor → the open safetensors file that holds it.
    """

    def __init__(self, path: Path, files: Mapping[str, Any]):
        self._path, self._files = path, files

    @property
    def names(self) -> list[str]:
        """The names of all tensors."""
        return list(self._files)

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor."""
        return tuple(self._files[name].get_slice(name).get_shape())

    def array(self, name: str) -> np.ndarray:
        """A tensor as float32.

        Raises:
            UserError: it holds no floating-point numbers.
        """
        check_type(f"{self._path}: {name}", self._files[name].get_slice(name).get_dtype(), _FLOATS)
        return np.asarray(self._files[name].get_tensor(name), dtype=np.float32)


@contextlib.contextmanager
def opened(path: Path) -> Iterator[Tensors]:
    """The tensors of one of `WEIGHT_FILES`.

    Raises:
        UserError: a truncated or malformed file, also where it is found so in the block, or PyTorch's without PyTorch.
    """
    from safetensors import SafetensorError, safe_open

    files: dict[str, Any] = {}
    with contextlib.ExitStack() as stack:
        part = path
        try:
            for part in parts_of(path):
                readable = part if part.suffix == ".safetensors" else as_safetensors(part)
                file = stack.enter_context(safe_open(readable, framework="numpy"))
                files |= dict.fromkeys(file.keys(), file)
            part = path
            yield Tensors(path, files)
        except (SafetensorError, OSError) as error:
            raise UserError(f"{part}: not a whole safetensors file ({one_line(error)}); fetch it again") from error
