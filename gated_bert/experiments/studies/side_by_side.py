"""Parts of a study beside each other, for machines that one job does not fill."""

from __future__ import annotations

import signal
import textwrap
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from gated_bert.experiments.studies.command_process import interrupted_by_term, interruptible_children
from gated_bert.experiments.studies.part import Part, needs
from gated_bert.experiments.sweeps.backends import LocalProcess, start_process
from gated_bert.experiments.sweeps.progress import wait_a_moment
from gated_bert.experiments.sweeps.resources import share
from gated_bert.experiments.sweeps.sweep import GRACE_SECONDS
from gated_bert.start import python_command
from gated_bert.support.machine import this_machine
from gated_bert.support.progress_bar import progress_bar
from gated_bert.support.quiet import log_tail


def run_side_by_side(
    parts: Sequence[Part], words: Callable[[Part], list[str]], folder: Path, at_a_time: int
) -> int:
    """Runs parts as processes, each when those that it starts from have ended; what it prints goes to FOLDER/PART.log.

    One that measures time runs alone. After one that failed no other begins, and those that run go on to their ends.

    Args:
        parts: what is to be run.
        words: of a part its command and flags.
        folder: the study's.
        at_a_time: parts beside each other.

    Returns:
        The exit status of the first that failed, else 0.

    Raises:
        KeyboardInterrupt: stopped, after all of them have ended.
    """
    folder.mkdir(parents=True, exist_ok=True)
    running: dict[int, tuple[Part, LocalProcess]] = {}
    waiting, status = list(parts), 0
    with interrupted_by_term(), progress_bar("parts", len(parts)) as advance:
        try:
            while running or (waiting and not status):
                for slot, (part, process) in list(running.items()):
                    code = process.poll()
                    if code is not None:
                        del running[slot]
                        status = status or code
                        _say_end(part, code, folder)
                        advance(_names(running), 1)
                begin = [] if status else _startable(waiting, [part for part, _ in running.values()], at_a_time)
                for part in begin:
                    slot = min(set(range(at_a_time)) - running.keys())
                    with interruptible_children():
                        command = python_command("gated_bert", *words(part))
                        variables = share(this_machine(), at_a_time, slot)
                        running[slot] = part, start_process(command, log_file(folder, part), variables)
                    waiting.remove(part)
                    advance(_names(running), 0)
                wait_a_moment()
        except KeyboardInterrupt:
            _stop([process for _, process in running.values()])
            raise
    return status


def log_file(folder: Path, part: Part) -> Path:
    """Where what a part prints goes."""
    return folder / f"{part.name}.log"


def _startable(waiting: Sequence[Part], running: Sequence[Part], at_a_time: int) -> list[Part]:
    """What of `waiting` may begin now."""
    left = [part.name for part in (*waiting, *running)]
    begin: list[Part] = []
    for part in waiting:
        beside = [*running, *begin]
        alone = part.measures_time or any(other.measures_time for other in beside)
        if len(beside) < (1 if alone else at_a_time) and not needs(part) & set(left):
            begin.append(part)
    return begin


def _names(running: dict[int, tuple[Part, LocalProcess]]) -> str:
    return ", ".join(part.name for part, _ in running.values())


def _say_end(part: Part, code: int, folder: Path):
    log = log_file(folder, part)
    if code:
        print(f"{part.name}: exit status {code}; the end of {log}:\n{textwrap.indent(log_tail(log), '  ')}", flush=True)
    else:
        print(f"{part.name}: done; {log}", flush=True)


def _stop(processes: Sequence[LocalProcess]):
    """Ctrl-C for all of them, which may tidy up; what has not ended then is killed."""
    for process in processes:
        process.send_signal(signal.SIGINT)
    # Those that are sweeps give their jobs as long.
    deadline = time.monotonic() + 2 * GRACE_SECONDS
    while any(process.poll() is None for process in processes):
        if time.monotonic() > deadline:
            for process in processes:
                process.kill()
        wait_a_moment()
