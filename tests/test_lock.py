"""Locks of folders: between processes and inside one, after a kill, and what they say of who holds them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading

import pytest

from gated_bert.support.lock import LOCK, InUseError, check_free, folder_lock, is_locked, lock_folder

HOLDS = ("import sys, time\nfrom pathlib import Path\nfrom gated_bert.support.lock import lock_folder\n"
         "lock = lock_folder(Path(sys.argv[1]))\nprint('holds', flush=True)\ntime.sleep(60)")  # fmt: skip


@pytest.fixture
def holder(tmp_path):
    """Another process, which holds the lock."""
    process = subprocess.Popen([sys.executable, "-c", HOLDS, tmp_path], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "holds\n"
    yield process
    process.kill()
    process.wait()


def test_another_process_is_refused_told_the_owner_and_let_in_after_a_kill(tmp_path, holder):
    for take in (lock_folder, check_free):
        with pytest.raises(InUseError) as refused:
            take(tmp_path)
        assert refused.value.owner == str(holder.pid), "also after others tried"
    assert is_locked(tmp_path) is True
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    check_free(tmp_path)
    assert is_locked(tmp_path) is False
    with folder_lock(tmp_path):
        assert (tmp_path / LOCK).read_text().strip() == str(os.getpid())


def test_a_process_does_not_take_it_twice_and_may_give_it_back_in_another_thread(tmp_path):
    lock, found = lock_folder(tmp_path), []

    def other():
        try:
            lock_folder(tmp_path)
        except InUseError as error:
            found.append(error.owner)
        lock.release()

    with pytest.raises(InUseError):
        lock_folder(tmp_path)
    thread = threading.Thread(target=other)
    thread.start()
    thread.join()
    assert found == [str(os.getpid())] and is_locked(tmp_path) is False


def test_a_shorter_number_leaves_nothing_of_a_longer_one(tmp_path):
    (tmp_path / LOCK).write_text("4711471147\n")
    with folder_lock(tmp_path):
        assert (tmp_path / LOCK).read_text() == f"\n{os.getpid()}\n"


def test_what_is_not_there_is_free(tmp_path):
    check_free(tmp_path / "none")
    assert is_locked(tmp_path) is None and not list(tmp_path.iterdir()), "asking makes no file"


def test_a_lock_of_an_earlier_version_holds(tmp_path):
    """These wrote the number at the first byte, and took the file by flock."""
    fcntl = pytest.importorskip("fcntl")
    with open(tmp_path / LOCK, "a+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.write("4711\n")
        file.flush()
        with pytest.raises(InUseError) as refused:
            lock_folder(tmp_path)
    assert refused.value.owner == "4711"
    with folder_lock(tmp_path), open(tmp_path / LOCK) as file, pytest.raises(BlockingIOError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
