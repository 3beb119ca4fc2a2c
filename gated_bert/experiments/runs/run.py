"""One run: data, model, training with pruning, evaluation, files."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import keras

from gated_bert.config import ConfigError, GatedBertConfig
from gated_bert.config.parts import calibrated
from gated_bert.config.tracker_names import check_trackers
from gated_bert.experiments.reports.plots import plot_run
from gated_bert.experiments.reports.results import PATTERN_SPARSITY, Run, read_run
from gated_bert.experiments.reports.run_layout import CHECKPOINT, LOG_FILE, MODEL
from gated_bert.experiments.runs.checkpoint import CheckpointCallback
from gated_bert.experiments.runs.devices import as_on_this_machine
from gated_bert.experiments.runs.epochs import EpochCallback, OrderCallback, TrackCallback
from gated_bert.experiments.runs.finished import (
    checkpoint_to_go_on_from,
    finished_run,
    has_plots,
    headline,
    rows_of,
)
from gated_bert.experiments.runs.lifecycle import FINISHED, lifecycle, logged
from gated_bert.experiments.runs.output_folder import opened_run, unchanged_if_refused
from gated_bert.experiments.runs.resource_log import ResourceCallback, ResourceLog
from gated_bert.experiments.runs.resume_store import kept_elsewhere
from gated_bert.experiments.runs.run_folder import RunFolder
from gated_bert.experiments.runs.run_state import is_finished, newest_metadata, read_status
from gated_bert.experiments.runs.same_record import refuse_other_config, refuse_other_labels, refuse_other_teacher
from gated_bert.experiments.runs.status import Status, StatusCallback
from gated_bert.experiments.runs.teacher import Teacher
from gated_bert.experiments.runs.teacher_folder import find_teacher, model_of_teacher
from gated_bert.experiments.runs.ticket import RewindCallback, apply_ticket
from gated_bert.experiments.runs.tracking import Tracking
from gated_bert.models.backbone import TrainingLoss
from gated_bert.models.build import build_model
from gated_bert.models.checkpoints import head_notes
from gated_bert.models.run_family import run_tokenizer
from gated_bert.pruning.callbacks import PruningCallback, StepCallback
from gated_bert.pruning.criteria import criterion_of
from gated_bert.pruning.optimizers import build_optimizer
from gated_bert.pruning.pruner import sparsity
from gated_bert.support.backend import always_compiles, data_parallel
from gated_bert.support.environ import LAUNCHER_VARIABLE, verbosity
from gated_bert.support.errors import UserError
from gated_bert.tasks.calibration_texts import calibration_batches
from gated_bert.tasks.data import load_task_data
from gated_bert.tasks.evaluation import evaluate_model, make_dataset, task_loss
from gated_bert.tasks.metrics import streaming_metric
from gated_bert.tasks.own import own_data_notes
from gated_bert.tasks.tagging import check_metrics, unread_words
from gated_bert.tasks.tokenizer_protocol import TokenizerProtocol

LOGGER = logging.getLogger("gated_bert")


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
    flag: str = "run_dir",
    training_loss: TrainingLoss | None = None,
) -> RunResult:
    """Trains, prunes and evaluates one model and writes its run folder.

    Args:
        config: the run's record.
        run_dir: where everything is written; default `results/results_{method}_{task}`.
        resume: go on from the folder's last checkpoint where there is one; a finished run stays as it is. Without it an
            earlier run in the folder is moved to `saved_results/` beside it.
        notify: called with the live status, twice a second at most.
        flag: what messages call `run_dir`.
        training_loss: what training minimises; by default the task's loss, which evaluation and criteria look at in any
            case. No part of the run's record: whoever goes on with the run hands it in again.

    Returns:
        The rows of the results and the folder.

    Raises:
        ConfigError: a tracker that is not installed.
        UserError: data, pretrained weights, folder or loss that cannot be used, or a run to go on with that was begun
            with other settings.
    """
    check_trackers(config.track)
    folder = Path(run_dir or Path("results") / f"results_{config.label}_{Path(config.task).stem}")
    with opened_run(folder, resume, flag), kept_elsewhere(config, folder, resume):
        run = _Run(config, folder, resume, notify, training_loss)
        with unchanged_if_refused(folder, lambda: run.has_begun):
            return run.keep_finished(run.finished) if run.finished else run.train()


class _Run:
    """The state that one run's steps share."""

    def __init__(
        self, config: GatedBertConfig, path: Path, resume: bool, notify: Callable[[dict], None] | None,
        training_loss: TrainingLoss | None = None,
    ):  # fmt: skip
        begun = newest_metadata(path).get("config") if resume else None
        self.config, self.path, self.training_loss = as_on_this_machine(config, begun), path, training_loss
        self.finished = finished_run(path) if resume else None
        self.checkpoint, self.note = None, ""
        if self.finished:
            refuse_other_config(path, self.finished.config, self.config)
        elif resume:
            self.checkpoint, self.note = checkpoint_to_go_on_from(path, self.config)
        self.folder = RunFolder(path, self.config, self.checkpoint.place if self.checkpoint else {})
        self.tracking = Tracking(config.track, path, resume)
        self.status = Status(
            path,
            notify,
            job=path.name,
            method=config.label,
            task=config.task,
            seed=config.seed,
            epochs=config.epochs,
            note=self.note,
        )

    @property
    def has_begun(self) -> bool:
        """Whether what is in the folder is to stay, also if the run is refused."""
        return bool(self.folder.metadata or self.finished)

    def keep_finished(self, run: Run) -> RunResult:
        """Leaves a finished run as it is, but for what a kill after its last result left to do."""
        rows, best, final = rows_of(run)
        if not has_plots(run):
            plot_run(run)
        (self.path / CHECKPOINT).unlink(missing_ok=True)
        reached = headline(final, f"val_{run.metric}")
        if not is_finished(self.path):
            self.status.update(
                state=FINISHED, message=reached, epoch=final["epoch"], metric_name=run.metric,
                **{name: final[name] for name in ("sparsity", PATTERN_SPARSITY)}, metric=final[f"val_{run.metric}"],
            )  # fmt: skip
        elif self.status.notify:
            self.status.notify(read_status(self.path))
        if verbosity(os.environ):
            print(f"note: the run in {self.path} is finished and stays as it is: {reached} after epoch "
                  f"{final['epoch']}, {headline(best, f'val_{run.metric}')} after its best, {best['epoch']}",
                  flush=True)  # fmt: skip
        return RunResult(self.path, rows, best, final)

    def train(self) -> RunResult:
        with logged(self.path / LOG_FILE):
            self.status.update(state="starting", message="reading data")
            if self.note:
                LOGGER.warning("%s", self.note)
            began = time.time()
            with lifecycle(self._end, lambda: "stopped; the same command with --resume goes on", _log_fault) as work:
                self.resources = ResourceLog(self.path, self.config.resource_seconds, bool(self.checkpoint))
                devices = self.config.device_count(1)
                several = data_parallel(devices) if devices > 1 else contextlib.nullcontext()
                with self.resources, several:
                    self._prepare()
                    self._fit()
                work.reached = self._finish(time.time() - began)
        return RunResult(self.path, self.folder.rows, self.folder.best, self.folder.final)

    def _end(self, state: str, message: str):
        self.status.update(state=state, message=message)
        LOGGER.info("%s: %s", state, message)
        self.folder.end(state, message)
        self.tracking.end(state, sorted(self.path.glob("*.png")), self.path / MODEL if state == FINISHED else None)
        if self.tracking.faults:
            self.status.update(message=message, note="; ".join(filter(None, (self.note, *self.tracking.faults))))

    def _prepare(self):
        config = self.config
        keras.utils.set_random_seed(config.seed)
        keras.config.set_dtype_policy(config.precision)
        if config.teacher is not None:
            # Before what starts from it: of a run that failed it says so.
            find_teacher(config.teacher)
        self.data = load_task_data(config)
        self.task = self.data.task
        check_metrics(self.task)
        self._say(own_data_notes(self.data.source), head_notes(config.pretrained, self.task))
        tokenizer = run_tokenizer(config)
        self.train_set = make_dataset(
            self.task, tokenizer, self.data.train, config, seed=config.seed, multiple=config.devices
        )
        self.dev_sets = {
            name: make_dataset(self.task, tokenizer, examples, config, multiple=config.devices)
            for name, examples in self.data.dev.items()
        }
        self._say(unread_words({"the training examples": self.train_set, **self.dev_sets}))
        self._ask_teacher(tokenizer)
        self.status.update(message="building the model")
        criterion = criterion_of(config) if config.criterion else None
        rule = criterion.gate_rule if criterion else "fixed"
        self.model = build_model(config, self.task, tokenizer.vocab_size, gate_rule=rule)
        self.steps = len(self.train_set)
        if config.ticket and not self.checkpoint:
            apply_ticket(self.model, self.task, config, self.train_set, task_loss(self.task))
        self._set_training_loss()
        how = (criterion.score_rule, criterion.score_alpha) if criterion else ("gradient",)
        optimizer = build_optimizer(config, self.model, self.steps * max(config.epochs, 1), *how)
        jit = config.jit_compile or always_compiles()
        self.model.compile(optimizer, task_loss(self.task), metrics=[streaming_metric(self.task)], jit_compile=jit)
        prunes = criterion and not config.ticket
        reads = config.calibration_file and config.criterion in calibrated()
        looked_at = calibration_batches(config, self.task, tokenizer) if reads else self.train_set
        self.pruning = PruningCallback.from_config(config, self.model, looked_at, self.steps) if prunes else None
        self.criterion = self.pruning.criterion if self.pruning else None
        if self.criterion:
            self.criterion.listener = self._tell_closing
        schedule = self.pruning.schedule.to_dict() if self.pruning else None
        same_as = model_of_teacher(config, self.teacher.folder) if self.teacher else None
        digest = self.teacher.folder.digest.hex() if self.teacher else None
        if self.checkpoint:
            refuse_other_teacher(self.path, self.checkpoint.place.get("teacher_digest"), digest)
        self.folder.begin(self.data, tokenizer, self.model, schedule, same_as, digest)
        told = {name: value for name, value in self.folder.metadata["config"].items() if name != "track"}
        self.tracking.begin(told, self.folder.metadata, self.folder.rows)

    def _tell_closing(self, how_far: str):
        if self.status.due:
            self.status.update(message=f"closing weights {how_far}")

    def _ask_teacher(self, tokenizer: TokenizerProtocol):
        """Puts what the teacher, where there is one, says of the training examples beside their batches."""
        self.batches: keras.utils.PyDataset = self.train_set
        self.teacher: Teacher | None = None
        if self.config.teacher is None:
            return
        if self.training_loss is not None:
            raise UserError("training_loss: not together with a teacher, which is a part of the training loss itself")
        self.status.update(message="asking the teacher")
        self.teacher = Teacher(self.config, self.task, tokenizer)
        self.batches = self.teacher.taught(self.train_set)
        # Building another model took numbers from the generator, unless what it says was kept.
        keras.utils.set_random_seed(self.config.seed)
        keras.config.set_dtype_policy(self.config.precision)

    def _set_training_loss(self):
        """Before the optimiser is built, which moves also the weights of the loss."""
        if self.teacher is None:
            self.model.train_on(self.training_loss)
            return
        loss = self.teacher.loss(self.model)
        self.model.train_on(loss, loss.layers and loss.layers.linear)

    def _say(self, notes: list[str], warned: list[str] | None = None):
        """Says what there is to know of the data, and logs that and what there is to say about the head."""
        # What a job of the launcher prints, and its warning about the head, is in the log as it is.
        alone = LAUNCHER_VARIABLE not in os.environ
        if alone and verbosity(os.environ):
            print("".join(f"note: {note}\n" for note in notes), end="", flush=True)
        for note in notes + (warned or []) * alone:
            LOGGER.info("%s", note)

    def _fit(self):
        place = self.checkpoint.place if self.checkpoint else {"epoch": 0, "batches": 0, "seconds": 0.0}
        epoch, batches = place["epoch"], place["batches"]
        if self.checkpoint:
            refuse_other_labels(self.path, place.get("labels"), self.task.labels)
            self.checkpoint.check_within(self.config.epochs, self.steps)
            self.checkpoint.restore(self.model, self.criterion)
            if self.pruning:
                self.pruning.go_on(epoch, batches)
            LOGGER.info("going on at epoch %d, step %d", epoch + 1, batches)
        elif self.config.ticket:
            self.folder.one_shot["after"] = self._evaluate()
        elif self.pruning and self.config.schedule == "one_shot" and self.pruning.schedule.first == 1:
            self.folder.one_shot["before"] = self._evaluate()
        callbacks = self._callbacks(epoch * self.steps + batches, place["seconds"])
        if not self.config.epochs:
            for callback in callbacks:
                callback.set_model(self.model)
                callback.without_training()
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

    def _callbacks(self, done: int, seconds: float) -> list[StepCallback]:
        """What looks at the training, in the order in which it has to; `done` steps and `seconds` are behind it."""
        config, steps = self.config, self.steps
        epochs = EpochCallback(
            self.folder, self._evaluate, self.pruning, steps, len(self.data.train.texts), seconds
        )
        saving = CheckpointCallback(self.path / CHECKPOINT, self.criterion, steps, config.checkpoint_steps,
                                    self.train_set.can_start_at, self.checkpoint, epochs.place)  # fmt: skip
        prunable = self.model.gated_layers(config.prunable_roles)
        closed = self.pruning.closed_share if self.pruning else functools.cache(lambda: sparsity(prunable))
        status = StatusCallback(self.status, steps, config.epochs, self.task.metrics[0], done, closed)
        resources = ResourceCallback(self.resources, steps) if config.resource_seconds else None
        # Before the checkpoint, so that none is from after the step whose weights are missing.
        rewind = RewindCallback(self.folder, steps, config.rewind_step) if config.rewind_step is not None else None
        tracked = TrackCallback(self.tracking, self.folder, steps) if config.track else None
        parts = (OrderCallback(self.train_set), self.pruning, rewind, epochs, status, tracked, saving, resources)
        return [part for part in parts if part is not None]

    def _fit_epochs(self, callbacks: list[StepCallback], first: int, last: int):
        if first < last:
            self.train_set.set_epoch(first, callbacks[0].first_batch)
            self.model.fit(
                self.batches, initial_epoch=first, epochs=last, callbacks=callbacks, verbose=0, shuffle=False
            )

    def _evaluate(self) -> dict[str, float]:
        """Loss and metrics on the development sets; of spans the answers are written beside the results."""
        scores, answers = evaluate_model(self.model, self.task, self.dev_sets, self.data.dev, self.config)
        self.folder.write_predictions(answers)
        return scores

    def _finish(self, seconds: float) -> str:
        """Writes what a run ends with; returns what it reached."""
        reached = headline(self.folder.final, self.folder.primary)
        self.folder.finish(self.model, seconds, reached)
        failed: list[str] = []
        plot_run(read_run(self.path), failed)
        self.resources.plot(failed)
        if failed:
            self.folder.write(plots_failed=failed)
        (self.path / CHECKPOINT).unlink(missing_ok=True)
        return reached


def _log_fault(error: BaseException):
    if not isinstance(error, UserError | ConfigError):
        LOGGER.exception("failed")
