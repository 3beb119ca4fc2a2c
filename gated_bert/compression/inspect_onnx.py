"""What is inside an ONNX file: operators, stored arrays, inputs and outputs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from gated_bert.compression.onnx_file import check_arrays, check_tensors
from gated_bert.support.errors import UserError, one_line, printable
from gated_bert.support.text_table import aligned

if TYPE_CHECKING:
    import onnx


def read_onnx(path: Path) -> onnx.ModelProto:
    """An ONNX file.

    Raises:
        UserError: it is none.
    """
    from onnx.external_data_helper import load_external_data_for_model

    model = check_tensors(path)
    try:
        load_external_data_for_model(model, str(path.parent))
    # What the library finds wrong with a file beside it has no error of its own.
    except Exception as error:
        raise UserError(f"{path}: not a whole ONNX file ({one_line(error)}); export it again") from error
    check_arrays(path, model)
    if not model.graph.node:
        raise UserError(f"{path}: no operator in it; not a whole ONNX file, export it again")
    return model


def operator_rows(model: onnx.ModelProto) -> list[dict[str, object]]:
    """A row per kind of operator, the most frequent first: `domain` (ai.onnx: the standard's), `operator`, `count`."""
    counts = Counter((node.domain or "ai.onnx", node.op_type) for node in model.graph.node)
    return [{"domain": domain, "operator": name, "count": count} for (domain, name), count in counts.most_common()]


def initializer_rows(model: onnx.ModelProto) -> list[dict[str, object]]:
    """A row per stored array, the largest first: `name`, `dtype`, `shape` (3x4), `values`, `nonzero` and `bytes`."""
    rows = []
    for tensor, array in _arrays(model):
        rows.append({"name": tensor.name, "dtype": str(array.dtype), "shape": "x".join(map(str, array.shape)),
                     "values": array.size, "nonzero": int(np.count_nonzero(array)), "bytes": array.nbytes})  # fmt: skip
    return sorted(rows, key=lambda row: (-row["bytes"], row["name"]))


def _arrays(model: onnx.ModelProto) -> Iterator[tuple[onnx.TensorProto, np.ndarray]]:
    from onnx import numpy_helper

    for tensor in model.graph.initializer:
        yield tensor, numpy_helper.to_array(tensor)


def onnx_nonzero(model: onnx.ModelProto) -> int:
    """Weights of an exported model that are not zero, those of 8 bits after rounding.

    Scales and zero points of quantised arrays, single numbers and whole numbers of 32 and 64 bits do not count.
    """
    arrays = {tensor.name: array for tensor, array in _arrays(model)}
    count = 0
    for name, array in arrays.items():
        zero = arrays.get(name.removesuffix("_quantized") + "_zero_point")
        is_weight = array.size > 1 and (array.dtype.kind == "f" or array.dtype.itemsize == 1)
        if is_weight and not name.endswith(("_scale", "_zero_point")):
            count += int(np.count_nonzero(array != zero if zero is not None and zero.dtype == array.dtype else array))
    return count


def onnx_text(model: onnx.ModelProto, operators: Sequence[dict], initializers: Sequence[dict], largest: int = 8) -> str:
    """Opsets, inputs and outputs, operators and initialisers of an ONNX file as text.

    Args:
        model: the file.
        operators: of `operator_rows`.
        initializers: of `initializer_rows`.
        largest: how many of the initialisers are listed.
    """
    maker = model.producer_name or "an unnamed tool"
    opsets = ", ".join(f"{each.domain or 'ai.onnx'} {each.version}" for each in model.opset_import)
    ends = [("input", *_end(each)) for each in model.graph.input if each.name not in _names(initializers)]
    ends += [("output", *_end(each)) for each in model.graph.output]
    kinds = [("dtype", "arrays", "values", "bytes", "share, %")]
    total = sum(row["bytes"] for row in initializers)
    for dtype in dict.fromkeys(row["dtype"] for row in initializers):
        rows = [row for row in initializers if row["dtype"] == dtype]
        size = sum(row["bytes"] for row in rows)
        kinds.append((dtype, f"{len(rows):,}", f"{sum(row['values'] for row in rows):,}", f"{size:,}",
                      f"{100 * size / max(total, 1):.1f}"))  # fmt: skip
    first = [("largest initialisers", "dtype", "shape", "bytes")]
    first += [(row["name"], row["dtype"], row["shape"], f"{row['bytes']:,}") for row in initializers[:largest]]
    nodes = [("operator", "domain", "count")]
    nodes += [(row["operator"], row["domain"], f"{row['count']:,}") for row in operators]
    nodes.append(("all", "", f"{sum(row['count'] for row in operators):,}"))
    return "\n\n".join(
        (printable(f"opset: {opsets}; made by {maker} {model.producer_version}".rstrip()),
         aligned(ends, left=4), aligned(nodes, left=2), aligned(kinds), aligned(first, left=3))
    )  # fmt: skip


def _names(rows: Sequence[dict]) -> set[str]:
    return {row["name"] for row in rows}


def _end(value: onnx.ValueInfoProto) -> tuple[str, str, str]:
    """Name, type and dimensions of an input or output; a dimension without a size is dynamic."""
    import onnx

    tensor = value.type.tensor_type
    dims = ", ".join(dim.dim_param or (str(dim.dim_value) if dim.HasField("dim_value") else "?")
                     for dim in tensor.shape.dim)  # fmt: skip
    known = onnx.TensorProto.DataType.values()
    kind = onnx.TensorProto.DataType.Name(tensor.elem_type).lower() if tensor.elem_type in known else "unknown"
    return value.name, kind, f"[{dims}]"
