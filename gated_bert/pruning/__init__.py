"""Pruning: criterion × pattern × scope × schedule."""

from __future__ import annotations

import importlib

# Imported when first asked for: criteria need the framework, their names do not.
_PUBLIC = {
    "Pruner": "pruner",
    "PruningCallback": "callbacks",
    "gate": "any_model",
    **dict.fromkeys(("Criterion", "StepContext"), "criteria.base"),
    "Magnitude": "criteria.magnitude",
    **dict.fromkeys(("Movement", "SoftMovement", "L0"), "criteria.movement"),
    "Cofi": "criteria.cofi",
    "Platon": "criteria.platon",
    "SnipMomentum": "criteria.snip_momentum",
    "Random": "criteria.random_order",
    **dict.fromkeys(("Spt", "SptTaylor"), "criteria.spt"),
    **dict.fromkeys(("Taylor", "PublishedTaylor"), "criteria.taylor"),
    **dict.fromkeys(
        ("Saliency", "BatchSaliency", "GradientMagnitude", "ActivationMagnitude", "PublishedActivationMagnitude",
         "GradCam", "GradCamShift", "SmoothGrad", "SmoothGradCam", "SmoothGradCamShift"), "criteria.saliency"
    ),
    "Calibrated": "criteria.calibrated",
    "Wanda": "criteria.wanda",
    "SparseGpt": "criteria.sparsegpt",
    "Obert": "criteria.obert",
    "MaskTuning": "criteria.mask_tuning",
    **dict.fromkeys(
        ("Pattern", "Block", "Tied", "Several", "HeadDims", "KTiles", "Vectors", "Tiles", "ColumnsThenTiles",
         "TilesRestored", "COLUMNS", "HEADS", "NEURONS", "QKV_ROWS"), "patterns"
    ),
    "register_pattern": "named_patterns",
    **dict.fromkeys(("Group", "BlockGroup", "TiedGroup", "TileGroup", "BalancedGroup"), "groups"),
    **dict.fromkeys(
        ("Schedule", "Linear", "Cubic", "Steps", "OneShot", "Every", "every", "register_schedule"), "schedules"
    ),
    "register_criterion": "criteria.register",
}  # fmt: skip

__all__ = list(_PUBLIC)


def __getattr__(name: str):
    if name not in _PUBLIC:
        raise AttributeError(f"module 'gated_bert.pruning' has no attribute {name!r}")
    return getattr(importlib.import_module(f"gated_bert.pruning.{_PUBLIC[name]}"), name)


def __dir__():
    return sorted([*globals(), *__all__])
