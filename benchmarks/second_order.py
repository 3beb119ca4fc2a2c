"""One mask update by SparseGPT and by oBERT: time and memory of all of BERT base."""

from __future__ import annotations

import time

import keras
import numpy as np

from benchmarks.figures import Figure
from benchmarks.timing import extra_memory, main
from gated_bert.config import GatedBertConfig
from gated_bert.models.architecture import BertConfig
from gated_bert.models.bert import BertClassifier
from gated_bert.pruning import Obert, Pruner, SparseGpt

TEXTS, LENGTH, GRADIENTS = 256, 64, 64
BLOCK_SIZE = 50


def batches(count: int, length: int) -> list[tuple]:
    """Random tokens, 32 texts a batch, a third of each padding."""
    rng, found = np.random.default_rng(0), []
    for _ in range(max(1, count // 32)):
        ids = rng.integers(0, 100, (min(32, count), length)).astype("int32")
        real = (np.arange(length) < 2 * length // 3).astype("int32") * np.ones_like(ids)
        found.append(({"input_ids": ids, "token_type_ids": 0 * ids, "attention_mask": real}, ids[:, 0] % 2))
    return found


def measure(options) -> list[Figure]:
    """Seconds and memory of closing half of all weights, in order of the layers and in parts of the memory."""
    size = "tiny" if options.quick else "base"
    config = GatedBertConfig(model_size=size)
    sizes = BertConfig.uniform(config.num_layers, config.d_model, config.num_heads, config.dff, vocab_size=100)
    data = batches(32 if options.quick else TEXTS, LENGTH)
    gradients, room = (8, 0.01) if options.quick else (GRADIENTS, 1.0)
    criteria = {
        "sparsegpt": (SparseGpt(calibration_texts=TEXTS), "layer", "≤ 600", "≤ 2000", f"{TEXTS} texts of {LENGTH}"),
        "sparsegpt, as published": (SparseGpt(calibration_texts=TEXTS, target="layer"), "layer", "≤ 600", "≤ 2000",
                                    f"{TEXTS} texts of {LENGTH}"),
        "obert": (Obert(gradients=gradients, memory=room, block_size=BLOCK_SIZE), "layer", "", "",
                  f"{gradients} gradients of 16 texts, matrices in parts of {room:g} GiB"),
    }  # fmt: skip
    figures = []
    for name, (criterion, scope, seconds, megabytes, about) in criteria.items():
        model = BertClassifier(sizes)
        model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        pruner = Pruner(model.gated_layers(config.prunable_roles), criterion, scope=scope)
        clock: list[float] = []

        def update(pruner=pruner, model=model, clock=clock):
            began = time.perf_counter(), time.process_time()
            pruner.prune(0.5, model, data)
            clock += [time.perf_counter() - began[0], time.process_time() - began[1]]

        extra = extra_memory(update)
        details = f"wall {clock[0]:.0f} s; {about}, {pruner.scope} scope"
        figures.append(Figure(f"{name}, all of {size}: processor time", clock[1], "s", seconds, details))
        figures.append(Figure(f"{name}, all of {size}: extra memory", extra, "MB", megabytes, "highest resident above "
                              "that before"))  # fmt: skip
    return figures


if __name__ == "__main__":
    main("second_order", measure)
