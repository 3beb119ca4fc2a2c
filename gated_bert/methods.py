"""The published methods: named points in criterion × pattern × scope × schedule."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Method:
    """A point: what a record takes where it says nothing else.

    Args:
        criterion: importance of weights; None trains without pruning.
        pattern: what is removed at once.
        scope: which units compete.
        schedule: how sparsity rises when neither start nor end sparsity is given.
    """

    criterion: str | None
    pattern: str = "element"
    scope: str = "layer"
    schedule: str = "linear"


METHODS = {
    "baseline": Method(None),
    "magnitude": Method("magnitude"),
    "movement": Method("movement"),
    "spt": Method("spt", scope="global", schedule="auto"),
    "soft_movement": Method("soft_movement"),
    "l0": Method("l0"),
    "taylor": Method("taylor"),
    "random": Method("random"),
}
CRITERIA = tuple(dict.fromkeys(method.criterion for method in METHODS.values() if method.criterion))


def method_of_criterion(criterion: str | None) -> Method:
    """The first method made of `criterion`, for the defaults of a point without a name."""
    return next(method for method in METHODS.values() if method.criterion == criterion)
