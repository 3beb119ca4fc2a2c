"""Published recipes: what each sets of a run's record, where nobody says otherwise."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from gated_bert.config.methods import METHODS
from gated_bert.config.parts import CRITERIA
from gated_bert.config.presets import movement_frequency, schedule_size
from gated_bert.config.pruning_window import STEPS_INSTEAD
from gated_bert.support.checks import choose


@dataclass(frozen=True)
class Recipe:
    """What a published run has.

    Attributes:
        about: whose it is.
        values: field → value; shares of the run's steps are shares of whatever epochs it has.
        epochs: field in epochs → share of the run's epochs, of which there is at least one.
        by_size: field → its value by the size of the model.
        missing: what of the published run is not here.
        dense: field → value, of the dense model that is made of pretrained weights to be the teacher, `--teacher self`;
            where there are none it is trained by the recipe, too.
    """

    about: str
    values: Mapping[str, Any]
    epochs: Mapping[str, float] = field(default_factory=dict)
    by_size: Mapping[str, Callable[[str], Any]] = field(default_factory=dict)
    missing: str = ""
    dense: Mapping[str, Any] = field(default_factory=dict)


_MOVEMENT = {
    "epochs": 10, "batch_size": 32, "learning_rate": 3e-5, "warmup_ratio": 0.1, "lr_schedule": "linear",
    "schedule": "cubic", "pruning_warmup": 0.1, "pruning_cooldown": 0.2, "scope": "layer",
    "movement_pruning_frequency_steps": 1, "movement_learning_rate": 1e-2, "freeze": "embeddings",
}  # fmt: skip
"""w = 10 % of the steps, i = 1 and f = 2."""
_CONSTANT_PENALTY = {"schedule": "linear", "pruning_start_epoch": 1, "pruning_end_epoch": 1}

RECIPES = {
    "movement": Recipe("movement pruning (Sanh et al. 2020)", {"pruning_method": "movement", **_MOVEMENT}),
    "soft_movement": Recipe(
        "soft movement pruning (Sanh et al. 2020)",
        {"pruning_method": "soft_movement", **_MOVEMENT, "soft_movement_threshold": 0.1,
         "soft_movement_penalty": 400.0, "penalty_over": "matrices"},
    ),
    "l0": Recipe(
        "L0 regularisation as in movement pruning's paper (Sanh et al. 2020)",
        {"pruning_method": "l0",
         **{name: value for name, value in _MOVEMENT.items() if not name.startswith("pruning_")}, **_CONSTANT_PENALTY,
         "l0_penalty": 125.0, "penalty_over": "matrices", "movement_learning_rate": 1e-1},
    ),
    "obert": Recipe(
        "oBERT (Kurtic et al. 2022), 30 epochs",
        {"pruning_method": "obert", "epochs": 30, "batch_size": 32, "learning_rate": 5e-5, "warmup_ratio": 0.0,
         "lr_schedule": "cyclic", "schedule": "cubic", "start_sparsity": 0.7, "pruning_warmup": 2 / 30,
         "pruning_cooldown": 4 / 30, "scope": "global", "teacher": "self", "distill_hardness": 1.0,
         "distill_temperature": 2.0},
        {"pruning_every": 4 / 30},
    ),
    "cofi": Recipe(
        "CoFi (Xia et al. 2022), its first half",
        {"pruning_method": "cofi", "epochs": 20, "batch_size": 32, "learning_rate": 2e-5, "warmup_ratio": 0.0,
         "lr_schedule": "linear", "schedule": "linear", "pruning_start_epoch": 1, "freeze": "embeddings",
         "movement_learning_rate": 1e-1, "movement_pruning_frequency_steps": 1, "teacher": "self",
         "distill_hardness": 1.0, "distill_temperature": 2.0, "distill_layers": "nearest",
         "distill_layer_weight": 9.0, "cofi_penalty": 10.0},
        {"pruning_end_epoch": 3 / 20},
        missing="the second half is a run of its own from its model, with -p baseline; hidden dimensions have no gates",
    ),
    "platon": Recipe(
        "PLATON (Zhang et al. 2022), MNLI",
        {"pruning_method": "platon", "epochs": 8, "batch_size": 32, "learning_rate": 8e-5, "warmup_ratio": 0.055,
         "lr_schedule": "linear", "schedule": "cubic", "pruning_warmup": 0.055, "pruning_cooldown": 0.275,
         "scope": "global", "platon_window": 10, "platon_beta1": 0.85, "platon_beta2": 0.95},
        missing="the optimiser is AdamW, published Adamax",
    ),
    "published-spt": Recipe(
        "SPT, movement and magnitude as the published text of Gated BERT has them",
        {"epochs": 25, "batch_size": 96, "learning_rate": 2e-5, "spt_variant": "published"},
        {"pruning_start_epoch": 4 / 25, "pruning_end_epoch": 23 / 25},
        by_size={"movement_pruning_frequency_steps": lambda size: movement_frequency(schedule_size(size))},
    ),
    "best": Recipe(
        "magnitude in cycles with a teacher, level with the best measured (docs/accuracy.md)",
        {"pruning_method": "magnitude", "epochs": 11, "batch_size": 32, "learning_rate": 5e-4, "warmup_ratio": 0.0,
         "lr_schedule": "cyclic", "schedule": "cubic", "start_sparsity": 0.5, "pruning_warmup": 1 / 11,
         "pruning_cooldown": 4 / 11, "scope": "global", "freeze": "embeddings", "teacher": "self"},
        {"pruning_every": 2 / 11, "lr_cycle_epochs": 2 / 11},
        dense={"epochs": 2, "batch_size": 32, "learning_rate": 1e-4},
    ),
}  # fmt: skip
"""Name → recipe, for `--recipe`."""

_INSTEAD = {
    **{epoch: (steps,) for epoch, steps in STEPS_INSTEAD.items()},
    **{steps: (epoch,) for epoch, steps in STEPS_INSTEAD.items()},
    "movement_schedule": ("schedule",), "criterion": ("pruning_method",),
    "sparsity_steps": ("schedule", "start_sparsity", "pruning_warmup", "pruning_cooldown", "pruning_every"),
    "spt_reward": ("spt_variant",), "spt_credit": ("spt_variant",), "spt_unit": ("spt_variant",),
}  # fmt: skip
"""Field that is given → fields of a recipe that it takes the place of, beside itself."""
OF_PRETRAINED = frozenset({"learning_rate", "freeze"})
"""Fields that a recipe sets of pretrained weights alone: random ones would learn nothing by them."""
STEPS_INSTEAD_OF = {steps: epoch for epoch, steps in STEPS_INSTEAD.items()}
_OF_TRAINING = ("schedule", "start_sparsity", "pruning_every", *STEPS_INSTEAD, *STEPS_INSTEAD.values(), "teacher")
"""What has no meaning where all is closed at once, and nothing learns."""
_OF_TEACHER = ("teacher", "distill_hardness", "distill_temperature", "distill_layers", "distill_layer_weight")


def recipe_values(given: Mapping[str, Any], usual: Mapping[str, Any]) -> dict[str, Any]:
    """What the recipe that a record is given sets of it; nothing without one.

    Args:
        given: the fields that the record is given; None and auto are what is filled in, but a teacher may be none, and
            a schedule auto.
        usual: the defaults of other fields.

    Raises:
        ConfigError: an unknown recipe.
    """
    name = given.get("recipe")
    if name is None:
        return {}
    choose("recipe", name, tuple(RECIPES))
    recipe = RECIPES[name]
    asked = {**usual, **recipe.values, **given}
    values = dict(recipe.values)
    if isinstance(asked["epochs"], int):
        values |= {name: max(1, round(share * asked["epochs"])) for name, share in recipe.epochs.items()}
    values |= {name: of(asked["model_size"]) for name, of in recipe.by_size.items()}
    for name, value in given.items():
        if value is not None and (value != "auto" or name == "schedule") or name == "teacher":
            values = {other: value for other, value in values.items() if other not in (name, *_INSTEAD.get(name, ()))}
    dropped = _without_meaning({**asked, **values, **given})
    values = {name: value for name, value in values.items() if name not in dropped}
    end = given.get("end_sparsity")
    if isinstance(end, int | float) and values.get("start_sparsity", 0.0) > end >= 0:
        values["start_sparsity"] = end
    return values


def _without_meaning(record: Mapping[str, Any]) -> set[str]:
    """What of a recipe says nothing in a record, for something else in it is not the recipe's."""
    dropped: set[str] = set()
    if record.get("pretrained") is None:
        dropped.update(OF_PRETRAINED)
    if record["epochs"] == 0:
        dropped.update(_OF_TRAINING)
    if record["epochs"] == 0 or record.get("teacher") is None:
        dropped.update(_OF_TEACHER)
    if record.get("distill_layers") in (None, "none"):
        dropped.add("distill_layer_weight")
    if record.get("schedule") in ("steps", "auto"):
        dropped.update(("start_sparsity", *STEPS_INSTEAD.values()))
    if record.get("lr_schedule") != "cyclic":
        dropped.add("lr_cycle_epochs")
    method = METHODS.get(record.get("pruning_method") or "baseline")
    criterion = record.get("criterion") or (method and method.criterion)
    if criterion in CRITERIA and not CRITERIA[criterion].options.RANKS:
        dropped.add("scope")
    return dropped


def displaces(name: str) -> bool:
    """Whether a field that is given takes the place of others of a recipe."""
    return name in _INSTEAD


def decided_elsewhere(values: Mapping[str, Any], typed: Collection[str]) -> frozenset[str]:
    """Fields whose usual values do not hold: a recipe sets them, or it or what is typed sets others in their place.

    Args:
        values: all fields, with what `recipe_values` sets: of its warm-up and cool-down, which are None where
            something else takes their place, the epochs stay the usual ones.
        typed: the names of those that a person gave.
    """
    mine, made = set(typed) & STEPS_INSTEAD_OF.keys(), RECIPES.get(values.get("recipe") or "")
    if made is not None:
        without = {name for name in STEPS_INSTEAD_OF if values.get(name) is None}
        mine |= {*made.values, *made.epochs, *made.by_size} - without
        mine |= {name for name, others in _INSTEAD.items() if mine & set(others)}
    return frozenset((mine | {STEPS_INSTEAD_OF[name] for name in mine & STEPS_INSTEAD_OF.keys()}) - set(typed))

