"""What runs on a node of a Ray cluster: one job's process, and its files where the node shares no disk."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from gated_bert.config import GatedBertConfig
from gated_bert.config.plugins import load_plugins
from gated_bert.experiments.reports.run_layout import CHECKPOINT, JOB_FILE, LOG_FILE, STATUS_FILE
from gated_bert.experiments.runs.run_files import KEEP_VARIABLE, Snapshot, Stamp, stamp_of
from gated_bert.experiments.sweeps.backends import LocalProcess, start_process
from gated_bert.start import python_command
from gated_bert.support.disk import own
from gated_bert.support.errors import UserError
from gated_bert.support.partial import make_temporary_folder
from gated_bert.support.paths import MOVED_VARIABLE
from gated_bert.support.records import read_record

CHUNK_BYTES = 16 * 2**20
"""The most bytes of a file that go over the network at once."""


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
        self._folder = Path(folder)
        self._variables = dict(variables)
        if not self._shared:
            # What jobs left here when this node was lost goes with it. The run keeps the name of its folder.
            self._folder = make_temporary_folder() / self._folder.name
            self._folder.mkdir()
            self._variables |= {KEEP_VARIABLE: "1"}
            # A model of another job, which is sent along, is named as on the head.
            self._variables |= {MOVED_VARIABLE: json.dumps([str(Path(folder).parent), str(self._folder.parent)])}
        places = [str(self._folder) + word.removeprefix(named) if word.startswith(named) else word for word in command]
        # The node's own Python and package, wherever they are.
        python, start, _ = python_command("")
        self._command = [python, *(word or start for word in places)]
        self._told = 0
        self._process: LocalProcess | None = None
        self._snapshot: Snapshot | None = None

    def shares_disk(self) -> bool:
        """Whether this node sees the folder of the results."""
        return self._shared

    def append(self, name: str, chunk: bytes) -> None:
        """Adds to a file of the run that starts from files of the head, or of a run beside it: `../RUN/model/…`."""
        path = self._folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(own(path), "ab") as file:
            file.write(chunk)

    def start(self, resume: bool) -> None:
        """Starts the job."""
        command = [*self._command, "--resume"] if resume else self._command
        self._process = start_process(command, self._folder / LOG_FILE, self._variables)

    def look(self) -> tuple[int | None, bytes, bytes, Stamp | None]:
        """What the job has come to.

        Returns:
            Its exit status if it has ended; where no disk is shared, its status file, what is new in its log, and the
            stamp of its last checkpoint.
        """
        code = self._running().poll()
        if self._shared:
            return code, b"", b"", None
        with open(self._folder / LOG_FILE, "rb") as log:
            log.seek(self._told)
            new = log.read(CHUNK_BYTES)
        self._told += len(new)
        status = self._folder / STATUS_FILE
        return code, status.read_bytes() if status.exists() else b"", new, stamp_of(self._folder / CHECKPOINT)

    def snapshot(self, known: Mapping[str, Stamp], ended: bool) -> tuple[dict[str, Stamp], list[str]]:
        """Opens the run's files as they are now.

        Args:
            known: the stamps of those that the head has.
            ended: whether the job has ended.

        Returns:
            The stamps of all of them, and the names of those that the head lacks; nothing where they cannot be had now.
        """
        self._close()
        try:
            self._snapshot = Snapshot(self._folder, known, ended)
        except OSError:
            if ended:
                raise
            return {}, []
        return self._snapshot.stamps, list(self._snapshot.files)

    def read(self, name: str, start: int) -> bytes:
        """A part of a file of the snapshot; empty at its end."""
        if self._snapshot is None:
            raise RuntimeError(f"{name}: no snapshot to read it from")
        return self._snapshot.read(name, start, CHUNK_BYTES)

    def remove(self, finished: bool) -> None:
        """Removes the run's folder from a node that shares no disk, and of a finished one what is stored elsewhere."""
        self._close()
        record = read_record(self._folder / JOB_FILE)
        if finished and record.get("checkpoint_dir"):
            from gated_bert.experiments.runs.resume_store import store_of

            # What stays there costs room, and the run is whole all the same.
            with contextlib.suppress(UserError):
                # The job was started here, and its plug-ins with it.
                load_plugins(record.get("plugins") or ())
                store_of(GatedBertConfig.from_dict(record), self._folder).clear()
        shutil.rmtree(self._folder.parent)

    def _running(self) -> LocalProcess:
        if self._process is None:
            raise RuntimeError(f"{self._folder}: no job was started")
        return self._process

    def _close(self):
        if self._snapshot is not None:
            self._snapshot.close()

    def send_signal(self, number: int) -> None:
        """Sends a signal to the job and all that it started."""
        self._running().send_signal(number)
