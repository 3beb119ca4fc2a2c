"""One mask update of BERT base: 85 million weights, magnitude, layer and global scope."""

from __future__ import annotations

import time

import numpy as np
from keras import ops

from benchmarks.figures import Figure
from benchmarks.timing import Times, extra_memory, main, ratio, spread
from gated_bert.config import GatedBertConfig
from gated_bert.models.architecture import BertConfig
from gated_bert.models.bert import BertClassifier
from gated_bert.pruning.pruner import Pruner

BEFORE, AFTER = 0.4, 0.5
GOALS = {"global": "≤ 0.8", "layer": "≤ 0.3"}


def partition(layers):
    """The plain way to a global threshold: |W| of all layers end to end, partitioned."""
    scores = np.concatenate([np.abs(ops.convert_to_numpy(layer.raw_kernel)).ravel() for layer in layers])
    return np.partition(scores, round(AFTER * len(scores)))


def measure(options) -> list[Figure]:
    """Seconds and memory of one mask update of BERT base, against np.partition on all weights end to end."""
    size = "tiny" if options.quick else "base"
    config = GatedBertConfig(model_size=size, pruning_method="magnitude")
    sizes = (config.num_layers, config.d_model, config.num_heads, config.dff)
    model = BertClassifier(BertConfig.uniform(*sizes, vocab_size=100, num_outputs=2))
    layers = model.gated_layers(config.prunable_roles)
    pruners = {scope: Pruner.from_config(config.replace(scope=scope), layers) for scope in GOALS}
    updates = {scope: lambda pruner=pruner: pruner.update(AFTER, 1) for scope, pruner in pruners.items()}

    def prepare(scope: str):
        # An update with weights closed already, as all but a run's first are.
        for layer in layers:
            layer.mask_variable.assign(np.ones(tuple(layer.raw_kernel.shape), np.float32))
        pruners[scope].update(BEFORE, 0)

    clocks = {name: ([], []) for name in (*GOALS, "partition")}
    for _ in range(3 if options.quick else 9):
        for name, (wall, cpu) in clocks.items():
            if name in pruners:
                prepare(name)
            began = time.perf_counter(), time.process_time()
            updates[name]() if name in updates else partition(layers)
            wall.append(time.perf_counter() - began[0])
            cpu.append(time.process_time() - began[1])
    times = {name: Times(np.array(wall), np.array(cpu)) for name, (wall, cpu) in clocks.items()}
    weights = sum(group.num_units for group in pruners["global"].groups) / 1e6
    figures = []
    for scope, goal in GOALS.items():
        seconds, cpu = float(np.median(times[scope].wall)), float(np.median(times[scope].cpu))
        details = f"{spread(times[scope].wall)}, CPU time {cpu:.2f} s; {weights:.1f} M weights, {BEFORE} → {AFTER}"
        figures.append(Figure(f"mask update, {scope} scope, {size}", seconds, "s", goal, details))
    value, details = ratio(times["global"], times["partition"])
    figures.append(Figure(f"global update / np.partition, {size}", value, "×", "", details))
    for scope in GOALS:
        prepare(scope)
        extra = extra_memory(updates[scope])
        details = "highest resident memory above that before"
        figures.append(Figure(f"extra memory, {scope} scope, {size}", extra, "MB", "≤ 150", details))
    extra = extra_memory(lambda: partition(layers))
    return [*figures, Figure(f"extra memory, np.partition, {size}", extra, "MB", "", "for comparison")]


if __name__ == "__main__":
    main("mask_update", measure)
