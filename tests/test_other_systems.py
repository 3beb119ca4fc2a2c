"""What only some systems have: nothing that Windows lacks is imported with the package, or needed by a run."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

POSIX = ("fcntl", "grp", "pty", "pwd", "resource", "termios", "tty")
LACKING = ("SIGHUP", "SIGKILL", "SIGALRM", "SIGQUIT", "SIGUSR1")
CALLS = ("fork", "geteuid", "getloadavg", "getpgid", "getuid", "killpg", "sched_getaffinity", "setsid")
BLOCKED = f"""
import builtins, os, signal, sys
whole = builtins.__import__

def without(name, globals=None, *others, **more):
    if name in {POSIX!r} and (globals or {{}}).get("__name__", "").startswith("gated_bert"):
        raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
    return whole(name, globals, *others, **more)

builtins.__import__ = without
for name in {LACKING!r}:
    delattr(signal, name)
"""
"""Hides from our modules what Windows lacks; libraries, which on Windows would import something else, find it."""
MODULES = """
import importlib, pkgutil
import gated_bert
found = [module.name for module in pkgutil.walk_packages(gated_bert.__path__, "gated_bert.")]
for name in found:
    if name != "gated_bert.__main__":
        importlib.import_module(name)
assert len(found) > 150
print(len(found))
"""
TRAIN = f"""
from gated_bert.config import GatedBertConfig
from gated_bert.experiments.runs.run import train
import tensorflow
for name in {CALLS!r}:
    delattr(os, name)
config = GatedBertConfig(model_size="tiny", num_layers=1, d_model=8, num_heads=2, dff=16, data="embedded", epochs=1,
                         pruning_start_epoch=1, pruning_end_epoch=1, batch_size=16, train_examples=32, max_len=16)
train(config, sys.argv[1])
print(train(config, sys.argv[1], resume=True).final["epoch"])
"""


def python(code: str, *words: str) -> str:
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True,
                          env=os.environ | {"VERBOSE": "0"})  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_every_module_is_imported_without_what_posix_alone_has():
    pytest.importorskip("ray")
    python(BLOCKED + MODULES)


def test_a_run_trains_and_is_found_finished_without_what_posix_alone_has(tmp_path):
    pytest.importorskip("tensorflow")
    assert python(BLOCKED + TRAIN, str(tmp_path / "run")).split()[-1] == "1"
    assert (tmp_path / "run/model/model.keras").is_file()
