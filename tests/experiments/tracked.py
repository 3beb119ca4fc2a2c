"""What trackers hold of a run, by their own readers."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from tests.experiments.wandb_file import records


def scalars(folder: Path) -> pd.DataFrame:
    """Step × column of a run, as TensorBoard reads it."""
    return pd.DataFrame({tag: {event.step: event.value for event in events(folder).Scalars(tag)}
                         for tag in events(folder).Tags()["scalars"]})  # fmt: skip


def events(folder: Path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    return accumulator.EventAccumulator(str(folder / "tensorboard")).Reload()


def tracked(folder: Path) -> dict:
    return json.loads((folder / "tracking.json").read_text())


def store(home: Path):
    return pytest.importorskip("mlflow").MlflowClient(f"sqlite:///{home / 'mlflow.db'}")


def history(client, run: str, column: str) -> dict[int, float]:
    values = client.get_metric_history(run, column)
    assert len({each.step for each in values}) == len(values), "a row was told twice"
    return {each.step: each.value for each in values}


def of_wandb(folder: Path) -> dict[str, list]:
    """Kind → messages of all files of a run, in the order of their names."""
    found: dict[str, list] = {}
    for path in sorted(folder.glob("wandb/offline-run-*/*.wandb")):
        for kind, message in records(path):
            found.setdefault(kind, []).append(message)
    return found


def rows_of_wandb(found: dict[str, list]) -> list[dict]:
    items = [{(item.key or "/".join(item.nested_key)): json.loads(item.value_json.replace("NaN", '"NaN"'))
              for item in message.item} for message in found["history"]]  # fmt: skip
    return [row for row in items if "val_loss" in row or "val_accuracy" in row]
