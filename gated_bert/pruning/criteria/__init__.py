"""Criteria: how important a weight is."""

from __future__ import annotations

from gated_bert.config import GatedBertConfig
from gated_bert.config.parts import part_of
from gated_bert.pruning.criteria.base import Criterion, Loss, StepContext

__all__ = ["Criterion", "Loss", "StepContext", "criterion_class", "criterion_of"]


def criterion_class(config: GatedBertConfig) -> type[Criterion] | None:
    """The class of the record's criterion, None for a baseline."""
    return part_of(config).load() if config.criterion else None


def criterion_of(config: GatedBertConfig) -> Criterion:
    """The record's criterion with its options, bound to nothing yet."""
    return part_of(config).load().from_config(config)
