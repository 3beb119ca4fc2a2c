"""A picture of every pattern: what stays of a matrix."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
from keras import ops

from gated_bert.config import ConfigError, GatedBertConfig
from gated_bert.experiments.reports.drawing import png
from gated_bert.models.build import build_model
from gated_bert.pruning.pruner import Pruner, sparsity
from gated_bert.support.backend import view
from gated_bert.support.files import write_bytes_atomic
from gated_bert.tasks.task import get_task

_SHOWN = {"neuron": "ffn_intermediate", "type 3, code": "attention_output", "type 8, code": "ffn_intermediate"}
_PANELS = [
    *((name, {"pattern": name}) for name in ("element", "row", "column", "block", "head", "head_dim", "neuron")),
    ("qkv_row", {"pattern": "qkv_row"}),
    ("k_tile", {"pattern": "k_tile"}),
    ("vector, axis k", {"pattern": "vector"}),
    ("vector, axis n", {"pattern": "vector", "vector_axis": "n"}),
    ("tile, dims k", {"pattern": "tile"}),
    ("tile, dims kn", {"pattern": "tile", "tile_dims": "kn"}),
    ("tile_element, dims k", {"pattern": "tile_element"}),
    ("tile_element, dims kn", {"pattern": "tile_element", "tile_dims": "kn"}),
    *((f"type {number}, code", {"pruning_type": number, "tilesparsity_variant": "code"}) for number in (0, 1, 3)),
    ("type 6", {"pruning_type": 6, "sparsity_per_dim": False}),
    ("type 8, code", {"pruning_type": 8, "tilesparsity_variant": "code", "sparsity_per_dim": False}),
]
_CORNER = 128


def draw_patterns(path: Path, fraction: float, pretrained: str | None = None) -> Path:
    """Prunes the first encoder layer by magnitude with every pattern and draws a corner of one matrix each.

    Args:
        path: the PNG file to write.
        fraction: sparsity.
        pretrained: id or folder of the weights; None draws random ones.

    Returns:
        The path.
    """
    from matplotlib.figure import Figure

    fields = {"model_size": "tiny", "pruning_method": "magnitude", "num_layers": 1, "pretrained": pretrained,
              "granularity": 32, "block_size": (16, 16)}  # fmt: skip
    base = GatedBertConfig(**fields)
    with warnings.catch_warnings():
        # About the head, which is not drawn.
        warnings.simplefilter("ignore", UserWarning)
        model = build_model(base, get_task("sst2"), vocab_size=30522 if pretrained else 100)
    layers = model.gated_layers(base.prunable_roles)
    heads = model.architecture.num_heads
    columns = 5
    figure = Figure(figsize=(14, 12.6), layout="constrained")
    panels = figure.subplots(-(-len(_PANELS) // columns), columns).ravel()
    for axes, (title, options) in zip(panels, _PANELS, strict=True):
        for layer in layers:
            layer.mask_variable.assign(np.ones(tuple(layer.raw_kernel.shape), np.float32))
        try:
            pruner = Pruner.from_config(GatedBertConfig(**fields, **options), layers, heads)
        except ConfigError as error:
            axes.text(0.5, 0.5, str(error), wrap=True, ha="center", va="center", transform=axes.transAxes)
            axes.set_axis_off()
            continue
        pruner.update(fraction, step=1)
        layer = next(layer for layer in layers if layer.role == _SHOWN.get(title, "query"))
        kept = view(layer.mask_variable)[:_CORNER, :_CORNER] != 0
        weights = np.abs(ops.convert_to_numpy(layer.raw_kernel))[:_CORNER, :_CORNER]
        # Kept weights from light to dark blue by size; closed ones white.
        shade = np.where(kept, 0.35 + 0.65 * np.minimum(weights / np.quantile(weights, 0.98), 1), 0)
        axes.imshow(shade, cmap="Blues", vmin=0, vmax=1, interpolation="nearest")
        closed = sparsity(pruner.layers_of_groups())
        axes.set_title(f"{title}\n{layer.role}, {100 * closed:.1f} % closed", fontsize="small")
        axes.set_xticks([0, _CORNER // 2, _CORNER])
        axes.set_yticks([0, _CORNER // 2, _CORNER])
        axes.tick_params(labelsize="x-small")
    figure.supxlabel("column (output)", fontsize="small")
    figure.supylabel("row (input)", fontsize="small")
    source = Path(pretrained).name if pretrained else "random weights"
    figure.suptitle(f"What each pattern leaves at {100 * fraction:g} % sparsity: first encoder layer of {source}, by "
                    "magnitude per matrix (type 8: of all together); blue stays, white is closed",
                    fontsize="medium", color="0.25")  # fmt: skip
    return write_bytes_atomic(path, png(figure))
