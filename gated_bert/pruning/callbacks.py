"""The callback that prunes during `fit`."""

from __future__ import annotations

import keras

from gated_bert.config import GatedBertConfig
from gated_bert.pruning.criteria import StepContext
from gated_bert.pruning.pruner import Pruner, sparsity
from gated_bert.pruning.schedules import build_schedule


class StepCallback(keras.callbacks.Callback):
    """Base of callbacks that count steps, also in an epoch that begins in the middle.

    Args:
        steps_per_epoch: batches in a whole epoch.
    """

    def __init__(self, steps_per_epoch: int):
        super().__init__()
        self.steps_per_epoch = steps_per_epoch
        self.first_batch = 0
        self.epoch = 0

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def batches_done(self, batch: int) -> int:
        """Batches of this epoch done after the one that `fit` calls number `batch`."""
        return self.first_batch + batch + 1


class PruningCallback(StepCallback):
    """Moves the masks along the schedule, and lets the criterion see every step.

    Criteria whose masks may change inside an epoch are updated every `movement_pruning_frequency_steps` and after an
    epoch's last step; the others at an epoch's beginning, so that the epoch trains, and is evaluated, at the sparsity
    that its row reports. Adds `sparsity`, `target_sparsity` and the criterion's columns to the epoch's logs.

    Args:
        config: the run's record.
        model: a built model with `gated_layers(roles)`.
        dataset: the training data, indexable by batch; asked only by criteria that want a step's batch or score on
            data, which take an epoch's first batches: whoever reorders it does so before this callback is called.
        steps_per_epoch: batches in an epoch.
    """

    def __init__(self, config: GatedBertConfig, model: keras.Model, dataset, steps_per_epoch: int):
        super().__init__(steps_per_epoch)
        self.config, self.dataset = config, dataset
        self.layers = model.gated_layers(config.prunable_roles)
        self.pruner = Pruner(config, self.layers, [sizes.num_heads for sizes in model.bert_config.layers])
        self.criterion = self.pruner.criterion
        self.schedule = build_schedule(config)

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the criterion's columns in the results."""
        return self.criterion.columns

    def on_epoch_begin(self, epoch, logs=None):
        super().on_epoch_begin(epoch)
        self._sync()
        if not self.criterion.every_step and not self.first_batch:
            self._update(epoch + 1.0, epoch * self.steps_per_epoch)

    def on_train_batch_end(self, batch, logs=None):
        done = self.batches_done(batch)
        step = self.epoch * self.steps_per_epoch + done
        if self.criterion.needs_batch:
            self._sync()
            inputs, labels = self.dataset[batch][:2]
            self.criterion.after_step(StepContext(self.model, inputs, labels, step))
        due = step % self.config.movement_pruning_frequency_steps == 0 or done == self.steps_per_epoch
        if self.criterion.every_step and due:
            self._sync()
            self._update(self.epoch + 1 + (done - 1) / self.steps_per_epoch, step)

    def on_epoch_end(self, epoch, logs=None):
        self._sync()
        if logs is not None:
            logs["target_sparsity"] = self.target(epoch + 1 + (self.steps_per_epoch - 1) / self.steps_per_epoch)
            logs["sparsity"] = sparsity(self.layers)
            logs.update(self.criterion.report())

    def target(self, time: float) -> float:
        """Sparsity asked for at `time`; NaN for a criterion that sets a threshold or a penalty instead."""
        if not self.criterion.selects:
            return float("nan")
        return self.schedule(time if self.criterion.every_step else float(int(time)))

    def _sync(self):
        # On JAX the trainer's state is elsewhere during `fit`: reading `self.model` brings it back into the variables.
        return self.model

    def _update(self, time: float, step: int):
        if not self.criterion.selects:
            if time >= self.schedule.first:
                self.criterion.set_progress(self.schedule.progress(time))
        elif self.schedule(time) > 0:
            if self.criterion.needs_data:
                # Such scores cost passes over data: once for every rise of the sparsity.
                if self.schedule(time) <= self.schedule(time - 1):
                    return
                self.criterion.prepare(self.model, self.dataset)
            self.pruner.update(self.schedule(time), step)
