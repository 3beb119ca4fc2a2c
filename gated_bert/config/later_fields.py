"""What records of earlier versions mean: fields that they do not know, and defaults that were others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gated_bert.config.distill_options import DISTILL_FIELDS
from gated_bert.config.parts import options_of_others
from gated_bert.config.presets import movement_frequency, schedule_size

LATER: dict[str, Any] = {
    "criterion_options": None, "lr_schedule": "linear", "lr_cycle_epochs": None, "freeze": "none", "pruning_every": 1,
    "pruning_warmup": None, "pruning_cooldown": None, "platon_window": 10, "platon_beta1": 0.85, "platon_beta2": 0.85,
    "snip_momentum_beta": 0.9, "penalty_over": "weights", "recipe": None, **dict.fromkeys(DISTILL_FIELDS),
    "no_update": False, "calibration_texts": 1024, "calibration_file": None, "calibrate": "sequential",
    "sparsegpt_rank": "blocks",
    "sparsegpt_update": "ordered", "sparsegpt_target": "model", "obert_block_size": 50, "obert_gradients": 1024,
    "obert_batch_size": 16, "obert_damping": 1e-7, "obert_recomputations": 1, "obert_memory": 4.0,
    "cofi_penalty": 1.0, "mask_tuning_texts": 2048, "mask_tuning_batch_size": 32,
}  # fmt: skip
"""Field that records of earlier versions do not hold → what their runs did."""


def with_later_fields(values: Mapping[str, Any]) -> dict[str, Any]:
    """A written record with the fields that were not yet there; one that a person wrote, of some fields, as it is."""
    if not {"pattern", "scope", "schedule", "seed"} <= values.keys():
        return dict(values)
    later = dict(LATER)
    batches, size = values.get("score_batches"), values.get("batch_size")
    if values.get("criterion") == "wanda" and isinstance(batches, int) and isinstance(size, int):
        # It was scored as saliency is, on batches, of all layers at once.
        later |= {"calibrate": "parallel", "calibration_texts": batches * size}
    return later | dict(values)


def as_written_before(record: Mapping[str, Any]) -> dict[str, Any]:
    """A record as an earlier version would have written it, where that would have run the same.

    What says nothing of a run, options of criteria that it has not, is as it was by default.
    """
    found, others = dict(record), options_of_others(record["criterion"])
    usual = {"soft_movement_penalty": 25.0, "l0_penalty": 25.0, "penalty_over": LATER["penalty_over"],
             "movement_pruning_frequency_steps": movement_frequency(schedule_size(record["model_size"])),
             "movement_learning_rate": 1e-2}  # fmt: skip
    found |= {name: value for name, value in usual.items() if name in others}
    return {name: value for name, value in found.items()
            if not (name in LATER and (name in others or value == LATER[name]))}  # fmt: skip
