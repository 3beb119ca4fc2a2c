"""A sub-command in a process of its own, with its own threads, whose memory is free afterwards."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Sequence

from gated_bert.start import import_path, python_command


def run_command(words: Sequence[str]) -> int:
    """Runs `gated-bert WORDS…` and hands on what stops this process, so that the command leaves consistent files.

    Returns:
        The exit status.

    Raises:
        KeyboardInterrupt: stopped, after the command has ended.
    """
    # A session of its own: Ctrl-C reaches the command once, from here.
    process = subprocess.Popen(
        python_command("gated_bert", *words),
        env=os.environ | {"PYTHONPATH": import_path()},
        start_new_session=True,
        # In the background of a script Ctrl-C is ignored, by a child too, which would never end.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    stopped = False
    try:
        while True:
            try:
                status = process.wait()
                break
            except KeyboardInterrupt:
                stopped = True
                process.send_signal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGTERM, before)
    if stopped:
        raise KeyboardInterrupt
    return status
