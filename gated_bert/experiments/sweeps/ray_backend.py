"""Jobs on a Ray cluster: placed by cores, GPUs and memory, and run again elsewhere where a node or a worker is lost."""

from __future__ import annotations

import logging
import math
import os
import signal
import socket
import tempfile
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

import gated_bert
from gated_bert.config import GatedBertConfig
from gated_bert.experiments.reports.run_layout import CHECKPOINT, JOB_FILE, LOG_FILE, MODEL, STATUS_FILE, TRACKING
from gated_bert.experiments.runs.run_files import Stamp, arriving, rest_after, run_files
from gated_bert.experiments.runs.run_state import is_finished
from gated_bert.experiments.sweeps.jobs import Job, mark
from gated_bert.experiments.sweeps.ray_worker import CHUNK_BYTES, RayWorker
from gated_bert.experiments.sweeps.resources import devices_of, job_memory
from gated_bert.start import python_command
from gated_bert.support.disk import own
from gated_bert.support.errors import UserError
from gated_bert.support.machine import GIB, Machine, thread_environment
from gated_bert.support.partial import partial
from gated_bert.support.records import parse_record
from gated_bert.support.schemas import JobStatus

RETRIES = 3
"""How many lost workers a job outlives."""
RETRY_SECONDS = 10.0
"""Pause after one: it takes a cluster a while to notice that a node is gone, and until then it may choose it again."""
_REPEAT_SECONDS = 60.0
"""Pause after a checkpoint that could not be written here."""
INTERRUPTED = 130
_STORE_BYTES = 200 * 2**20
"""Ray's object store where it is started here: only pieces of files go through it."""
_UNANSWERED_KILLS = 10
_POLL_SECONDS, _ANSWER_SECONDS = 0.1, 0.02
"""The most that one look at a job takes, for there are others, and that it waits for a piece of a file on its way."""
_PASSED_ON = ("KERAS_BACKEND", "VERBOSE", "GATED_BERT_DATA", "TF_CPP_MIN_LOG_LEVEL")
"""Variables of this process that decide what a job does."""
_OF_TRACKERS = ("MLFLOW_", "WANDB_")
"""How those begin that decide where it is followed."""


@contextmanager
def connected(address: str | None, output: Path, configs: Sequence[GatedBertConfig], most: int) -> Iterator[RayBackend]:
    """A backend on a running cluster, or on one that is started on this machine and ends with the block.

    Args:
        address: `auto` or HOST:PORT of a running cluster; None starts one.
        output: the folder of the results.
        configs: the records of the jobs.
        most: jobs at a time, however much room there is.

    Raises:
        UserError: no cluster at that address, or none of its nodes has room for a job.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    options: dict[str, Any] = {"address": address or "local"}
    if address is None:
        options |= {"include_dashboard": False, "object_store_memory": _STORE_BYTES}
        options["_system_config"] = {"enable_metrics_collection": False}
    # Nodes run the code of this process, whatever version of it they have installed.
    code: dict[str, Any] = {"py_modules": [str(Path(gated_bert.__file__).parent)]}
    nowhere = tempfile.TemporaryDirectory(prefix="gated_bert-")
    # Without one, Ray has its workers import from the folder that the launcher was started in.
    code["working_dir"] = nowhere.name
    try:
        if address is not None and address != "auto":
            # Ray itself would try for minutes.
            host, _, port = address.partition(":")
            socket.create_connection((host, int(port)), timeout=10).close()
        with nowhere:
            ray.init(**options, runtime_env=code, log_to_driver=False, logging_level=logging.ERROR)
    except (OSError, OverflowError, RuntimeError, ValueError) as error:
        reason = str(error).strip().split("\n")[0]
        where = address or "a cluster on this machine"
        raise UserError(f"--ray-address: {where} cannot be used ({reason}); `ray start --head` on one machine starts a "
                        "cluster, `ray start --address HOST:PORT` joins it, also on this one") from error  # fmt: skip
    token = partial(output / "shared")
    token.touch()
    try:
        yield RayBackend(token, configs, most)
    finally:
        ray.shutdown()
        token.unlink(missing_ok=True)


def cluster_nodes() -> list[Machine]:
    """What each living node of the cluster has to share."""
    resources = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return [
        Machine(int(each.get("CPU", 0)), int(each.get("memory", 0)), tuple(map(str, range(int(each.get("GPU", 0))))))
        for each in resources
    ]


def room(nodes: Sequence[Machine], cores: int, memory: int, gpus: int) -> int:
    """How many jobs that take so many cores, bytes and GPUs each fit on `nodes`."""
    return sum(
        min(node.cores // cores, node.memory // memory, *([len(node.gpus) // gpus] if gpus else ())) for node in nodes
    )


def cores_each(nodes: Sequence[Machine], slots: int, memory: int, gpus: int) -> int:
    """The most cores that each of `slots` jobs can have at the same time."""
    most = max((node.cores for node in nodes), default=1)
    return next((cores for cores in range(most, 1, -1) if room(nodes, cores, memory, gpus) >= slots), 1)


class RayBackend:
    """Jobs in actors of a Ray cluster, as many at a time as its nodes have room for, now or when more have joined.

    Args:
        token: a file in the folder of the results; a node that sees it shares the disk.
        configs: the records of the jobs.
        most: jobs at a time, however much room there is.

    Raises:
        UserError: no node has room for the largest job.
    """

    def __init__(self, token: Path, configs: Sequence[GatedBertConfig], most: int):
        nodes = cluster_nodes()
        self.token, self._most, self._seen = token.resolve(), most, -math.inf
        largest = max(nodes, key=lambda node: len(node.gpus), default=Machine(0, 0))
        self.gpus = max(devices_of(config, largest) for config in configs) if largest.gpus else 0
        self.memory = max(job_memory(config, on_gpu=bool(self.gpus)) for config in configs)
        fitting = room(nodes, 1, self.memory, self.gpus)
        if not fitting:
            gpus = f", {self.gpus} GPU(s)" if self.gpus else ""
            needed = f"a core{gpus} and {self.memory / GIB:.1f} GiB of memory for the largest job"
            there = "; ".join(node.describe() for node in nodes)
            raise UserError(f"--backend ray: no node has {needed}; the nodes: {there}")
        self._actor = ray.remote(RayWorker)
        self.cores = cores_each(nodes, min(most, fitting), self.memory, self.gpus)

    @property
    def slots(self) -> int:
        """Jobs at a time; nodes may come and go."""
        if time.monotonic() - self._seen > 5.0:
            self._seen = time.monotonic()
            self._slots = min(self._most, max(1, room(cluster_nodes(), self.cores, self.memory, self.gpus)))
        return self._slots

    def start(self, job: Job, slot: int, resume: bool) -> RayJob:
        """Hands the job to the cluster, which starts it where there is room."""
        return RayJob(self, job, resume)

    def place(self, job: Job) -> Any:
        """A new worker for `job`, on a node that Ray chooses."""
        needed = {"num_cpus": self.cores, "num_gpus": self.gpus, "memory": self.memory}
        variables = {name: value for name, value in os.environ.items()
                     if name in _PASSED_ON or name.startswith(_OF_TRACKERS)}  # fmt: skip
        variables |= thread_environment(self.cores)
        actor = self._actor.options(**needed, max_restarts=0)
        folder = str(job.folder.resolve())
        return actor.remote(str(self.token), str(job.folder), folder, _modules(job.command), variables)


def _modules(command: Sequence[str]) -> list[str]:
    """The words of a job without those of this machine's Python: a node has its own."""
    start = python_command("")[1]
    return ["" if word == start else word for word in command[1:]]


