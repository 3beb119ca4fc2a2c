"""What a run learns from a trained model, its teacher, beside the labels."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

from gated_bert.config.option import TRAINING, declared_fields, option
from gated_bert.support.checks import ConfigError

SELF = "self"
"""The teacher of a sweep's jobs that is the sweep's own dense model of the same task and seed."""
SELF_ELSEWHERE = ("a folder; self is for gated-bert sweep, which trains the dense model first; here give that of a "
                  "dense model, --teacher FOLDER -pt FOLDER")  # fmt: skip
"""What messages say where there is no sweep that could train one."""
SELF_NOTE = "the dense model of each task and seed is trained first: the others start from it, and it is their teacher"
LAYERS = ("none", "last", "all", "nearest")
_option = functools.partial(option, group=TRAINING)


@dataclass(frozen=True)
class DistillOptions:
    """Teacher, and how much of it counts; without a teacher all are None.

    Paper: Hinton et al. 2015, Distilling the Knowledge in a Neural Network (https://arxiv.org/abs/1503.02531).
    """

    teacher: str | None = _option(None, "learn from a trained model too: its folder, or that of its run; in a sweep "
                                  "self, the dense model of the same task and seed, which is trained first and which "
                                  "the others start from; none where a recipe has one", "--teacher",
                                  metavar="FOLDER|self|none", nothing="none")  # fmt: skip
    distill_hardness: float | None = _option(None, "share of the teacher in the loss, the rest is the labels' (0.9)",
                                             "--distill-hardness", metavar="SHARE", low=0, high=1,
                                             fraction=True)  # fmt: skip
    distill_temperature: float | None = _option(None, "what logits are divided by (2)", "--distill-temperature",
                                                metavar="VALUE", low=0, high=100, open_low=True)  # fmt: skip
    distill_layers: str | None = _option(None, "encoder layers whose outputs are learnt too: none, last, all, or "
                                         "nearest (four of the teacher's, each by the nearest)", "--distill-layers",
                                         metavar="WHICH", choices=LAYERS)  # fmt: skip
    distill_layer_weight: float | None = _option(None, "weight of these in the loss (1)", "--distill-layer-weight",
                                                 metavar="WEIGHT", low=0, high=1e6)  # fmt: skip

    @property
    def distills_layers(self) -> bool:
        """Whether the teacher runs beside the model in every step: of its outputs the last alone are kept."""
        return self.teacher is not None and self.distill_layers != "none" and bool(self.distill_layer_weight)


DISTILL_FIELDS = frozenset(declared_fields(DistillOptions))
"""Fields that mean nothing to a run without a teacher."""


def filled_distillation(options: DistillOptions) -> dict[str, Any]:
    """What is not said of a teacher; nothing where there is none."""
    if options.teacher is None:
        return {}
    layers = options.distill_layers or "none"
    usual = {"distill_hardness": 0.9, "distill_temperature": 2.0, "distill_layers": layers,
             "distill_layer_weight": 0.0 if layers == "none" else 1.0}  # fmt: skip
    return {name: value for name, value in usual.items() if getattr(options, name) is None}


def check_distillation(options: DistillOptions) -> None:
    """Refuses what says nothing: options of a teacher without one, and the weight of no layers.

    Raises:
        ConfigError: the first of them.
    """
    if options.teacher is None:
        for name in sorted(DISTILL_FIELDS):
            if getattr(options, name) is not None:
                raise ConfigError(name, getattr(options, name), "nothing without a teacher (--teacher FOLDER)")
        return
    if not options.teacher.strip():
        raise ConfigError("teacher", options.teacher, "the folder of a trained model, or of its run")
    if options.distill_layers == "none" and options.distill_layer_weight:
        allowed = f"0 without layers; distill_layers {', '.join(LAYERS[1:])} take one"
        raise ConfigError("distill_layer_weight", options.distill_layer_weight, allowed)


def distilled_label(options: DistillOptions) -> str:
    """What tells a run with a teacher by its name: `-distilled`, and the layers where there are any."""
    if options.teacher is None:
        return ""
    return "-distilled" + (f"-{options.distill_layers}" if options.distills_layers else "")
