"""The learning rate of a run over its steps."""

from __future__ import annotations

import math
from typing import Any

import keras
from keras import ops

from gated_bert.config import GatedBertConfig
from gated_bert.config.pruning_window import pruning_window
from gated_bert.support.tensors import Tensor

CYCLE_END = 0.1
"""What is left of the peak at the end of a cycle (Kurtic et al. 2022)."""


@keras.saving.register_keras_serializable("gated_bert")
class WarmupLinearDecay(keras.optimizers.schedules.LearningRateSchedule):
    """Straight line from 0 to `peak` over the warm-up, then straight down to 0 (Devlin et al. 2019).

    Of T steps, w of them warm-up, step t, counted from 0, has the rate t/w and then (T − t)/(T − w).

    Args:
        peak: highest learning rate.
        warmup_steps: steps of the warm-up.
        total_steps: steps of the run.
    """

    def __init__(self, peak: float, warmup_steps: int, total_steps: int):
        self.peak, self.warmup_steps, self.total_steps = peak, warmup_steps, total_steps

    def __call__(self, step: Tensor) -> Tensor:
        step = ops.cast(step, "float32")
        falling = ops.maximum((self.total_steps - step) / max(self.total_steps - self.warmup_steps, 1), 0.0)
        return self.peak * ops.where(step < self.warmup_steps, step / max(self.warmup_steps, 1), falling)

    def get_config(self) -> dict[str, Any]:
        return {"peak": self.peak, "warmup_steps": self.warmup_steps, "total_steps": self.total_steps}


@keras.saving.register_keras_serializable("gated_bert")
class WarmupConstant(keras.optimizers.schedules.LearningRateSchedule):
    """Straight line from 0 to `peak` over the warm-up, then `peak`.

    Args:
        peak: the learning rate.
        warmup_steps: steps of the warm-up.
    """

    def __init__(self, peak: float, warmup_steps: int):
        self.peak, self.warmup_steps = peak, warmup_steps

    def __call__(self, step: Tensor) -> Tensor:
        return self.peak * _warmed_up(ops.cast(step, "float32"), self.warmup_steps)

    def get_config(self) -> dict[str, Any]:
        return {"peak": self.peak, "warmup_steps": self.warmup_steps}


@keras.saving.register_keras_serializable("gated_bert")
class WarmupCycles(keras.optimizers.schedules.LearningRateSchedule):
    """In every cycle straight down from `peak` to a tenth of it, as oBERT trains (Kurtic et al. 2022).

    While the warm-up lasts the rate is not above its straight line from 0 to `peak`.

    Args:
        peak: the highest learning rate.
        warmup_steps: steps of the warm-up.
        bounds: steps, from 0, at which cycles begin, and the one at which the last of them ends.
    """

    def __init__(self, peak: float, warmup_steps: int, bounds: tuple[int, ...]):
        self.peak, self.warmup_steps, self.bounds = peak, warmup_steps, tuple(bounds)

    def __call__(self, step: Tensor) -> Tensor:
        step = ops.cast(step, "float32")
        bounds = ops.convert_to_tensor(self.bounds, "float32")
        cycle = ops.sum(ops.cast(step >= bounds[1:-1], "int32"))
        began, ends = ops.take(bounds, cycle), ops.take(bounds, cycle + 1)
        share = 1 - (1 - CYCLE_END) * ops.minimum((step - began) / (ends - began), 1.0)
        return self.peak * ops.minimum(share, _warmed_up(step, self.warmup_steps))

    def get_config(self) -> dict[str, Any]:
        return {"peak": self.peak, "warmup_steps": self.warmup_steps, "bounds": self.bounds}


def _warmed_up(step: Tensor, warmup_steps: int) -> Tensor:
    return ops.where(step < warmup_steps, step / max(warmup_steps, 1), 1.0)


def learning_rate(config: GatedBertConfig, total_steps: int) -> keras.optimizers.schedules.LearningRateSchedule:
    """The learning rate that a run's record names, for a run of `total_steps`."""
    warmup_steps = round(config.warmup_ratio * total_steps)
    if config.lr_schedule == "constant":
        return WarmupConstant(config.learning_rate, warmup_steps)
    if config.lr_schedule == "cyclic":
        return WarmupCycles(config.learning_rate, warmup_steps, cycle_bounds(config, total_steps))
    return WarmupLinearDecay(config.learning_rate, warmup_steps, total_steps)


def cycle_bounds(config: GatedBertConfig, total_steps: int) -> tuple[int, ...]:
    """Steps at which the cycles of a run begin, and the number of its steps.

    A cycle begins with the run, with the first epoch in which pruning may close something, and from there every
    `lr_cycle_epochs`, but no more than one a step; where these are not given, with every pruning event. A run that
    does not prune has its first one, and those of `lr_cycle_epochs` after that.
    """
    # A run of no epochs has an optimiser, too.
    per_epoch = total_steps / max(config.epochs, 1)
    first, last = 1, 1
    if config.criterion is not None:
        first, last = (math.ceil(time) for time in pruning_window(config, per_epoch))
    length, end = max(config.lr_cycle_epochs or config.pruning_every, 1 / per_epoch), config.epochs + 1
    last = end if config.lr_cycle_epochs else min(last, config.epochs)
    times = [first + length * number for number in range(math.floor((last - first) / length) + 1)]
    starts = {0, *(round((time - 1) * per_epoch) for time in times if time < end)}
    return (*sorted(starts - {total_steps}), total_steps)
