"""Resume points in a place that outlives the node: a folder on another disk, or an object store that fsspec knows.

Every file goes under a new key, then a pointer names what belongs together; only then is what it replaces removed. A
reader takes the furthest pointer whose files are all there, so nothing depends on renaming, which object stores lack.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import re
import shutil
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import fsspec

from gated_bert.config import GatedBertConfig
from gated_bert.config.distill_options import DISTILL_FIELDS
from gated_bert.experiments.reports.run_layout import CHECKPOINT, JOB_FILE, STATUS_FILE
from gated_bert.experiments.runs.checkpoint import read_place
from gated_bert.experiments.runs.run_files import KEEP_VARIABLE, Snapshot, Stamp, arriving, rest_after, stamp_of
from gated_bert.experiments.runs.same_record import computed
from gated_bert.support.errors import UserError, one_line
from gated_bert.support.records import parse_record
from gated_bert.support.schemas import ResumePoint

LOGGER = logging.getLogger("gated_bert")
_FLAG = "--checkpoint-dir"
_POINTER = re.compile(r"resume-[0-9a-f]{12}-\d{6}\.json")
_CHUNK = 16 * 2**20
_LOOK_SECONDS = 1.0
_TOLD_OTHERWISE = (JOB_FILE, STATUS_FILE)


class ResumeStore:
    """The resume point of one run.

    Args:
        url: a folder, or the URL of a place that fsspec knows.
        run: the run's name there.

    Raises:
        UserError: the place cannot be used.
    """

    def __init__(self, url: str, run: str):
        self.url = url
        try:
            self._fs, root = fsspec.core.url_to_fs(url)
            self._root = f"{root.rstrip('/')}/{run}"
        except Exception as error:
            raise _refused(url, error) from error
        # Keys of another process that was believed dead are never taken for one's own.
        self._writer, self._puts = uuid.uuid4().hex[:12], 0
        self._sent: dict[str, tuple[Stamp, dict]] = {}

    def check(self) -> None:
        """Writes and removes a file there.

        Raises:
            UserError: one of these fails.
        """
        key = f"{self._root}/{self._writer}"
        try:
            self._write(key, b"")
            self._fs.rm(self._root, recursive=True)
        except Exception as error:
            raise _refused(self.url, error) from error

    def place(self) -> tuple[int, int] | None:
        """Epochs, and batches of the next one, that the stored run has done; None where none is stored.

        Raises:
            UserError: the place cannot be read.
        """
        found = self._furthest()
        return tuple(found["place"]) if found else None

    def fetch(self, folder: Path) -> None:
        """Brings the stored files into `folder`.

        Raises:
            UserError: one of them cannot be read or written.
        """
        try:
            found = self._furthest()
            if found is None:
                raise FileNotFoundError("no whole resume point is there")
            with arriving(folder) as new:
                for name, entry in found["files"].items():
                    (new / name).parent.mkdir(parents=True, exist_ok=True)
                    with self._fs.open(f"{self._root}/{entry['key']}", "rb") as source, open(new / name, "wb") as file:
                        shutil.copyfileobj(source, file, _CHUNK)
        except Exception as error:
            raise _refused(self.url, error) from error

    def put(self, folder: Path) -> None:
        """Stores the run in `folder` as it is now.

        Raises:
            Exception: what fsspec's implementation of the place raises; what was stored before is still there.
        """
        known = {name: stamp for name, (stamp, _) in self._sent.items() if name != CHECKPOINT}
        with contextlib.closing(Snapshot(folder, known)) as snapshot:
            sent, place = {}, read_place(snapshot.files[CHECKPOINT])
            if place is None:
                raise OSError(f"{folder / CHECKPOINT} is damaged")
            for name, stamp in snapshot.stamps.items():
                if name in _TOLD_OTHERWISE:
                    continue
                if name not in snapshot.files:
                    sent[name] = self._sent[name]
                    continue
                key = f"{self._writer}-{self._puts:06d}/{name}"
                self._send(snapshot, name, f"{self._root}/{key}")
                sent[name] = stamp, {"key": key, "size": stamp[0]}
        pointer = f"resume-{self._writer}-{self._puts:06d}.json"
        record = {"place": place, "files": {name: entry for name, (_, entry) in sent.items()}}
        self._write(f"{self._root}/{pointer}", json.dumps(record).encode())
        self._sent, self._puts = sent, self._puts + 1
        self._remove_others({pointer, *(entry["key"] for _, entry in sent.values())})

    def clear(self) -> None:
        """Removes the run from the store.

        Raises:
            UserError: that fails.
        """
        try:
            if self._listing():
                self._fs.rm(self._root, recursive=True)
        except Exception as error:
            raise _refused(self.url, error) from error

    def _furthest(self) -> dict | None:
        try:
            sizes = self._listing()
            pointers = filter(_POINTER.fullmatch, sizes)
            records = [_record(self._fs.cat_file(f"{self._root}/{name}")) for name in pointers]
        except Exception as error:
            raise _refused(self.url, error) from error
        whole = [
            record
            for record in records
            if record and all(sizes.get(entry["key"]) == entry["size"] for entry in record["files"].values())
        ]
        return max(whole, key=lambda record: record["place"], default=None)

    def _listing(self) -> dict[str, int]:
        """Key, from the run's on → bytes."""
        self._fs.invalidate_cache()
        found = self._fs.find(self._root, detail=True)
        return {path.partition(f"{self._root.lstrip('/')}/")[2]: int(info["size"]) for path, info in found.items()}

    def _send(self, snapshot: Snapshot, name: str, key: str):
        self._fs.makedirs(key.rpartition("/")[0], exist_ok=True)
        with self._fs.open(key, "wb") as file:
            start = 0
            while chunk := snapshot.read(name, start, _CHUNK):
                file.write(chunk)
                start += len(chunk)
            _sync(file)

    def _write(self, key: str, content: bytes):
        self._fs.makedirs(key.rpartition("/")[0], exist_ok=True)
        with self._fs.open(key, "wb") as file:
            file.write(content)
            _sync(file)

    def _remove_others(self, kept: set[str]):
        # The first time also what others left; later it could only be of one that still writes.
        mine = "" if self._puts == 1 else f"{self._writer}-"
        for key in self._listing():
            if key not in kept and mine in key.partition("/")[0]:
                self._fs.rm(f"{self._root}/{key}")
        # Only disks have folders that are left empty.
        if "file" in self._fs.protocol:
            for path in Path(self._root).iterdir():
                with contextlib.suppress(OSError):
                    for each in sorted((p for p in path.rglob("*") if p.is_dir()), reverse=True):
                        each.rmdir()
                    path.rmdir()


