"""Models that are so many times as fast as the dense one: pruned from one target to the next, and taught in between."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gated_bert.compression.latency import Conditions, LatencyTable
from gated_bert.compression.onnx_export import export_file
from gated_bert.compression.quantize import quantize_file
from gated_bert.compression.source import load_source
from gated_bert.experiments.models.latency_report import measured
from gated_bert.experiments.reports.run_layout import MODEL
from gated_bert.experiments.runs.output_folder import locked
from gated_bert.experiments.studies.compress import METRICS, MODELS, copied, made, measure_models
from gated_bert.experiments.studies.prune_to_speed import Effort, Reached, SpeedMeter, prune_to_speed
from gated_bert.experiments.sweeps.jobs import Job, Plan, job_command
from gated_bert.experiments.sweeps.overview import configuration_text
from gated_bert.models.folder import WEIGHTS, is_model_folder
from gated_bert.support.files import write_json_atomic
from gated_bert.support.records import read_record
from gated_bert.support.schemas import SpeedRecord
from gated_bert.tasks.data import load_task_data

TABLE, RUNS, DENSE = "latency.json", "runs", "dense"


@dataclass(frozen=True)
class Family:
    """What is asked for.

    Attributes:
        output: the folder.
        dense: the run of the dense model; its plan has no jobs where `model` is there already.
        model: folder of the dense model.
        job: how what was pruned is trained on, from the dense model's plan; its `pretrained` is not read.
        speedups: targets, rising.
        conditions: of a prediction.
        effort: of each target.
        learns: fields of the record that say what the teacher teaches.
        table: a latency table that was measured before; None measures one.
    """

    output: Path
    dense: Plan
    model: Path
    job: Job
    speedups: Sequence[float]
    conditions: Conditions
    effort: Effort
    learns: Mapping[str, Any]
    table: Path | None = None

    @property
    def trained(self) -> bool:
        """Whether there is training after each target."""
        return self.job.config.epochs > 0

    def pruned(self, speedup: float) -> Path:
        """Folder of the model as it was pruned to a target."""
        return self.output / MODELS / f"pruned_{speedup:g}x"

    def final(self, speedup: float) -> Path:
        """Folder of the model that a target comes to."""
        return self.output / MODELS / f"speedup_{speedup:g}x"

    def training(self, speedup: float) -> Job:
        """The run that trains what was pruned to a target, with the dense model as its teacher."""
        folder = self.output / RUNS / f"speedup_{speedup:g}x"
        model, teacher = (str(path.resolve()) for path in (self.pruned(speedup), self.model))
        config = self.job.config.replace(pretrained=model, teacher=teacher, **self.learns)
        return Job(f"{config.task} {speedup:g}×", config, folder, job_command(folder))


def describe(family: Family) -> str:
    """The configuration, and what is made of what."""
    effort, speeds = family.effort, ", ".join(f"{speedup:g}×" for speedup in family.speedups)
    rows = [("speeds", speeds), ("a prediction", str(family.conditions)),
            ("pruned on", f"{effort.texts} texts, {effort.steps} draws of the search for each speed")]  # fmt: skip
    lines = [configuration_text(dataclasses.replace(family.dense, jobs=(family.job,)), rows)]
    sources = [family.model, *map(family.final, family.speedups)]
    for source, speedup in zip(sources, family.speedups, strict=False):
        after = f", {family.job.config.epochs} epochs with {family.model} as the teacher" * family.trained
        lines.append(f"  {source} → {family.final(speedup)}{after}")
    return "\n".join(lines)


def make_family(family: Family, sweep: Callable[[Plan], int]) -> int:
    """Runs what is left of a family: a model folder, an ONNX file and one of 8 bits for every target, and the report.

    Args:
        family: what is asked for.
        sweep: runs one plan and returns its exit status.

    Returns:
        The exit status of the first run, or of the benchmark, that failed, else 0.

    Raises:
        UserError: a model or a table that cannot be read, a speed that cannot be reached, or a file that cannot be
            written.
    """
    status = sweep(family.dense) if family.dense.jobs else 0
    if status:
        return status
    with locked(family.output):
        base = made(family.output / MODELS / DENSE, family.model, copied)
        table = _table(family, base)
        source, meter, examples = base, None, None
        for speedup in family.speedups:
            pruned = family.pruned(speedup)
            if not _is_made(pruned, source):
                if meter is None:
                    meter = SpeedMeter(load_source(base).model, family.conditions)
                    examples = load_task_data(family.job.config, load_source(base).task).train
                print(f"\n{pruned}:", flush=True)
                _clear(pruned)
                reached = prune_to_speed(source, pruned, speedup, table, meter, examples, family.effort)
                write_json_atomic(_record(pruned), _told(reached, speedup))
            if family.trained:
                job = family.training(speedup)
                status = sweep(dataclasses.replace(
                    family.dense, settings=dataclasses.replace(family.dense.settings, output=family.output / RUNS),
                    jobs=(job,)))  # fmt: skip
                if status:
                    return status
                source = made(family.final(speedup), job.folder / MODEL, copied)
            else:
                source = made(family.final(speedup), pruned, copied)
        files = _exported(family)
    config, served = family.job.config, family.conditions
    status = measure_models(family.output / METRICS, files, config.data, config.allow_partial, [served.batch],
                            [served.length], served.threads)  # fmt: skip
    if status:
        return status
    from gated_bert.experiments.studies.speedup_report import write_family

    for path in write_family(family.output, family.conditions):
        print(f"wrote {path}")
    return 0


def _table(family: Family, base: Path) -> LatencyTable:
    """The table that was given, or is there already of the same conditions, or is measured now."""
    if family.table is not None:
        return LatencyTable.load(family.table)
    path = family.output / TABLE
    if path.is_file():
        table = LatencyTable.load(path)
        if table.conditions == family.conditions:
            return table
    table = measured(load_source(base).model, family.conditions)
    table.save(path)
    return table


def _exported(family: Family) -> list[Path]:
    """ONNX files of the dense model and of every target, in 32 and in 8 bits."""
    files: list[Path] = []
    graph, folder = family.conditions.graph, family.output / MODELS
    for source in (folder / DENSE, *map(family.final, family.speedups)):
        exported = made(folder / "onnx" / f"{source.name}.onnx", source,
                         lambda source, target: export_file(source, target, graph))  # fmt: skip
        fewer = made(folder / "int8" / exported.name, exported,
                      lambda source, target: quantize_file(source, target, "int8"))  # fmt: skip
        files += [exported, fewer]
    return files


def _record(pruned: Path) -> Path:
    return pruned.with_name(f"{pruned.name}.json")


def _told(reached: Reached, speedup: float) -> dict:
    if reached.note:
        print(f"note: {reached.note}")
    layers = ", ".join(f"{sizes.num_heads}+{sizes.intermediate_size}" for sizes in reached.layers)
    print(f"{speedup:g}×: measured {reached.speedup:.2f}×, by the table {reached.predicted:.2f}×; heads+neurons of the "
          f"layers: {layers}", flush=True)  # fmt: skip
    return {"speedup": speedup, **dataclasses.asdict(reached)}


def _is_made(pruned: Path, source: Path) -> bool:
    """Whether a model was pruned, to its end, from this source as it is."""
    record = read_record(_record(pruned), SpeedRecord, tolerant=True)
    return bool(record) and is_model_folder(pruned) and _written(pruned) >= _written(source)


def _clear(target: Path):
    if target.is_dir():
        shutil.rmtree(target)
    target.unlink(missing_ok=True)


def _written(model: Path) -> float:
    return (model / WEIGHTS if model.is_dir() else model).stat().st_mtime
