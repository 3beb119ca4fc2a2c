"""A training step of the gated BERT against the same BERT out of Keras's own `Dense`."""

from __future__ import annotations

from functools import partial
from unittest import mock

import keras
import numpy as np

from benchmarks.figures import Figure
from benchmarks.timing import interleave, main, ratio
from gated_bert.config import GatedBertConfig
from gated_bert.models import layers
from gated_bert.models.architecture import BertConfig
from gated_bert.models.bert import BertClassifier
from gated_bert.pruning.optimizers import build_optimizer

VOCABULARY = 30522
GOALS = {"gated": ("gated / plain step", "≤ 1.10"), "scored": ("trained scores / plain step", "≤ 1.25")}


class PlainDense(keras.layers.Dense):
    """`keras.layers.Dense` that takes, and ignores, what a `GatedDense` is told."""

    def __init__(self, units, role, layer_index, gate_init_value, gate_trainable, gate_rule, **kwargs):
        super().__init__(units, **kwargs)
        self.role = role


def make_model(config: GatedBertConfig, gate_rule: str = "fixed", gated: bool = True) -> BertClassifier:
    """The BERT of `config` with random weights; with `gated=False` out of plain dense layers."""
    sizes = (config.num_layers, config.d_model, config.num_heads, config.dff)
    options = {"vocab_size": VOCABULARY, "num_outputs": 2, "dropout_rate": 0.1, "gate_rule": gate_rule}
    bert_config = BertConfig.uniform(*sizes, **options)
    with mock.patch.object(layers, "GatedDense", layers.GatedDense if gated else PlainDense):
        return BertClassifier(bert_config)


def make_batch(batch: int, length: int, seed: int = 0) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Random tokens [batch, length] and labels [batch]."""
    rng = np.random.default_rng(seed)
    ids = rng.integers(999, VOCABULARY, (batch, length), dtype=np.int32)
    inputs = {"input_ids": ids, "token_type_ids": np.zeros_like(ids), "attention_mask": np.ones_like(ids)}
    return inputs, rng.integers(0, 2, batch, dtype=np.int32)


def compile_model(model: BertClassifier, config: GatedBertConfig, score_rule: str = "gradient"):
    """Compiles as a run does."""
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(build_optimizer(config, model, 10_000, score_rule), loss)


def check_same_logits(gated: BertClassifier, plain: BertClassifier, inputs: dict[str, np.ndarray]):
    """Gives `plain` the weights of `gated`; raises RuntimeError where the two then compute something else."""
    sources = gated.trainable_variables
    for source, target in zip(sources, plain.trainable_variables, strict=True):
        target.assign(keras.ops.convert_to_numpy(source))
    logits = gated.predict_on_batch(inputs)
    difference = np.abs(logits - plain.predict_on_batch(inputs)).max() / np.abs(logits).max()
    if not difference < 1e-5:
        raise RuntimeError(f"the logits of the gated and the plain model differ by {difference:.1e} of the largest")


def measure(options) -> list[Figure]:
    """Time of a training step with gates, and with gates and trained scores, against one without gates."""
    figures = []
    batch, length = (16, 16) if options.quick else (96, 24)
    for size, repeats in (("tiny", 5),) if options.quick else (("tiny", 40), ("small", 12)):
        config = GatedBertConfig(model_size=size, pruning_method="baseline")
        movement = GatedBertConfig(model_size=size, pruning_method="movement")
        plain, gated = make_model(config, gated=False), make_model(config)
        scored = make_model(config, gate_rule="straight_through")
        inputs, labels = make_batch(batch, length)
        check_same_logits(gated, plain, inputs)
        compile_model(plain, config)
        compile_model(gated, config)
        compile_model(scored, movement)
        models = {"plain": plain, "gated": gated, "scored": scored}
        steps = {name: partial(model.train_on_batch, inputs, labels) for name, model in models.items()}
        times = interleave(steps, repeats, warm_up=2)
        for side, (name, goal) in GOALS.items():
            value, details = ratio(times[side], times["plain"])
            figures.append(Figure(f"{name}, {size}", value, "×", goal, f"{details}; batch {batch} × {length} tokens"))
    return figures


if __name__ == "__main__":
    main("training_step", measure)
