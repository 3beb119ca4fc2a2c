"""A sub-command in a process of its own, with its own threads, whose memory is free afterwards."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from gated_bert.start import import_path, python_command
from gated_bert.support.environ import LAUNCHER_VARIABLE

LOGGER = logging.getLogger("gated_bert")


def run_command(words: Sequence[str], quiet: bool = False) -> int:
    """Runs `gated-bert WORDS…` and hands on what stops this process, so that the command leaves consistent files.

    Args:
        words: what is typed.
        quiet: whether what the command prints is logged instead; its bars are shown all the same.

    Returns:
        The exit status.

    Raises:
        KeyboardInterrupt: stopped, after the command has ended.
    """
    with _interrupted_by_term():
        with _interruptible_children():
            # Its launcher is this process, which waits for it.
            environment = {name: value for name, value in os.environ.items() if name != LAUNCHER_VARIABLE}
            # A session of its own: Ctrl-C reaches the command once, from here. Windows has none, and tells all itself.
            process = subprocess.Popen(
                python_command("gated_bert", *words), env=environment | {"PYTHONPATH": import_path()},
                start_new_session=True, stdout=subprocess.PIPE if quiet else None, encoding="utf-8", errors="replace",
            )  # fmt: skip
        stopped = False
        while True:
            try:
                for line in process.stdout or ():
                    LOGGER.info("%s", line.rstrip())
                status = process.wait()
                break
            except KeyboardInterrupt:
                stopped = True
                if os.name != "nt":
                    process.send_signal(signal.SIGINT)
    if process.stdout:
        process.stdout.close()
    if stopped:
        raise KeyboardInterrupt
    return status


@contextmanager
def _interrupted_by_term() -> Iterator[None]:
    """SIGTERM does what Ctrl-C does."""
    with _handled(signal.SIGTERM, signal.default_int_handler):
        yield


@contextmanager
def _interruptible_children() -> Iterator[None]:
    """What is started here is stopped by Ctrl-C: in the background of a script that is ignored, by a child too, which
    would never end; a handler of this process is none of its child's."""
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        yield
        return
    with _handled(signal.SIGINT, lambda number, frame: None):
        yield


@contextmanager
def _handled(number: signal.Signals, handler) -> Iterator[None]:
    # Python lets the main thread alone say what is done about a signal.
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(number, handler)
    try:
        yield
    finally:
        signal.signal(number, before)
