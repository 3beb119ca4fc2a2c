"""Python files and packages of a user's own that register criteria, patterns, schedules, gate rules, tasks, commands.

They are code, and run: only what a person names on a command line, as an argument or in the record of a job of theirs
is loaded here, and nothing that a model folder or the record of another's run names.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import sys
import traceback
import types
from collections.abc import Iterable
from pathlib import Path

from gated_bert.config.parts import REGISTERED
from gated_bert.support.errors import UserError, one_line
from gated_bert.support.paths import user_path

GROUP = "gated_bert.plugins"
"""The entry points of installed packages that are plug-ins."""
_loaded: set[str] = set()


def load_plugins(files: Iterable[str | Path]) -> None:
    """Runs files that register parts; each once in a process, however often it is named.

    Args:
        files: Python files.

    Raises:
        UserError: a file that is missing, cannot be run or registers nothing; it names the file and the line.
    """
    for file in files:
        path = user_path(str(file)).resolve()
        if str(path) not in _loaded:
            _load(path)
            _loaded.add(str(path))


def has_installed() -> bool:
    """Whether an installed package has a plug-in."""
    return bool(importlib.metadata.entry_points(group=GROUP))


def load_installed() -> None:
    """Imports the plug-ins of installed packages, once in a process.

    Raises:
        UserError: one that cannot be imported.
    """
    if GROUP in _loaded:
        return
    _loaded.add(GROUP)
    for entry in importlib.metadata.entry_points(group=GROUP):
        try:
            entry.load()
        except Exception as error:
            raise UserError(f"plug-in {entry.name} ({entry.value}) of an installed package: {type(error).__name__}: "
                            f"{one_line(error)}; mend or remove it") from error  # fmt: skip


def _load(path: Path):
    if not path.is_file():
        raise UserError(f"--plugin: {path}: no such file; give a Python file that registers a part")
    # The name is that of the place, so that two files called alike are two modules.
    name = f"gated_bert_plugin_{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    module = types.ModuleType(name)
    module.__file__ = str(path)
    before = len(REGISTERED)
    # Dataclasses look their module up.
    sys.modules[name] = module
    try:
        exec(compile(path.read_bytes(), str(path), "exec"), vars(module))
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise UserError(f"--plugin: {path}{_line(error, path)}: {_said(error)}; mend the file") from error
    if len(REGISTERED) == before:
        raise UserError(f"--plugin: {path}: it registers nothing; allowed: a file that calls register_criterion, "
                        "register_pattern, register_schedule, register_gate_rule, register_task or "
                        "register_command")  # fmt: skip


def _line(error: BaseException, path: Path) -> str:
    if isinstance(error, SyntaxError) and error.filename == str(path):
        return f", line {error.lineno}"
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    return f", line {lines[-1]}" if lines else ""


def _said(error: BaseException) -> str:
    if isinstance(error, UserError):
        return str(error)
    said = error.msg if isinstance(error, SyntaxError) else one_line(error)
    return f"{type(error).__name__}: {said}"
