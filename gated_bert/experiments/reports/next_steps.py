"""Where to look next, said at the end of a run or a sweep."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path

from gated_bert.config import GatedBertConfig
from gated_bert.experiments.reports.run_layout import LOG_FILE, MODEL
from gated_bert.support.environ import verbosity

_SHRINKABLE = ("head", "head_dim", "neuron", "head_neuron")
"""Patterns that close whole units, which make matrices smaller."""


def say_next_of_run(folder: Path, config: GatedBertConfig) -> None:
    """Says what a run left, and what can be done with it; nothing with VERBOSE=0.

    Args:
        folder: the folder of a finished run.
        config: its record.
    """
    _say(f"results in {folder}: rows of all epochs, plots, {LOG_FILE}, {MODEL}/", _of_model(folder, config))


def say_next_of_sweep(output: Path, finished: Sequence[tuple[Path, GatedBertConfig]]) -> None:
    """Says what can be done with the runs of a sweep; nothing with VERBOSE=0.

    Args:
        output: its folder.
        finished: folder and record of the finished runs.
    """
    report = output / "report.html"
    lines = [("in a browser", str(report))] if report.exists() else []
    pruned = [each for each in finished if each[1].enable_pruning] or list(finished)
    if pruned:
        lines += _of_model(*pruned[0])
    trackers = {name for _, config in finished for name in config.track}
    if "tensorboard" in trackers:
        lines.append(("curves", f"tensorboard --logdir {_quoted(output)}"))
    if "mlflow" in trackers and not os.environ.get("MLFLOW_TRACKING_URI"):
        store = shlex.quote(f"sqlite:///{(output / 'mlflow.db').absolute()}")
        lines.append(("runs", f"mlflow ui --backend-store-uri {store}"))
    _say("", lines)


def _of_model(folder: Path, config: GatedBertConfig) -> list[tuple[str, str]]:
    model = _quoted(folder / MODEL)
    lines = [("what is left", f"gated-bert inspect {model}")]
    if config.enable_pruning and config.pattern in _SHRINKABLE:
        lines.append(("smaller matrices", f"gated-bert shrink {model} {_quoted(folder / 'shrunk')}"))
    return [*lines, ("deployment", f"gated-bert export {model} {_quoted(folder / 'model.onnx')}")]


def _quoted(path: Path) -> str:
    return shlex.quote(str(path))


def _say(head: str, lines: Iterable[tuple[str, str]]):
    if verbosity(os.environ):
        width = max((len(what) for what, _ in lines), default=0)
        told = [f"  {what:<{width}}  {command}" for what, command in lines]
        print("\n".join([*([head] if head else []), *(["next:"] if told else []), *told]), flush=True)
