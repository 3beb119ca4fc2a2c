"""Families of models by speed from Python."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from gated_bert.compression.latency import Conditions, usual_conditions
from gated_bert.compression.preconditions import speed_targets
from gated_bert.compression.source import load_source
from gated_bert.config import GatedBertConfig
from gated_bert.experiments.runs.teacher_folder import read_task
from gated_bert.experiments.studies.family_folder import RUNS, dense_of
from gated_bert.experiments.studies.prune_to_speed import Effort
from gated_bert.experiments.studies.speedups import Family, make_family
from gated_bert.experiments.sweeps.jobs import Job
from gated_bert.models.folder import is_model_folder, read_architecture
from gated_bert.pruning.check_parts import check_classes
from gated_bert.support.errors import UserError
from gated_bert.support.paths import user_path
from gated_bert.support.quiet import Logged
from gated_bert.tasks.task import TASKS

_SAID = ("pretrained", "pruning_method", "data", "epochs")
"""Fields of the record that have their own arguments, or that a family decides."""
_FIELDS = inspect.signature(GatedBertConfig).parameters


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

    wanted = speed_targets(speedups)
    check_classes(conditions=(conditions, Conditions, None), effort=(effort, Effort, None))
    _check_names(record)
    model, output = user_path(model_folder), user_path(output)
    taught = [name for name in record if name.startswith("distill_")]
    learns = {name: record.pop(name) for name in taught}
    there = dense_of(output, model)
    if not there.exists():
        raise UserError(f"{model}: no such file or folder; give that of a dense model")
    if not is_model_folder(there):
        raise UserError(f"{there}: no model folder; gated-bert train -pt FOLDER makes one of weights of other tools")
    task, sizes = read_task(str(there)) or load_source(there).task, read_architecture(there)
    if record.setdefault("task", task.name) != task.name and {record["task"], task.name} <= TASKS.keys():
        raise UserError(f"task: {record['task']!r} is refused; allowed: {task.name}, which the model is for")
    config = GatedBertConfig(pruning_method="baseline", data=data, pretrained=str(model), epochs=epochs, **record)
    if "max_len" not in record:
        config = config.replace(max_len=min(config.max_len, sizes.max_position))
    job = Job(config.task, config, output / RUNS, ())
    known = None if table is None else user_path(table)
    served = conditions or usual_conditions(sizes)
    family = Family(output, None, model, job, wanted, served, effort or Effort(seed=config.seed), learns, known)

    def run(jobs: Sequence[Job], folder: Path) -> int:
        for each in jobs:
            train(each.config, each.folder, resume=True)
        return 0

    family.check()
    with Logged() as lines, redirect_stdout(lines):
        status = make_family(family, run, quiet=True)
    if status:
        raise UserError(f"{output}: the models could not be measured (exit status {status})")
    return read_family(output / FAMILY)


def _check_names(names: Iterable[str]):
    places = {"effort": Effort, "conditions": Conditions}
    for name in names:
        if name not in _FIELDS or name in _SAID:
            hints = [f"; it belongs to {place}={kind.__name__}({name}=…)" for place, kind in places.items()
                     if name in inspect.signature(kind).parameters]  # fmt: skip
            raise UserError(f"{name}: is refused; allowed: fields of GatedBertConfig but {', '.join(_SAID)}"
                            + "".join(hints))  # fmt: skip
