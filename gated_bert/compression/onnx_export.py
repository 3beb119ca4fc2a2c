"""`gated-bert export MODEL OUT.onnx`: an ONNX file that computes what the model computes."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gated_bert.compression.onnx_file import check_saved, data_file, fits, save_onnx, weight_files
from gated_bert.compression.onnx_fused import fused_graph
from gated_bert.compression.onnx_model import TASK_PROPERTY, beside, open_model, write_record
from gated_bert.compression.onnx_standard import standard_graph
from gated_bert.compression.onnx_tiled import tiled_graph
from gated_bert.compression.parity import (
    CHECKED,
    TOLERANCE,
    check_inputs,
    in_float32,
    largest_difference,
    refuse_not_finite,
)
from gated_bert.compression.source import load_source
from gated_bert.models.folder import LoadedModel
from gated_bert.support.errors import UserError, one_line
from gated_bert.support.partial import partial_folder

GRAPHS = {"standard": standard_graph, "fused": fused_graph, "tiled": tiled_graph}
"""Name of a kind of graph → what makes it of a model."""


def export_onnx(out: str | Path, loaded: LoadedModel, graph: str = "standard") -> float:
    """Writes a model as an ONNX file, with its record and its tokeniser beside it.

    The file is checked whole by ONNX's checker, and its logits are compared with the model's.

    Args:
        out: the file to be written.
        loaded: the model, with its tokeniser and task.
        graph: `standard`, of operators that every runtime has; `fused`, of ONNX Runtime's own; or `tiled`, fused
            with tile-wise products.

    Returns:
        The largest difference between a logit of the file and of the model.

    Raises:
        UserError: logits that differ by more than 1e-4, or a file that cannot be written.
    """
    import onnx

    refuse_not_finite(loaded.model)
    model = in_float32(loaded.model)
    for weight in model.weights:
        if not fits(4 * math.prod(weight.shape)):
            raise UserError(f"{out}: {weight.path} has {4e-9 * math.prod(weight.shape):.1f} GB, and an ONNX file takes "
                            "2 GiB of one array at most")  # fmt: skip
    proto = GRAPHS[graph](model)
    onnx.helper.set_model_props(proto, {TASK_PROPERTY: loaded.task.name})
    with replaced_export(Path(out)) as new:
        save_onnx(proto, new)
        check_saved(proto, new)
        del proto
        record = {
            "architecture": loaded.config.to_dict(),
            "task": loaded.task.to_dict(),
            "graph": graph,
            "precision": "fp32",
            "metadata": loaded.metadata,
        }
        write_record(new, record, loaded.tokenizer)
        difference = largest_difference(model, open_model(new).model, check_inputs(loaded))
        # Written the other way round it would let NaN pass.
        if not difference <= TOLERANCE:
            raise UserError(f"{out}: the file's logits differ from the model's by {difference:.1e}, more than "
                            f"{TOLERANCE:.0e}; nothing was written")  # fmt: skip
    return difference


@contextmanager
def replaced_export(out: Path) -> Iterator[Path]:
    """Gives a name for an ONNX file; when the block has ended without an error, it and what belongs to it are `out`'s.

    Raises:
        UserError: a file in the block, or `out`, cannot be written.
    """
    try:
        with partial_folder(out) as folder:
            new = folder / out.name
            yield new
            # Otherwise one that is killed here leaves the former file with the arrays of this one.
            out.unlink(missing_ok=True)
            if data_file(new).is_file():
                data_file(new).replace(data_file(out))
            else:
                data_file(out).unlink(missing_ok=True)
            # The file itself comes last: where it is, what belongs to it is too.
            for source, target in zip((*beside(new), new), (*beside(out), out), strict=True):
                source.replace(target)
    except OSError as error:
        raise UserError(f"{out}: cannot be written ({one_line(error)}); choose another place") from error


def export_file(source: Path, out: Path, graph: str) -> None:
    """Exports the model in a folder and prints how exact the file is.

    Args:
        source: a model folder, or a folder that `load_source` reads.
        out: the ONNX file to be written.
        graph: a key of `GRAPHS`.

    Raises:
        UserError: a model that cannot be read or exported so, or a file that cannot be written.
    """
    difference = export_onnx(out, load_source(source), graph)
    size = sum(path.stat().st_size for path in weight_files(out))
    print(f"written to {out}, {size / 1e6:.1f} MB, checked by ONNX; largest difference of a logit from "
          f"the Keras model: {difference:.1e}, on {2 * CHECKED} sequences")  # fmt: skip
