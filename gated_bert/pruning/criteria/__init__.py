"""Criteria: how important a weight is."""

from __future__ import annotations

from gated_bert.config import GatedBertConfig
from gated_bert.config.parts import part_of
from gated_bert.pruning.criteria.base import Criterion, Loss, StepContext, class_of

__all__ = ["Criterion", "Loss", "StepContext", "class_of", "criterion_class", "criterion_of"]


def criterion_class(config: GatedBertConfig) -> type[Criterion] | None:
    """The class of the record's criterion, None for a baseline."""
    return class_of(part_of(config)) if config.criterion else None


def criterion_of(config: GatedBertConfig) -> Criterion:
    """The record's criterion with its options, bound to nothing yet."""
    return class_of(part_of(config)).from_config(config)
