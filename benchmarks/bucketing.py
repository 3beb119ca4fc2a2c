"""Length-bucketed batches against batches padded to 128 tokens, on SST-2."""

from __future__ import annotations

import time

import keras
import numpy as np

from benchmarks.figures import Figure
from benchmarks.timing import Times, main, ratio
from gated_bert.config import GatedBertConfig
from gated_bert.models.build import build_model
from gated_bert.pruning.optimizers import build_optimizer
from gated_bert.tasks.data import load_task_data
from gated_bert.tasks.metrics import evaluate
from gated_bert.tasks.pipeline import BucketedDataset
from gated_bert.tasks.tokenizer import load_tokenizer

PADDED = 128
STEPS_TOGETHER = 10


class Side:
    """A model and its batches; both sides begin with the same weights."""

    def __init__(self, config, data, tokenizer, buckets):
        keras.utils.set_random_seed(config.seed)
        self.model = build_model(config, data.task, tokenizer.vocab_size)
        encoded = tokenizer.encode(data.train.texts, data.train.pairs, config.max_len)
        sizes = (config.batch_size, config.max_len)
        self.batches = BucketedDataset(encoded, data.train.labels, *sizes, seed=config.seed, buckets=buckets)
        optimizer = build_optimizer(config, self.model, len(self.batches) * config.epochs, "gradient")
        self.model.compile(optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True))

    def compile_shapes(self):
        """One evaluation and one training step of every shape, after which weights and optimiser are as before."""
        variables = [*self.model.variables, *self.model.optimizer.variables]
        before = [keras.ops.convert_to_numpy(variable) for variable in variables]
        shapes = self.batches.shapes
        for shape in dict.fromkeys(shapes):
            self.model.train_on_batch(*self.batches[shapes.index(shape)])
        for variable, value in zip(variables, before, strict=True):
            variable.assign(value)

    def train(self, batches: range) -> tuple[float, float]:
        """Trains on these batches; seconds per example, on the clock and of CPU time."""
        wall, cpu, examples = time.perf_counter(), time.process_time(), 0
        for index in batches:
            inputs, labels = self.batches[index]
            self.model.train_on_batch(inputs, labels)
            examples += len(labels)
        return (time.perf_counter() - wall) / examples, (time.process_time() - cpu) / examples


def measure(options) -> list[Figure]:
    """Examples a second, and accuracy, of bucketed against padded training of the tiny model on SST-2."""
    examples, epochs = (384, 1) if options.quick else (8000, 2)
    config = GatedBertConfig(
        model_size="tiny", pruning_method="baseline", task="sst2", data=options.data, max_len=PADDED,
        epochs=epochs, batch_size=96, learning_rate=5e-4, train_examples=examples,
    )  # fmt: skip
    data, tokenizer = load_task_data(config), load_tokenizer(config)
    sides = {"bucketed": Side(config, data, tokenizer, None), "padded": Side(config, data, tokenizer, (PADDED,))}
    clocks = {name: ([], []) for name in sides}
    for side in sides.values():
        side.compile_shapes()
    for epoch in range(epochs):
        for side in sides.values():
            side.batches.set_epoch(epoch)
        steps = max(len(side.batches) for side in sides.values())
        for start in range(0, steps, STEPS_TOGETHER):
            for name, side in sides.items():
                batches = range(start, min(start + STEPS_TOGETHER, len(side.batches)))
                if len(batches):
                    for clock, seconds in zip(clocks[name], side.train(batches), strict=True):
                        clock.append(seconds)
    pairs = min(len(wall) for wall, _ in clocks.values())
    times = {name: Times(np.array(wall[:pairs]), np.array(cpu[:pairs])) for name, (wall, cpu) in clocks.items()}
    value, details = ratio(times["padded"], times["bucketed"])
    label = f"{data.source['label']}; batch 96, buckets {' '.join(map(str, sides['bucketed'].batches.buckets))}"
    return [
        Figure("bucketed / padded to 128, examples a second", value, "×", "≥ 3", f"{details} an example; {label}"),
        _accuracy(sides, data, tokenizer, config),
    ]


def _accuracy(sides: dict[str, Side], data, tokenizer, config) -> Figure:
    (dev,) = data.dev.values()
    encoded = tokenizer.encode(dev.texts, dev.pairs, config.max_len)
    batches = BucketedDataset(encoded, None, config.batch_size, config.max_len)
    correct = {}
    for name, side in sides.items():
        outputs = np.empty((len(dev), 2), np.float32)
        predicted = [side.model.predict_on_batch(batches[index]) for index in range(len(batches))]
        outputs[batches.row_order()] = np.concatenate(predicted)
        correct[name] = evaluate(data.task, outputs, dev.labels)["accuracy"]
    points = {name: 100 * value for name, value in correct.items()}
    # Two standard errors of a difference of two independent accuracies.
    noise = 200 * np.sqrt(sum(value * (1 - value) for value in correct.values()) / len(dev))
    sides = f"accuracy {points['bucketed']:.1f} % bucketed, {points['padded']:.1f} % padded"
    details = f"{sides}, after {config.epochs} epochs; goal: within sampling error"
    name = f"bucketed − padded accuracy, {len(dev)} examples"
    return Figure(name, points["bucketed"] - points["padded"], "points", f"≥ {-noise:.1f}", details)


if __name__ == "__main__":
    main("bucketing", measure)
