"""Lottery tickets inside a run: the weights of an early step, and the mask that is found once, before training."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops

from gated_bert.config import ConfigError, GatedBertConfig
from gated_bert.experiments.runs.run_folder import RunFolder
from gated_bert.models.backbone import EncoderClassifier
from gated_bert.models.folder import load_model
from gated_bert.models.heads import match_head, task_head
from gated_bert.pruning.callbacks import StepCallback
from gated_bert.pruning.pruner import Pruner
from gated_bert.support.backend import view
from gated_bert.tasks.task import Task


class RewindCallback(StepCallback):
    """Saves the model of an early step as `model_initial/`; step 0 is before training.

    Args:
        folder: the run's folder.
        steps_per_epoch: batches in an epoch.
        step: steps done.

    Raises:
        ConfigError: training has no such step before its last.
    """

    def __init__(self, folder: RunFolder, steps_per_epoch: int, step: int):
        super().__init__(steps_per_epoch)
        self.folder, self.step = folder, step
        last = steps_per_epoch * folder.config.epochs - 1
        if step > last:
            raise ConfigError("rewind_step", step, f"0 to {last}: before the last of the {last + 1} steps")

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        super().on_epoch_begin(epoch)
        if epoch == self.first_batch == 0:
            self._save_at(0)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self._save_at(self.epoch * self.steps_per_epoch + self.batches_done(batch))

    def _save_at(self, step: int):
        if step == self.step:
            # Not a reference of one's own: on JAX `self.model` brings the trainer's state into the variables.
            self.folder.save_initial(self.model, step)


def apply_ticket(
    model: EncoderClassifier, task: Task, config: GatedBertConfig, dataset: Any, loss: keras.losses.Loss
) -> None:
    """Closes in `model`, which holds the initial weights, what the ticket's model says.

    A ticket's mask closes the weights of the trained model `config.ticket` that score least, on top of those that
    are closed there. A control takes the mask of the ticket as it is: `random` with the closed units of every group
    drawn anew, which leaves as many closed in every matrix; `reinitialized` on weights drawn afresh, embeddings and
    head included, from another seed.

    Args:
        model: the run's model.
        task: what it learns.
        config: the run's record.
        dataset: the training data, indexable by batch; read by criteria that score on data.
        loss: the task's loss, for these criteria.

    Raises:
        ConfigError: no ticket.

    Paper: Frankle & Carbin 2019, The Lottery Ticket Hypothesis (https://arxiv.org/abs/1803.03635).
    """
    if config.ticket is None:
        raise ConfigError("ticket", None, "the folder of the model whose masks are the ticket")
    loaded = load_model(config.ticket)
    source, outputs = loaded.model, match_head(task_head(loaded.task), task)[0]
    layers = source.gated_layers(config.prunable_roles)
    pruner = Pruner.from_config(config, layers, source.architecture.num_heads)
    if config.ticket_control is None:
        if pruner.criterion.needs_data:
            source.compile(loss=loss)
        pruner.prune(config.end_sparsity, source, dataset)
    elif config.ticket_control == "random":
        _shuffle(pruner, config.seed)
    else:
        _reinitialize(model, config.seed)
    for layer, target in zip(layers, model.gated_layers(config.prunable_roles), strict=True):
        is_open = view(layer.mask_variable) != 0
        if target is model.classifier:
            if outputs is None:
                # The mask of other classes says nothing about these.
                continue
            is_open = is_open[:, outputs]
        target.mask_variable.assign(ops.convert_to_numpy(target.mask_variable) * is_open)


def _shuffle(pruner: Pruner, seed: int):
    for number, group in enumerate(pruner.groups):
        rng = np.random.default_rng([seed, number])
        kept = rng.permutation(~pruner.closed(group))
        for layer, factor in zip(group.layers, group.expand(kept), strict=True):
            layer.mask_variable.assign(np.broadcast_to(factor, tuple(layer.raw_kernel.shape)).astype(np.float32))


def _reinitialize(model: EncoderClassifier, seed: int):
    other = int(np.random.SeedSequence([seed, 1]).generate_state(1)[0])
    keras.utils.set_random_seed(other)
    fresh = model.rebuilt()
    keras.utils.set_random_seed(seed)
    for variable, drawn in zip(model.weights, fresh.weights, strict=True):
        # Through NumPy: under JAX one variable must not take over another's buffer.
        variable.assign(ops.convert_to_numpy(drawn))
