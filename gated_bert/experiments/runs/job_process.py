"""A run's own process: stops when told, and ends when its launcher is gone."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from pathlib import Path

from gated_bert.config import GatedBertConfig
from gated_bert.experiments.runs.output_folder import OUTPUT, check_unused
from gated_bert.support.environ import LAUNCHER_VARIABLE
from gated_bert.support.errors import UserError

TOLD_TO_STOP = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
"""What stops a run beside Ctrl-C; Windows has no SIGHUP."""
_POLL_SECONDS = 1.0
_PATIENCE_SECONDS = 30.0
_AGAIN_SECONDS = 0.2


def run_job(config: GatedBertConfig, folder: Path, resume: bool, flag: str = OUTPUT) -> int:
    """Trains in this process, under the launcher's rules.

    Args:
        config: the record of the run.
        folder: the run's folder.
        resume: whether to go on from the folder's last resume point.
        flag: what named the folder; of a launcher's job the launcher's.

    Returns:
        The exit status 0; errors and interruptions are raised.
    """
    stop_on_signals()
    watch_launcher()
    if LAUNCHER_VARIABLE in os.environ:
        flag = OUTPUT
        wait_for_folder(folder)
    # Before the framework is imported, which takes a while.
    check_unused(folder, flag)
    from gated_bert.experiments.runs.run import train

    train(config, folder, resume=resume, flag=flag)
    return 0


def stop_on_signals() -> None:
    """Makes SIGTERM and SIGHUP raise KeyboardInterrupt in the main thread, once, as Ctrl-C does.

    An exception that is raised while Python cleans up (in a finaliser, or what is called after garbage collection) goes
    no further; the process is then told again.
    """

    def stop(number, frame):
        for again in TOLD_TO_STOP:
            signal.signal(again, signal.SIG_IGN)
        raise KeyboardInterrupt

    usual = sys.unraisablehook

    def lost(unraisable):
        if not issubclass(unraisable.exc_type, KeyboardInterrupt):
            usual(unraisable)
            return
        signal.signal(signal.SIGTERM, stop)
        again = threading.Timer(_AGAIN_SECONDS, _tell_main_thread)
        again.daemon = True
        again.start()

    sys.unraisablehook = lost
    for number in (*TOLD_TO_STOP, signal.SIGINT):
        signal.signal(number, stop if number != signal.SIGINT else signal.default_int_handler)


def _tell_main_thread():
    if hasattr(signal, "pthread_kill"):
        # Only so does it wake from what it waits for.
        signal.pthread_kill(threading.main_thread().ident, signal.SIGTERM)
    else:
        signal.raise_signal(signal.SIGTERM)


def watch_launcher() -> None:
    """Ends this process when the launcher that started it is gone, also when that one was killed by SIGKILL."""
    launcher = os.environ.get(LAUNCHER_VARIABLE)
    if launcher is not None:
        threading.Thread(target=_watch, args=(int(launcher),), name="watch launcher", daemon=True).start()


def _watch(launcher: int):
    while os.getppid() == launcher:
        time.sleep(_POLL_SECONDS)
    print("the launcher is gone; this job stops", file=sys.stderr, flush=True)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(_PATIENCE_SECONDS)
    os._exit(1)


def wait_for_folder(folder: Path, patience: float = 60.0) -> None:
    """Waits a while for another process that uses `folder`: the run of a killed launcher may just be ending there."""
    deadline, told = time.monotonic() + patience, False
    while time.monotonic() < deadline:
        try:
            check_unused(folder)
            return
        except UserError as error:
            if not told:
                print(f"{error}; this job waits up to {patience:g} s for it", flush=True)
            told = True
            time.sleep(0.5)
