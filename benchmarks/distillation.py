"""A training step with a teacher against one without, in `fit`, for a model and a teacher of MiniLM's size."""

from __future__ import annotations

import keras
import numpy as np

from benchmarks.figures import Figure
from benchmarks.spt_step import StepClock
from benchmarks.timing import Times, main, ratio
from benchmarks.training_step import VOCABULARY, compile_model, make_model
from gated_bert.config import GatedBertConfig
from gated_bert.models.distillation import Distillation, LayerDistillation
from gated_bert.tasks.encoded import IDS, Encoded
from gated_bert.tasks.kinds import OF_TEXT
from gated_bert.tasks.pipeline import BucketedDataset
from gated_bert.tasks.taught import Taught

GOALS = {"logits": "≤ 1.02", "last": "≤ 1.40", "all": "≤ 1.40", "nearest": "≤ 1.40"}
SIZES = {"num_layers": 6, "d_model": 384, "num_heads": 12, "dff": 1536}
QUICK = {"num_layers": 2, "d_model": 32, "num_heads": 2, "dff": 64}


class Side:
    """A model that trains a block of steps at a time, with or without a teacher."""

    def __init__(self, config: GatedBertConfig, dataset: BucketedDataset, teaches: str | None, teacher):
        keras.config.set_dtype_policy(config.precision)
        self.model, self.batches = make_model(config), dataset
        self.wall: list[float] = []
        self.cpu: list[float] = []
        if teaches is not None:
            outputs = np.random.default_rng(0).normal(size=(dataset.examples, 2)).astype(np.float32)
            self.batches = Taught(dataset, outputs, OF_TEXT)
            layers = None if teaches == "logits" else LayerDistillation(teacher, self.model, teaches, 1.0)
            self.model.train_on(Distillation("classification", 0.9, 2.0, layers), layers and layers.linear)
        compile_model(self.model, config)

    def block(self, timed: bool):
        """Trains one pass over the batches and notes the time of a step, fit's start and its first step left out."""
        clock = StepClock()
        self.model.fit(self.batches, epochs=1, callbacks=[clock], verbose=0, shuffle=False)
        if timed:
            steps = len(clock.wall) - 1
            self.wall.append((clock.wall[-1] - clock.wall[0]) / steps)
            self.cpu.append((clock.cpu[-1] - clock.cpu[0]) / steps)


def measure(options) -> list[Figure]:
    """Time of a training step with a teacher's logits, and with its layers, against one without a teacher."""
    batch, length, steps, repeats = (4, 8, 3, 2) if options.quick else (32, 64, 3, 5)
    figures = []
    for precision in ("float32",) if options.quick else ("float32", "mixed_bfloat16"):
        config = GatedBertConfig(pruning_method="baseline", precision=precision, **(QUICK if options.quick else SIZES))
        keras.config.set_dtype_policy(precision)
        teacher, tokens = make_model(config), batch * length * steps
        ids = np.random.default_rng(1).integers(999, VOCABULARY, tokens, dtype=np.int32)
        encoded = Encoded({IDS: ids, "token_type_ids": 0 * ids}, np.arange(0, tokens + 1, length))
        labels = np.random.default_rng(2).integers(0, 2, batch * steps, dtype=np.int32)
        dataset = BucketedDataset(encoded, labels, batch, length, seed=1)
        sides = {str(name): Side(config, dataset, name, teacher) for name in (None, *GOALS)}
        for repeat in range(-1, repeats):
            for name in list(sides)[:: -1 if repeat % 2 else 1]:
                sides[name].block(timed=repeat >= 0)
        times = {name: Times(np.array(side.wall), np.array(side.cpu)) for name, side in sides.items()}
        for name, goal in GOALS.items():
            value, details = ratio(times[name], times["None"])
            details += f"; batch {batch} × {length} tokens"
            figures.append(Figure(f"step with a teacher, {name} / without, {precision}", value, "×", goal, details))
    keras.config.set_dtype_policy("float32")
    return figures


if __name__ == "__main__":
    main("distillation", measure)
