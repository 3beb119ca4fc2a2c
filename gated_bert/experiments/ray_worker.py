"""What runs on a node of a Ray cluster: one job's process, and its files where the node shares no disk."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from gated_bert.experiments.backends import LocalProcess, start_process
from gated_bert.experiments.jobs import LOG_FILE, STATUS_FILE
from gated_bert.start import python_command

CHUNK_BYTES = 16 * 2**20
"""The most bytes of a file that go over the network at once."""


def run_files(folder: Path) -> list[str]:
    """The names of a run's files, from its folder on; the log apart, which is told while it grows."""
    paths = (path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
    names = (path.relative_to(folder).as_posix() for path in paths if path.suffix != ".tmp")
    return sorted(name for name in names if name != LOG_FILE)


class RayWorker:
    """An actor that runs one job as a process of its own, so that a crash of the framework takes no worker with it.

    Args:
        token: a file in the folder of the results, seen only by nodes that share the head's disk.
        named: the run's folder as the command names it.
        folder: the same, from the root on.
        command: the words of the job after Python's, with an empty one for the file that starts a module.
        variables: the job's environment, beside that of the node.
    """

    def __init__(self, token: str, named: str, folder: str, command: Sequence[str], variables: Mapping[str, str]):
        self._shared = Path(token).exists()
        self._folder = Path(folder if self._shared else tempfile.mkdtemp(prefix="gated_bert-"))
        places = [str(self._folder) + word.removeprefix(named) if word.startswith(named) else word for word in command]
        # The node's own Python and package, wherever they are.
        python, start, _ = python_command("")
        self._command, self._variables = [python, *(word or start for word in places)], variables
        self._told = 0
        self._process: LocalProcess | None = None

    def shares_disk(self) -> bool:
        """Whether this node sees the folder of the results."""
        return self._shared

    def append(self, name: str, chunk: bytes):
        """Adds to a file of the run that starts from files of the head."""
        path = self._folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "ab") as file:
            file.write(chunk)

    def start(self, resume: bool):
        """Starts the job."""
        command = [*self._command, "--resume"] if resume else self._command
        self._process = start_process(command, self._folder / LOG_FILE, self._variables)

    def look(self) -> tuple[int | None, bytes, bytes]:
        """The exit status if the job has ended; its status file and what is new in its log where no disk is shared."""
        code = self._process.poll()
        if self._shared:
            return code, b"", b""
        with open(self._folder / LOG_FILE, "rb") as log:
            log.seek(self._told)
            new = log.read(CHUNK_BYTES)
        self._told += len(new)
        status = self._folder / STATUS_FILE
        return code, status.read_bytes() if status.exists() else b"", new

    def files(self) -> list[str]:
        """The names of the run's files."""
        return run_files(self._folder)

    def read(self, name: str, start: int) -> bytes:
        """A part of a file; empty at its end."""
        with open(self._folder / name, "rb") as file:
            file.seek(start)
            return file.read(CHUNK_BYTES)

    def remove(self):
        """Removes the run's folder from a node that shares no disk."""
        shutil.rmtree(self._folder)

    def send_signal(self, number: int):
        """Sends a signal to the job and all that it started."""
        self._process.send_signal(number)
