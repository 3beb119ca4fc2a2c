"""Sizes of BERT, and the defaults that depend on the size."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Preset:
    """Sizes of one BERT: encoder layers, hidden size, attention heads, FFN size."""

    num_layers: int
    d_model: int
    num_heads: int
    dff: int


PRESETS = {
    "tiny": Preset(2, 256, 4, 512),
    "small": Preset(6, 512, 8, 1024),
    "base": Preset(12, 768, 12, 3072),
    "large": Preset(24, 1024, 16, 4096),
    "bert-tiny": Preset(2, 128, 2, 512),
    "bert-mini": Preset(4, 256, 4, 1024),
    "bert-small": Preset(4, 512, 8, 2048),
    "bert-medium": Preset(8, 512, 8, 2048),
}

_TINY = (10, 25, 50, 70, 75, 80, 84, 88, 90, 92, 93, 94, 95, 96, 97, 97.5, 98, 98.5, 99, 99.5)
_BASE = (3, 10, 20, 30, 40, 50, 60, 70, 75, 80, 85, 88, 90, 92, 94, 95, 96, 97, 98, 99)
STEP_PRESETS = {
    "tiny": _TINY,
    "small": tuple((tiny + base) / 2 for tiny, base in zip(_TINY, _BASE, strict=True)),
    "base": _BASE,
    "large": (2, 8, 15, 25, 35, 45, 55, 65, 70, 75, 80, 85, 88, 90, 92, 94, 95, 96, 97, 98),
}
"""Published SPT sparsity schedules in per cent, one value per epoch over 20 epochs."""


MOST_LAYERS, MOST_WIDTH, MOST_ROWS = 1000, 1_000_000, 10_000_000
"""Bounds far above any published BERT, so that no record can ask for more, size by size, than a machine can hold."""

START_SPARSITY, END_SPARSITY = 0.0, 0.99
MIN_KEPT = 0.005
"""Fraction of every matrix that stays where nobody says otherwise."""
RECOMPUTATIONS_AT_ONCE = 16
"""Steps of `obert` that closes all at once (Kurtic et al. 2022)."""

TASK_MAX_LEN = {"squad": 384}
"""Longest input in tokens of the tasks that have a usual one of their own."""


def usual_max_len(task: str) -> int:
    """Longest input in tokens where nobody says otherwise."""
    return TASK_MAX_LEN.get(task, 128)


def usual_doc_stride(max_len: int) -> int:
    """Tokens between two windows of a context where nobody says otherwise."""
    return min(128, max_len // 3)


def schedule_size(model_size: str) -> str:
    """The one of tiny, small, base and large whose defaults `model_size` takes."""
    return {"bert-tiny": "tiny", "bert-mini": "tiny", "bert-small": "small", "bert-medium": "small"}.get(
        model_size, model_size
    )


def spt_epsilon(size: str) -> float:
    """Fraction of the open units that SPT explores in a step."""
    return {"tiny": 0.01, "small": 0.005, "base": 0.0025, "large": 0.001}[size]


PRETRAINED_RATE = 2e-5
_RATES_FROM_SCRATCH = {"tiny": 5e-4, "small": 5e-4, "base": 1e-4, "large": 1e-4}


def usual_rate(pretrained: str | None, size: str) -> float:
    """Peak learning rate where nobody says otherwise: at that of pretrained weights random ones stay at chance."""
    return _RATES_FROM_SCRATCH[schedule_size(size)] if pretrained is None else PRETRAINED_RATE


MOVEMENT_FREQUENCY = 10
"""Steps between two recomputations of movement's masks: in every step they cost about a tenth of it more."""
SCORE_STEPS: dict[str | None, int] = {"cofi": 1}
"""Criterion → such steps where it has others: multipliers that take a step a batch, as published."""
SCORE_RATES: dict[str | None, float] = {"movement": 1e-2, "soft_movement": 1e-1, "l0": 1e-1, "cofi": 1e-1}
"""Criterion → learning rate of its scores, as published but for `soft_movement`: at 1e-2 a run of a few hundred steps
does not come as far as its threshold."""


def movement_frequency(size: str) -> int:
    """Steps between two recomputations of the movement masks in the published text."""
    return {"tiny": 100, "small": 200, "base": 400, "large": 800}[size]
