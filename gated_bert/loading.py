"""Imports of libraries under conditions of this package's, whenever they will be."""

from __future__ import annotations

import functools
import importlib.machinery
import os
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import ModuleType

Load = Callable[[ModuleType], None]


def load_by(name: str, load: Callable[[Load, ModuleType], None]) -> None:
    """Has a library loaded by `load`, which gets what would have loaded it, and the module.

    Args:
        name: the library; nothing happens where it is imported already, or asked for a second time.
        load: calls the first of its arguments with the second.
    """
    asked = any(isinstance(finder, _Finder) and finder.name == name for finder in sys.meta_path)
    if name not in sys.modules and not asked:
        sys.meta_path.insert(0, _Finder(name, load))


def load_from_elsewhere(name: str) -> None:
    """Has a library loaded from the root folder: what it reads of the working folder may be anybody's."""
    load_by(name, _from_elsewhere)


def load_without(name: str, others: Iterable[str]) -> None:
    """Has a library loaded as if `others` were not installed, which can be imported afterwards as ever.

    Args:
        name: the library.
        others: what it looks for, for uses that this package does not make, and what takes long to import.
    """

    def load(loads: Load, module: ModuleType):
        # What another thread imports meanwhile must be found.
        hidden = [other for other in others if other not in sys.modules] if threading.active_count() == 1 else []
        sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]  # what is not to be found is None there
        try:
            loads(module)
        finally:
            for other in hidden:
                sys.modules.pop(other, None)

    load_by(name, load)


class _Finder:
    """Finds a library as Python does, and has it loaded in its own way."""

    def __init__(self, name: str, load: Callable[[Load, ModuleType], None]):
        self.name, self._load = name, load

    def find_spec(self, name: str, path=None, target=None):
        if name != self.name:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        if spec is not None and spec.loader is not None:
            usual = spec.loader.exec_module
            loads = functools.partial(self._load, usual)
            spec.loader.exec_module = loads  # type: ignore[method-assign]  # of this one loader
        return spec


def _from_elsewhere(load: Load, module: ModuleType):
    with _in_root():
        load(module)


@contextmanager
def _in_root() -> Iterator[None]:
    try:
        # Not its name: a folder that has been removed has none.
        here = os.open(os.curdir, os.O_RDONLY)
    except OSError:
        # One that cannot be read cannot be returned to.
        yield
        return
    try:
        os.chdir(os.sep)
        yield
    finally:
        os.fchdir(here)
        os.close(here)
