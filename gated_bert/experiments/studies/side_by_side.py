"""Parts of a study beside each other, for machines that one job does not fill."""

from __future__ import annotations

import dataclasses
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path

from gated_bert.experiments.studies.part import Part, needs
from gated_bert.experiments.sweeps.backends import LocalProcess, start_process
from gated_bert.experiments.sweeps.progress import wait_a_moment
from gated_bert.experiments.sweeps.resources import share
from gated_bert.experiments.sweeps.sweep import GRACE_SECONDS, StopRequest, reason, stop_all
from gated_bert.start import python_command
from gated_bert.support.machine import Machine, this_machine
from gated_bert.support.progress_bar import progress_bar
from gated_bert.support.quiet import log_tail


def run_side_by_side(
    parts: Sequence[Part], words: Callable[[Part], tuple[str, list[str]]], folder: Path, at_a_time: int, jobs: int
) -> int:
    """Runs parts as processes, each when those that it starts from have ended; what it prints goes to FOLDER/PART.log.

    They share processors and GPUs; one that measures time runs alone and has all. After one that failed no other
    begins, and those that run go on to their ends.

    Args:
        parts: what is to be run.
        words: of a part its command and the words of its command line.
        folder: the study's.
        at_a_time: parts beside each other.
        jobs: of each part at a time.

    Returns:
        The exit status of the first that failed, 1 if a signal ended it, else 0.

    Raises:
        KeyboardInterrupt: stopped, after all of them have ended.
    """
    running: dict[int, tuple[Part, LocalProcess]] = {}
    waiting, status, machine, stopping = list(parts), 0, this_machine(), StopRequest()
    slots = range(min(at_a_time, len(parts)))
    with stopping.listening(), progress_bar("parts", len(parts)) as advance:
        try:
            while (running or (waiting and not status)) and not stopping.count:
                for part, code in _ended(running):
                    status = status or (1 if code < 0 else code)
                    _say_end(part, code, folder)
                    advance(_names(running), 1)
                begin = [] if status else _startable(waiting, [part for part, _ in running.values()], len(slots))
                for part in begin:
                    slot = min(set(slots) - running.keys())
                    variables = {} if part.measures_time else _share(machine, len(slots), slot, jobs)
                    name, flags = words(part)
                    command = python_command("gated_bert", name, *flags)
                    running[slot] = part, start_process(command, log_file(folder, part), variables)
                    waiting.remove(part)
                    advance(_names(running), 0)
                wait_a_moment()
            if stopping.count:
                print("stopping what runs; once more ends it at once", flush=True)
        finally:
            # Those that are sweeps give their jobs as long.
            stop_all(lambda: [process for _, process in running.values()], stopping, lambda: _ended(running),
                     2 * GRACE_SECONDS)  # fmt: skip
    if stopping.count:
        raise KeyboardInterrupt
    return status


def _ended(running: dict[int, tuple[Part, LocalProcess]]) -> list[tuple[Part, int]]:
    """Takes out what has ended; the parts and their exit statuses."""
    codes = {slot: process.poll() for slot, (_, process) in running.items()}
    return [(running.pop(slot)[0], code) for slot, code in codes.items() if code is not None]


def _share(machine: Machine, slots: int, slot: int, jobs: int) -> dict[str, str]:
    """The environment of the part in `slot`, of which so many jobs run at a time."""
    threads = dataclasses.replace(machine, cores=machine.cores // jobs)
    return share(threads, slots, slot, max(1, len(machine.gpus) // slots))


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
    names = [part.name for part, _ in running.values()]
    return ", ".join(names[:2]) + (f" and {len(names) - 2} more" if len(names) > 2 else "")


def _say_end(part: Part, code: int, folder: Path):
    log = log_file(folder, part)
    if code:
        print(f"{part.name}: {reason(code)}; the end of {log}:\n{textwrap.indent(log_tail(log), '  ')}", flush=True)
    else:
        print(f"{part.name}: done; {log}", flush=True)
