"""BERT and movement pruning in PyTorch, as the benchmarks' peers; needs torch and transformers."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import transformers
from torch.nn import functional

from benchmarks.training_step import VOCABULARY
from gated_bert.config import GatedBertConfig

KEPT = 0.5
"""Share of the weights that masks leave open."""


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


def logits(model: torch.nn.Module, inputs: dict[str, np.ndarray]) -> np.ndarray:
    """What `model` infers, array [batch, classes]; it is left in inference mode."""
    model.eval()
    with torch.no_grad():
        return model(**{name: torch.from_numpy(value).long() for name, value in inputs.items()}).logits.numpy()


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
