"""ONNX files as they come from strangers: what their arrays declare, held against what is stored."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from gated_bert.compression.preconditions import has_utf8_name
from gated_bert.support.errors import UserError, one_line

if TYPE_CHECKING:
    import onnx

LARGEST = 2**31 - 2**24
"""Bytes of stored arrays that one ONNX file takes: protobuf has 2 GiB for a message, and nodes need some of it too."""
_MOST_GRAPHS = 10_000
_PACKED = (21, 22, 23, 25, 26, 27, 28)
"""ONNX's numbers of the types of less than 8 bits, several of which share a byte."""


def fits(size: int) -> bool:
    """Whether arrays of so many bytes go into one file."""
    return size <= LARGEST


def data_file(path: Path) -> Path:
    """Where the arrays of an ONNX file stand that is too large for one, by the name that optimum looks for."""
    return path.with_name(f"{path.name}_data")


def weight_files(path: Path) -> list[Path]:
    """The ONNX file and, where there is one, that of its arrays."""
    return [each for each in (path, data_file(path)) if each == path or each.is_file()]


def save_onnx(model: onnx.ModelProto, path: Path) -> None:
    """Writes an ONNX file, with its arrays in a second one where they are larger than `LARGEST`; these leave `model`.

    Raises:
        UserError: a name for two files that no ONNX file could hold.
    """
    import onnx

    if fits(sum(len(tensor.raw_data) for tensor in model.graph.initializer)):
        onnx.save(model, path)
        return
    if not has_utf8_name(path):
        raise UserError(f"{path}: its arrays go into a second file, and an ONNX file names none that is not UTF-8; "
                        "choose another name")  # fmt: skip
    # Whoever goes on where there is one adds to it.
    data_file(path).unlink(missing_ok=True)
    onnx.save(model, path, save_as_external_data=True, location=data_file(path).name)


def check_saved(model: onnx.ModelProto, path: Path) -> None:
    """Holds what `save_onnx` has written against the standard, by ONNX's own checker."""
    import onnx

    onnx.checker.check_model(str(path) if data_file(path).is_file() else model, full_check=True)


def check_tensors(path: Path) -> onnx.ModelProto:
    """The ONNX file without the data that it keeps in other files, which must lie in its own folder.

    Raises:
        UserError: no ONNX file, an array of another size than it declares, or data outside its folder.
    """
    import onnx
    from google.protobuf.message import DecodeError

    try:
        model = onnx.load(str(path), load_external_data=False)
    except (DecodeError, OSError, ValueError) as error:
        raise UserError(f"{path}: not a whole ONNX file ({one_line(error)}); export it again") from error
    check_arrays(path, model)
    return model


def check_arrays(path: Path, model: onnx.ModelProto) -> None:
    """Refuses stored arrays that cannot be read; of those that are kept in other files, where these lie.

    Raises:
        UserError: as of `check_tensors`.
    """
    import onnx

    for tensor in _tensors(model, path):
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            _check_external(path, tensor)
        else:
            _check_size(path, tensor)


def not_finite(model: onnx.ModelProto) -> list[str]:
    """Names of the stored arrays of more than one number that hold NaN or infinity."""
    from onnx import numpy_helper

    found = []
    for tensor in model.graph.initializer:
        array = numpy_helper.to_array(tensor)
        if array.size > 1 and array.dtype.kind == "f" and not np.isfinite(array).all():
            found.append(tensor.name)
    return found


def _tensors(model: onnx.ModelProto, path: Path) -> Iterator[onnx.TensorProto]:
    waiting, seen = [model.graph, *model.functions], 0
    while waiting:
        here = waiting.pop()
        seen += 1
        if seen > _MOST_GRAPHS:
            raise UserError(f"{path}: more than {_MOST_GRAPHS:,} graphs in one another; export it again")
        # A function has neither.
        yield from getattr(here, "initializer", ())
        sparse = [*getattr(here, "sparse_initializer", ())]
        for node in here.node:
            for attribute in node.attribute:
                yield from (*([attribute.t] if attribute.HasField("t") else []), *attribute.tensors)
                sparse += [*([attribute.sparse_tensor] if attribute.HasField("sparse_tensor") else []),
                           *attribute.sparse_tensors]  # fmt: skip
                waiting += [*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs]
        for each in sparse:
            yield from (each.values, each.indices)


def _check_size(path: Path, tensor: onnx.TensorProto):
    from onnx import helper, numpy_helper

    try:
        size = helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
    except (KeyError, ValueError, TypeError) as error:
        raise UserError(f"{path}: {tensor.name} is of an unknown type; export it again") from error
    count = math.prod(tensor.dims)
    stored = len(tensor.raw_data)
    fits = count <= 4 * stored if tensor.data_type in _PACKED else count * size == stored
    if any(dim < 0 for dim in tensor.dims) or (tensor.HasField("raw_data") and not fits):
        raise UserError(f"{path}: {tensor.name} declares {count:,} values, and {stored:,} bytes are there; "
                        "export it again")  # fmt: skip
    try:
        # Of bytes a view; what is kept number by number is small, or its dimensions do not fit it.
        numpy_helper.to_array(tensor)
    except (ValueError, KeyError, TypeError, NotImplementedError) as error:
        raise UserError(f"{path}: {tensor.name} cannot be read ({one_line(error)}); export it again") from error


def _check_external(path: Path, tensor: onnx.TensorProto):
    folder = path.parent.resolve()
    place = next((each.value for each in tensor.external_data if each.key == "location"), "")
    try:
        inside = bool(place) and (folder / place).resolve().is_relative_to(folder)
    except (OSError, ValueError):
        inside = False
    if not inside:
        raise UserError(f"{path}: {tensor.name} is kept in {place[:80]!r}, outside the file's folder; copy it there, "
                        "or export it again")  # fmt: skip
