"""The folder of a run while it is being written: rows, metadata, predictions, models, and where the run stands."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd

from gated_bert.compression.model_statistics import mac_record
from gated_bert.config import GatedBertConfig
from gated_bert.config.parts import part_of
from gated_bert.experiments.reports.best import best_row
from gated_bert.experiments.reports.run_layout import (
    BEST_MODEL,
    INITIAL_MODEL,
    METADATA,
    MODEL,
    PREDICTIONS,
    ROWS,
    named,
)
from gated_bert.experiments.reports.run_record import free_stamp, next_order
from gated_bert.experiments.runs.environment import hardware, versions
from gated_bert.experiments.runs.lifecycle import FINISHED
from gated_bert.models.backbone import EncoderClassifier
from gated_bert.models.folder import same_model, save_model
from gated_bert.pruning.criteria.base import class_of
from gated_bert.support.files import write_csv_atomic, write_json_atomic
from gated_bert.tasks.examples import TaskData
from gated_bert.tasks.task import Task
from gated_bert.tasks.tokenizer import Tokenizer


class RunFolder:
    """What a run leaves on the disk; callbacks get it instead of the run.

    Args:
        path: the folder.
        config: the run's record.
        place: of the checkpoint that the run goes on from; empty for a new run.

    Attributes:
        rows: one dictionary per epoch.
        one_shot: metrics before and after a pruning that happens once, before training.
        metadata: how the run came to be; empty before `begin`.
    """

    def __init__(self, path: Path, config: GatedBertConfig, place: Mapping):
        self.path, self.config = path, config
        self.stamp: str = place.get("stamp") or free_stamp(path, datetime.now())
        self.rows: list[dict] = place.get("rows", [])
        self.one_shot: dict[str, dict] = place.get("one_shot", {})
        self.metadata: dict = {}
        self._saved_best: int | None = None
        self._aims = config.criterion is not None and class_of(part_of(config)).aims

    def begin(
        self, data: TaskData, tokenizer: Tokenizer, model: EncoderClassifier, schedule: Mapping | None,
        same_as: str | None = None, teacher: str | None = None,
    ) -> None:  # fmt: skip
        """Writes how the run comes to be; from here on it has begun.

        Args:
            data: what it learns from.
            tokenizer: the tokeniser that goes with its models.
            model: the model before its first step.
            schedule: of its pruning, JSON values.
            same_as: what tables call its model where the record does not say it: as the teacher's that it starts from.
            teacher: the digest of its teacher's files, in hexadecimal digits; None without one.
        """
        self.task: Task = data.task
        self.tokenizer = tokenizer
        prunable = model.gated_layers(self.config.prunable_roles)
        weights = sum(int(np.prod(layer.raw_kernel.shape)) for layer in prunable)
        total = model.architecture.num_parameters
        self.metadata = {
            "method": self.config.label,
            "label": self.config.label,
            "config": dataclasses.asdict(self.config),
            "task": {name: getattr(self.task, name) for name in ("name", "title", "kind", "labels", "metrics")},
            "data": data.source,
            "seed": self.config.seed,
            "versions": versions(),
            "hardware": hardware(),
            "parameters": {"total": total, "prunable": weights, "remaining": total},
            "schedule": schedule,
            "order": next_order(self.path, time.time()),
            "started": _now(),
        }
        known = {"model": same_as, "teacher_digest": teacher}
        self.write(**{name: value for name, value in known.items() if value}, status="running")

    def write(self, **fields: Any) -> None:
        """Adds to the metadata, and writes them."""
        self.metadata |= fields
        write_json_atomic(self.path / named(METADATA, self.config.label, self.stamp), self.metadata)

    def end(self, state: str, message: str) -> None:
        """Writes how a run ended; what came after its last result can be done again, so a finished one stays that."""
        if self.metadata and self.metadata["status"] != FINISHED:
            self.write(status=state, message=message)

    @property
    def primary(self) -> str:
        """Column of the validation metric that decides what is best."""
        return f"val_{self.task.metrics[0]}"

    def add_row(self, row: Mapping[str, float], model: keras.Model) -> None:
        """Writes an epoch's row, and keeps the model where it is the best so far."""
        self.rows.append({name: float(value) if name != "epoch" else value for name, value in row.items()})
        write_csv_atomic(self.path / named(ROWS, self.config.label, self.stamp), pd.DataFrame(self.rows))
        if self.best is self.rows[-1]:
            self.save(BEST_MODEL, model, row=self.rows[-1])
            self._saved_best = self.rows[-1]["epoch"]

    def write_predictions(self, answers: Sequence | Mapping) -> None:
        """Writes the answers of an evaluation, of tasks that have such."""
        if answers:
            write_json_atomic(self.path / PREDICTIONS, answers)

    def save(self, name: str, model: keras.Model, **about: Any) -> None:
        """Saves a model as folder `name`, with the metadata and what else there is to say about it."""
        save_model(self.path / name, model, self.tokenizer, self.task, self.metadata | about)

    def save_initial(self, model: keras.Model, step: int) -> None:
        """Saves the model of an early step, which lottery tickets go back to."""
        self.save(INITIAL_MODEL, model, step=step)

    def finish(self, model: EncoderClassifier, seconds: float, message: str) -> None:
        """Saves the last model and the final results; from here on the run is finished, whatever happens.

        Args:
            model: the trained model.
            seconds: that the run took.
            message: what it reached.
        """
        final, best = self.final, self.best
        if best is final and self._saved_best == final["epoch"]:
            same_model(self.path / BEST_MODEL, self.path / MODEL)
        else:
            self.save(MODEL, model, row=final)
        parameters = self.metadata["parameters"]
        parameters["remaining"] = parameters["total"] - round(final["sparsity"] * parameters["prunable"])
        self.metadata["macs_per_token"] = mac_record(model, self.config.max_len)
        self.write(status=FINISHED, final=final, best=best, one_shot=self.one_shot or None, seconds=round(seconds, 1),
                   message=message, finished=_now())  # fmt: skip

    @property
    def final(self) -> dict:
        """The last row."""
        return self.rows[-1]

    @property
    def best(self) -> dict:
        """The row of the best model."""
        return best_row(self.rows, self.primary, self._aims)

    def place(self, seconds: float) -> dict:
        """What a checkpoint holds of the run beside its variables.

        Args:
            seconds: spent in the epoch so far.
        """
        return {
            "seconds": seconds,
            "rows": self.rows,
            "one_shot": self.one_shot,
            "stamp": self.stamp,
            "labels": self.task.labels,
            "teacher_digest": self.metadata.get("teacher_digest"),
            "config": dataclasses.asdict(self.config),
        }


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
