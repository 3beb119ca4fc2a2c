"""Guards of the order of tests: none changes what a fixture of its module holds, and any order will do."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

_made: dict[pytest.FixtureDef, tuple[object, dict[str, object]]] = {}
"""Fixtures of modules that are alive: what each holds, and the state it was made in."""


def pytest_addoption(parser):
    parser.addoption("--shuffle", type=int, metavar="SEED", help="draw the order of modules, and of their tests")


def pytest_report_header(config):
    seed = config.getoption("shuffle")
    return None if seed is None else f"order of tests: --shuffle={seed}"


# Before pytest brings together what shares a fixture's parameter.
@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config, items):
    # An address is another in every worker, and they would not agree on what there is to run.
    named = [item.nodeid for item in items if " at 0x" in item.nodeid]
    if named:
        raise pytest.UsageError(f"{named[0]}: give the parameter an id that every process has")
    seed = config.getoption("shuffle")
    if seed is not None:
        modules: dict[Path, list[pytest.Item]] = {}
        for item in items:
            modules.setdefault(item.path, []).append(item)
        drawn = random.Random(seed)
        groups = list(modules.values())
        drawn.shuffle(groups)
        for group in groups:
            drawn.shuffle(group)
        items[:] = [item for group in groups for item in group]


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(fixturedef):
    made = yield
    if fixturedef.scope == "module":
        _made[fixturedef] = (made, state(made))
    return made


def pytest_fixture_post_finalizer(fixturedef):
    _made.pop(fixturedef, None)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    yield
    for fixture, (made, before) in _made.items():
        if fixture.argname in item.fixturenames:
            after = state(made)
            changed = sorted(key for key in before.keys() | after.keys() if before.get(key) != after.get(key))
            _made[fixture] = (made, after)
            assert not changed, f"the test changes what its module's {fixture.argname} holds: {', '.join(changed[:5])}"


def state(made: object) -> dict[str, object]:
    """What tells whether files and the weights of models are as they were, by name."""
    return dict(_parts(made, ""))


def _parts(value: object, name: str) -> Iterator[tuple[str, object]]:
    if isinstance(value, Path):
        for path in (value, *value.rglob("*")):
            found = os.lstat(path) if os.path.lexists(path) else None
            if found is not None and not path.is_dir():
                yield str(path), (found.st_size, found.st_mtime_ns)
    elif isinstance(value, dict):
        for key, each in value.items():
            yield from _parts(each, f"{name}[{key!r}]")
    elif isinstance(value, (tuple, list)):
        for number, each in enumerate(value):
            yield from _parts(each, f"{name}[{number}]")
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        for field in dataclasses.fields(value):
            yield from _parts(getattr(value, field.name), f"{name}.{field.name}")
    elif isinstance(getattr(value, "folder", None), Path):
        yield from _parts(value.folder, f"{name}.folder")
    # Layers without a model are what every test fills anew.
    elif hasattr(value, "predict_on_batch"):
        yield name, hashlib.sha256(b"".join(each.tobytes() for each in value.get_weights())).hexdigest()
