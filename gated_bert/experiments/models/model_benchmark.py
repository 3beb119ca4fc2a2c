"""Benchmark of any mix of model folders and ONNX files: measured, told, written."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from gated_bert.compression.benchmark import JudgedOn, judge, measure_cell, model_costs, read_judged
from gated_bert.compression.onnx_model import open_model
from gated_bert.experiments.models.benchmark_table import PLOT, RECORD, TABLE, benchmark_text, write_plot, write_tables
from gated_bert.experiments.models.memory_probe import measure_peak_memory
from gated_bert.experiments.reports.drawing import tolerated
from gated_bert.experiments.reports.names import short_names
from gated_bert.experiments.runs.environment import hardware, versions
from gated_bert.models.folder import LoadedModel
from gated_bert.support.errors import UserError
from gated_bert.support.progress_bar import progress_bar

USUAL_LENGTHS = (32, 128)


@dataclass(frozen=True)
class Measure:
    """What is measured, and how.

    Attributes:
        batches: numbers of sequences; latency is measured for each with each of the lengths.
        lengths: tokens of a sequence; by default 32 and 128, or the longest that all models take. MACs are counted at
            the longest.
        repeats: timed predictions of every model at every shape.
        threads: threads of one product.
        data: hub, embedded, a folder or a file to judge the models on; None leaves that out.
        split: which of the task's splits; None chooses.
        allow_partial: whether `*_partial` files are accepted.
    """

    batches: tuple[int, ...] = (1, 8)
    lengths: tuple[int, ...] = ()
    repeats: int = 30
    threads: int = 1
    data: str | None = None
    split: str | None = None
    allow_partial: bool = False

    @property
    def cells(self) -> list[tuple[int, int]]:
        """The (batch, length) that latency is measured at."""
        return [(batch, length) for batch in self.batches for length in self.lengths]


@dataclass
class _Benchmark:
    """What is known so far, a row per model; `write` keeps the files in step with it."""

    out: Path
    measure: Measure
    names: list[str]
    about: dict = field(default_factory=dict)
    rows: dict[str, dict] = field(default_factory=dict)

    def add(self, found: dict[str, dict]):
        for name, values in found.items():
            self.rows[name] |= values
        self.write(complete=False)

    def write(self, complete: bool):
        write_tables(self.out, list(self.rows.values()), {**self.about, "complete": complete})


def benchmark(sources: Sequence[Path], out: Path, measure: Measure) -> list[Path]:
    """Measures models side by side and writes `benchmark.csv`, `benchmark.json` and `benchmark.png`.

    The tables are written anew after every step, so that what is measured stays when it is stopped.

    Args:
        sources: model folders and ONNX files.
        out: where the files go.
        measure: what is measured.

    Returns:
        The files written.

    Raises:
        UserError: a model that cannot be read or takes no such length, models or data of different tasks.
        KeyboardInterrupt: stopped; its text says what was written.
    """
    names = short_names(sources)
    models = {name: open_model(source, measure.threads) for name, source in zip(names, sources, strict=True)}
    for name, loaded in models.items():
        if max(measure.lengths, default=1) > loaded.config.max_position:
            longest = f"{loaded.config.max_position}, the longest input of {name}"
            raise UserError(f"--lengths: {max(measure.lengths)} is refused; allowed: 1 to {longest}")
    if not measure.lengths:
        longest_of_all = min(loaded.config.max_position for loaded in models.values())
        lengths = dict.fromkeys(min(length, longest_of_all) for length in USUAL_LENGTHS)
        measure = dataclasses.replace(measure, lengths=tuple(lengths))
    judged = None
    if measure.data is not None:
        judged = read_judged(models, measure.data, measure.split, measure.allow_partial)
    state = _Benchmark(out, measure, names, _about(measure, judged))
    for name, source in zip(names, sources, strict=True):
        state.rows[name] = {"model": name, "path": str(source), "task": models[name].task.name}
    try:
        _measure_all(state, models, judged)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"stopped; what was measured is in {out}") from None
    state.write(complete=True)
    rows = list(state.rows.values())
    print(benchmark_text(rows, measure.cells, state.about))
    written = [out / TABLE, out / RECORD]
    with tolerated(out / PLOT):
        written.append(write_plot(out / PLOT, rows, measure.cells, state.about))
    return written


def _about(measure: Measure, judged: JudgedOn | None) -> dict:
    return {
        "threads": measure.threads, "repeats": measure.repeats, "batches": measure.batches, "lengths": measure.lengths,
        "macs_length": max(measure.lengths), "data": judged.label if judged else None, "versions": versions(),
        "hardware": hardware() | {"threads": measure.threads},
    }  # fmt: skip


def _measure_all(state: _Benchmark, models: dict[str, LoadedModel], judged: JudgedOn | None):
    measure, places = state.measure, {name: Path(row["path"]) for name, row in state.rows.items()}
    steps = len(models) * (2 + (judged is not None)) + len(measure.cells)
    largest = max(measure.batches), max(measure.lengths)
    with progress_bar("benchmark", steps) as advance:
        for name, loaded in models.items():
            advance(f"size of {name}", 0)
            state.add({name: model_costs(places[name], loaded, largest[1])})
            advance(f"size of {name}", 1)
        for batch, length in measure.cells:
            advance(f"latency, batch {batch} × {length}", 0)
            state.add(measure_cell(models, batch, length, measure.repeats))
            advance(f"latency, batch {batch} × {length}", 1)
        for name in models:
            advance(f"memory of {name}", 0)
            peak = measure_peak_memory(places[name], *largest, measure.threads)
            state.add({name: {"peak_memory_bytes": peak}})
            advance(f"memory of {name}", 1)
        for name, loaded in models.items():
            if judged is None:
                break
            advance(f"metric of {name}", 0)
            state.add({name: judge(loaded, judged)})
            advance(f"metric of {name}", 1)
