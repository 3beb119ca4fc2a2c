"""A shrunk BERT against the dense one: what becomes of the speed-up that its multiply-accumulates promise."""

from __future__ import annotations

from functools import partial

import numpy as np

from benchmarks.figures import Figure
from benchmarks.timing import interleave, main, ratio
from gated_bert.compression.model_statistics import macs, random_inputs
from gated_bert.compression.shrink import shrink
from gated_bert.config import GatedBertConfig
from gated_bert.models.architecture import BertConfig
from gated_bert.models.bert import BertClassifier
from gated_bert.pruning.patterns import HEADS, NEURONS

VOCABULARY = 30522
BATCH, LENGTH, LAYERS = 8, 128, 4
"""Layers are all alike: four of twelve take a third of the time and give the same ratios."""


def close(model: BertClassifier, share: float, seed: int = 0):
    """Closes `share` of the heads and of the neurons of every layer."""
    rng = np.random.default_rng(seed)
    heads = [sizes.num_heads for sizes in model.bert_config.layers]
    for pattern in (HEADS, NEURONS):
        for group in pattern.groups(model.gated_layers(), heads):
            kept = np.ones(group.num_units, np.float32)
            kept[rng.permutation(group.num_units)[: round(share * group.num_units)]] = 0
            for layer, factor in zip(group.layers, group.expand(kept), strict=True):
                layer.gates.assign(np.broadcast_to(factor, tuple(layer.gates.shape)))


def measure(options) -> list[Figure]:
    """Time of a prediction of the dense, the masked and the shrunk model, heads and neurons closed."""
    size, batch, length = ("tiny", 2, 16) if options.quick else ("base", BATCH, LENGTH)
    config = GatedBertConfig(model_size=size)
    layers = min(LAYERS, config.num_layers)
    sizes = BertConfig.uniform(layers, config.d_model, config.num_heads, config.dff, vocab_size=VOCABULARY)
    dense = BertClassifier(sizes)
    sides = {"dense": dense}
    for share in (0.5, 0.75):
        masked = BertClassifier(sizes)
        close(masked, share)
        sides[f"{share:.0%} shrunk"] = shrink(masked)
    sides["masked"] = masked
    inputs = random_inputs(sizes, batch, length)
    predictions = {name: partial(model.predict_on_batch, inputs) for name, model in sides.items()}
    times = interleave(predictions, repeats=3 if options.quick else 21, warm_up=2)
    where = f"{size}, {layers} layers, batch {batch} × {length} tokens"
    figures = []
    for name in (name for name in sides if name.endswith("shrunk")):
        faster, details = ratio(times["dense"], times[name])
        promised = macs(sizes, length).total / macs(sides[name].bert_config, length).total
        figures.append(Figure(f"dense / {name} latency", faster, "×", "", f"{details}; {where}"))
        kept = f"the MACs promise {promised:.2f}×; heads and neurons closed"
        figures.append(Figure(f"speed-up / that of the MACs, {name}", faster / promised, "×", "≥ 0.8", kept))
    value, details = ratio(times["dense"], times["masked"])
    return [*figures, Figure("dense / masked latency, 75 %", value, "×", "", f"{details}; masks alone save nothing")]


if __name__ == "__main__":
    main("shrink", measure)
