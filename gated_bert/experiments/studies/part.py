"""What a study is made of."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from gated_bert.support.checks import FlagError, did_you_mean


@dataclass(frozen=True)
class Part:
    """One command of a study: the name of its folder, and its flags as they would be typed.

    `{study}` in the flags stands for the study's folder; flags with a `-pt` do not get the study's own. Commands that
    read runs take no data.
    """

    name: str
    flags: str
    command: str = "sweep"

    @property
    def measures_time(self) -> bool:
        """Whether something running beside it would falsify what it finds."""
        return self.command in ("compress", "pipeline")


def needs(part: Part) -> set[str]:
    """Names of the parts whose folders `part` starts from."""
    return set(re.findall(r"\{study\}/([^/\s]+)", part.flags))


def with_needed(parts: Sequence[Part], names: Collection[str]) -> tuple[Part, ...]:
    """The parts that are named, and those that they start from, in the study's order.

    Raises:
        FlagError: a name of none of them.
    """
    known = {part.name: part for part in parts}
    wanted = list(names)
    for name in wanted:
        if name not in known:
            raise FlagError.refused("--parts", name, ", ".join(known) + did_you_mean(name, known))
        wanted += needs(known[name]) - set(wanted)
    return tuple(part for part in parts if part.name in wanted)


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
