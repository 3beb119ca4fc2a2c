"""The callback that prunes during `fit`."""

from __future__ import annotations

import logging
import math
from typing import Any

import keras

from gated_bert.config import ConfigError, GatedBertConfig
from gated_bert.config.parts import part_of
from gated_bert.models.backbone import is_backbone
from gated_bert.pruning.any_model import as_batches, layers_to_prune, pruner_of
from gated_bert.pruning.check_parts import check_gate_rule
from gated_bert.pruning.closed import OpenUnits, count_weights
from gated_bert.pruning.criteria import Criterion, Loss, StepContext
from gated_bert.pruning.criteria.base import class_of
from gated_bert.pruning.named_patterns import get_pattern
from gated_bert.pruning.optimizers import score_aware
from gated_bert.pruning.pruner import Pruner, sparsity
from gated_bert.pruning.schedules import Schedule
from gated_bert.support.errors import UserError

LOGGER = logging.getLogger("gated_bert")


class StepCallback(keras.callbacks.Callback):
    """Base of callbacks that count steps, also in an epoch that begins in the middle.

    Args:
        steps_per_epoch: batches in a whole epoch; None takes what `fit` says.
    """

    def __init__(self, steps_per_epoch: int | None):
        super().__init__()
        self._given_steps = steps_per_epoch
        self.steps_per_epoch = steps_per_epoch or 0
        self.first_batch = 0
        self.epoch = 0

    def on_train_begin(self, logs: Any = None) -> None:
        if self._given_steps is None:
            # Unknown for a generator; then nothing that counts steps is asked for.
            self.steps_per_epoch = self.known_steps() or 1

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        if not self.steps_per_epoch:
            self.on_train_begin()
        self.epoch = epoch

    def without_training(self) -> None:
        """Does what is to be done of a run of no epochs, after the callbacks before it."""

    def known_steps(self) -> int | None:
        """Batches in a whole epoch where anything says so; a loop that is not `fit` sets no `params`."""
        return self._given_steps or (self.params or {}).get("steps")

    def batches_done(self, batch: int) -> int:
        """Batches of this epoch done after the one that `fit` calls number `batch`."""
        return self.first_batch + batch + 1


