"""Lottery tickets inside a run: the weights of an early step, and the mask that is found once, before training."""

from __future__ import annotations

import keras
import numpy as np
from keras import ops

from gated_bert.config import ConfigError, GatedBertConfig
from gated_bert.experiments.runs.run_state import INITIAL_MODEL
from gated_bert.models.bert import BertClassifier
from gated_bert.models.folder import load_model, save_model
from gated_bert.models.heads import match_head, task_head
from gated_bert.pruning.callbacks import StepCallback
from gated_bert.pruning.pruner import Pruner
from gated_bert.support.backend import view
from gated_bert.tasks.task import Task


class RewindCallback(StepCallback):
    """Saves the model of an early step as `model_initial/`; step 0 is before training.

    Args:
        run: the run.
        step: steps done.

    Raises:
        ConfigError: training has no such step before its last.
    """

    def __init__(self, run, step: int):
        super().__init__(run.steps)
        self.run, self.step = run, step
        last = run.steps * run.config.epochs - 1
        if step > last:
            raise ConfigError("rewind_step", step, f"0 to {last}: before the last of the {last + 1} steps")

    def on_epoch_begin(self, epoch, logs=None):
        super().on_epoch_begin(epoch)
        if epoch == self.first_batch == 0:
            self._save_at(0)

    def on_train_batch_end(self, batch, logs=None):
        self._save_at(self.epoch * self.steps_per_epoch + self.batches_done(batch))

    def _save_at(self, step: int):
        if step == self.step:
            run = self.run
            # Not the run's own reference: on JAX looking at `self.model` brings the trainer's state into the variables.
            save_model(run.folder / INITIAL_MODEL, self.model, run.tokenizer, run.task, run.metadata | {"step": step})


def apply_ticket(model: BertClassifier, task: Task, config: GatedBertConfig, dataset, loss: keras.losses.Loss):
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

    Paper: Frankle & Carbin 2019, The Lottery Ticket Hypothesis (https://arxiv.org/abs/1803.03635).
    """
    loaded = load_model(config.ticket)
    source, outputs = loaded.model, match_head(task_head(loaded.task), task)[0]
    layers = source.gated_layers(config.prunable_roles)
    pruner = Pruner.from_config(config, layers, [sizes.num_heads for sizes in source.bert_config.layers])
    if config.ticket_control is None:
        if pruner.criterion.needs_data:
            source.compile(loss=loss)
            pruner.criterion.prepare(source, dataset)
        pruner.update(config.end_sparsity, step=0)
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


def _reinitialize(model: BertClassifier, seed: int):
    other = int(np.random.SeedSequence([seed, 1]).generate_state(1)[0])
    keras.utils.set_random_seed(other)
    fresh = BertClassifier(model.bert_config, dtype=model.dtype_policy)
    keras.utils.set_random_seed(seed)
    for variable, drawn in zip(model.weights, fresh.weights, strict=True):
        # Through NumPy: under JAX one variable must not take over another's buffer.
        variable.assign(ops.convert_to_numpy(drawn))
