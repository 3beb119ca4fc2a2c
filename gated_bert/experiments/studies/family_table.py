"""The latency table of a family of models: given, measured before, or measured now."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from gated_bert.compression.latency import Conditions, LatencyTable
from gated_bert.compression.onnx_standard import check_standard
from gated_bert.compression.source import load_source
from gated_bert.experiments.models.latency_report import check_length, measured, say_busy
from gated_bert.experiments.studies.family_folder import TABLE
from gated_bert.models.architecture import Architecture
from gated_bert.models.folder import read_architecture
from gated_bert.support.errors import UserError


def check_served(model: Path, sizes: Architecture, conditions: Conditions) -> None:
    """Refuses a dense model whose speed cannot be asked for so, before anything is made of it.

    Args:
        model: its folder.
        sizes: its own.
        conditions: of a prediction.

    Raises:
        UserError: longer inputs than the model takes, layers of different sizes, a runtime that serves no files, or a
            graph that the Keras backend cannot make.
    """
    if conditions.runtime != "onnx":
        raise UserError(f"runtime: {conditions.runtime!r} is refused; allowed: onnx, by whose files a family is timed")
    if conditions.graph == "standard":
        check_standard()
    check_length(conditions, sizes)
    if len(set(sizes.layers)) > 1:
        raise UserError(f"{model}: its layers are of different sizes; give the model that it was shrunk from")


def given_table(path: Path, conditions: Conditions, sizes: Architecture) -> LatencyTable:
    """The table in a file that was given.

    Raises:
        UserError: it is of other conditions, or of another model.
    """
    table = LatencyTable.load(path)
    for name, value in dataclasses.asdict(conditions).items():
        found = getattr(table.conditions, name)
        if found != value:
            raise UserError(f"--table: {path}: its {name} is {found}, and {value} was asked for; measure one")
    try:
        table.predict(sizes)
    except UserError as error:
        raise UserError(f"--table: {path}: {error}") from None
    if not table.is_of(sizes):
        raise UserError(f"--table: {path}: is of {max(table.attention)} heads of {table.head_dim} and "
                        f"{max(table.ffn)} neurons a layer, which this model has not; measure its own")  # fmt: skip
    return table


def kept_table(folder: Path, base: Path, conditions: Conditions) -> LatencyTable:
    """The table in a family's folder, of the same conditions and sizes, or, where there is none, measured now."""
    path = folder / TABLE
    if path.is_file():
        table = LatencyTable.load(path)
        if table.conditions == conditions and table.is_of(read_architecture(base)):
            return table
    table = measured(load_source(base).model, conditions)
    table.save(path)
    say_busy(table)
    return table
