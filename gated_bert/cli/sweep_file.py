"""The sweep file: methods × tasks × sizes × seeds × sparsities, and whatever else a flag can say of a run, as YAML."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from gated_bert.config.flag_table import LABELS, SWEEP_FLAGS, Flag, record_fields
from gated_bert.support.checks import FlagError, did_you_mean, shown
from gated_bert.support.records import REMEDY, read_bytes

if TYPE_CHECKING:
    import yaml

FILE_LABEL = "--sweep-file"
MOST_BYTES = 2**20
"""Size of the largest file: many times what a person writes."""
SHORT_KEYS = {"sizes": "model_size", "sparsities": "end_sparsity"}
"""Keys of a file that are called otherwise than the field they set."""
_SETS = ("methods", "tasks", "seeds")
"""Flags that take several values for as many runs."""
_EITHER = {"methods": "criterion", "criterion": "methods", "seeds": "seed"}
"""Keys that a typed flag of another name overrules."""
_RECORD_NAMES = {"methods": "pruning_method", "tasks": "task", "seeds": "seed"}


@dataclass(frozen=True)
class SweepFile:
    """What a sweep file says beyond the flags that were typed.

    Attributes:
        values: name of a flag → the value it sets in every run.
        grid: field of the record → its values, all combinations of which are run.
        labels: how messages call what the file sets.
    """

    values: Mapping[str, object] = field(default_factory=dict)
    grid: Mapping[str, tuple] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=lambda: LABELS)


def read_sweep_file(path: str, typed: Collection[str]) -> SweepFile:
    """Reads a sweep file; every value is read as its flag reads it.

    Args:
        path: a YAML file of keys and values; a list of values is a dimension of the sweep.
        typed: names of the flags that were typed, which win.

    Raises:
        FlagError: a file that cannot be read; an unknown, repeated or empty key; a refused or repeated value.
    """
    allowed = record_fields() - {"seed"} | {*_SETS, "output"}
    flags = {flag.name: flag for flag in SWEEP_FLAGS if flag.name in allowed}
    keys = flags | {short: flags[name] for short, name in SHORT_KEYS.items()}
    values, grid, labels, seen = {}, {}, dict(LABELS), {}
    for key, node in _pairs(path):
        if key not in keys:
            first = ", ".join((*_SETS, *SHORT_KEYS))
            raise FlagError(f"{path}: the key {shown(key)} is refused; allowed: {first}, and other flags of a run by "
                            f"their names, e.g. epochs, batch_size{did_you_mean(key, keys)}")  # fmt: skip
        flag = keys[key]
        if flag.name in seen:
            raise FlagError(f"{path}: the key {shown(key)} is refused; allowed: once, and {seen[flag.name]!r} is there")
        seen[flag.name] = key
        read = _read(dataclasses.replace(flag, options=(f"{path}: {key}",)), node)
        if flag.name in typed or _EITHER.get(flag.name) in typed:
            continue
        (grid if isinstance(read, _Several) else values)[flag.name] = read
        labels |= dict.fromkeys((flag.name, _RECORD_NAMES.get(flag.name, flag.name)), f"{path}: {key}")
    return SweepFile(values, {name: tuple(several) for name, several in grid.items()}, labels)


def plugins_of(path: str) -> list[str]:
    """The plug-ins that a sweep file names, nothing where it cannot be read: that is told when it is read."""
    with contextlib.suppress(FlagError, OSError):
        named = [node for key, node in _pairs(path) if key == "plugins"]
        items = [item for node in named for item in (node.value if node.id == "sequence" else [node])]
        return [item.value for item in items if item.id == "scalar" and item.value]
    return []


class _Several(tuple):
    """The values of one field in different runs, unlike the tuple that is one value of a field such as steps."""


def _pairs(path: str) -> list[tuple[str, yaml.Node]]:
    """The keys of a file with their nodes: composed, not constructed, so that 2e-5 and 32x32 stay as they are typed."""
    import yaml

    if not Path(path).is_file():
        raise FlagError.refused(FILE_LABEL, path, "an existing YAML file")
    content = read_bytes(Path(path), f"{FILE_LABEL}: {path}", REMEDY, MOST_BYTES)
    try:
        document = yaml.compose(content, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{path}, line {mark.line + 1}" if mark else path
        raise FlagError(f"{FILE_LABEL}: {place}: no valid YAML ({getattr(error, 'problem', None) or error})") from None
    except RecursionError:
        raise FlagError(f"{FILE_LABEL}: {path}: nested too deep; allowed: keys with values, or lists of them") from None
    if not isinstance(document, yaml.MappingNode) or not document.value:
        raise FlagError(f"{FILE_LABEL}: {path}: holds no keys with values, e.g. methods: [magnitude, movement]")
    # What refers to itself, or to the same list many times, is never written out.
    for key, _ in document.value:
        if key.id != "scalar":
            place = f"{path}, line {key.start_mark.line + 1}"
            raise FlagError(f"{FILE_LABEL}: {place}: a key that is a {key.id}; allowed: names of flags")
    return [(key.value, node) for key, node in document.value]


def _read(flag: Flag, node: yaml.Node) -> object:
    several = node.id == "sequence"
    items = node.value if several else [node]
    if any(item.id != "scalar" for item in items):
        allowed = "a value, or a list of values"
        raise FlagError.refused(flag.label, "a list of lists" if several else "a mapping", allowed)
    words = [item.value.strip() for item in items]
    if not words or "" in words or any(item.tag.endswith(":null") for item in items):
        raise FlagError.refused(flag.label, words if several else words[0], f"a value: {flag.text}")
    if flag.kind in ("list", "files"):
        read = flag.read(words)
        return _once(flag, read) if flag.name in _SETS else read
    if several and flag.name == "output":
        raise FlagError.refused(flag.label, ", ".join(words), "one folder")
    values = _once(flag, [flag.read([word]) for word in words])
    return _Several(values) if len(values) > 1 else values[0]


def _once(flag: Flag, values) -> tuple:
    for index, value in enumerate(values):
        if value in values[:index]:
            raise FlagError.refused(flag.label, value, "each value once: the same runs would be made twice")
    return tuple(values)