def _first_files(job: Job) -> list[str]:
    """What is in a run's folder before it starts."""
    return [JOB_FILE, *[TRACKING] * bool(job.config.track)]


def _outlives(place: str | None) -> bool:
    """Whether what a node keeps at `place` is surely there without it: a folder may be on a disk of its own."""
    return place is not None and "://" in place and not place.startswith(("file://", "local://", "memory://"))


class RayJob:
    """A job in the cluster; it outlives the workers that are lost with it.

    What is asked of a worker is written down once, in `_steps`; `poll` moves on whenever an answer is there.
    """

    def __init__(self, backend: RayBackend, job: Job, resume: bool):
        self._backend, self._job, self._resume = backend, job, resume
        self._losses, self._kills, self._stopping, self._status = 0, 0, False, b""
        self._stored = _outlives(job.config.checkpoint_dir)
        self._again_at: float | None = None
        self._place()

    def _place(self):
        self._again_at = None
        self._worker, self._started, self._shared = self._backend.place(self._job), False, False
        self._brought: dict[str, Stamp] = {}
        self._code, self._more, self._checkpoint = None, b"", None
        self._moving, self._not_before = False, 0.0
        self._steps = self._talk()
        self._asked = next(self._steps)

    def poll(self) -> int | None:
        """The exit status, or `None` while the job runs or waits for room."""
        if self._again_at is not None:
            if self._stopping:
                return INTERRUPTED
            if time.monotonic() < self._again_at:
                return None
            self._place()
        deadline = time.monotonic() + _POLL_SECONDS
        try:
            while time.monotonic() < deadline and ray.wait([self._asked], timeout=_ANSWER_SECONDS * self._moving)[0]:
                self._asked = self._steps.send(ray.get(self._asked))
        except StopIteration as end:
            self._drop()
            return end.value
        except RayTaskError as error:
            self._drop()
            return self._fail(f"{self._job.folder}: the worker failed: {str(error.cause).strip()}")
        except RayError:
            self._drop()
            return self._lost()
        except OSError as error:
            self._drop()
            return self._fail(f"{self._job.folder}: the files of the run cannot be written ({error.strerror})")
        return None

    def stop(self) -> None:
        """Sends SIGTERM to the job; one that has not started never will."""
        self._stopping = True
        if self._started:
            self._worker.send_signal.remote(signal.SIGTERM)
        else:
            self._drop()

    def kill(self) -> None:
        """Sends SIGKILL, and leaves a worker alone that does not answer."""
        self._stopping, self._kills = True, self._kills + 1
        if self._kills == 1:
            self._worker.send_signal.remote(getattr(signal, "SIGKILL", signal.SIGTERM))
        elif self._kills > _UNANSWERED_KILLS:
            self._drop()

    def _talk(self) -> Generator[ray.ObjectRef, object, int]:
        """Asks the worker for one thing after the other; ends with the exit status of the job."""
        worker = self._worker
        self._shared = yield worker.shares_disk.remote()
        sent = []
        if not self._shared:
            sent = run_files(self._job.folder) if self._resume else _first_files(self._job)
            for name in [*sent, *self._model_before()]:
                yield from self._send(name)
        self._started = True
        yield worker.start.remote(self._resume)
        while self._code is None or self._more:
            self._moving = False
            yield from self._look()
            if self._code is None and self._is_due():
                try:
                    yield from self._bring(ended=False)
                except OSError as error:
                    self._log(f"this checkpoint could not be brought to {self._job.folder} ({error.strerror})")
                    self._not_before = time.monotonic() + _REPEAT_SECONDS
        if not self._shared and not self._kills:
            yield from self._bring(ended=True)
            for name in set(sent) - set(self._brought):
                (self._job.folder / name).unlink(missing_ok=True)
            yield worker.remove.remote(self._code == 0)
        return self._code

    def _look(self):
        self._code, status, self._more, self._checkpoint = yield self._worker.look.remote()
        self._take(status, self._more)

    def _is_due(self) -> bool:
        """Whether there is a checkpoint to be brought here; what is stored elsewhere need not be."""
        new = self._checkpoint is not None and self._checkpoint != self._brought.get(CHECKPOINT)
        return new and not self._shared and not self._stored and time.monotonic() >= self._not_before

    def _model_before(self) -> list[str]:
        """The files of the model that the job starts from, where another job has made it."""
        if self._job.after is None:
            return []
        model = self._job.after.folder / MODEL
        return [f"../{self._job.after.folder.name}/{MODEL}/{path.name}" for path in model.iterdir()]

    def _send(self, name: str):
        with open(self._job.folder / name, "rb") as file:
            while chunk := file.read(CHUNK_BYTES):
                yield self._worker.append.remote(name, chunk)

    def _bring(self, ended: bool):
        """Brings what is new of the run here, the checkpoint last, and at the end what says that it is finished."""
        began, self._moving = time.monotonic(), True
        stamps, names = yield self._worker.snapshot.remote(self._brought, ended)
        if not stamps:
            return
        with arriving(self._job.folder) as new:
            for name in names:
                # Told while it changes.
                if name == STATUS_FILE and not ended:
                    continue
                (new / name).parent.mkdir(parents=True, exist_ok=True)
                with open(new / name, "wb") as file:
                    while chunk := (yield self._worker.read.remote(name, file.tell())):
                        file.write(chunk)
                        if not ended:
                            yield from self._look()
        for name in self._brought.keys() - stamps.keys():
            (self._job.folder / name).unlink(missing_ok=True)
        self._brought = stamps if ended else {**stamps, STATUS_FILE: (0, 0)}
        done = time.monotonic()
        self._not_before = done + rest_after(done - began)

    def _take(self, status: bytes, log: bytes):
        """What a worker without a shared disk tells of its run."""
        if log:
            with open(own(self._job.folder / LOG_FILE), "ab") as file:
                file.write(log)
        # Finished is a run here once all its files are here.
        said = parse_record(status, JobStatus, where=STATUS_FILE, nan=True) if status else {}
        if status and status != self._status and said.get("state") != "finished":
            self._status = status
            # Not worth a sync to disk, as little as where it was written.
            temporary = partial(self._job.folder / STATUS_FILE)
            temporary.write_bytes(status)
            temporary.replace(self._job.folder / STATUS_FILE)

    def _lost(self) -> int | None:
        """Starts again elsewhere, from the last checkpoint: on the shared disk, brought here or stored elsewhere."""
        if self._stopping:
            return INTERRUPTED
        if is_finished(self._job.folder):
            return 0
        self._losses += 1
        if self._losses > RETRIES:
            return self._fail(f"its worker was lost {self._losses} times")
        self._log("the worker of this job is lost; it runs again on another one")
        self._resume = True
        mark(self._job, "starting", "its worker was lost")
        self._started, self._again_at = False, time.monotonic() + RETRY_SECONDS
        return None

    def _log(self, line: str):
        with open(own(self._job.folder / LOG_FILE), "a") as log:
            log.write(f"{line}\n")

    def _fail(self, message: str) -> int:
        mark(self._job, "failed", message)
        return 1

    def _drop(self):
        self._steps.close()
        ray.kill(self._worker, no_restart=True)
