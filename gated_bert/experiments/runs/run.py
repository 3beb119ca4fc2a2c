"""One run: data, model, training with pruning, evaluation, files."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

import keras
import numpy as np
import pandas as pd

from gated_bert.compression.model_statistics import mac_record
from gated_bert.config import NOT_COMPUTED, ConfigError, GatedBertConfig
from gated_bert.experiments.reports.best import best_row
from gated_bert.experiments.reports.plots import plot_run
from gated_bert.experiments.reports.results import PATTERN_SPARSITY, read_run
from gated_bert.experiments.reports.run_record import free_stamp, next_order
from gated_bert.experiments.runs.checkpoint import CheckpointCallback, last_checkpoint
from gated_bert.experiments.runs.devices import with_counted_devices
from gated_bert.experiments.runs.environment import hardware, versions
from gated_bert.experiments.runs.epochs import EpochCallback, OrderCallback
from gated_bert.experiments.runs.finished import finished_run, has_plots, headline, rows_of
from gated_bert.experiments.runs.output_folder import opened_run, unchanged_if_refused
from gated_bert.experiments.runs.resource_log import ResourceCallback, ResourceLog
from gated_bert.experiments.runs.resume_store import kept_elsewhere
from gated_bert.experiments.runs.run_state import (
    CHECKPOINT,
    LAUNCHER_VARIABLE,
    is_finished,
    newest_metadata,
    read_status,
)
from gated_bert.experiments.runs.status import Status, StatusCallback
from gated_bert.experiments.runs.ticket import RewindCallback, apply_ticket
from gated_bert.models.build import build_model
from gated_bert.models.checkpoints import head_notes
from gated_bert.models.folder import same_model, save_model
from gated_bert.pruning.callbacks import PruningCallback
from gated_bert.pruning.criteria import criterion_class
from gated_bert.pruning.optimizers import build_optimizer
from gated_bert.pruning.pruner import sparsity
from gated_bert.support.backend import always_compiles, data_parallel
from gated_bert.support.environ import verbosity
from gated_bert.support.errors import UserError
from gated_bert.support.files import write_csv_atomic, write_json_atomic
from gated_bert.tasks.data import load_task_data
from gated_bert.tasks.evaluation import evaluate_model, make_dataset
from gated_bert.tasks.metrics import streaming_metric
from gated_bert.tasks.own import own_data_notes
from gated_bert.tasks.tables import shorten
from gated_bert.tasks.tokenizer import load_tokenizer

LOGGER = logging.getLogger("gated_bert")
PREDICTIONS = "predictions.json"
"""The answers of the last evaluation, in the format that SQuAD's official script reads."""


@dataclass(frozen=True)
class RunResult:
    """What a finished run leaves.

    Args:
        folder: the run folder.
        rows: one dictionary per epoch.
        best: the row with the best validation metric at the highest sparsity reached; its model is in `model_best/`.
        final: the last row; its model is in `model/`.
    """

    folder: Path
    rows: list[dict]
    best: dict
    final: dict


def train(
    config: GatedBertConfig,
    run_dir: str | os.PathLike | None = None,
    resume: bool = False,
    notify: Callable[[dict], None] | None = None,
) -> RunResult:
    """Trains, prunes and evaluates one model and writes its run folder.

    Args:
        config: the run's record.
        run_dir: where everything is written; default `results/results_{method}_{task}`.
        resume: go on from the folder's last checkpoint where there is one; a finished run stays as it is. Without it an
            earlier run in the folder is moved to `saved_results/` beside it.
        notify: called with the live status, twice a second at most.

    Returns:
        The rows of the results and the folder.

    Raises:
        UserError: data, pretrained weights, folder or loss that cannot be used, or a run to go on with that was begun
            with other settings.
    """
    folder = Path(run_dir or Path("results") / f"results_{config.label}_{Path(config.task).stem}")
    with opened_run(folder, resume), kept_elsewhere(config, folder, resume):
        run = _Run(config, folder, resume, notify)
        with unchanged_if_refused(folder, lambda: bool(run.metadata or run.finished)):
            return run.keep_finished() if run.finished else run.train()


