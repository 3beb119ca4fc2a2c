"""Short names of models for tables and plots."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from gated_bert.support.errors import UserError


def short_names(models: Sequence[Path]) -> list[str]:
    """As many of the last parts of the paths as tell them apart, without `results_`, `model` and a common ending.

    Raises:
        UserError: two paths are the same.
    """
    parts = []
    for model in models:
        path = model.resolve()
        parts.append([part.removeprefix("results_") for part in (path.parent if path.name == "model" else path).parts])
    for count in range(1, max(map(len, parts)) + 1):
        names = ["/".join(part[-count:]) for part in parts]
        if len(set(names)) == len(names):
            return _without_common_ending(names) if len(names) > 1 else names
    raise UserError(f"{', '.join(map(str, models))}: the same model twice; each is compared with all others anyway")


def _without_common_ending(names: Sequence[str]) -> list[str]:
    parts = [name.split("_") for name in names]
    while min(map(len, parts)) > 1 and len({part[-1] for part in parts}) == 1:
        parts = [part[:-1] for part in parts]
    return ["_".join(part) for part in parts]
