"""What a study is made of."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Part:
    """One command of a study: the name of its folder, and its flags as they would be typed.

    `{study}` in the flags stands for the study's folder; flags with a `-pt` do not get the study's own. Commands that
    read runs take no data.
    """

    name: str
    flags: str
    command: str = "sweep"


@dataclass(frozen=True)
class Study:
    """A question, and the sweeps that answer it.

    Args:
        question: what the study shows.
        data: `embedded`, or None where the user says which.
        parts: the sweeps at each scale.
        pretrained: whether the sweeps start from pretrained weights.
        accuracy: whether what is kept of the dense models' metric is tabled level by level.
    """

    question: str
    data: str | None
    parts: dict[str, tuple[Part, ...]]
    pretrained: bool = False
    accuracy: bool = False