class _Run:
    """The state that one run's steps share."""

    def __init__(self, config: GatedBertConfig, folder: Path, resume: bool, notify):
        self.config, self.folder = with_counted_devices(config), folder
        self.checkpoint, self.note = None, ""
        self.finished = finished_run(folder) if resume else None
        if self.finished:
            self._refuse_other_config(self.finished.config)
        elif resume:
            self.checkpoint, self.note = last_checkpoint(folder)
            before = newest_metadata(folder)
            self._refuse_other_config(self.checkpoint.place["config"] if self.checkpoint else before.get("config"))
            if not self.checkpoint and (before.get("status") == "finished" or (folder / "model").exists()):
                raise UserError(f"{folder}: the run here is finished, but its results_*.csv or metadata_*.json cannot "
                                "be read; leave --resume out to set it aside and start afresh")  # fmt: skip
        place = self.checkpoint.place if self.checkpoint else {}
        self.stamp = place.get("stamp") or free_stamp(folder, datetime.now())
        self.rows: list[dict] = place.get("rows", [])
        self.one_shot: dict[str, dict] = place.get("one_shot", {})
        self.metadata: dict = {}
        self.saved_best: int | None = None
        self.status = Status(
            folder,
            notify,
            job=folder.name,
            method=config.label,
            task=config.task,
            seed=config.seed,
            epochs=config.epochs,
            note=self.note,
        )

    def _refuse_other_config(self, before: dict | None):
        was, now = (dataclasses.asdict(each) for each in (GatedBertConfig.from_dict(before or {}), self.config))
        for name, value in now.items() if before else ():
            if was[name] != value and name not in NOT_COMPUTED:
                raise UserError(
                    f"{self.folder}: --resume with {name}={value!r}, but the run was begun with {was[name]!r}; "
                    "give the same value, or leave --resume out to start afresh"
                )

    def _refuse_other_labels(self, before: list[str] | None):
        if before is not None and tuple(before) != self.task.labels:
            raise UserError(
                f"{self.folder}: --resume with the classes {shorten(self.task.labels)}, but the run was begun with "
                f"{shorten(before)}; restore the data, or leave --resume out to start afresh"
            )

    def keep_finished(self) -> RunResult:
        """Leaves a finished run as it is, but for what a kill after its last result left to do."""
        run = self.finished
        rows, best, final = rows_of(run)
        if not has_plots(run):
            plot_run(run)
        (self.folder / CHECKPOINT).unlink(missing_ok=True)
        reached = headline(final, f"val_{run.metric}")
        if not is_finished(self.folder):
            self.status.update(
                state="finished", message=reached, epoch=final["epoch"], metric_name=run.metric,
                **{name: final[name] for name in ("sparsity", PATTERN_SPARSITY)}, metric=final[f"val_{run.metric}"],
            )  # fmt: skip
        elif self.status.notify:
            self.status.notify(read_status(self.folder))
        if verbosity(os.environ):
            print(f"note: the run in {self.folder} is finished and stays as it is: {reached} after epoch "
                  f"{final['epoch']}, {headline(best, f'val_{run.metric}')} after its best, {best['epoch']}",
                  flush=True)  # fmt: skip
        return RunResult(self.folder, rows, best, final)

    def train(self) -> RunResult:
        handler = logging.FileHandler(self.folder / "log.txt", encoding="utf-8", errors="backslashreplace")
        handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
        LOGGER.addHandler(handler)
        LOGGER.setLevel(logging.DEBUG if os.environ.get("VERBOSE") == "2" else logging.INFO)
        LOGGER.propagate = False
        self.status.update(state="starting", message="reading data")
        if self.note:
            LOGGER.warning("%s", self.note)
        began = time.time()
        try:
            self.resources = ResourceLog(self.folder, self.config.resource_seconds, bool(self.checkpoint))
            several = data_parallel(self.config.devices) if self.config.devices > 1 else contextlib.nullcontext()
            with self.resources, several:
                self._prepare()
                self._fit()
            result = self._finish(time.time() - began)
        except KeyboardInterrupt:
            self._end("stopped", "stopped; --resume goes on")
            raise
        except BaseException as error:
            self._end("failed", f"{type(error).__name__}: {error}".splitlines()[0])
            if not isinstance(error, UserError | ConfigError):
                LOGGER.exception("failed")
            raise
        finally:
            LOGGER.removeHandler(handler)
            handler.close()
        return result

    def _end(self, state: str, message: str):
        self.status.update(state=state, message=message)
        LOGGER.info("%s: %s", state, message)
        # What came after the last result can be done again; the results stay those of a finished run.
        if self.metadata and self.metadata["status"] != "finished":
            self._write_metadata(status=state, message=message)

    def _prepare(self):
        config = self.config
        keras.utils.set_random_seed(config.seed)
        keras.config.set_dtype_policy(config.precision)
        self.data = load_task_data(config)
        self.task = self.data.task
        self._say()
        self.tokenizer = load_tokenizer(config)
        self.train_set = make_dataset(
            self.task, self.tokenizer, self.data.train, config, seed=config.seed, multiple=config.devices
        )
        self.dev_sets = {
            name: make_dataset(self.task, self.tokenizer, examples, config, multiple=config.devices)
            for name, examples in self.data.dev.items()
        }
        self.status.update(message="building the model")
        criterion = criterion_class(config)
        rule = criterion.gate_rule if criterion else "fixed"
        self.model = build_model(config, self.task, self.tokenizer.vocab_size, gate_rule=rule)
        self.steps = len(self.train_set)
        if config.ticket and not self.checkpoint:
            apply_ticket(self.model, self.task, config, self.train_set, _loss(self.task))
        score_rule = criterion.score_rule if criterion else "gradient"
        optimizer = build_optimizer(config, self.model, self.steps * config.epochs, score_rule)
        jit = config.jit_compile or always_compiles()
        self.model.compile(optimizer, _loss(self.task), metrics=[streaming_metric(self.task)], jit_compile=jit)
        prunes = criterion and not config.ticket
        self.pruning = PruningCallback.from_config(config, self.model, self.train_set, self.steps) if prunes else None
        self.criterion = self.pruning.criterion if self.pruning else None
        self._start_metadata()

    def _say(self):
        """Says what was decided on own data, and logs that and what there is to say about the head."""
        notes = own_data_notes(self.data.source)
        # What a job of the launcher prints, and its warning about the head, is in the log as it is.
        alone = LAUNCHER_VARIABLE not in os.environ
        if alone and verbosity(os.environ):
            print("".join(f"note: {note}\n" for note in notes), end="", flush=True)
        for note in notes + head_notes(self.config.pretrained, self.task) * alone:
            LOGGER.info("%s", note)

    def _start_metadata(self):
        self.prunable = self.model.gated_layers(self.config.prunable_roles)
        weights = sum(int(np.prod(layer.raw_kernel.shape)) for layer in self.prunable)
        gates = ("gates", "scores")
        total = sum(int(np.prod(v.shape)) for v in self.model.trainable_variables if v.name not in gates)
        self.metadata = {
            "method": self.config.label,
            "label": self.config.label,
            "config": dataclasses.asdict(self.config),
            "task": {name: getattr(self.task, name) for name in ("name", "title", "kind", "labels", "metrics")},
            "data": self.data.source,
            "seed": self.config.seed,
            "versions": versions(),
            "hardware": hardware(),
            "parameters": {"total": total, "prunable": weights, "remaining": total},
            "schedule": self.pruning.schedule.to_dict() if self.pruning else None,
            "order": next_order(self.folder, time.time()),
            "started": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        }
        self._write_metadata(status="running")

    def _write_metadata(self, **fields):
        self.metadata |= fields
        write_json_atomic(self.folder / f"metadata_{self.config.label}_{self.stamp}.json", self.metadata)

    def _fit(self):
        place = self.checkpoint.place if self.checkpoint else {"epoch": 0, "batches": 0, "seconds": 0.0}
        epoch, batches = place["epoch"], place["batches"]
        if self.checkpoint:
            self._refuse_other_labels(self.checkpoint.place.get("labels"))
            self.checkpoint.restore(self.model, self.criterion)
            LOGGER.info("going on at epoch %d, step %d", epoch + 1, batches)
        elif self.config.ticket:
            self.one_shot["after"] = self.evaluate()
        elif self.pruning and self.config.schedule == "one_shot" and self.config.pruning_start_epoch == 1:
            self.one_shot["before"] = self.evaluate()
        done = epoch * self.steps + batches
        epochs = EpochCallback(self, place["seconds"])
        saving = CheckpointCallback(
            self.folder / CHECKPOINT,
            self.criterion,
            self.steps,
            self.config.checkpoint_steps,
            self.train_set.can_start_at,
            self.checkpoint,
            self._place(epochs),
        )
        closed = self.pruning.closed_share if self.pruning else functools.cache(lambda: sparsity(self.prunable))
        status = StatusCallback(self.status, self.steps, self.config.epochs, self.task.metrics[0], done, closed)
        resources = ResourceCallback(self.resources, self.steps) if self.config.resource_seconds else None
        # Before the checkpoint, so that none is from after the step whose weights are missing.
        rewind = RewindCallback(self, self.config.rewind_step) if self.config.rewind_step is not None else None
        parts = (OrderCallback(self.train_set), self.pruning, rewind, epochs, status, saving, resources)
        callbacks = [part for part in parts if part is not None]
        if batches:
            # Makes the metrics' variables, which the checkpoint is about to fill; `fit` makes them at its first step.
            self.model.test_on_batch(*self.train_set[0])
            for callback in callbacks:
                callback.first_batch = batches
            self._fit_epochs(callbacks, epoch, epoch + 1)
            for callback in callbacks:
                callback.first_batch = 0
            epoch += 1
        self._fit_epochs(callbacks, epoch, self.config.epochs)

    def _place(self, epochs):
        def extra() -> dict:
            return {
                "seconds": epochs.seconds(),
                "rows": self.rows,
                "one_shot": self.one_shot,
                "stamp": self.stamp,
                "labels": self.task.labels,
                "config": dataclasses.asdict(self.config),
            }

        return extra

    def _fit_epochs(self, callbacks, first: int, last: int):
        if first < last:
            self.train_set.set_epoch(first, callbacks[0].first_batch)
            self.model.fit(
                self.train_set, initial_epoch=first, epochs=last, callbacks=callbacks, verbose=0, shuffle=False
            )

    def evaluate(self) -> dict[str, float]:
        """Loss and metrics on the development sets; of spans the answers are written beside the results."""
        scores, answers = evaluate_model(self.model, self.task, self.dev_sets, self.data.dev, self.config)
        if answers:
            write_json_atomic(self.folder / PREDICTIONS, answers)
        return scores

    def write_rows(self):
        """Writes the results so far."""
        write_csv_atomic(self.folder / f"results_{self.config.label}_{self.stamp}.csv", pd.DataFrame(self.rows))

    def save(self, name: str, row: dict):
        """Saves the model as folder `name`."""
        metadata = self.metadata | {"row": row}
        save_model(self.folder / name, self.model, self.tokenizer, self.task, metadata)

    @property
    def primary(self) -> str:
        """Column of the validation metric that decides what is best."""
        return f"val_{self.task.metrics[0]}"

    def _finish(self, seconds: float) -> RunResult:
        final, best = self.rows[-1], best_row(self.rows, self.primary)
        if best is final and self.saved_best == final["epoch"]:
            same_model(self.folder / "model_best", self.folder / "model")
        else:
            self.save("model", final)
        remaining = self.metadata["parameters"]["total"] - round(
            final["sparsity"] * self.metadata["parameters"]["prunable"]
        )
        self.metadata["parameters"]["remaining"] = remaining
        self.metadata["macs_per_token"] = mac_record(self.model, self.config.max_len)
        reached = headline(final, self.primary)
        # From here on the run is finished, whatever happens: its models, its rows and this are on the disk.
        self._write_metadata(
            status="finished",
            final=final,
            best=best,
            one_shot=self.one_shot or None,
            seconds=round(seconds, 1),
            message=reached,
            finished=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        )
        failed: list[str] = []
        plot_run(read_run(self.folder), failed)
        self.resources.plot(failed)
        if failed:
            self._write_metadata(plots_failed=failed)
        (self.folder / CHECKPOINT).unlink(missing_ok=True)
        self._end("finished", reached)
        return RunResult(self.folder, self.rows, best, final)


def _loss(task) -> keras.losses.Loss:
    if task.kind == "regression":
        return keras.losses.MeanSquaredError()
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True)
