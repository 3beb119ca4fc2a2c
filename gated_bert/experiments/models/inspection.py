"""What `gated-bert inspect` shows and writes: tables of a model, and a picture of its masks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from gated_bert.compression.inspect_onnx import initializer_rows, onnx_text, operator_rows, read_onnx
from gated_bert.compression.kept import effective_kernel
from gated_bert.compression.model_statistics import gzipped_size
from gated_bert.compression.model_summary import block_means, layer_rows, matrix_rows, model_text
from gated_bert.compression.onnx_file import not_finite, weight_files
from gated_bert.compression.onnx_model import beside, check_bytes, is_onnx
from gated_bert.config.space import ENCODER_ROLES
from gated_bert.experiments.reports.drawing import png, tolerated
from gated_bert.experiments.reports.names import short_names
from gated_bert.models.backbone import EncoderClassifier
from gated_bert.models.folder import FILES, WEIGHTS, load_model
from gated_bert.models.keras_file import faults_text
from gated_bert.models.keras_file import not_finite as stored_faults
from gated_bert.support.files import write_bytes_atomic, write_csv_atomic
from gated_bert.support.records import read_record
from gated_bert.support.schemas import OnnxRecord
from gated_bert.support.text_table import aligned

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MATRICES, LAYERS, MASKS = "matrices.csv", "layers.csv", "masks.png"
OPERATORS, INITIALIZERS = "operators.csv", "initializers.csv"
_CELLS = 96
"""Most cells along a side of a matrix in the picture."""


def inspect_model(source: Path, out: Path | None) -> list[Path]:
    """Prints what is inside a model.

    Args:
        source: a model folder or any ONNX file.
        out: folder for the same as CSV files and, for a model folder, the picture of its masks; None writes nothing.

    Returns:
        The files written.

    Raises:
        UserError: a model that cannot be read, or a folder that cannot be written.
    """
    return _inspect_onnx(source, out) if is_onnx(source) else _inspect_folder(source, out)


def _inspect_folder(source: Path, out: Path | None) -> list[Path]:
    loaded = load_model(source)
    model, length = loaded.model, min(128, loaded.config.max_position)
    matrices, layers = matrix_rows(model), layer_rows(model, length)
    print(f"{source}: {loaded.task.title}, {loaded.config.num_layers} layers, hidden size {loaded.config.hidden_size}, "
          f"{loaded.config.vocab_size:,} tokens, {loaded.config.num_outputs} outputs\n")  # fmt: skip
    print(model_text(model, matrices, layers, length), end="\n\n")
    print(_sizes([source / name for name in FILES], [source / WEIGHTS]))
    _print_faults(stored_faults(source / WEIGHTS, loaded.config.num_parameters))
    if out is None:
        return []
    written = [write_csv_atomic(out / MATRICES, matrices), write_csv_atomic(out / LAYERS, layers)]
    with tolerated(out / MASKS):
        written.append(write_bytes_atomic(out / MASKS, png(mask_figure(model, short_names([source])[0]))))
    return written


def _inspect_onnx(source: Path, out: Path | None) -> list[Path]:
    model = read_onnx(source)
    operators, initializers = operator_rows(model), initializer_rows(model)
    files = [path for path in (*weight_files(source), *beside(source)) if path.is_file()]
    print(f"{source}: {_described(source)}\n")
    print(onnx_text(model, operators, initializers), end="\n\n")
    print(_sizes(files, weight_files(source)))
    _print_faults(not_finite(model))
    if out is None:
        return []
    return [write_csv_atomic(out / OPERATORS, operators), write_csv_atomic(out / INITIALIZERS, initializers)]


def _print_faults(names: list[str]):
    if names:
        print(f"\n{faults_text(names)}")


def _described(path: Path) -> str:
    record_path = beside(path)[0]
    record = read_record(record_path, OnnxRecord, nan=True, tolerant=True) if record_path.is_file() else None
    if record is None:
        return "an ONNX file without a record of this tool"
    known = check_bytes(path, record)
    return (f"{record['task'].get('title')}, {record['graph']} graph, {record['precision']}, "
            f"{'checksum right' if known else 'no checksum in its record'}")  # fmt: skip


def _sizes(files: list[Path], packed: list[Path]) -> str:
    lines = [("file", "bytes"), *((path.name, f"{path.stat().st_size:,}") for path in files)]
    return aligned([*lines, *((f"{path.name}, gzipped", f"{gzipped_size(path):,}") for path in packed)])


def mask_figure(model: EncoderClassifier, name: str) -> Figure:
    """Every matrix of a model, a row of panels per encoder block; the darker a cell, the more of it is open."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize
    from matplotlib.figure import Figure

    norm = Normalize(0, 1)
    count = model.architecture.num_layers
    figure = Figure(figsize=(2 + 1.9 * len(ENCODER_ROLES), 1.4 + 1.55 * (count + 1)), layout="constrained")
    panels = figure.subplots(count + 1, len(ENCODER_ROLES), squeeze=False)
    for axes in panels.ravel():
        axes.set_axis_off()
    for row, axes in enumerate(panels[:, 0]):
        title = f"layer {row}" if row < count else "head"
        axes.text(-0.07, 0.5, title, rotation=90, va="center", ha="center", fontsize="small", transform=axes.transAxes)
    total, closed = 0, 0
    for layer in model.gated_layers():
        outside = layer.layer_index is None
        column = ("pooler", "classifier").index(layer.role) if outside else ENCODER_ROLES.index(layer.role)
        axes, is_open = panels[count if outside else layer.layer_index, column], effective_kernel(layer) != 0
        axes.imshow(block_means(is_open, _CELLS), norm=norm, cmap="Blues", aspect="auto", interpolation="nearest")
        axes.set_axis_on()
        axes.set_xticks([])
        axes.set_yticks([])
        rows, columns = is_open.shape
        sparsity = 1 - np.count_nonzero(is_open) / is_open.size
        axes.set_title(f"{layer.role}\n{rows} × {columns}, {100 * sparsity:.1f} %", fontsize="x-small")
        total, closed = total + is_open.size, closed + is_open.size - np.count_nonzero(is_open)
    figure.colorbar(ScalarMappable(norm, "Blues"), ax=panels, label="share of a cell's weights that are open",
                    shrink=0.5, aspect=40, pad=0.01)  # fmt: skip
    figure.suptitle(f"Masks of {name}: {100 * closed / total:.1f} % of the weights in these matrices closed or zero\n"
                    "(each panel: rows × columns, that is inputs × outputs, and its sparsity)",
                    fontsize="medium", color="0.25")  # fmt: skip
    return figure
