"""Training steps against PyTorch: transformers' BERT, and movement pruning with masked linear layers; needs both."""

from __future__ import annotations

import os
import tempfile
from functools import partial

import numpy as np

from benchmarks.figures import Figure
from benchmarks.timing import Times, interleave, main, ratio
from benchmarks.training_step import compile_model, make_batch, make_model
from gated_bert.config import GatedBertConfig
from gated_bert.models.bert import BertClassifier
from gated_bert.models.pretrained import load_pretrained
from gated_bert.pruning.pruner import Pruner


def check_same_logits(own: BertClassifier, peer, inputs: dict[str, np.ndarray]):
    """Gives `own` the weights of `peer`; raises RuntimeError where the two then compute something else."""
    from benchmarks.pytorch_peers import logits

    with tempfile.TemporaryDirectory() as folder:
        peer.save_pretrained(folder)
        load_pretrained(own, folder)
    own.gated_layers(("classifier",))[0].raw_kernel.assign(peer.classifier.weight.detach().numpy().T)
    difference = np.abs(own.predict_on_batch(inputs) - logits(peer, inputs)).max()
    if not difference < 1e-4:
        raise RuntimeError(f"logits differ by {difference:.1e}; times of them compare nothing")


def own_step(config: GatedBertConfig, inputs: dict[str, np.ndarray], labels: np.ndarray, jit: bool = False):
    """A training step of this package's model, and the model."""
    movement = config.criterion == "movement"
    model = make_model(config, gate_rule="straight_through" if movement else "fixed")
    compile_model(model, config)
    model.jit_compile = jit
    return partial(model.train_on_batch, inputs, labels), model


def measure(options) -> list[Figure]:
    """Examples a second over transformers' in PyTorch; a movement step over one with masked linear layers there."""
    import torch

    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", 0)) or os.cpu_count())
    figures = []
    shapes = (("small", 32, 64, 7), ("base", 8, 128, 5))
    for size, batch, length, repeats in (("tiny", 4, 16, 2),) if options.quick else shapes:
        inputs, labels = make_batch(batch, length)
        where = f"{size}, batch {batch} × {length} tokens"
        figures += plain_figures(size, inputs, labels, repeats, where)
        figures += movement_figures(size, inputs, labels, repeats, where)
    return figures


def plain_figures(size: str, inputs, labels, repeats: int, where: str) -> list[Figure]:
    """Dense training, without and with XLA, over transformers'."""
    from benchmarks.pytorch_peers import peer_model, peer_step

    config = GatedBertConfig(model_size=size, pruning_method="baseline")
    peer = peer_model(config)
    sides = {"transformers": peer_step(peer, inputs, labels)}
    for name, jit in (("gated", False), ("gated, jit_compile", True)):
        sides[name], model = own_step(config, inputs, labels, jit)
        check_same_logits(model, peer, inputs)
    peer.train()
    times = interleave(sides, repeats, warm_up=2)
    figures = []
    for name, goal in (("gated", "≥ 1.0"), ("gated, jit_compile", "")):
        value, details = ratio(times["transformers"], times[name])
        figures.append(Figure(f"examples/s, {name} / transformers, {where}", value, "×", goal, details))
    return figures


def movement_figures(size: str, inputs, labels, repeats: int, where: str) -> list[Figure]:
    """A movement step, with its share of a mask update, over masked linear layers in PyTorch."""
    from benchmarks.pytorch_peers import KEPT, masked, peer_model, peer_step

    config = GatedBertConfig(model_size=size, pruning_method="movement")
    step, model = own_step(config, inputs, labels)
    pruner = Pruner.from_config(config, model.gated_layers(config.prunable_roles))
    rng = np.random.default_rng(0)
    for layer in pruner.layers:
        layer.scores.assign(rng.normal(0, 1e-3, tuple(layer.scores.shape)))
    sides = {"own": step, "update": partial(pruner.update, 1 - KEPT, 1)}
    for name, every_step in (("kept between updates", False), ("chosen in every forward pass, as published", True)):
        sides[name] = peer_step(masked(peer_model(config), every_step), inputs, labels)
    times = interleave(sides, repeats, warm_up=2)
    every = config.movement_pruning_frequency_steps
    own = Times(times["own"].wall + times["update"].wall / every, times["own"].cpu + times["update"].cpu / every)
    figures = []
    for name in list(sides)[2:]:
        value, details = ratio(times[name], own)
        details += f"; own with 1/{every} of a mask update"
        figures.append(Figure(f"movement, examples/s, own / PyTorch, masks {name}, {where}", value, "×", "", details))
    return figures


if __name__ == "__main__":
    main("pytorch_step", measure)
