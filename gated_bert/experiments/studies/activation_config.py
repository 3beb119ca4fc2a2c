"""What `gated-bert activation-change` is asked for: JSON files in the published form, with fields of this project's."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from gated_bert.config import GatedBertConfig
from gated_bert.support.checks import ConfigError, choose, did_you_mean, number, whole
from gated_bert.support.errors import UserError
from gated_bert.support.paths import user_path
from gated_bert.support.records import read_record

SCALES = ("raw", "minmax", "quantile")
UNPRUNED = "unpruned"
RUN_FIELDS = {
    "model_path": "pretrained",
    "task_name": "task",
    "data": "data",
    "output_dir": "output",
    "num_epochs": "epochs",
    "batch_size": "batch_size",
    "learning_rate": "learning_rate",
    "warmup_ratio": "warmup_ratio",
    "max_len": "max_len",
    "train_examples": "train_examples",
    "resource_seconds": "resource_seconds",
    "num_hidden_layers": "num_layers",
    "hidden_size": "d_model",
    "num_attention_heads": "num_heads",
    "intermediate_size": "dff",
    "vocab_size": "vocab_size",
    "hidden_dropout_prob": "dropout_rate",
}
"""Field of a file → field of a run or a flag."""
OPTIMIZER_FIELDS = {"type": "optimizer", "lr": "learning_rate", "weight_decay": "weight_decay", "momentum": "momentum"}
ONLY = {"hidden_act": "gelu", "initializer_range": 0.02, "type_vocab_size": 2, "max_position_embeddings": 512}
"""Fields of an architecture of which one value is known here."""
OWN = ("optimizer", "thresholds", "activation_batches", "base_epochs", "seeds", "attention_probs_dropout_prob")


@dataclass(frozen=True)
class ThresholdSet:
    """Thresholds of the heads and of the neurons, one per encoder layer, and what they are compared with."""

    attention: tuple[float, ...]
    ffn: tuple[float, ...]
    scale: str = "raw"


PUBLISHED = {"published": ThresholdSet((0.0, 0.0, 0.3, 0.7), (0.0, 0.0, 0.8, 0.8))}


@dataclass(frozen=True)
class ActivationConfig:
    """A study of activation change.

    Args:
        run: fields of the fine-tuning runs, by the names of the fields that flags set.
        thresholds: the sets that are swept, by name.
        activation_batches: batches of training texts that activations are compared over.
        base_epochs: epochs of fine-tuning before pruning; 0 prunes the weights as they are loaded.
        seeds: one unpruned and, per set, one pruned model each.
    """

    run: dict[str, Any]
    thresholds: dict[str, ThresholdSet]
    activation_batches: int = 2
    base_epochs: int = 0
    seeds: tuple[int, ...] = (42,)

    def at_scale(self, scale: str) -> ActivationConfig:
        """The study at a scale: `smoke` 2 seeds of 64 examples of 32 tokens and one epoch, `standard` 10 seeds of
        4,000 examples of 48 tokens, `full` 10 seeds of everything; seeds are 1, 2, 3 …"""
        cuts = {
            "smoke": {"train_examples": 64, "epochs": 1, "max_len": 32, "batch_size": 16},
            "standard": {"train_examples": 4000, "max_len": 48},
            "full": {},
        }
        choose("--scale", scale, tuple(cuts))
        seeds = tuple(range(1, 3 if scale == "smoke" else 11))
        return replace(self, run=self.run | cuts[scale], seeds=seeds)


def read_activation_config(paths: Sequence[str]) -> ActivationConfig:
    """The configuration in one or more JSON files; what a later one says replaces what an earlier one said.

    Where they are silent: 3 epochs, batches of 64, AdamW at 2e-5 with weight decay 0.01 on SST-2, the published
    thresholds, as in `configs/evaluate_config.json`; and this project's own: 2 batches, pruning before any fine-tuning,
    warm-up over 10 % of the steps, seed 42.

    Raises:
        UserError: a file that is not there, no JSON object, an unknown field or a refused value.
    """
    run: dict[str, Any] = {"task": "sst2", "epochs": 3, "batch_size": 64, "learning_rate": 2e-5,
                           "weight_decay": 0.01, "resource_seconds": 10.0}  # fmt: skip
    own: dict[str, Any] = {}
    for path in paths:
        values = _read_object(user_path(path))
        try:
            _take(values, run, own)
            _check_run(run)
        except ConfigError as error:
            raise UserError(f"{path}: {error}") from None
    return ActivationConfig(run, **{"thresholds": PUBLISHED, **own})


def _read_object(path: Path) -> dict:
    return read_record(path, where=f"--config: {path}", remedy="give a JSON object of fields and values")


def _take(values: dict, run: dict, own: dict):
    known = (*RUN_FIELDS, *ONLY, *OWN)
    for name, value in values.items():
        if name not in known:
            raise ConfigError(name, value, f"the known fields{did_you_mean(name, known)}")
        if name in ONLY and value != ONLY[name]:
            raise ConfigError(name, value, f"{ONLY[name]}")
        if name in RUN_FIELDS:
            run[RUN_FIELDS[name]] = value
    if values.get("attention_probs_dropout_prob", run.get("dropout_rate")) != run.get("dropout_rate"):
        value = values["attention_probs_dropout_prob"]
        raise ConfigError("attention_probs_dropout_prob", value, "the value of hidden_dropout_prob")
    if "optimizer" in values:
        run |= _optimizer(values["optimizer"], values.get("learning_rate"))
    if "thresholds" in values:
        own["thresholds"] = _threshold_sets(values["thresholds"])
    if "seeds" in values:
        own["seeds"] = _list("seeds", values["seeds"])
        for seed in own["seeds"]:
            whole("seeds", seed, 0, 2**31 - 1)
    for name, least in (("activation_batches", 2), ("base_epochs", 0)):
        if name in values:
            whole(name, values[name], least)
            own[name] = values[name]


def _check_run(run: dict):
    """Refuses a value under the name that it has in the file."""
    for name, field in RUN_FIELDS.items():
        if field in ("pretrained", "task", "data", "output") and not isinstance(run.get(field), str | None):
            raise ConfigError(name, run[field], "a text")
    fields = {field.name for field in dataclasses.fields(GatedBertConfig)}
    try:
        GatedBertConfig(pruning_method="baseline", **{name: run[name] for name in run if name in fields})
    except ConfigError as error:
        names = {field: name for name, field in reversed(RUN_FIELDS.items())} | {"momentum": "optimizer momentum"}
        raise ConfigError(names.get(error.field, error.field), error.value, error.allowed) from None


def _optimizer(value: object, rate: object) -> dict[str, Any]:
    if not isinstance(value, dict) or not value.keys() <= OPTIMIZER_FIELDS.keys():
        raise ConfigError("optimizer", value, 'an object of type, lr, weight_decay and momentum, e.g. {"type": "SGD"}')
    kinds = {"AdamW": "adamw", "SGD": "sgd"}
    choose("optimizer type", value.get("type", "AdamW"), tuple(kinds))
    if rate is not None and value.get("lr", rate) != rate:
        raise ConfigError("optimizer lr", value["lr"], f"learning_rate, {rate}, or leave one of them out")
    read = {OPTIMIZER_FIELDS[name]: part for name, part in value.items()}
    # As published: weight decay is AdamW's, and SGD has none.
    usual = {"weight_decay": 0.0, "momentum": 0.9} if value.get("type") == "SGD" else {"weight_decay": 0.0}
    return usual | read | {"optimizer": kinds[value.get("type", "AdamW")]}


def _threshold_sets(value: object) -> dict[str, ThresholdSet]:
    form = '{"attention": [0, 0, 0.3, 0.7], "ffn": [0, 0, 0.8, 0.8], "scale": "raw"}'
    if not isinstance(value, dict) or not value:
        raise ConfigError("thresholds", value, f"an object of named sets, each {form}")
    sets = {}
    for name, entry in value.items():
        label = f"thresholds {name}"
        if not re.fullmatch(r"[\w.+-]+", name) or name == UNPRUNED:
            raise ConfigError("thresholds", name, f"names of letters, digits, _ . + -, but not {UNPRUNED}")
        if not isinstance(entry, dict) or not {"attention", "ffn"} <= entry.keys() <= {"attention", "ffn", "scale"}:
            raise ConfigError(label, entry, form)
        scale = entry.get("scale", "raw")
        choose(f"{label} scale", scale, SCALES)
        attention, ffn = (_list(f"{label} {part}", entry[part]) for part in ("attention", "ffn"))
        for low in (*attention, *ffn):
            number(label, low, 0.0, 1e6 if scale == "raw" else 1.0)
        if len(attention) != len(ffn):
            raise ConfigError(f"{label} ffn", entry["ffn"], f"{len(attention)} numbers, as many as of attention")
        sets[name] = ThresholdSet(attention, ffn, scale)
    return sets


def _list(name: str, value: object) -> tuple:
    if not isinstance(value, list) or not value:
        raise ConfigError(name, value, "a list with at least one number")
    return tuple(value)
