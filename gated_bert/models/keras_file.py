"""`.keras` files as they come from strangers: looked through before Keras builds and fills a model from them."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import h5py
import keras
import numpy as np

from gated_bert.support.arrays import check_members
from gated_bert.support.errors import UserError, one_line
from gated_bert.support.records import parse_record

_CONFIG, _ARRAYS = "config.json", "model.weights.h5"
_MOST_OBJECTS = 100_000
_COPIES = 4
"""Kernel, gates, mask and scores: most arrays of a matrix's shape that a layer stores."""
_BESIDE = 2**26
"""Bytes of names, headers and biases that no count of parameters knows of."""
_FAULTS = (zipfile.BadZipFile, OSError, ValueError, KeyError, RuntimeError, NotImplementedError, EOFError)


def read_keras(path: Path, kind: str, count: Callable[[dict], int], custom_objects: dict | None = None) -> keras.Model:
    """The model in a `.keras` file, its arrays held against its own sizes before any of them is read.

    Args:
        path: the file.
        kind: name under which its class is registered.
        count: gives the parameters of a model of such a configuration, or refuses it by a `UserError`.
        custom_objects: as for Keras.

    Raises:
        UserError: another class, sizes that do not fit the file, or a file that is not whole.
    """
    config = stored_config(path, kind)
    with stored_arrays(path, count(config)):
        pass
    try:
        return keras.saving.load_model(path, custom_objects=custom_objects, compile=False)
    # Whatever a configuration of wrong types makes Keras and the backend raise.
    except Exception as error:
        raise not_whole(path, error) from error


def stored_config(path: Path, kind: str) -> dict:
    """The configuration of the model in a `.keras` file.

    Raises:
        UserError: a file that is not whole, or another class.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            check_members(archive)
            text = archive.read(_CONFIG)
    except _FAULTS as error:
        raise not_whole(path, error) from error
    found = parse_record(text, where=f"{path}: {_CONFIG}")
    config = found.get("config")
    if found.get("registered_name") != kind or not isinstance(config, dict):
        raise UserError(f"{path}: holds {str(found.get('registered_name'))[:60]!r}, not {kind!r}; copy the model again")
    other = next(_objects(config), None)
    if other is not None:
        raise UserError(f"{path}: holds an object {str(other)[:60]!r} within the model, which has none; copy it again")
    return config


def _objects(values: object) -> Iterator[object]:
    """Names of what Keras would make beside the model, before its sizes are known: of all but types of numbers."""
    waiting = [values]
    while waiting:
        here = waiting.pop()
        waiting += here.values() if isinstance(here, dict) else here if isinstance(here, list) else ()
        if isinstance(here, dict) and {"class_name", "registered_name"} & here.keys():
            is_type = here.get("class_name") == "DTypePolicy" and here.get("registered_name") is None
            if not is_type:
                yield here.get("registered_name") or here.get("class_name")


@contextmanager
def stored_arrays(path: Path, parameters: int) -> Iterator[h5py.File]:
    """The arrays of a `.keras` file, each of which is stored whole in it, and nowhere else.

    Args:
        path: the file.
        parameters: what the architecture has of them; the file must hold these, and not many times more.

    Raises:
        UserError: a link, an array outside the file, packed, or larger than what is stored of it, or sizes that the
            architecture contradicts.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            check_members(archive)
            size = archive.getinfo(_ARRAYS).file_size
            low, high = 2 * parameters, 8 * _COPIES * parameters + _BESIDE
            if not low <= size <= high:
                raise ValueError(f"{size:,} bytes of arrays, and its sizes need {low:,} to {high:,}")
            with archive.open(_ARRAYS) as stream, h5py.File(stream) as file:
                _check_group(file, size)
                yield file
    except _FAULTS as error:
        raise not_whole(path, error) from error


def not_finite(path: Path, parameters: int) -> list[str]:
    """Names of the arrays in a `.keras` file that hold NaN or infinity; arguments and errors are `stored_arrays`'."""
    found = []
    with stored_arrays(path, parameters) as file:
        for name, dataset in _datasets(file):
            if dataset.dtype.kind == "f" and not np.isfinite(dataset[()]).all():
                found.append(name.lstrip("/"))
    return found


def faults_text(names: Sequence[str], most: int = 5) -> str:
    """What is wrong with arrays that are not finite, in one line."""
    more = f" and {len(names) - most} others" if len(names) > most else ""
    return f"NaN or infinite values in {', '.join(names[:most])}{more}"


def not_whole(path: Path, error: BaseException) -> UserError:
    """That a file is no whole model."""
    return UserError(f"{path}: not a whole model ({one_line(error)}); save or copy it again")


def _datasets(group: h5py.Group) -> Iterator[tuple[str, h5py.Dataset]]:
    """Every array below a group, without following a link."""
    waiting, seen = [group], 0
    while waiting:
        here = waiting.pop()
        for name in here:
            seen += 1
            if seen > _MOST_OBJECTS:
                raise ValueError(f"more than {_MOST_OBJECTS:,} arrays and groups")
            where = f"{here.name.rstrip('/')}/{name}"
            if not isinstance(here.get(name, getlink=True), h5py.HardLink):
                raise ValueError(f"{where} is a link")
            item = here[name]
            if isinstance(item, h5py.Group):
                waiting.append(item)
            elif isinstance(item, h5py.Dataset):
                yield where, item
            else:
                raise ValueError(f"{where} is neither array nor group")


def _check_group(file: h5py.File, size: int):
    total = 0
    for where, item in _datasets(file):
        if item.external or item.is_virtual:
            raise ValueError(f"{where} is stored outside the file")
        if item.chunks is not None or item.dtype.kind not in "fiubV" or item.shape is None:
            raise ValueError(f"{where} is packed, or holds no numbers")
        declared = math.prod(item.shape) * item.dtype.itemsize
        total += declared
        if declared != item.id.get_storage_size() or total > size:
            raise ValueError(f"{where} declares {declared:,} bytes, and {item.id.get_storage_size():,} are there")
