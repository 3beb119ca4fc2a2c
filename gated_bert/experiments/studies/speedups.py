"""Models that are so many times as fast as the dense one: pruned from one target to the next, and taught in between."""

from __future__ import annotations

import dataclasses
import filecmp
import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gated_bert.compression.latency import Conditions, LatencyTable
from gated_bert.compression.onnx_export import export_file
from gated_bert.compression.parity import refuse_not_finite
from gated_bert.compression.quantize import quantize_file
from gated_bert.compression.source import load_source
from gated_bert.config import ConfigError
from gated_bert.experiments.reports.run_layout import MODEL
from gated_bert.experiments.runs.output_folder import locked
from gated_bert.experiments.runs.teacher_folder import check_teacher
from gated_bert.experiments.studies.compress import METRICS, MODELS, copied, made, measure_models, remove, written
from gated_bert.experiments.studies.family_folder import (
    DENSE,
    RECORD,
    RUNS,
    TABLE,
    dense_of,
    name_of,
    pruned_folder,
    pruned_record,
    targets_in,
)
from gated_bert.experiments.studies.family_table import check_served, given_table, kept_table
from gated_bert.experiments.studies.prune_to_speed import Effort, Reached, SpeedMeter, prune_to_speed
from gated_bert.experiments.sweeps.jobs import Job, job_command
from gated_bert.models.folder import WEIGHTS, LoadedModel, is_model_folder, read_architecture
from gated_bert.models.run_family import run_tokenizer
from gated_bert.support.errors import UserError
from gated_bert.support.files import write_json_atomic
from gated_bert.support.records import read_record
from gated_bert.support.speed_schemas import FamilyRecord, SpeedRecord
from gated_bert.tasks.data import load_task_data
from gated_bert.tasks.examples import Examples

BATCHES = (1, 8)
"""Sequences of a prediction that all models are measured at, beside those that were asked for."""
Run = Callable[[Sequence[Job], Path], int]
"""(jobs, the folder above theirs) → exit status: runs them, or goes on with them."""


@dataclass(frozen=True)
class Family:
    """What is asked for.

    Attributes:
        output: the folder.
        dense: the run that trains the dense model; None where `model` is there already.
        model: folder of the dense model.
        job: how what was pruned is trained on; its `pretrained` is not read.
        speedups: targets, rising.
        conditions: of a prediction.
        effort: of each target.
        learns: fields of the record that say what the teacher teaches; by default logits and all layers.
        table: a latency table that was measured before; None measures one.
    """

    output: Path
    dense: Job | None
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

    @property
    def dense_model(self) -> Path:
        """Folder of the dense model, or of its copy here."""
        return dense_of(self.output, self.model)

    def pruned(self, speedup: float) -> Path:
        """Folder of the model as it was pruned to a target."""
        return pruned_folder(self.output, speedup)

    def record(self, speedup: float) -> Path:
        """What pruning to a target came to."""
        return pruned_record(self.output, speedup)

    def final(self, speedup: float) -> Path:
        """Folder of the model that a target comes to."""
        return self.output / MODELS / name_of(speedup)

    def run(self, speedup: float) -> Path:
        """Folder of that target's training."""
        return self.output / RUNS / name_of(speedup)

    def training(self, speedup: float) -> Job:
        """The run that trains what was pruned to a target, with the dense model, or its copy here, as its teacher."""
        return self._training(self.pruned(speedup), self.run(speedup), f"{speedup:g}×")

    def _training(self, start: Path, folder: Path, name: str) -> Job:
        model, teacher = (str(path.resolve()) for path in (start, self.dense_model))
        config = self.job.config.replace(pretrained=model, teacher=teacher, **{"distill_layers": "all", **self.learns})
        return Job(f"{config.task} {name}", config, folder, job_command(folder))

    def check(self) -> None:
        """Refuses, before anything is made, what no target could be trained with.

        Raises:
            ConfigError: a field of the record.
            UserError: the data, or a dense model that is no teacher of such a run.
        """
        if not self.trained:
            return
        config = self._training(self.dense_model, self.output / RUNS, "").config
        if not self.dense_model.exists():
            return
        longest = read_architecture(self.dense_model).max_position
        if config.max_len > longest:
            raise ConfigError("max_len", config.max_len, f"1 to {longest}, the dense model's longest input")
        check_teacher(config, load_task_data(config).task, run_tokenizer(config))

    def describe(self) -> list[tuple[str, str]]:
        """What is made of what, by name."""
        epochs = self.job.config.epochs
        after = f", then {epochs} epoch{'s' * (epochs != 1)} with the dense model as the teacher" * self.trained
        return [
            ("dense model", str(self.model)),
            ("speeds", ", ".join(f"{speedup:g}×" for speedup in self.speedups)),
            ("a prediction", str(self.conditions)),
            ("pruned on", f"{self.effort.texts} texts, {self.effort.steps} draws of the search for each speed{after}"),
        ]


