"""The callback that prunes during `fit`."""

from __future__ import annotations

import keras

from gated_bert.config import GatedBertConfig
from gated_bert.errors import UserError
from gated_bert.pruning.any_model import as_batches, layers_to_prune, pruning_record
from gated_bert.pruning.criteria import StepContext, criterion_class
from gated_bert.pruning.optimizers import score_aware
from gated_bert.pruning.pruner import Pruner, sparsity
from gated_bert.pruning.schedules import build_schedule


class StepCallback(keras.callbacks.Callback):
    """Base of callbacks that count steps, also in an epoch that begins in the middle.

    Args:
        steps_per_epoch: batches in a whole epoch; None takes what `fit` says.
    """

    def __init__(self, steps_per_epoch: int | None):
        super().__init__()
        self._given_steps = self.steps_per_epoch = steps_per_epoch
        self.first_batch = 0
        self.epoch = 0

    def on_train_begin(self, logs=None):
        if self._given_steps is None:
            # Unknown for a generator; then nothing that counts steps is asked for.
            self.steps_per_epoch = self.params["steps"] or 1

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def batches_done(self, batch: int) -> int:
        """Batches of this epoch done after the one that `fit` calls number `batch`."""
        return self.first_batch + batch + 1


class PruningCallback(StepCallback):
    """Moves the masks along the schedule, and lets the criterion see every step.

    Criteria whose masks may change inside an epoch are updated every `movement_pruning_frequency_steps` and after an
    epoch's last step; the others at an epoch's beginning, so that the epoch trains, and is evaluated, at the sparsity
    that its row reports. Adds `sparsity` (of all prunable weights), `pattern_sparsity` (of the pattern's own matrices),
    `target_sparsity` (what is asked of the latter) and the criterion's columns to the epoch's logs.

    Args:
        config: the run's record.
        model: a built `BertClassifier`, or any model that `gate` put gates on; for the latter `for_model` is shorter.
        dataset: the training data, indexable by batch; asked only by criteria that want a step's batch or score on
            data, which take an epoch's first batches: whoever reorders it does so before this callback is called.
        steps_per_epoch: batches in an epoch; None takes what `fit` says.
    """

    def __init__(self, config: GatedBertConfig, model: keras.Model, dataset, steps_per_epoch: int | None):
        super().__init__(steps_per_epoch)
        self.config, self.dataset = config, dataset
        if hasattr(model, "bert_config"):
            self.layers = model.gated_layers(config.prunable_roles)
            num_heads = [sizes.num_heads for sizes in model.bert_config.layers]
        else:
            self.layers, num_heads = layers_to_prune(model, config), ()
        self.pruner = Pruner(config, self.layers, num_heads)
        self.criterion = self.pruner.criterion
        self.schedule = build_schedule(config)

    @classmethod
    def for_model(
        cls,
        model: keras.Model,
        method: str = "magnitude",
        *,
        pruning_end_epoch: int,
        data=None,
        batch_size: int = 32,
        **options,
    ) -> PruningCallback:
        """The callback for a model that `gate(model, method)` put gates on.

        Args:
            model: the gated model.
            method: one of `METHODS`.
            pruning_end_epoch: epoch, counted from 1, at whose beginning the end sparsity is due.
            data: training data for methods that look at batches themselves (`spt`, the saliency of gradients and
                activations): a pair (inputs, labels) of arrays or structures of arrays, or a dataset indexable by
                batch. Its order need not be that of `fit`.
            batch_size: rows of a batch that is cut from arrays.
            **options: fields of `GatedBertConfig` that say how to prune: `end_sparsity` (0.9), `pruning_start_epoch`
                (1), `pattern`, `scope`, `schedule` and those of the method.

        Raises:
            ConfigError: an unknown method or option, or a refused value.
            UserError: a model without gates or with those of another method, or no data where it is needed.

        Example:

        ```python
        pruning = PruningCallback.for_model(gate(model), "magnitude", end_sparsity=0.8, pruning_end_epoch=3)
        model.compile("adam", "mse")
        model.fit(x, y, epochs=4, callbacks=[pruning])
        ```
        """
        config = pruning_record(method, pruning_end_epoch, **options)
        criterion = criterion_class(config)
        if criterion.needs_batch or criterion.needs_data:
            data = as_batches(data, batch_size, method)
        return cls(config, model, data, None)

    def optimizer(self, optimizer: keras.optimizers.Optimizer, score_multiplier: float = 10.0):
        """A copy of `optimizer` that moves the criterion's scores as the criterion wants.

        Methods that keep scores (`movement`, `soft_movement`, `l0`, `taylor`, and `spt` with Taylor rewards) need it;
        for the others it changes nothing. Scores are not decayed, and not clipped.

        Args:
            optimizer: AdamW, Adam or SGD, not built. What is excluded from weight decay is to be said of the copy.
            score_multiplier: learning rate of the scores as a multiple of the weights', where the method trains them.

        Raises:
            UserError: another optimiser.
        """
        return score_aware(optimizer, self.criterion.score_rule, score_multiplier, self.config.spt_reward_alpha)

    def on_train_begin(self, logs=None):
        super().on_train_begin(logs)
        moves = getattr(self.model.optimizer, "inner_optimizer", self.model.optimizer)
        rule = self.criterion.score_rule
        if self.criterion.gate_rule != "fixed" and getattr(moves, "score_rule", None) != rule:
            raise UserError(
                f"{self.config.pruning_method}: the optimiser {moves.name} does not know its scores; compile the model "
                "with callback.optimizer(keras.optimizers.Adam(…))"
            )
        sees_steps = self.criterion.every_step or self.criterion.needs_batch
        unknown = self._given_steps is None and self.params["steps"] is None
        if sees_steps and (unknown or self.model.steps_per_execution != 1):
            raise UserError(
                f"{self.config.pruning_method}: it acts after steps of an epoch, so fit needs data of known length "
                "(or steps_per_epoch=…) and compile steps_per_execution=1"
            )

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
            inputs, labels = self.dataset[batch % len(self.dataset)][:2]
            self.criterion.after_step(StepContext(self.model, inputs, labels, step))
        due = step % self.config.movement_pruning_frequency_steps == 0 or done == self.steps_per_epoch
        if self.criterion.every_step and due:
            self._sync()
            self._update(self.epoch + 1 + (done - 1) / self.steps_per_epoch, step)

    def on_epoch_end(self, epoch, logs=None):
        self._sync()
        if logs is not None:
            logs["target_sparsity"] = self.target(epoch + 1 + (self.steps_per_epoch - 1) / self.steps_per_epoch)
            own = self.pruner.layers_of_groups()
            logs["sparsity"] = sparsity(self.layers)
            logs["pattern_sparsity"] = sparsity(own) if len(own) < len(self.layers) else logs["sparsity"]
            logs.update(self.criterion.report())

    def target(self, time: float) -> float:
        """Sparsity asked of the pattern's matrices at `time`; NaN where a threshold or a penalty is set instead."""
        if not self.criterion.selects:
            return float("nan")
        return self.pruner.pattern.total(self.schedule(time if self.criterion.every_step else float(int(time))))

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
