"""A training step with SPT's exploration against one without, in `fit` with the callback that users have."""

from __future__ import annotations

import time

import keras
import numpy as np

from benchmarks.figures import Figure
from benchmarks.timing import Times, main, ratio
from benchmarks.training_step import compile_model, make_batch, make_model
from gated_bert.config import GatedBertConfig
from gated_bert.pruning.callbacks import PruningCallback
from gated_bert.pruning.criteria import criterion_class

GOALS = {"measured": "≤ 1.60", "taylor": "≤ 1.15"}


class Batches(keras.utils.PyDataset):
    """A number of random batches of one shape."""

    def __init__(self, count: int, batch: int, length: int):
        super().__init__()
        self.batches = [make_batch(batch, length, seed) for seed in range(count)]

    def __len__(self):
        return len(self.batches)

    def __getitem__(self, index):
        return self.batches[index]


class StepClock(keras.callbacks.Callback):
    """Notes when each step ends; stands last, so that a step includes the other callbacks."""

    def __init__(self):
        super().__init__()
        self.wall, self.cpu = [], []

    def on_train_batch_end(self, batch, logs=None):
        self.wall.append(time.perf_counter())
        self.cpu.append(time.process_time())


class Side:
    """A model, with the callback of `config`, that trains a block of steps at a time."""

    def __init__(self, config: GatedBertConfig, batches: Batches):
        self.batches, self.callbacks = batches, []
        self.wall, self.cpu = [], []
        criterion = criterion_class(config)
        self.model = make_model(config, gate_rule=criterion.gate_rule if criterion else "fixed")
        compile_model(self.model, config, score_rule=criterion.score_rule if criterion else "gradient")
        if criterion:
            self.callbacks = [PruningCallback.from_config(config, self.model, batches, len(batches))]

    def block(self, timed: bool):
        """Trains one pass over the batches and notes the time of a step, fit's start and its first step left out."""
        clock = StepClock()
        self.model.fit(self.batches, epochs=1, callbacks=[*self.callbacks, clock], verbose=0, shuffle=False)
        if timed:
            steps = len(clock.wall) - 1
            self.wall.append((clock.wall[-1] - clock.wall[0]) / steps)
            self.cpu.append((clock.cpu[-1] - clock.cpu[0]) / steps)


def measure(options) -> list[Figure]:
    """Time of a training step of SPT, with measured and with Taylor rewards, against the baseline's."""
    figures = []
    batch, length = (16, 16) if options.quick else (96, 24)
    for size, steps, repeats in (("tiny", 3, 2),) if options.quick else (("tiny", 6, 8), ("small", 3, 5)):
        batches = Batches(steps, batch, length)
        sides = {"baseline": Side(GatedBertConfig(model_size=size, pruning_method="baseline"), batches)}
        for reward in GOALS:
            sides[reward] = Side(GatedBertConfig(model_size=size, pruning_method="spt", spt_reward=reward), batches)
        for repeat in range(-1, repeats):
            for name in list(sides)[:: -1 if repeat % 2 else 1]:
                sides[name].block(timed=repeat >= 0)
        times = {name: Times(np.array(side.wall), np.array(side.cpu)) for name, side in sides.items()}
        for reward, goal in GOALS.items():
            value, details = ratio(times[reward], times["baseline"])
            details += f"; batch {batch} × {length} tokens"
            figures.append(Figure(f"SPT step, {reward} reward / baseline step, {size}", value, "×", goal, details))
    return figures


if __name__ == "__main__":
    main("spt_step", measure)
