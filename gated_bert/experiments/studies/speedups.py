"""Models that are so many times as fast as the dense one: pruned from one target to the next, and taught in between."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gated_bert.compression.latency import Conditions, LatencyTable, usual_conditions
from gated_bert.compression.onnx_export import export_file
from gated_bert.compression.quantize import quantize_file
from gated_bert.compression.source import load_source
from gated_bert.config import GatedBertConfig
from gated_bert.experiments.models.latency_report import measured
from gated_bert.experiments.reports.run_layout import MODEL
from gated_bert.experiments.runs.output_folder import locked
from gated_bert.experiments.studies.compress import METRICS, MODELS, copied, made, measure_models, remove, written
from gated_bert.experiments.studies.prune_to_speed import Effort, Reached, SpeedMeter, prune_to_speed
from gated_bert.experiments.sweeps.jobs import Job, job_command
from gated_bert.models.folder import is_model_folder, read_architecture
from gated_bert.support.errors import UserError
from gated_bert.support.files import write_json_atomic
from gated_bert.support.paths import user_path
from gated_bert.support.quiet import Logged
from gated_bert.support.records import read_record
from gated_bert.support.speed_schemas import FamilyRecord, SpeedRecord
from gated_bert.tasks.data import load_task_data

TABLE, RECORD, RUNS, DENSE = "latency.json", "family.json", "runs", "dense"
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

    def pruned(self, speedup: float) -> Path:
        """Folder of the model as it was pruned to a target."""
        return self.output / MODELS / f"pruned_{speedup:g}x"

    def final(self, speedup: float) -> Path:
        """Folder of the model that a target comes to."""
        return self.output / MODELS / f"speedup_{speedup:g}x"

    def run(self, speedup: float) -> Path:
        """Folder of that target's training."""
        return self.output / RUNS / f"speedup_{speedup:g}x"

    def training(self, speedup: float) -> Job:
        """The run that trains what was pruned to a target, with the dense model as its teacher."""
        folder = self.run(speedup)
        model, teacher = (str(path.resolve()) for path in (self.pruned(speedup), self.model))
        config = self.job.config.replace(pretrained=model, teacher=teacher, **{"distill_layers": "all", **self.learns})
        return Job(f"{config.task} {speedup:g}×", config, folder, job_command(folder))

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
        family: what is asked for.
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
    with locked(family.output):
        _check_same(family)
        table = None if family.table is None else _given_table(family)
        base = family.output / MODELS / DENSE
        if family.model.exists() or not base.exists():
            _check_model(family)
            base = made(base, family.model, copied)
        table = table or _table(family, base)
        fastest = max(family.speedups)
        if not _record(family.pruned(fastest)).exists():
            # Before the others are made.
            SpeedMeter(load_source(base).model, family.conditions).refuse_unreachable(fastest, table)
        source = base
        for speedup in family.speedups:
            reached = _target(family, speedup, source, base, table, run)
            if isinstance(reached, int):
                return reached
            source = reached
        files = _exported(family)
        config, served = family.job.config, family.conditions
        status = measure_models(family.output / METRICS, files, config.data, config.allow_partial,
                                sorted({*BATCHES, served.batch}), [served.length], served.threads, quiet)  # fmt: skip
        if status:
            return status
        from gated_bert.experiments.studies.speedup_report import write_family

        for path in write_family(family.output, family.conditions):
            print(f"wrote {path}")
    return 0


def _target(
    family: Family, speedup: float, source: Path, base: Path, table: LatencyTable, run: Run
) -> Path | int:
    """The folder of the model that a target comes to from `source`; where training failed, its exit status."""
    pruned = family.pruned(speedup)
    if not _is_made(pruned, source):
        dense = load_source(base)
        meter = SpeedMeter(dense.model, family.conditions)
        examples = load_task_data(family.job.config, dense.task).train
        print(f"\n{pruned}:", flush=True)
        # What was made of an earlier one is none of this one's.
        for stale in (pruned, _record(pruned), family.final(speedup), family.run(speedup)):
            remove(stale)
        reached = prune_to_speed(source, pruned, speedup, table, meter, examples, family.effort)
        write_json_atomic(_record(pruned), _told(reached, speedup))
    # Where nothing was removed there is nothing to make up for.
    if family.trained and read_record(_record(pruned), SpeedRecord)["tried"]:
        job = family.training(speedup)
        status = run([job], job.folder.parent)
        return status or made(family.final(speedup), job.folder / MODEL, copied)
    return made(family.final(speedup), pruned, copied)


def _check_model(family: Family):
    """Refuses a dense model whose speed cannot be measured so, before anything is made of it."""
    sizes, length = read_architecture(family.model), family.conditions.length
    if length > sizes.max_position:
        raise UserError(f"--length: {length} is refused; allowed: 1 to {sizes.max_position}, the model's longest input")
    if len(set(sizes.layers)) > 1:
        raise UserError(f"{family.model}: its layers are of different sizes; give the model that it was shrunk from")


