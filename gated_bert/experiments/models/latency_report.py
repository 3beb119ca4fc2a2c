"""`gated-bert latency-table`: measured with a bar, told, written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gated_bert.compression.latency import Conditions, LatencyTable, usual_conditions
from gated_bert.compression.latency_measure import REPEATS, measure_table, sizes_to_measure
from gated_bert.compression.source import load_source
from gated_bert.models.architecture import Architecture
from gated_bert.models.backbone import EncoderClassifier
from gated_bert.support.errors import UserError
from gated_bert.support.progress_bar import progress_bar
from gated_bert.support.text_table import aligned

BUSY = 0.1
"""Noise above which the table says that it is to be measured again."""


def measure_latency(source: Path, out: Path, repeats: int, **conditions: Any) -> None:
    """Measures the parts of a model, prints what they cost and writes the table.

    Args:
        source: a model folder, or a folder that `load_source` reads; its sizes alone matter.
        out: the file to be written.
        repeats: timed predictions of each measured model.
        **conditions: of what prediction, see `usual_conditions`.

    Raises:
        UserError: a model that cannot be read or takes no such length, or times that do not rise with the size.
    """
    loaded = load_source(source)
    table = measured(loaded.model, usual_conditions(loaded.config, **conditions), repeats)
    table.save(out)
    print(table_text(table))
    say_busy(table)
    print(f"wrote {out}")


def measured(model: EncoderClassifier, conditions: Conditions, repeats: int = REPEATS) -> LatencyTable:
    """The table of a model, measured behind a bar.

    Raises:
        UserError: see `measure_latency`.
    """
    check_length(conditions, model.architecture)
    heads, neurons = sizes_to_measure(model.architecture)
    with progress_bar("measuring the table", len({*heads, *neurons})) as advance:
        return measure_table(model, conditions, repeats, lambda done: advance("", done))


def check_length(conditions: Conditions, sizes: Architecture) -> None:
    """Refuses longer inputs than a model takes."""
    if conditions.length > sizes.max_position:
        raise UserError(f"--length: {conditions.length} is refused; allowed: 1 to {sizes.max_position}, the model's "
                        "longest input")  # fmt: skip


def say_busy(table: LatencyTable) -> None:
    """Prints that the machine was busy, if it was."""
    if table.noise > BUSY:
        print(f"note: times varied by {100 * table.noise:.0f} % (distance of the quartiles): the machine was busy; "
              "measure again when it is not")  # fmt: skip


def table_text(table: LatencyTable) -> str:
    """The table in words."""
    lines: list[tuple[str, ...]] = [("milliseconds of a layer", "")]
    lines += [(f"attention, {heads} head{'s' * (heads != 1)}", f"{ms:.3f}") for heads, ms in table.attention.items()]
    lines += [(f"feed-forward, {neurons:,} neurons", f"{ms:.3f}") for neurons, ms in table.ffn.items()]
    lines.append(("all else, of the model", f"{table.outside:.3f}"))
    lines.append((f"the model of {table.layers} layers, as measured", f"{table.dense:.3f}"))
    return f"{table.conditions}\n{aligned(lines)}"
