"""What the input pipeline takes of a training step, and what tokenising takes of an epoch."""

from __future__ import annotations

import time

import keras
import numpy as np

from benchmarks.figures import Figure
from benchmarks.timing import main
from gated_bert.config import GatedBertConfig
from gated_bert.models.build import build_model
from gated_bert.pruning.optimizers import build_optimizer
from gated_bert.tasks.data import load_task_data
from gated_bert.tasks.pipeline import BucketedDataset
from gated_bert.tasks.tokenizer import load_tokenizer


def measure(options) -> list[Figure]:
    """Time of making a batch as a share of a step of the tiny model, whose steps are the shortest."""
    examples, batches_timed = (384, 4) if options.quick else (8000, 60)
    config = GatedBertConfig(
        model_size="tiny", pruning_method="baseline", task="sst2", data=options.data, train_examples=examples
    )
    data, tokenizer = load_task_data(config), load_tokenizer(config)
    began = time.perf_counter()
    encoded = tokenizer.encode(data.train.texts, data.train.pairs, config.max_len, cached=False)
    tokenising = time.perf_counter() - began
    batches = BucketedDataset(encoded, data.train.labels, config.batch_size, config.max_len, seed=config.seed)
    model = build_model(config, data.task, tokenizer.vocab_size)
    optimizer = build_optimizer(config, model, 10_000, "gradient")
    model.compile(optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    for shape in dict.fromkeys(batches.shapes):
        model.train_on_batch(*batches[batches.shapes.index(shape)])
    making, training = [], []
    for index in range(min(batches_timed, len(batches))):
        began = time.perf_counter()
        inputs, labels = batches[index]
        made = time.perf_counter()
        model.train_on_batch(inputs, labels)
        making.append(made - began)
        training.append(time.perf_counter() - made)
    began = time.perf_counter()
    batches.set_epoch(1)
    ordering = time.perf_counter() - began
    share = 100 * np.array(making) / np.array(training)
    low, median, high = np.quantile(share, [0.25, 0.5, 0.75])
    epoch = len(batches) * float(np.median(training))
    sides = f"{1e3 * np.median(making):.2f} ms of {1e3 * np.median(training):.1f} ms, quartiles {low:.2f}–{high:.2f}"
    label = f"{data.source['label']}, batch {config.batch_size}, tiny"
    return [
        Figure("making a batch / a training step", float(median), "%", "≤ 5", f"{sides}; {label}"),
        Figure("ordering an epoch / training it", 100 * ordering / epoch, "%", "≤ 5", f"{len(batches)} batches"),
        Figure("tokenising, once, / an epoch", 100 * tokenising / epoch, "%", "", f"{len(encoded)} texts, then cached"),
    ]


if __name__ == "__main__":
    main("input_pipeline", measure)
