"""Criteria: how important a weight is."""

from __future__ import annotations

from gated_bert.config import GatedBertConfig
from gated_bert.pruning.criteria.base import Criterion, StepContext
from gated_bert.pruning.criteria.magnitude import Magnitude
from gated_bert.pruning.criteria.movement import L0, Movement, SoftMovement
from gated_bert.pruning.criteria.random_order import Random
from gated_bert.pruning.criteria.saliency import (
    ActivationMagnitude,
    GradCam,
    GradCamShift,
    GradientMagnitude,
    PublishedActivationMagnitude,
    SmoothGrad,
    SmoothGradCam,
    SmoothGradCamShift,
)
from gated_bert.pruning.criteria.spt import Spt, SptTaylor
from gated_bert.pruning.criteria.taylor import PublishedTaylor, Taylor

_CRITERIA = {
    "magnitude": Magnitude,
    "movement": Movement,
    "soft_movement": SoftMovement,
    "l0": L0,
    "spt": Spt,
    "taylor": Taylor,
    "random": Random,
    "gradient_magnitude": GradientMagnitude,
    "activation_magnitude": ActivationMagnitude,
    "grad_cam": GradCam,
    "smooth_grad": SmoothGrad,
    "smooth_grad_cam": SmoothGradCam,
    "grad_cam_shift": GradCamShift,
    "smooth_grad_cam_shift": SmoothGradCamShift,
}

__all__ = ["Criterion", "StepContext", "criterion_class"]


def criterion_class(config: GatedBertConfig) -> type[Criterion] | None:
    """The class of the record's criterion, None for a baseline."""
    if config.criterion == "spt" and config.spt_reward == "taylor":
        return SptTaylor
    if config.criterion == "taylor" and config.taylor_variant == "published":
        return PublishedTaylor
    if config.criterion == "activation_magnitude" and config.activation_variant == "published":
        return PublishedActivationMagnitude
    return _CRITERIA[config.criterion] if config.criterion else None
