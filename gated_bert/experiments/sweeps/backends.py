"""Where jobs run. A backend starts a job and hands back a handle; the sweep knows nothing else of it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from gated_bert.experiments.reports.run_layout import LOG_FILE
from gated_bert.experiments.sweeps.jobs import Job
from gated_bert.experiments.sweeps.resources import devices_of, share
from gated_bert.start import import_path
from gated_bert.support.disk import own
from gated_bert.support.environ import LAUNCHER_VARIABLE
from gated_bert.support.machine import Machine


class RunningJob(Protocol):
    """A started job."""

    def poll(self) -> int | None:
        """The exit status, or `None` while it runs; negative: the signal that killed it."""

    def stop(self) -> None:
        """Asks it to end and leave consistent files."""

    def kill(self) -> None:
        """Ends it at once."""


class Backend(Protocol):
    """A place that runs up to `slots` jobs at a time."""

    @property
    def slots(self) -> int:
        """Jobs at a time."""

    def start(self, job: Job, slot: int, resume: bool) -> RunningJob:
        """Starts `job` as the one in `slot` (0 to slots − 1)."""


class LocalBackend:
    """Jobs as processes of this machine, each in a session of its own, with its share of cores and GPUs.

    Args:
        machine: what there is to share.
        slots: jobs at a time.
    """

    def __init__(self, machine: Machine, slots: int):
        self.machine, self.slots = machine, slots

    def start(self, job: Job, slot: int, resume: bool) -> LocalProcess:
        """Starts the process; all it prints goes to the run's log."""
        # A single job keeps all threads, but shares no GPU it does not need.
        variables = {}
        if self.slots > 1 or self.machine.gpus:
            variables = share(self.machine, self.slots, slot, devices_of(job.config, self.machine))
        command = [*job.command, "--resume"] if resume else list(job.command)
        return start_process(command, job.folder / LOG_FILE, variables)


def start_process(command: Sequence[str], log: Path, variables: Mapping[str, str]) -> LocalProcess:
    """Starts a job as a process that ends when this one is gone.

    Args:
        command: its words.
        log: the file that all it prints is added to.
        variables: its environment, beside that of this process.
    """
    environment = os.environ | {LAUNCHER_VARIABLE: str(os.getpid()), "PYTHONUNBUFFERED": "1"}
    environment["PYTHONIOENCODING"] = "utf-8:replace"
    environment |= {"PYTHONPATH": import_path(), **variables}
    with open(own(log), "ab") as file:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
        )
    return LocalProcess(process)


class LocalProcess:
    """A process that leads its own session; signals go to the whole of it."""

    def __init__(self, process: subprocess.Popen):
        self._process = process

    def poll(self) -> int | None:
        """The exit status, or `None` while it runs."""
        return self._process.poll()

    def stop(self) -> None:
        """Sends SIGTERM to the job, which tidies up and ends what it started."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Ends it at once."""
        # To Windows all signals are this one.
        self.send_signal(getattr(signal, "SIGKILL", signal.SIGTERM))

    def send_signal(self, number: int) -> None:
        """Sends a signal, if there is anyone left to get it."""
        # Windows knows no sessions.
        if not hasattr(os, "killpg"):
            self._process.send_signal(number)
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)
