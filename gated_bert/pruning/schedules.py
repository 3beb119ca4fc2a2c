"""Schedules: epoch (fractional inside an epoch) → sparsity."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

import numpy as np

from gated_bert.config import GatedBertConfig
from gated_bert.config.parts import claim
from gated_bert.config.presets import STEP_PRESETS, schedule_size
from gated_bert.config.pruning_window import pruning_window
from gated_bert.config.space import SCHEDULES
from gated_bert.support.errors import UserError


@dataclass(frozen=True)
class Schedule:
    """Sparsity over time. Time counts epochs from 1: 4.5 is the middle of epoch 4.

    Args:
        start: sparsity at `first`, a fraction of the matrices that the pattern is made of.
        end: sparsity from `last` on.
        first: epoch at whose beginning pruning starts; nothing is pruned before.
        last: epoch at whose beginning the end sparsity is due.
    """

    start: float
    end: float
    first: float
    last: float

    def __post_init__(self):
        if self.last < self.first:
            raise UserError(f"{type(self).__name__}: last={self.last:g} is refused; allowed: first={self.first:g} up")

    def __call__(self, time: float) -> float:
        """Sparsity due at `time`, 0 before `first`."""
        if time < self.first:
            return 0.0
        return self.at(self.progress(time))

    def progress(self, time: float) -> float:
        """Share of the way from `first` to `last`, in [0, 1]."""
        if self.last <= self.first:
            return 1.0
        return min(max((time - self.first) / (self.last - self.first), 0.0), 1.0)

    def at(self, progress: float) -> float:
        """Sparsity at a share `progress` of the way; straight line."""
        return self.start + progress * (self.end - self.start)

    def moved(self, time: float) -> float:
        """Share of the way from `start` to `end` at `time`, of criteria that close by a threshold or a penalty."""
        return self.progress(time)

    def to_dict(self) -> dict:
        """Class name and fields, as the metadata of a run hold them."""
        return {"class": type(self).__name__, **dataclasses.asdict(self)}


@dataclass(frozen=True)
class Linear(Schedule):
    """s = s₀ + p (s₁ − s₀).

    Example:

    ```python
    schedule = Linear(0.0, 0.8, first=3, last=7)
    assert [schedule(epoch) for epoch in (2, 3, 5, 7, 9)] == [0.0, 0.0, 0.4, 0.8, 0.8]
    ```
    """


@dataclass(frozen=True)
class Cubic(Schedule):
    """s = s₁ + (s₀ − s₁)(1 − p)³ between a warm-up and a cool-down (Zhu & Gupta 2017; Sanh et al. 2020).

    Args:
        window: warm-up and cool-down, each as a share of the way from `first` to `last`.
    """

    window: float = 0.1

    def __post_init__(self):
        super().__post_init__()
        if not 0 <= self.window < 0.5:
            raise UserError(f"Cubic: window={self.window:g} is refused; allowed: 0 up to below 0.5: warm-up and "
                            "cool-down would leave no steps for pruning")  # fmt: skip

    def at(self, progress: float) -> float:
        return self.end + (self.start - self.end) * self._left(progress)

    def moved(self, time: float) -> float:
        return 1 - self._left(self.progress(time))

    def _left(self, progress: float) -> float:
        return (1 - min(max((progress - self.window) / (1 - 2 * self.window), 0.0), 1.0)) ** 3


@dataclass(frozen=True)
class Steps(Schedule):
    """One sparsity per epoch from `first`; after the last entry it stays.

    Args:
        values: sparsities as fractions, in order.
    """

    values: tuple[float, ...] = ()

    def __call__(self, time: float) -> float:
        epoch = math.floor(time - self.first)
        return 0.0 if epoch < 0 else self.values[min(epoch, len(self.values) - 1)]


@dataclass(frozen=True)
class OneShot(Schedule):
    """The end sparsity at once, at `first`."""

    def __call__(self, time: float) -> float:
        return self.end if time >= self.first else 0.0


@dataclass(frozen=True)
class Every(Schedule):
    """Another schedule, whose sparsity rises only every so many epochs from its first, and to its end at its last.

    Args:
        of: the schedule, whose ends are this one's.
        epochs: epochs between two rises.
    """

    of: Schedule | None = None
    epochs: int = 1

    def __call__(self, time: float) -> float:
        return self._schedule(self._last_rise(time))

    def progress(self, time: float) -> float:
        return self._schedule.progress(self._last_rise(time))

    def moved(self, time: float) -> float:
        return self._schedule.moved(self._last_rise(time))

    @property
    def _schedule(self) -> Schedule:
        if self.of is None:
            raise UserError("Every: of=None is refused; allowed: a Schedule")
        return self.of

    def _last_rise(self, time: float) -> float:
        if not self.first <= time < self.last:
            return time
        return self.first + self.epochs * math.floor((time - self.first) / self.epochs)


def every(epochs: int, of: Schedule) -> Every:
    """The schedule `of`, rising only every so many `epochs`."""
    return Every(of.start, of.end, of.first, of.last, of, epochs)


CLASSES: dict[str, type[Schedule]] = {"linear": Linear, "cubic": Cubic, "one_shot": OneShot}
"""Name → class, of schedules that are made of two ends."""


def register_schedule(name: str, schedule: type[Schedule]) -> None:
    """Makes a schedule of a user's own known by name, as a `--schedule`.

    Args:
        name: letters, digits and _.
        schedule: a subclass of `Schedule`, which is made of `start`, `end`, `first` and `last` alone.

    Raises:
        UserError: a name that is taken or no name, or another class.
    """
    if not (isinstance(schedule, type) and issubclass(schedule, Schedule)):
        raise UserError(f"register_schedule: {schedule!r} is refused; allowed: a subclass of Schedule")
    claim("schedule", name, SCHEDULES)
    SCHEDULES.append(name)
    CLASSES[name] = schedule


def resample(values: tuple[float, ...], count: int, highest: float) -> tuple[float, ...]:
    """`values` stretched or squeezed onto `count` entries by linear interpolation, capped at `highest`."""
    positions = np.linspace(0, len(values) - 1, count) if count > 1 else [len(values) - 1]
    return tuple(float(min(value, highest)) for value in np.interp(positions, range(len(values)), values))


def build_schedule(
    config: GatedBertConfig, steps_per_epoch: float | None = None, inside_epochs: bool = True
) -> Schedule:
    """The schedule a run's record names; the end of pruning is capped at the number of epochs.

    Args:
        config: the run's record.
        steps_per_epoch: as of `pruning_window`.
        inside_epochs: likewise.

    Raises:
        ConfigError, UserError: as of `pruning_window`.
    """
    schedule = _schedule_between(config, *pruning_window(config, steps_per_epoch, inside_epochs))
    return every(config.pruning_every, schedule) if config.pruning_every > 1 else schedule


def _schedule_between(config: GatedBertConfig, first: float, last: float) -> Schedule:
    ends = (config.start_sparsity, config.end_sparsity, first, last)
    if config.schedule == "steps" and isinstance(config.sparsity_steps, tuple):
        values = tuple(step / 100 for step in config.sparsity_steps)
        return Steps(values[0], values[-1], first, first + len(values) - 1, values)
    if config.schedule == "auto":
        preset = tuple(step / 100 for step in STEP_PRESETS[schedule_size(config.model_size)])
        values = resample(preset, round(last - first) + 1, config.end_sparsity)
        return Steps(values[0], values[-1], first, last, values)
    if config.schedule == "cubic" and (config.pruning_warmup, config.pruning_cooldown) != (None, None):
        return Cubic(*ends, window=0.0)
    return CLASSES[config.schedule](*ends)
