"""The commands `shrink` and `export`: from a folder to a folder."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np

from gated_bert.compression.export import export_hugging_face
from gated_bert.compression.kept import effective_kernel
from gated_bert.compression.model_statistics import comparison_table, measure_latency, model_statistics
from gated_bert.compression.optimum_export import export_optimum
from gated_bert.compression.parity import (
    CHECKED,
    TOLERANCE,
    check_inputs,
    in_float32,
    largest_difference,
    refuse_not_finite,
)
from gated_bert.compression.shrink import shrink, shrunk_config
from gated_bert.compression.source import load_source
from gated_bert.models.backbone import EncoderClassifier
from gated_bert.models.folder import WEIGHTS, LoadedModel, is_model_folder, save_model, with_fixed_gates
from gated_bert.support.errors import UserError
from gated_bert.support.partial import temporary_folder

FORMATS: dict[str, Callable[[str | Path, LoadedModel], None]] = {
    "hf": export_hugging_face, "optimum": export_optimum,
}  # fmt: skip
"""Name of a format → its writer."""


def shrink_folder(source: Path, out: Path, round_to: int = 1, batch: int = 8, length: int | None = None) -> None:
    """Shrinks the model in a folder, checks that it computes the same, writes it and prints what it saved.

    Args:
        source: a model folder, or a folder that `load_source` reads.
        out: the model folder to be written.
        round_to: as for `shrink`.
        batch: sequences in the predictions whose latency is measured.
        length: tokens of each; also the length that MACs are counted at. By default 128, or the model's longest input.

    Raises:
        UserError: a model that cannot be read, a length beyond its longest input, logits that differ by more than
            1e-4, or a folder that cannot be written.
    """
    loaded = load_source(source)
    model, longest = loaded.model, loaded.config.max_position
    length = min(128, longest) if length is None else length
    if length > longest:
        raise UserError(f"--length: {length} is refused; allowed: 1 to {longest}, the model's longest input")
    refuse_not_finite(model)
    small = shrink(model, round_to)
    # In float32: what 16 bits round differently is no fault of shrinking.
    difference = largest_difference(in_float32(model), in_float32(small), check_inputs(loaded))
    # Written the other way round it would let NaN pass.
    if not difference <= TOLERANCE:
        raise UserError(f"{source}: the shrunk model's logits differ by {difference:.1e}, more than {TOLERANCE:.0e}; "
                        "nothing was written")  # fmt: skip
    seconds = measure_latency({"before": model, "after": small}, batch, length)
    before = model_statistics(model, length, seconds["before"])
    after = model_statistics(small, length, seconds["after"])
    record = {
        "folder": str(source),
        "layers": [dataclasses.asdict(sizes) for sizes in loaded.config.layers],
        "round_to": round_to,
        "largest_logit_difference": difference,
        "before": before.to_dict(),
        "after": after.to_dict() | {"batch": batch},
    }
    earlier = {name: loaded.metadata[name] for name in ("shrunk_from",) if name in loaded.metadata}
    save_model(out, small, loaded.tokenizer, loaded.task, loaded.metadata | {"shrunk_from": record | earlier})
    print(_headline(model, small, round_to))
    print(small.architecture.describe_layers(), end="\n\n")
    print(comparison_table(before, after, (weights_size(source, model), (out / WEIGHTS).stat().st_size), batch))
    print(f"\nlargest difference of a logit: {difference:.1e}, on {2 * CHECKED} sequences; written to {out}")


def export_folder(source: Path, out: Path, form: str) -> None:
    """Writes the model in a folder in another tool's format.

    Args:
        source: a model folder, or a folder that `load_source` reads.
        out: the folder to be written.
        form: a key of `FORMATS`.

    Raises:
        UserError: a model that cannot be read, or that the format cannot hold.
    """
    loaded = load_source(source)
    refuse_not_finite(loaded.model)
    FORMATS[form](out, loaded)
    closed = 1 - _open_share(loaded.model)
    print(f"written to {out}; {100 * closed:.1f} % of the encoder's weights are zero")


def _headline(model: EncoderClassifier, small: EncoderClassifier, round_to: int) -> str:
    if small.architecture.layers != model.architecture.layers:
        return "shrunk to"
    if shrunk_config(model).layers != model.architecture.layers:
        return f"nothing to shrink: closed units do not reach down to a multiple of {round_to} (--round-to) anywhere"
    closed = 100 * (1 - _open_share(model))
    if not closed:
        return "nothing to shrink: no weight of the encoder is closed or zero"
    return (
        f"nothing to shrink: {closed:.1f} % of the encoder's weights are closed or zero, but no neuron, no head and, "
        "in all heads of a layer, no dimension as a whole"
    )


def _open_share(model: EncoderClassifier) -> float:
    kernels = [effective_kernel(layer) for layer in model.gated_layers() if layer.layer_index is not None]
    return sum(np.count_nonzero(kernel) for kernel in kernels) / max(1, sum(kernel.size for kernel in kernels))


def weights_size(source: Path, model: EncoderClassifier) -> int:
    """Bytes of the model's `model.keras`, which weights of another tool do not have yet."""
    if is_model_folder(source):
        return (source / WEIGHTS).stat().st_size
    with temporary_folder() as folder:
        with_fixed_gates(model).save(folder / WEIGHTS)
        return (folder / WEIGHTS).stat().st_size