class PruningCallback(StepCallback):
    """Moves the masks along the schedule, and lets the criterion see every step.

    Criteria whose masks may change inside an epoch are updated every `criterion.update_every` steps and after an
    epoch's last one, each time to the sparsity due at the step that comes next (Sanh et al. 2020); the others at an
    epoch's beginning, so that the epoch trains, and is evaluated, at the sparsity that its row reports. Adds `sparsity`
    (of all prunable weights), `pattern_sparsity` (of the pattern's own matrices), `target_sparsity` (what is asked of
    the latter) and the criterion's columns to the epoch's logs.

    In a training loop of one's own its methods are called as `fit` calls them: `on_train_begin`, and in every epoch
    `on_epoch_begin(epoch)`, `on_train_batch_end(batch)` and `on_epoch_end(epoch, logs)`, all counted from 0.

    Args:
        pruner: what closes weights, with its criterion.
        schedule: sparsity over epochs; None: that of the pruner.
        model: the model that the pruner's layers are part of; `fit` says it, a loop of one's own does not.
        dataset: the training data, indexable by batch; asked only by criteria that want a step's batch or score on
            data, which take an epoch's first batches: whoever reorders it does so before this callback is called.
        steps_per_epoch: batches in an epoch; None takes what `fit` says, else the dataset's length.
        method: what messages call the criterion.

    Raises:
        ConfigError: a schedule that begins before the criterion can.
        UserError: no schedule, a record in place of a pruner, or layers whose gates the criterion cannot use.
    """

    def __init__(
        self,
        pruner: Pruner,
        schedule: Schedule | None = None,
        model: keras.Model | None = None,
        dataset: Any = None,
        steps_per_epoch: int | None = None,
        method: str | None = None,
    ):
        if isinstance(pruner, GatedBertConfig):
            raise UserError("PruningCallback: a record is refused; allowed: a Pruner, or "
                            "PruningCallback.from_config(config, model, …)")  # fmt: skip
        super().__init__(steps_per_epoch)
        self.pruner, self.criterion, self.layers, self.dataset = pruner, pruner.criterion, pruner.layers, dataset
        schedule = schedule or pruner.schedule
        if schedule is None:
            raise UserError("PruningCallback: no schedule; allowed: a Schedule here, or one of the pruner")
        first = self.criterion.Options.FIRST_EPOCH
        if schedule.first < first:
            raise ConfigError("schedule", f"first={schedule.first:g}",
                              f"first={first} up: {self.criterion.name} adds up gradients first")  # fmt: skip
        if self.criterion.Options.GATHERS and schedule(1.0) > 0:
            raise ConfigError("schedule", f"{100 * schedule(1.0):g} % at once", "one that rises from 0, or first=2 up: "
                              f"{self.criterion.name} knows nothing before the first steps")  # fmt: skip
        self.schedule = schedule
        self.method = method or self.criterion.name
        check_gate_rule(self.criterion, self.layers, self.method)
        for layer in self.layers:
            layer.min_kept = pruner.min_kept
        self._made_optimizer = False
        self._started = False
        self._closed_share: float | None = None
        if model is not None:
            self.set_model(model)

    @classmethod
    def from_config(
        cls,
        config: GatedBertConfig,
        model: keras.Model,
        dataset: Any = None,
        steps_per_epoch: int | None = None,
        loss: Loss | None = None,
    ) -> PruningCallback:
        """The callback of a run's record.

        Args:
            config: the record.
            model: a built `EncoderClassifier`, as BERT's, or a model that `gate` put gates on; for the latter
                `for_model` is shorter.
            dataset: as for the class.
            steps_per_epoch: as for the class.
            loss: what the criterion probes; None: the compiled loss.
        """
        if is_backbone(model):
            layers = model.gated_layers(config.prunable_roles)
            num_heads = model.architecture.num_heads
        else:
            needed = class_of(part_of(config)).gate_rule
            layers, num_heads = layers_to_prune(model, needed, config.pruning_method, get_pattern(config)), ()
        pruner = Pruner.from_config(config, layers, num_heads, loss, steps_per_epoch)
        return cls(pruner, None, model, dataset, steps_per_epoch, config.pruning_method)

    @classmethod
    def for_model(
        cls,
        model: keras.Model,
        method: str | Criterion = "magnitude",
        *,
        pruning_end_epoch: int,
        data: Any = None,
        batch_size: int = 32,
        steps_per_epoch: int | None = None,
        loss: Loss | None = None,
        **options: Any,
    ) -> PruningCallback:
        """The callback for a model that `gate(model, method)` put gates on.

        Args:
            model: the gated model.
            method: one of `METHODS`, or a criterion, `Movement(learning_rate=1e-2)`.
            pruning_end_epoch: epoch, counted from 1, at whose beginning the end sparsity is due.
            data: training data for methods that look at batches themselves (`spt`, `wanda`, `sparsegpt`, `obert`,
                `mask_tuning`, the saliency of gradients and activations): a pair (inputs, labels) of arrays or
                structures of arrays, or a dataset indexable by batch. Its order need not be that of `fit`.
                `wanda` and `sparsegpt` take labels that are None.
            batch_size: rows of a batch that is cut from arrays.
            steps_per_epoch: batches in an epoch of a training loop of one's own; `fit` says it itself.
            loss: what the criterion probes, `loss(model, inputs, labels, training=False)`; None: the compiled loss.
            **options: fields of `GatedBertConfig` that say how to prune: `end_sparsity` (0.9), `pruning_start_epoch`
                (1), `pattern` and `schedule` (names or objects), `scope` and those of a method given by name.

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
        pruner, method = pruner_of(model, method, pruning_end_epoch, loss, options)
        looks = pruner.criterion.needs_batch or pruner.criterion.needs_data
        needs_labels = loss is None and pruner.criterion.needs_labels
        batches = as_batches(data, batch_size, method, needs_labels) if looks else None
        return cls(pruner, None, model, batches, steps_per_epoch, method)

    def optimizer(
        self, optimizer: keras.optimizers.Optimizer, score_multiplier: float | None = None
    ) -> keras.optimizers.Optimizer:
        """A copy of `optimizer` that moves the criterion's scores as the criterion wants.

        Methods that keep scores (`movement`, `soft_movement`, `l0`, `cofi`, `taylor`, `platon`, `snip_momentum`, and
        `spt` with Taylor rewards) need it; for the others it changes nothing. Scores are not decayed. Those that are
        trained are clipped together with the weights, but for those of `cofi`, whose steps are of a size that stays as
        it is; those, and scores that only collect what gradients say, have no part in it.

        Args:
            optimizer: AdamW, Adam or SGD, not built. What is excluded from weight decay is to be said of the copy.
            score_multiplier: learning rate of the scores as a multiple of the weights', where the method trains them;
                None: by the criterion's own `learning_rate` where it was made with one, else 10, for `soft_movement`
                and `l0` 100. Of `cofi` it is refused: its `learning_rate` is the rate itself.

        Raises:
            UserError: another optimiser, or one whose own rate changes where the criterion says a rate.
        """
        self._made_optimizer = True
        criterion = self.criterion
        multiplier = criterion.score_multiplier if score_multiplier is None else score_multiplier
        if criterion.score_rate is not None:
            if score_multiplier is not None:
                raise UserError(f"score_multiplier: {score_multiplier!r} is refused; allowed: None: {self.method} has "
                                "a rate that goes by no other, its option learning_rate")  # fmt: skip
            multiplier = 1.0
        elif multiplier is None:
            multiplier = criterion.options.movement_learning_rate / _rate(optimizer)
        return score_aware(optimizer, criterion.score_rule, multiplier, criterion.score_alpha, criterion.score_rate)

    def known_steps(self) -> int | None:
        found = super().known_steps()
        return len(self.dataset) if found is None and hasattr(self.dataset, "__len__") else found

    def on_train_begin(self, logs: Any = None) -> None:
        super().on_train_begin(logs)
        method, criterion = self.method, self.criterion
        optimizer = getattr(self.model, "optimizer", None)
        moves = getattr(optimizer, "inner_optimizer", optimizer)
        # One that the model does not know, as of a loop with a gradient tape, cannot be looked at.
        knows = self._made_optimizer if moves is None else getattr(moves, "score_rule", None) == criterion.score_rule
        if criterion.gate_rule != "fixed" and not knows:
            raise UserError(
                f"{method}: the optimiser {moves.name if moves else 'of the loop'} does not know its scores; compile "
                "the model with callback.optimizer(keras.optimizers.Adam(…)), or apply gradients by it"
            )
        if (criterion.needs_batch or criterion.needs_data) and not self.model.compiled:
            raise UserError(f"{method}: it looks at the loss, but the model has none; model.compile(loss=…) first")
        sees_steps = criterion.every_step or criterion.needs_batch or criterion.collect_every
        if sees_steps and (self.known_steps() is None or self.model.steps_per_execution != 1):
            raise UserError(
                f"{method}: it acts after steps of an epoch, so fit needs data of known length (or steps_per_epoch=…; "
                "in a loop of your own that of the callback) and compile steps_per_execution=1"
            )

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the criterion's columns in the results."""
        return self.criterion.columns

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        super().on_epoch_begin(epoch)
        self._sync()
        self._closed_share = None
        if self.first_batch:
            return
        if epoch == 0:
            self._say_what_opens()
        # Else the last update was for this step already.
        if not self.criterion.every_step or self._jumps(epoch + 1.0):
            self._update(epoch + 1.0, epoch * self.steps_per_epoch)

    def without_training(self) -> None:
        self.on_epoch_begin(0)

    def go_on(self, epoch: int, batches: int) -> None:
        """Tells the pruner which update the masks of a restored checkpoint are from.

        Args:
            epoch: whole epochs done.
            batches: batches done of the next one.
        """
        began = epoch + 1 if batches else epoch
        if self.criterion.selects and self.schedule(float(began)) > 0:
            self.pruner.settle(self.schedule(float(began)))

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        done = self.batches_done(batch)
        step = self.epoch * self.steps_per_epoch + done
        if self.criterion.needs_batch:
            self._sync()
            inputs, labels = self.dataset[batch % len(self.dataset)][:2]
            self.criterion.after_step(StepContext(self.model, inputs, labels, step))
        if self.criterion.collect_every and step % self.criterion.collect_every == 0:
            self._sync()
            self.criterion.collect()
        due = step % self.criterion.update_every == 0 or done == self.steps_per_epoch
        if self.criterion.every_step and due:
            self._sync()
            inside = done < self.steps_per_epoch
            self._update(self.epoch + 1 + done / self.steps_per_epoch if inside else self._end(self.epoch), step)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self._sync()
        self._closed_share = sparsity(self.layers)
        if logs is not None:
            own = self.pruner.layers_of_groups()
            logs["target_sparsity"] = self.target(self._end(epoch))
            logs["sparsity"] = self._closed_share
            logs["pattern_sparsity"] = sparsity(own) if len(own) < len(self.layers) else self._closed_share
            logs.update(self.criterion.report())

    def target(self, time: float) -> float:
        """Sparsity asked of the pattern's matrices at `time`; NaN where a threshold or a penalty is set instead.

        What is closed may be more: where more was closed before, and where units or floors do not allow it.
        """
        if not (self.criterion.selects or self.criterion.aims):
            return float("nan")
        return self.pruner.pattern.total(self.schedule(time if self.criterion.every_step else float(int(time))))

    def closed_share(self) -> float:
        """Sparsity after the last change of the masks, counted when it is asked for."""
        if self._closed_share is None:
            self._sync()
            self._closed_share = sparsity(self.layers)
        return self._closed_share

    def _jumps(self, time: float) -> bool:
        return abs(self.schedule(time) - self.schedule(math.nextafter(time, 0.0))) > 1e-9

    def _end(self, epoch: int) -> float:
        """The time after an epoch's last step; where the schedule jumps there, before the jump: a row has one
        sparsity."""
        time = epoch + 2.0
        return math.nextafter(time, 0.0) if self._jumps(time) or not self.criterion.every_step else time

    def _say_what_opens(self):
        total = count_weights(self.layers)
        is_open = OpenUnits().weights(self.layers) if self.criterion.reopens else total
        if is_open < total and not self._started:
            LOGGER.warning(
                "%s chooses all masks anew: of the %.1f %% of the weights closed at its start some may open again",
                self.method,
                100 * (1 - is_open / total),
            )

    def _sync(self):
        # On JAX the trainer's state is elsewhere during `fit`: reading `self.model` brings it back into the variables.
        return self.model

    def _update(self, time: float, step: int):
        self._started, self._closed_share = True, None
        if not self.criterion.selects:
            if time >= self.schedule.first and self.criterion.aims:
                self.criterion.aim(self.schedule(time))
            elif time >= self.schedule.first:
                self.criterion.set_progress(self.schedule.moved(time))
        elif self.schedule(time) > 0:
            self.pruner.prune(self.schedule(time), self.model, self.dataset, step)


def _rate(optimizer: keras.optimizers.Optimizer) -> float:
    rate = optimizer.get_config().get("learning_rate")
    if not isinstance(rate, int | float):
        raise UserError("optimizer: its learning rate changes over time, so that of the scores is to be given as a "
                        "multiple of it: score_multiplier=…")  # fmt: skip
    return float(rate)
