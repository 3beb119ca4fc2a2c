"""Pruning BERT-style models in Keras 3: gated layers, criteria, patterns, scopes and schedules."""

from __future__ import annotations

import importlib

# Imported when first asked for: `gated-bert -h` must not wait for Keras.
_PUBLIC = {
    "GatedBertConfig": "gated_bert.config",
    "ConfigError": "gated_bert.config",
    "UserError": "gated_bert.support.errors",
    "METHODS": "gated_bert.config.methods",
    "Method": "gated_bert.config.methods",
    "train": "gated_bert.experiments.runs.run",
    "RunResult": "gated_bert.experiments.runs.run",
    "GatedDense": "gated_bert.models.gated_dense",
    "BertClassifier": "gated_bert.models.bert",
    "BertConfig": "gated_bert.models.architecture",
    "load_model": "gated_bert.models.folder",
    "save_model": "gated_bert.models.folder",
    "shrink": "gated_bert.compression.shrink",
    "trim_vocabulary": "gated_bert.compression.vocabulary",
    "compress": "gated_bert.experiments.studies.compress_to_speeds",
    "Conditions": "gated_bert.compression.latency",
    "Effort": "gated_bert.experiments.studies.prune_to_speed",
    "PruningExperiment": "gated_bert.experiments.studies.pruning_experiment",
    "gate": "gated_bert.pruning.any_model",
    "ungate": "gated_bert.models.gate",
    "gated_layers": "gated_bert.models.gate",
    "Pruner": "gated_bert.pruning.pruner",
    "PruningCallback": "gated_bert.pruning.callbacks",
    "DistillationLoss": "gated_bert.models.any_distillation",
    "with_teacher": "gated_bert.models.any_distillation",
    "of_labels": "gated_bert.models.any_distillation",
    **dict.fromkeys(
        ("Criterion", "Magnitude", "Movement", "Wanda", "Pattern", "Block", "HEADS", "NEURONS", "Schedule", "Linear",
         "Cubic", "Steps", "OneShot", "register_criterion", "register_pattern", "register_schedule"),
        "gated_bert.pruning",
    ),
    "register_gate_rule": "gated_bert.models.gate_rules",
    "GateRule": "gated_bert.models.gate_rules",
    "CriterionOptions": "gated_bert.config.criterion_options",
    "option": "gated_bert.config.option",
    "load_plugins": "gated_bert.config.plugins",
    "register_command": "gated_bert.config.own_commands",
    "register_task": "gated_bert.tasks.task",
    "Task": "gated_bert.tasks.task",
    "TaskData": "gated_bert.tasks.examples",
    "Examples": "gated_bert.tasks.examples",
    "TaggedExamples": "gated_bert.tasks.examples",
}  # fmt: skip

__all__ = list(_PUBLIC)


def __getattr__(name: str):
    if name not in _PUBLIC:
        raise AttributeError(f"module 'gated_bert' has no attribute {name!r}")
    return getattr(importlib.import_module(_PUBLIC[name]), name)


def __dir__():
    return sorted([*globals(), *__all__])
