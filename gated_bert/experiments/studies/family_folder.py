"""How the files of a family of models by speed are called."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from gated_bert.compression.preconditions import as_target
from gated_bert.experiments.studies.compress import MODELS
from gated_bert.support.checks import as_number

TABLE, RECORD, RUNS, DENSE = "latency.json", "family.json", "runs", "dense"
"""The latency table, what the family is made of, the folder of trainings, the model that the others are made of."""


def name_of(target: float) -> str:
    """What the model of a target is called, and the run that trains it: `speedup_2x`."""
    return f"speedup_{target:g}x"


def pruned_folder(folder: Path, target: float) -> Path:
    """Where the model is as it was pruned to a target."""
    return folder / MODELS / f"pruned_{target:g}x"


def pruned_record(folder: Path, target: float) -> Path:
    """Where it is told what pruning came to."""
    pruned = pruned_folder(folder, target)
    return pruned.with_name(f"{pruned.name}.json")


def dense_of(folder: Path, model: Path) -> Path:
    """The folder of a family's dense model; where it is not there any more, that of its copy in the family's."""
    copy = folder / MODELS / DENSE
    return model if model.exists() or not copy.exists() else copy


def target_of(name: str) -> float | None:
    """The target of a model of that name, 1 of the dense one; None: it is no name of a model."""
    if name == DENSE:
        return 1.0
    found = re.fullmatch("speedup_(.+)x", name)
    target = as_target(as_number(found[1], float)) if found else None
    return target if target is not None and name_of(target) == name else None


def targets_in(folder: Path) -> Iterator[float]:
    """Targets of which there are models."""
    for path in (folder / MODELS).glob("speedup_*"):
        target = target_of(path.name)
        if target is not None:
            yield target
