"""Training steps against PyTorch: transformers' BERT, and movement pruning with masked linear layers; needs both."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
import transformers
from torch.nn import functional

from benchmarks.figures import Figure
from benchmarks.timing import Times, interleave, main, ratio
from benchmarks.training_step import VOCABULARY, compile_model, make_batch, make_model
from gated_bert.config import GatedBertConfig
from gated_bert.models.bert import BertClassifier
from gated_bert.models.pretrained import load_pretrained
from gated_bert.pruning.pruner import Pruner

KEPT = 0.5


class TopK(torch.autograd.Function):
    """1 for the `kept` highest scores; their gradient is the mask's (Sanh et al. 2020)."""

    @staticmethod
    def forward(context, scores: torch.Tensor, kept: float) -> torch.Tensor:
        threshold = scores.flatten().kthvalue(round((1 - kept) * scores.numel())).values
        return (scores > threshold).to(scores.dtype)

    @staticmethod
    def backward(context, gradient: torch.Tensor):
        return gradient, None


class MaskedLinear(torch.nn.Linear):
    """A linear layer with movement scores.

    Args:
        linear: the layer whose weights it takes.
        every_step: whether the mask is chosen in every forward pass, as published; else it is a buffer, as the
            toolkit's is between two updates.
    """

    def __init__(self, linear: torch.nn.Linear, every_step: bool):
        super().__init__(linear.in_features, linear.out_features)
        self.weight, self.bias, self.every_step = linear.weight, linear.bias, every_step
        self.scores = torch.nn.Parameter(torch.randn_like(self.weight) * 1e-3)
        self.register_buffer("mask", TopK.apply(self.scores.detach(), KEPT))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        # The bracket is zero: it only hands the mask's gradient to the scores.
        kept = self.mask + (self.scores - self.scores.detach())
        mask = TopK.apply(self.scores, KEPT) if self.every_step else kept
        return functional.linear(inputs, self.weight * mask, self.bias)


def peer_model(config: GatedBertConfig) -> transformers.BertForSequenceClassification:
    """transformers' BERT of the sizes of `config`, with random weights."""
    torch.manual_seed(0)
    sizes = {
        "num_hidden_layers": config.num_layers,
        "hidden_size": config.d_model,
        "num_attention_heads": config.num_heads,
        "intermediate_size": config.dff,
    }
    return transformers.BertForSequenceClassification(transformers.BertConfig(vocab_size=VOCABULARY, **sizes))


def masked(model: torch.nn.Module, every_step: bool) -> torch.nn.Module:
    """`model` with masked linear layers in its encoder."""
    for name, layer in list(model.bert.encoder.named_modules()):
        if isinstance(layer, torch.nn.Linear):
            parent, _, attribute = name.rpartition(".")
            setattr(model.bert.encoder.get_submodule(parent), attribute, MaskedLinear(layer, every_step))
    return model


def check_same_logits(own: BertClassifier, peer: torch.nn.Module, inputs: dict[str, np.ndarray]):
    """Gives `own` the weights of `peer`; raises RuntimeError where the two then compute something else."""
    with tempfile.TemporaryDirectory() as folder:
        peer.save_pretrained(folder)
        load_pretrained(own, folder)
    peer.eval()
    with torch.no_grad():
        hidden = peer.bert(**{name: torch.from_numpy(value).long() for name, value in inputs.items()}).pooler_output
        expected = hidden.numpy() @ peer.classifier.weight.numpy().T + peer.classifier.bias.numpy()
    own.gated_layers(("classifier",))[0].raw_kernel.assign(peer.classifier.weight.detach().numpy().T)
    found = own.predict_on_batch(inputs)
    if not np.abs(found - expected).max() < 1e-4:
        raise RuntimeError(f"logits differ by {np.abs(found - expected).max():.1e}; times of them compare nothing")


def peer_step(model: torch.nn.Module, inputs: dict[str, np.ndarray], labels: np.ndarray) -> Callable[[], object]:
    """A training step of `model`: AdamW with the weights' decay, clipped gradients, as `build_optimizer` has them."""
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-5, weight_decay=0.01, eps=1e-8)
    tensors = {name: torch.from_numpy(value).long() for name, value in inputs.items()}
    targets = torch.from_numpy(labels).long()

    def step() -> float:
        optimizer.zero_grad(set_to_none=True)
        loss = functional.cross_entropy(model(**tensors).logits, targets)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        return loss.item()

    return step


def own_step(config: GatedBertConfig, inputs: dict[str, np.ndarray], labels: np.ndarray, jit: bool = False):
    """A training step of this package's model, and the model."""
    movement = config.criterion == "movement"
    model = make_model(config, gate_rule="straight_through" if movement else "fixed")
    compile_model(model, config)
    model.jit_compile = jit
    return partial(model.train_on_batch, inputs, labels), model


def measure(options) -> list[Figure]:
    """Examples a second over transformers' in PyTorch; a movement step over one with masked linear layers there."""
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", 0)) or os.cpu_count())
    figures = []
    shapes = (("small", 32, 64, 7), ("base", 8, 128, 5))
    for size, batch, length, repeats in (("tiny", 4, 16, 2),) if options.quick else shapes:
        inputs, labels = make_batch(batch, length)
        where = f"{size}, batch {batch} × {length} tokens"
        figures += [*plain_figures(size, inputs, labels, repeats, where)]
        figures += [*movement_figures(size, inputs, labels, repeats, where)]
    return figures


def plain_figures(size: str, inputs, labels, repeats: int, where: str) -> list[Figure]:
    """Dense training, without and with XLA, over transformers'."""
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
    config = GatedBertConfig(model_size=size, pruning_method="movement")
    step, model = own_step(config, inputs, labels)
    pruner = Pruner(config, model.gated_layers(config.prunable_roles))
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
