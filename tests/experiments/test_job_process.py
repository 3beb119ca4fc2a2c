"""How a run's own process is told to stop."""

import subprocess
import sys

import pytest

LOST = """
import os, signal, sys, time
from gated_bert.experiments.runs.job_process import stop_on_signals

class Told:
    def __del__(self):
        os.kill(os.getpid(), getattr(signal, sys.argv[1]))
        for _ in range(100):
            time.sleep(0.001)

stop_on_signals()
try:
    Told()
    print("cleaned up", flush=True)
    time.sleep(30)
except KeyboardInterrupt:
    print("stopped", flush=True)
    # Once: what it does at its end is not interrupted again.
    time.sleep(1)
    print("ended", flush=True)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no signals that one process sends another")
@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP", "SIGINT"])
def test_a_signal_that_comes_while_python_cleans_up_is_not_lost(name):
    done = subprocess.run([sys.executable, "-c", LOST, name], capture_output=True, text=True, timeout=20)
    assert done.stdout.split("\n")[:3] == ["cleaned up", "stopped", "ended"], done.stderr
    assert done.returncode == 0 and not done.stderr
