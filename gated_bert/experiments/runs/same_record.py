"""Whether what is gone on with was begun as it is asked for now; all that compares records asks here."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Collection, Mapping
from pathlib import Path

from gated_bert.config import NOT_COMPUTED, ConfigError, GatedBertConfig
from gated_bert.config.parts import options_of_others
from gated_bert.support.errors import UserError

Changes = dict[str, tuple[object, object]]
"""Name of a field → what it was, and what it is."""


def changes(before: Mapping, now: Mapping, apart: Collection[str] = ()) -> Changes:
    """The fields of `now`, in their order, that `before` has not the same value of, lists and tuples being alike.

    Args:
        before, now: values that JSON can hold.
        apart: fields that may differ.
    """
    was, plain = (json.loads(json.dumps(each)) for each in (before, now))
    return {name: (was.get(name), value) for name, value in plain.items()
            if name not in apart and was.get(name) != value}  # fmt: skip


def computed(config: GatedBertConfig) -> dict[str, object]:
    """The fields of a record that decide what a run computes."""
    return {name: value for name, value in dataclasses.asdict(config).items() if name not in NOT_COMPUTED}


def config_changes(before: Mapping, config: GatedBertConfig, folder: Path | None = None) -> Changes:
    """The fields that decide what is computed, and in which a run was begun otherwise than `config` says.

    Args:
        before: the written record, of an earlier version perhaps: what it does not say was as it is by default.
        config: the record now; what it leaves to the machine, `devices=all` and `precision=auto`, is nothing else than
            what the machine made of it.
        folder: the run's. A model beside it is the one that was at the same place of results that are no longer there:
            they have moved.
    """
    if not before:
        return {}
    try:
        was = dataclasses.asdict(GatedBertConfig.from_dict(dict(before)))
    except ConfigError:
        # Of a later version, or no longer allowed: what both know is compared.
        was = dataclasses.asdict(config) | dict(before)
    left_to_machine = {"devices": "all", "precision": "auto"}
    left = (name for name, value in left_to_machine.items() if getattr(config, name) == value)
    # A dense run has no window.
    window = ("pruning_start_epoch", "pruning_end_epoch") if config.criterion is None else ()
    apart = {*NOT_COMPUTED, *options_of_others(config.criterion), *left, *window}
    found = changes(was, dataclasses.asdict(config), apart)
    same = [name for name in ("pretrained", "teacher") if name in found and _moved_along(folder, *found[name])]
    return {name: pair for name, pair in found.items() if name not in same}


def _moved_along(folder: Path | None, before: object, now: object) -> bool:
    """Whether one path is to the results, in which `folder` is, what the other was to them."""
    if folder is None or not isinstance(before, str) or not isinstance(now, str):
        return False
    results = folder.resolve().parent
    if not Path(now).is_relative_to(results) or Path(before).exists():
        return False
    inside = Path(now).relative_to(results).parts
    return len(inside) > 1 and Path(before).parts[-len(inside) :] == inside


def refuse_other_config(folder: Path, before: Mapping | None, config: GatedBertConfig) -> None:
    """Refuses to go on with a run that was begun with another record.

    Raises:
        UserError: names the first field.
    """
    for name, (was, now) in config_changes(before or {}, config, folder).items():
        raise UserError(f"{folder}: --resume with {name}={now!r}, but the run was begun with {was!r}; give the same "
                        "value, or leave --resume out to start afresh")  # fmt: skip


def refuse_other_labels(folder: Path, before: Collection[str] | None, labels: tuple[str, ...]) -> None:
    """Refuses to go on with a run that was begun with other classes.

    Raises:
        UserError: names both.
    """
    if before is not None and tuple(before) != labels:
        # Not above: a launcher compares records before it imports anything large.
        from gated_bert.tasks.tables import shorten

        raise UserError(f"{folder}: --resume with the classes {shorten(labels)}, but the run was begun with "
                        f"{shorten(before)}; restore the data, or leave --resume out to start afresh")  # fmt: skip


def refuse_other_teacher(folder: Path, before: str | None, digest: str | None) -> None:
    """Refuses to go on with a run whose teacher's files are others than those that it was begun with.

    Raises:
        UserError: they are.
    """
    if before is not None and before != digest:
        raise UserError(f"{folder}: --resume with a teacher whose files have changed since the run was begun; put them "
                        "back, or leave --resume out to start afresh")  # fmt: skip
