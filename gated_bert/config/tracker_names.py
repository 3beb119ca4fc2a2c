"""The trackers that can follow a run, and whether what they need is installed."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable

from gated_bert.support.checks import ConfigError

TRACKERS = ("tensorboard", "mlflow", "wandb")
"""Names of the trackers, which are those of their packages and of their extras, too."""


def check_trackers(names: Iterable[str]) -> None:
    """Refuses trackers whose package is not installed.

    Raises:
        ConfigError: names the package.
    """
    for name in names:
        # A folder of that name is no package.
        found = importlib.util.find_spec(name)
        if found is None or found.origin is None:
            raise ConfigError("track", name, f"what is installed; {name} is not: pip install 'gated_bert[{name}]'")
