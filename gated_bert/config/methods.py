"""The published methods: named points in criterion × pattern × scope × schedule."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Collection
from dataclasses import dataclass

from gated_bert.config.parts import trained


@dataclass(frozen=True)
class Method:
    """A point: what a record takes where it says nothing else.

    Args:
        criterion: importance of weights; None trains without pruning.
        pattern: what is removed at once.
        scope: which units compete.
        schedule: how sparsity rises; `auto` holds only where neither start nor end sparsity is given.
    """

    criterion: str | None
    pattern: str = "element"
    scope: str = "layer"
    schedule: str = "linear"


STRATEGIES = {
    "GlobalMagWeight": "magnitude",
    "LayerMagWeight": "magnitude",
    "GlobalMagGrad": "gradient_magnitude",
    "LayerMagGrad": "gradient_magnitude",
    "GlobalMagAct": "activation_magnitude",
    "LayerMagAct": "activation_magnitude",
    "LayerGradCAM": "grad_cam",
    "LayerSmoothGrad": "smooth_grad",
    "LayerSmoothGradCAM": "smooth_grad_cam",
    "LayerGradCAMShift": "grad_cam_shift",
    "LayerSmoothGradCAMShift": "smooth_grad_cam_shift",
    "RandomPruning": "random",
}
"""ShrinkBench's and DeepCuts' strategies → criterion: Global ranks all matrices together, the others each alone; they
prune once, at the pruning start, and fine-tune from there."""

METHODS = {
    "baseline": Method(None),
    "magnitude": Method("magnitude"),
    "movement": Method("movement"),
    "spt": Method("spt", scope="global", schedule="auto"),
    "soft_movement": Method("soft_movement", schedule="cubic"),
    "l0": Method("l0"),
    "cofi": Method("cofi", "head_neuron", "global"),
    "taylor": Method("taylor"),
    "random": Method("random"),
    "gradient_magnitude": Method("gradient_magnitude"),
    "activation_magnitude": Method("activation_magnitude"),
    "grad_cam": Method("grad_cam"),
    "smooth_grad": Method("smooth_grad"),
    "smooth_grad_cam": Method("smooth_grad_cam"),
    "grad_cam_shift": Method("grad_cam_shift"),
    "smooth_grad_cam_shift": Method("smooth_grad_cam_shift"),
    "platon": Method("platon", scope="global"),
    "snip_momentum": Method("snip_momentum", scope="global"),
    "wanda": Method("wanda", scope="output"),
    "sparsegpt": Method("sparsegpt"),
    "obert": Method("obert", scope="global"),
    "mask_tuning": Method("mask_tuning", "head_neuron", "global"),
    **{
        name: Method(criterion, scope="global" if name.startswith("Global") else "layer", schedule="one_shot")
        for name, criterion in STRATEGIES.items()
    },
}
METHOD_WORDS = ChainMap({"none": Method(None)}, METHODS)
"""What `-p` takes."""


class _OfTrainedModels(Collection):
    """Names of methods that rank the weights of a trained model as it is; what is registered later is among them."""

    def __iter__(self):
        return (name for name, method in METHODS.items() if method.criterion not in (None, *trained()))

    def __contains__(self, name):
        return any(name == each for each in self)

    def __len__(self):
        return sum(1 for _ in self)


OF_TRAINED_MODELS = _OfTrainedModels()


def method_of_criterion(criterion: str | None) -> Method:
    """The first method made of `criterion`, for the defaults of a point without a name."""
    return next(method for method in METHODS.values() if method.criterion == criterion)
