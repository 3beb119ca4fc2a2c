"""What movement's masks cost where they follow every step, or every tenth: per-layer top-k beside a training step.

Where they are chosen on a GPU, also what that is worth beside a choice in the host's memory.
"""

from __future__ import annotations

from functools import partial
from unittest import mock

import numpy as np

from benchmarks.figures import Figure
from benchmarks.timing import interleave, main, ratio
from benchmarks.training_step import compile_model, make_batch, make_model
from gated_bert.config import GatedBertConfig
from gated_bert.pruning import pruner as pruners
from gated_bert.pruning.pruner import Pruner

MINILM = {"num_layers": 6, "d_model": 384, "num_heads": 12, "dff": 1536}
CASES = {"tiny": ({"model_size": "tiny"}, 64, 24), "small": ({"model_size": "small"}, 64, 24),
         "MiniLM": (MINILM, 32, 64)}  # fmt: skip
SPARSITIES = (0.3, 0.6, 0.9)


def measure(options) -> list[Figure]:
    """Time of a mask update as a share of that of a training step; at `every` steps it is that share ÷ `every`."""
    figures = []
    for name, (sizes, batch, length) in list(CASES.items())[: 1 if options.quick else None]:
        config = GatedBertConfig(pruning_method="movement", **sizes)
        model = make_model(config, gate_rule="straight_through")
        compile_model(model, config)
        layers = model.gated_layers(config.prunable_roles)
        pruner = Pruner.from_config(config, layers)
        rng = np.random.default_rng(0)
        for layer in layers:
            layer.scores.assign(rng.normal(size=layer.scores.shape).astype(np.float32))
        inputs, labels = make_batch(*((16, 16) if options.quick else (batch, length)))
        sparsities = iter(SPARSITIES * 1000)
        parts = {"step": partial(model.train_on_batch, inputs, labels),
                 "masks": lambda pruner=pruner, due=sparsities: pruner.update(next(due), 1)}  # fmt: skip
        if pruners.on_accelerator():
            parts["on the host"] = partial(_on_the_host, parts["masks"])
        times = interleave(parts, 3 if options.quick else 9, 2)
        for every in (1, 10):
            value, details = ratio(times["masks"], times["step"])
            details = f"{details}, batch {batch} x {length}"
            figures.append(Figure(f"masks every {every} / step, {name}", value / every, "×", "", details))
        if "on the host" in times:
            value, details = ratio(times["on the host"], times["masks"])
            figures.append(Figure(f"masks on the host / on the device, {name}", value, "×", "", details))
    return figures


def _on_the_host(update):
    with mock.patch.object(pruners, "on_accelerator", lambda: False):
        update()


if __name__ == "__main__":
    main("movement_masks", measure)
