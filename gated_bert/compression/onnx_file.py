"""ONNX files as they come from strangers: what their arrays declare, held against what is stored."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from gated_bert.support.errors import UserError, one_line

if TYPE_CHECKING:
    import onnx

_MOST_GRAPHS = 10_000
_PACKED = (21, 22, 23, 25, 26, 27, 28)
"""ONNX's numbers of the types of less than 8 bits, several of which share a byte."""


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
    for tensor in _tensors(model.graph, path):
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            _check_external(path, tensor)
        elif tensor.raw_data:
            _check_size(path, tensor)
    return model


def not_finite(model: onnx.ModelProto) -> list[str]:
    """Names of the stored arrays of more than one number that hold NaN or infinity."""
    from onnx import numpy_helper

    found = []
    for tensor in model.graph.initializer:
        array = numpy_helper.to_array(tensor)
        if array.size > 1 and array.dtype.kind == "f" and not np.isfinite(array).all():
            found.append(tensor.name)
    return found


def _tensors(graph: onnx.GraphProto, path: Path) -> Iterator[onnx.TensorProto]:
    waiting, seen = [graph], 0
    while waiting:
        here = waiting.pop()
        seen += 1
        if seen > _MOST_GRAPHS:
            raise UserError(f"{path}: more than {_MOST_GRAPHS:,} graphs in one another; export it again")
        yield from here.initializer
        for each in here.sparse_initializer:
            yield from (each.values, each.indices)
        for node in here.node:
            for attribute in node.attribute:
                yield from (*([attribute.t] if attribute.HasField("t") else []), *attribute.tensors)
                waiting += [*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs]


def _check_size(path: Path, tensor: onnx.TensorProto):
    from onnx import helper

    try:
        size = helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
    except (KeyError, ValueError, TypeError) as error:
        raise UserError(f"{path}: {tensor.name} is of an unknown type; export it again") from error
    count = math.prod(tensor.dims)
    stored = len(tensor.raw_data)
    fits = count <= 4 * stored if tensor.data_type in _PACKED else count * size == stored
    if not fits or any(dim < 0 for dim in tensor.dims):
        raise UserError(f"{path}: {tensor.name} declares {count:,} values, and {stored:,} bytes are there; "
                        "export it again")  # fmt: skip


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