def _given_table(family: Family) -> LatencyTable:
    """The table that was given.

    Raises:
        UserError: it is of other conditions, or of another model.
    """
    table = LatencyTable.load(Path(str(family.table)))
    for name, value in dataclasses.asdict(family.conditions).items():
        found = getattr(table.conditions, name)
        if found != value:
            raise UserError(f"--table: {family.table}: its {name} is {found}, and {value} was asked for; measure one")
    table.predict(read_architecture(family.model if family.model.exists() else family.output / MODELS / DENSE))
    return table


def compress(
    model_folder: str | Path, speedups: Sequence[float], output: str | Path, data: str, *, epochs: int = 2,
    conditions: Conditions | None = None, effort: Effort | None = None, table: str | Path | None = None, **record: Any,
) -> list[dict[str, Any]]:  # fmt: skip
    """Makes models that are so many times as fast as a fine-tuned one; called again, it goes on where it stopped.

    What the command of the same name prints is logged, by `logging.getLogger("gated_bert")`.

    Args:
        model_folder: the folder of the dense model.
        speedups: how many times as fast, over the dense model in fp32.
        output: folder of the family; afterwards `models/speedup_2x` … are model folders, `models/onnx` and
            `models/int8` hold their exported files, `report.html` and `family.csv` what they cost and keep.
        data: hub, embedded, a folder or a file: what is pruned and trained on, and judged.
        epochs: of training after each target, with the dense model as the teacher; 0: none.
        conditions: of a prediction whose time counts; by default one sequence of 128 tokens, or of the longest that the
            model takes, on one thread in fp32.
        effort: what pruning to a target may cost.
        table: a latency table of the model that was measured before.
        **record: fields of `GatedBertConfig`, for training: `learning_rate`, `train_examples`, `distill_layers` …

    Returns:
        The rows of `family.csv`.

    Raises:
        ConfigError: a refused field.
        UserError: see `make_family`, or training that failed.
    """
    from gated_bert.experiments.runs.run import train
    from gated_bert.experiments.studies.speedup_report import TABLE as FAMILY
    from gated_bert.experiments.studies.speedup_report import read_family

    if not isinstance(speedups, Sequence) or not speedups or not all(speedup > 1 for speedup in speedups):
        raise UserError(f"speedups: {speedups!r} is refused; allowed: numbers above 1, e.g. [2, 4]")
    model, output = user_path(model_folder), user_path(output)
    taught = [name for name in record if name.startswith("distill_")]
    learns = {name: record.pop(name) for name in taught}
    if "task" not in record:
        record["task"] = load_source(model).task.name
    config = GatedBertConfig(pruning_method="baseline", data=data, pretrained=str(model), epochs=epochs, **record)
    job = Job(config.task, config, output / RUNS, ())
    known = None if table is None else user_path(table)
    sizes = read_architecture(model if model.exists() else output / MODELS / DENSE)
    family = Family(output, None, model, job, sorted(speedups), conditions or usual_conditions(sizes),
                    effort or Effort(seed=config.seed), learns, known)  # fmt: skip

    def run(jobs: Sequence[Job], folder: Path) -> int:
        for each in jobs:
            train(each.config, each.folder, resume=True)
        return 0

    with Logged() as lines, redirect_stdout(lines):
        status = make_family(family, run, quiet=True)
    if status:
        raise UserError(f"{output}: the models could not be measured (exit status {status})")
    return read_family(output / FAMILY)


def _check_same(family: Family):
    """Refuses a folder that holds a family of other settings; more targets may be added."""
    path = family.output / RECORD
    asked = {
        "model": str(family.model.resolve()), "conditions": dataclasses.asdict(family.conditions),
        "effort": dataclasses.asdict(family.effort), "trained": family.trained, "data": family.job.config.data,
    }  # fmt: skip
    # Before the first model is made of it, a family may be any.
    begun = any((family.output / MODELS).glob("pruned_*"))
    known = (read_record(path, FamilyRecord, tolerant=True) if begun else None) or asked
    for name, value in asked.items():
        if known[name] != value:
            raise UserError(f"{family.output}: holds a family whose {name} is {known[name]}, not {value}; choose "
                            "another folder")  # fmt: skip
    write_json_atomic(path, asked)


def _table(family: Family, base: Path) -> LatencyTable:
    """The table that is there already, of the same conditions, or is measured now."""
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
    return {"target": speedup, **dataclasses.asdict(reached)}


def _is_made(pruned: Path, source: Path) -> bool:
    """Whether a model was pruned, to its end, from this source as it is."""
    record = read_record(_record(pruned), SpeedRecord, tolerant=True)
    return bool(record) and is_model_folder(pruned) and written(pruned) >= written(source)