def _sync(file):
    """To the disk, where it is one."""
    with contextlib.suppress(AttributeError, OSError):
        file.flush()
        os.fsync(file.fileno())


def _record(content: bytes) -> dict | None:
    """What a pointer says; None where it is half or none of ours."""
    try:
        record = parse_record(content, ResumePoint, where="pointer")
    except UserError:
        return None
    files = record["files"]
    return record if CHECKPOINT in files and all(map(_stays_inside, files)) else None


def _stays_inside(name: str) -> bool:
    """Whether a name is one of ours: from a folder on, downwards, nothing hidden."""
    return "\\" not in name and "\0" not in name and not any(part[:1] in ("", ".") for part in name.split("/"))


def _refused(url: str, error: Exception) -> UserError:
    return UserError(f"{_FLAG}: {url} cannot be used ({one_line(error)}); give a folder, or the URL of a place that "
                     "fsspec can write here, e.g. s3://bucket/folder")  # fmt: skip


def check_place(url: str) -> None:
    """Makes sure that a place for resume points can be written.

    Raises:
        UserError: it cannot.
    """
    ResumeStore(url, f"check-{uuid.uuid4().hex[:12]}").check()


def store_of(config: GatedBertConfig, folder: Path) -> ResumeStore:
    """The store of the run of `config` in `folder`: wherever that folder is, the same run has the same place.

    Raises:
        ValueError: the record names no place.
    """
    if config.checkpoint_dir is None:
        raise ValueError("store_of: the record has no checkpoint_dir")
    record = computed(config)
    for name in ("criterion_options", *DISTILL_FIELDS):
        if record[name] is None:
            # What a run of a version without this field has stored is found again.
            del record[name]
    digest = hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()[:12]
    return ResumeStore(config.checkpoint_dir, f"{folder.resolve().name}-{digest}")


@contextlib.contextmanager
def kept_elsewhere(config: GatedBertConfig, folder: Path, resume: bool) -> Iterator[None]:
    """Keeps the resume point of the run in `folder` at `config.checkpoint_dir` while the block trains it.

    Args:
        config: the run's record; without `checkpoint_dir` nothing happens.
        folder: the run's folder, locked by the caller.
        resume: whether the run goes on; from what is stored, where that is further than what is in `folder`. Else what
            is stored goes as soon as there is a checkpoint to put in its place: not where the start is refused.

    Raises:
        UserError: the place cannot be used. What fails later is told in the log, and tried again.
    """
    if config.checkpoint_dir is None:
        yield
        return
    store = store_of(config, folder)
    # Also where the run does not go on: a place that cannot be read is refused before anything is trained.
    stored = store.place()
    if resume and stored is not None:
        here = read_place(folder / CHECKPOINT)
        if here is None or stored > here:
            store.fetch(folder)
    stop = threading.Event()
    words = (store, folder.absolute(), stop, not resume)
    thread = threading.Thread(target=_follow, args=words, name="resume store", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
    if not os.environ.get(KEEP_VARIABLE):
        store.clear()


def _follow(store: ResumeStore, folder: Path, stop: threading.Event, anew: bool):
    """Stores every checkpoint that is written, or of many in a short time the last.

    Args:
        store: the run's.
        folder: the run's.
        stop: set when the run is over.
        anew: whether what is stored is of another run, which may have come further: it goes before the first one.
    """
    stored, not_before = None, 0.0
    while True:
        stopped = stop.wait(_LOOK_SECONDS)
        stamp = stamp_of(folder / CHECKPOINT)
        began = time.monotonic()
        if stamp not in (None, stored) and (stopped or began >= not_before):
            try:
                if anew:
                    store.clear()
                    anew = False
                store.put(folder)
                stored = stamp
            # Whatever a store's own library raises: training is worth more than one of its resume points.
            except Exception as error:
                if stamp_of(folder / CHECKPOINT) is None:
                    # The run has finished meanwhile.
                    continue
                LOGGER.warning("%s: %s: this resume point was not stored (%s)", _FLAG, store.url, one_line(error))
            done = time.monotonic()
            not_before = done + rest_after(done - began)
        if stopped:
            return
