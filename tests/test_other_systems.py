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
from pathlib import Path
from gated_bert.config import GatedBertConfig
from gated_bert.experiments.runs.job_process import run_job
from gated_bert.experiments.runs.run import train
import tensorflow
for name in {CALLS!r}:
    delattr(os, name)
config = GatedBertConfig(model_size="tiny", num_layers=1, d_model=8, num_heads=2, dff=16, data="embedded", epochs=1,
                         pruning_start_epoch=1, pruning_end_epoch=1, batch_size=16, train_examples=32, max_len=16)
run_job(config, Path(sys.argv[1]), resume=False)
print(train(config, sys.argv[1], resume=True).final["epoch"])
"""
SWEEP = f"""
from pathlib import Path
from gated_bert.cli.main import main
from gated_bert.experiments.sweeps.backends import start_process
for name in {CALLS!r}:
    delattr(os, name)
words = "sweep -p baseline -t sst2 -d embedded -m tiny --num-layers 1 -e 1 -b 16 -ml 16 --train-examples 32".split()
assert main([*words, "-o", sys.argv[1]]) == 0
for end in ("stop", "kill"):
    process = start_process([sys.executable, "-c", "import time; time.sleep(60)"], Path(sys.argv[1], "log.txt"), {{}})
    getattr(process, end)()
    process._process.wait(30)
"""


def python(code: str, *words: str) -> str:
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True,
                          env=os.environ | {"VERBOSE": "0"})  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_every_module_is_imported_without_what_posix_alone_has():
    pytest.importorskip("ray")
    python(BLOCKED + MODULES)


@pytest.mark.nightly
def test_a_run_trains_and_is_found_finished_without_what_posix_alone_has(tmp_path):
    pytest.importorskip("tensorflow")
    assert python(BLOCKED + TRAIN, str(tmp_path / "run")).split()[-1] == "1"
    assert (tmp_path / "run/model/model.keras").is_file()


@pytest.mark.nightly
def test_a_sweep_runs_and_jobs_are_ended_without_what_posix_alone_has(tmp_path):
    python(BLOCKED + SWEEP, str(tmp_path / "out"))
    assert (tmp_path / "out/results_baseline_sst2/model/model.keras").is_file()
