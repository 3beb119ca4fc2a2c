"""What the metadata of a run may hold, and which of two runs is the later one."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta
from pathlib import Path

from gated_bert.experiments.reports.run_layout import METADATA
from gated_bert.support.checks import shown
from gated_bert.support.errors import UserError
from gated_bert.support.errors import printable as without_controls
from gated_bert.support.records import read_record

_LONGEST = 300
"""Letters of a name: what is longer fits in no table and no plot."""
_LONGEST_PATH = 4096
"""Letters of a path, of which tables and plots show the last part."""

Check = Callable[[object], bool]


def check_metadata(path: Path, metadata: Mapping):
    """Refuses metadata that a table, a plot or a page cannot be made of.

    Raises:
        UserError: a missing or malformed part; names file, part and what it has to be.
    """
    for name, (is_good, allowed) in _PARTS.items():
        if not is_good(metadata.get(name)):
            raise UserError(f"{path}: {name}: {shown(metadata.get(name))} is refused; allowed: {allowed}")


def printable(name: object) -> str:
    """A name as tables and plots can hold it: what is no text, or a control character, as its escape."""
    return without_controls(str(name).encode("utf-8", "backslashreplace").decode())


def _is_name(value: object) -> bool:
    return isinstance(value, str) and 0 < len(value) <= _LONGEST


def _is_path(value: object) -> bool:
    return isinstance(value, str) and 0 < len(value) <= _LONGEST_PATH


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63


def _is_number(value: object) -> bool:
    return _is_count(value) or (isinstance(value, float) and math.isfinite(value))


def _maybe(is_good: Check) -> Check:
    return lambda value: value is None or is_good(value)


def _all(is_good: Check) -> Check:
    return lambda value: isinstance(value, dict) and all(map(is_good, value.values()))


def _is_task(value: object) -> bool:
    if not isinstance(value, dict):
        return _is_name(value)
    metrics = value.get("metrics")
    named = _is_name(value.get("name")) and _maybe(_is_name)(value.get("title"))
    return named and (metrics is None or (isinstance(metrics, list) and all(map(_is_name, metrics))))


def _is_data(value: object) -> bool:
    if not isinstance(value, dict):
        return False
    names = all(_maybe(_is_name)(value.get(name)) for name in ("label", "kind"))
    return names and isinstance(value.get("partial", False), bool) and _maybe(_all(_is_count))(value.get("rows"))


def _is_config(value: object) -> bool:
    if not isinstance(value, dict):
        return False
    names, paths = ("task", "model_size", "pruning_method"), ("data", "pretrained")
    counts = ("num_layers", "d_model", "num_heads", "dff", "epochs", "seed")
    return (all(_maybe(_is_name)(value.get(name)) for name in names)
            and all(_maybe(_is_path)(value.get(name)) for name in paths)
            and all(_maybe(_is_count)(value.get(name)) for name in counts))  # fmt: skip


def _is_stages(value: object) -> bool:
    return isinstance(value, dict) and all(map(_all(_maybe(_is_number)), value.values()))


def _is_macs(value: object) -> bool:
    if not isinstance(value, dict):
        return False
    parts = [value.get(name) for name in ("dense", "open", "shrunk")]
    whole = all(isinstance(part, dict) and _is_number(part.get("total")) for part in parts)
    layers = [part.get("per_layer") for part in parts] if whole else []
    return whole and parts[0]["total"] > 0 and all(isinstance(each, list) and all(map(_is_number, each))
                                                   for each in layers)  # fmt: skip


_NAME = f"a text of up to {_LONGEST} letters, or nothing"
_PARTS: dict[str, tuple[Check, str]] = {
    "config": (_is_config, "an object of the run's fields"),
    "task": (_maybe(_is_task), "an object with name, title and a list of metrics"),
    "data": (_maybe(_is_data), "an object with label, kind, partial and numbers of rows"),
    "method": (_maybe(_is_name), _NAME),
    "label": (_maybe(_is_name), _NAME),
    "status": (_maybe(_is_name), _NAME),
    "seed": (_maybe(_is_count), "a whole number, or nothing"),
    "versions": (_maybe(lambda value: isinstance(value, dict)), "an object, or nothing"),
    "hardware": (_maybe(lambda value: isinstance(value, dict)), "an object, or nothing"),
    "parameters": (_maybe(_all(_is_number)), "an object of numbers, or nothing"),
    "one_shot": (_maybe(_is_stages), "an object of stages, each an object of numbers, or nothing"),
    "macs_per_token": (_maybe(_is_macs), "an object with dense, open and shrunk, each with total and per_layer"),
}


def order_of(metadata: Mapping, timestamp: str) -> float:
    """Where a run stands among others in time: seconds, the later the larger.

    Args:
        metadata: of the run.
        timestamp: as in the names of its files, in local time.

    Returns:
        What `next_order` gave it; of older folders the time when it started, in UTC, or else the stamp.
    """
    order = metadata.get("order")
    if _is_number(order):
        return float(order)
    try:
        return datetime.fromisoformat(str(metadata.get("started"))).timestamp()
    except (ValueError, OverflowError, OSError):
        pass
    digits = re.sub(r"\D", "", timestamp)[:14]
    try:
        return datetime.strptime(digits, "%Y%m%d%H%M%S").timestamp()
    except (ValueError, OverflowError, OSError):
        return 0.0


def next_order(folder: Path, now: float) -> float:
    """The place in time of a run that starts now: after all in its folder and beside it, whatever the clock says.

    Args:
        folder: the run's folder.
        now: seconds since 1970.
    """
    known = (_order_in(path) for each in (folder, *_beside(folder)) for path in each.glob(METADATA))
    return max((now, *(math.floor(order) + 1.0 for order in known if order is not None)))


def free_stamp(folder: Path, now: datetime) -> str:
    """The time in the names of a run's files; where there are such files, as the clock may go back, seconds later."""
    while True:
        stamp = now.strftime("%Y%m%d-%H%M%S")
        if not any(folder.glob(f"*_{stamp}.*")):
            return stamp
        now += timedelta(seconds=1)


def _beside(folder: Path) -> Iterable[Path]:
    try:
        return [path for path in folder.absolute().parent.glob("results_*") if path.is_dir()]
    except OSError:
        return []


def _order_in(path: Path) -> float | None:
    order = (read_record(path, tolerant=True) or {}).get("order")
    return order if _is_number(order) and 0 < order < 2**53 else None