def make_family(family: Family, run: Run, quiet: bool = False) -> int:
    """Runs what is left of a family: a model folder, an ONNX file and one of 8 bits for every target, and the report.

    Args:
        family: what is asked for, checked.
        run: trains.
        quiet: of the benchmark, as of `run_command`.

    Returns:
        The exit status of the first run, or of the benchmark, that failed, else 0.

    Raises:
        UserError: a folder that holds a family of other settings, a model or a table that cannot be read, a speed that
            cannot be reached, or a file that cannot be written.
    """
    status = run([family.dense], family.dense.folder.parent) if family.dense else 0
    if status:
        return status
    there, base = family.dense_model, family.output / MODELS / DENSE
    if not base.exists():
        refuse_not_finite(load_source(there).model, there)
    with locked(family.output):
        _check_same(family)
        sizes = read_architecture(there)
        check_served(there, sizes, family.conditions)
        table = given_table(family.table, family.conditions, sizes) if family.table else None
        base = made(base, there, copied) if there != base else base
        table = table or kept_table(family.output, base, family.conditions)
        # Asked for once, a target stays in the family.
        speedups = sorted({*family.speedups, *targets_in(family.output)})
        source, beginning = base, _Beginning(family, base, table)
        if not all(family.record(speedup).exists() for speedup in speedups):
            # Before the others are made.
            beginning.meter.refuse_unreachable(speedups[-1])
        for speedup in speedups:
            reached = _target(family, speedup, source, beginning, run)
            if isinstance(reached, int):
                return reached
            source = reached
        files = _exported(family, speedups)
        config, served = family.job.config, family.conditions
        status = measure_models(family.output / METRICS, files, config.data, config.allow_partial,
                                sorted({*BATCHES, served.batch}), [served.length], served.threads, quiet)  # fmt: skip
        if status:
            return status
        from gated_bert.experiments.studies.speedup_report import write_family

        for path in write_family(family.output, family.conditions):
            print(f"wrote {path}")
    return 0


class _Beginning:
    """What all targets begin with, read once and only where one is to be made.

    Args:
        family: what is asked for.
        base: folder of the dense model.
        table: its latency table.
    """

    def __init__(self, family: Family, base: Path, table: LatencyTable):
        self._family, self._base, self.table = family, base, table

    @functools.cached_property
    def _dense(self) -> LoadedModel:
        return load_source(self._base)

    @functools.cached_property
    def meter(self) -> SpeedMeter:
        return SpeedMeter(self._dense.model, self._family.conditions)

    @functools.cached_property
    def examples(self) -> Examples:
        return load_task_data(self._family.job.config, self._dense.task).train


def _target(family: Family, speedup: float, source: Path, beginning: _Beginning, run: Run) -> Path | int:
    """The folder of the model that a target comes to from `source`; where training failed, its exit status."""
    pruned, record, final = family.pruned(speedup), family.record(speedup), family.final(speedup)
    if not _is_made(pruned, record, source):
        print(f"\n{pruned}:", flush=True)
        if final.exists():
            print(f"note: {final.name} is made anew, of {source.name}, which was made after it", flush=True)
        remove(record)
        reached = prune_to_speed(
            source, pruned, speedup, beginning.table, beginning.meter, beginning.examples, family.effort
        )
        # What was made of an earlier one is none of this one's.
        for stale in (final, family.run(speedup)):
            remove(stale)
        write_json_atomic(record, _told(reached, speedup))
    # Where nothing was removed there is nothing to make up for.
    if family.trained and read_record(record, SpeedRecord)["tried"]:
        job = family.training(speedup)
        status = run([job], job.folder.parent)
        return status or made(final, job.folder / MODEL, copied)
    return made(final, pruned, copied)


def _check_same(family: Family):
    """Refuses a folder that holds a family of other settings; more targets may be added."""
    path = family.output / RECORD
    asked = {
        "model": str(family.model.resolve()), "conditions": dataclasses.asdict(family.conditions),
        "effort": dataclasses.asdict(family.effort), "trained": family.trained, "data": family.job.config.data,
    }  # fmt: skip
    is_begun = any((family.output / MODELS).glob("pruned_*"))
    known = read_record(path, FamilyRecord, remedy="choose another folder", tolerant=not is_begun) or asked
    if not is_begun:
        # Before the first model is made of it, a family may be any; what was begun with another model is none of it.
        if known["model"] != asked["model"]:
            for stale in (family.output / MODELS / DENSE, family.output / TABLE):
                remove(stale)
        known = asked
    for name, value in asked.items():
        if known[name] != value:
            raise UserError(f"{family.output}: holds a family whose {name} is {known[name]}, not {value}; choose "
                            "another folder")  # fmt: skip
    here, copy = (folder / WEIGHTS for folder in (family.dense_model, family.output / MODELS / DENSE))
    # A newer model is taken, and all made anew of it.
    if is_begun and copy.exists() and written(here) <= written(copy) and not filecmp.cmp(here, copy, shallow=False):
        raise UserError(f"{family.output}: holds a family of another model than {family.model} is now; choose another "
                        "folder")  # fmt: skip
    write_json_atomic(path, asked)


def _exported(family: Family, speedups: Sequence[float]) -> list[Path]:
    """ONNX files of the dense model and of every target, in 32 and in 8 bits."""
    files: list[Path] = []
    graph, folder = family.conditions.graph, family.output / MODELS
    for source in (folder / DENSE, *map(family.final, speedups)):
        exported = made(folder / "onnx" / f"{source.name}.onnx", source,
                         lambda source, target: export_file(source, target, graph))  # fmt: skip
        fewer = made(folder / "int8" / exported.name, exported,
                      lambda source, target: quantize_file(source, target, "int8"))  # fmt: skip
        files += [exported, fewer]
    return files


def _told(reached: Reached, speedup: float) -> dict:
    if reached.note:
        print(f"note: {reached.note}")
    layers = ", ".join(f"{sizes.num_heads}+{sizes.intermediate_size}" for sizes in reached.layers)
    print(f"{speedup:g}×: measured {reached.speedup:.2f}×, by the table {reached.predicted:.2f}×; heads+neurons of the "
          f"layers: {layers}", flush=True)  # fmt: skip
    return {"target": speedup, **dataclasses.asdict(reached)}


def _is_made(pruned: Path, record: Path, source: Path) -> bool:
    """Whether a model was pruned, to its end, from this source as it is."""
    told = read_record(record, SpeedRecord, tolerant=True)
    return bool(told) and is_model_folder(pruned) and written(pruned) >= written(source)
