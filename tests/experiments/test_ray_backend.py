"""Sweeps on a Ray cluster of two nodes of this machine, of which one is killed in the middle of a job."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pandas as pd
import psutil
import pytest

from gated_bert.cli import main as cli
from gated_bert.experiments.runs.checkpoint import read_place
from gated_bert.experiments.runs.resume_store import ResumeStore
from gated_bert.experiments.runs.run_files import CHECKPOINT
from gated_bert.experiments.sweeps import jobs, resources
from gated_bert.experiments.sweeps import sweep as launcher
from gated_bert.models.folder import load_model

pytest.importorskip("ray", reason="ray is not installed (pip install 'gated_bert[cluster]')")

from ray.cluster_utils import Cluster  # noqa: E402

from gated_bert.experiments.sweeps import ray_backend
from gated_bert.experiments.sweeps.ray_backend import cores_each, room
from tests.marks import nightly

FAKE_JOB = Path(__file__).with_name("fake_job.py")
NODE = {"num_cpus": 1, "object_store_memory": 80 * 2**20}
HEALTH = {"health_check_initial_delay_ms": 0, "health_check_period_ms": 500, "health_check_failure_threshold": 4,
          "enable_metrics_collection": False}  # fmt: skip
RESULTS = "results_{}_20260101-000000.csv"
TRAIN = jobs.job_command
GIB = resources.GIB


@pytest.fixture(scope="module")
def cluster():
    """A head that runs no jobs; nodes of one core each join it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("PYTHONPATH", str(Path(__file__).resolve().parents[2]))
        head = {**NODE, "num_cpus": 0, "include_dashboard": False, "_system_config": HEALTH}
        started = Cluster(initialize_head=True, head_node_args=head)
        try:
            yield started
        finally:
            started.shutdown()


@pytest.fixture
def two_nodes(cluster) -> Cluster:
    """The cluster with both its nodes, whatever the last test did to them."""
    while len(cluster.worker_nodes) < 2:
        cluster.add_node(wait=False, **NODE)
    cluster.wait_for_nodes()
    return cluster


@pytest.fixture(autouse=True)
def _fake_jobs(monkeypatch, tmp_path):
    """Jobs that take seconds, and no more memory than there is."""
    monkeypatch.setattr(jobs, "job_command", fake_command)
    monkeypatch.setattr(ray_backend, "job_memory", lambda config, on_gpu: 2**20)
    monkeypatch.setattr(ray_backend, "RETRY_SECONDS", 2.0)
    monkeypatch.setattr(launcher, "compare_jobs", lambda output, ended: [])
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(ray_backend, "_PASSED_ON", ("FAKE_FAIL", "FAKE_STEP"))
    monkeypatch.setenv("FAKE_STEP", "0.05")
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def of_local_processes(tmp_path_factory) -> dict[str, str]:
    """The tables of the same sweep as processes of this machine."""
    folder = tmp_path_factory.mktemp("local")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FAKE_STEP", "0.001")
        patch.setattr(jobs, "job_command", fake_command)
        patch.setattr(launcher, "compare_jobs", lambda output, ended: [])
        assert sweep(str(folder), "spt,magnitude,baseline", "-max-parallel-jobs", "3") == 0
    return rows(str(folder))


def fake_command(folder: Path) -> tuple[str, ...]:
    return (sys.executable, str(FAKE_JOB), *TRAIN(folder)[4:])


def sweep(folder: str, methods: str, *words: str) -> int:
    return cli.main(["sweep", "-d", "embedded", "-m", "tiny", "-e", "2", "-o", folder, "-p", methods, *words])


def status(folder: str, method: str) -> dict:
    return jobs.read_status(Path(folder) / f"results_{method}_sst2")


def node_of(cluster: Cluster, pid: int):
    """The node whose daemon is an ancestor of the process."""
    above = {process.pid for process in psutil.Process(pid).parents()}
    (found,) = (node for node in cluster.worker_nodes if node.all_processes["raylet"][0].process.pid in above)
    return found


def wait_for_the_first_epoch(folder: str):
    """Waits until the job of SPT trains."""
    deadline = time.monotonic() + 120
    while status(folder, "spt").get("epoch") != 1:
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.02)


def kill_the_node_of_spt(cluster: Cluster, folder: str, killed: list):
    """Kills a node as soon as the job of SPT is in its first epoch there."""
    wait_for_the_first_epoch(folder)
    pid = status(folder, "spt")["pid"]
    node = node_of(cluster, pid)
    cluster.remove_node(node, allow_graceful=False)
    killed.append(pid)


def rows(folder: str) -> dict[str, str]:
    """The tables of all runs."""
    return {table.name: table.read_text() for table in Path(folder).glob("results_*/results_*.csv")}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("methods", "shared"),
    [nightly(("spt", "magnitude", "baseline"), True, id="shared disk"),
     nightly(("spt",), False, id="no shared disk")],
)
def test_a_killed_node_loses_nothing(two_nodes, of_local_processes, monkeypatch, capfd, methods, shared):
    if not shared:
        monkeypatch.setattr(ray_backend.Path, "touch", lambda path: None)
    killed = []
    killer = threading.Thread(target=kill_the_node_of_spt, args=(two_nodes, "out", killed))
    killer.start()
    code = sweep("out", ",".join(methods), "--backend", "ray", "--ray-address", two_nodes.address)
    killer.join()
    assert code == 0, capfd.readouterr()
    shown = capfd.readouterr().out
    assert f"{len(methods)}, as many at a time as the Ray cluster" in shown and "[spt sst2] finished after" in shown
    assert {status("out", name)["state"] for name in methods} == {"finished"}
    log = Path("out/results_spt_sst2/log.txt").read_text()
    assert log.count("epoch 2 done") == 1
    assert [line for line in log.splitlines() if line.startswith(("resume", "the worker"))] == [
        "resume False, threads 1, gpu None",
        "the worker of this job is lost; it runs again on another one",
        "resume True, threads 1, gpu None",
    ]
    assert not [pid for pid in killed if psutil.pid_exists(pid)], "the job of the killed node has ended as well"
    assert not list(Path("out").glob(".shared*")) and not list(Path("out").glob("*/.*.partial"))
    assert rows("out") == {name: of_local_processes[name] for name in map(RESULTS.format, methods)}


TINY = ["--num-layers", "1", "--d-model", "16", "--num-heads", "2", "--dff", "32", "-b", "16", "--train-examples", "96",
        "-e", "3", "-ps", "2", "-pe", "3", "-l", "1e-3", "--checkpoint-steps", "2"]  # fmt: skip
STEP_SECONDS = 0.9


def slow_command(folder: Path) -> tuple[str, ...]:
    """Real training, of which every step takes long enough to be killed in."""
    slow = ("import runpy, sys, time\nfrom gated_bert.pruning.callbacks import StepCallback as S\n"
            "done = S.batches_done\n"
            f"S.batches_done = lambda *a: (time.sleep({STEP_SECONDS / 5}), done(*a))[1]\n"
            "sys.argv[0] = 'gated-bert'; runpy.run_module('gated_bert', run_name='__main__')")  # fmt: skip
    return (sys.executable, "-c", slow, *TRAIN(folder)[3:])


def kill_past_the_first_epoch(cluster: Cluster, folder: Path, kept, killed: list):
    """Kills the node of the job in the middle of its second or third epoch, once a checkpoint of that is kept."""
    deadline = time.monotonic() + 240
    while True:
        told, place = jobs.read_status(folder), kept()
        assert time.monotonic() < deadline and told.get("state") != "finished", "waited too long"
        if told.get("state") == "running" and place and place[0] >= 1 and place[1] >= 2:
            break
        time.sleep(0.02)
    killed.append(place)
    cluster.remove_node(node_of(cluster, told["pid"]), allow_graceful=False)


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory) -> pd.DataFrame:
    """The rows of the same run as a process of this machine."""
    folder = tmp_path_factory.mktemp("unbroken")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(launcher, "compare_jobs", lambda output, ended: [])
        patch.setattr(jobs, "job_command", TRAIN)
        assert sweep(str(folder), "movement", *TINY) == 0
    return measured(folder)


def measured(folder: Path) -> pd.DataFrame:
    (table,) = folder.glob("results_movement_sst2/results_*.csv")
    return pd.read_csv(table).drop(columns=["seconds", "examples_per_second"])


@pytest.mark.slow
@pytest.mark.parametrize("stored", [pytest.param(False, id="brought to the head"), nightly(True, id="in a store")])
@pytest.mark.nightly
def test_a_lost_nodes_job_goes_on_from_its_last_checkpoint(two_nodes, unbroken, monkeypatch, capfd, tmp_path, stored):
    """Without a shared disk: elsewhere, in the epoch it was lost in, with the rows of an unbroken run."""
    monkeypatch.setattr(ray_backend.Path, "touch", lambda path: None)
    monkeypatch.setattr(jobs, "job_command", slow_command)
    folder, points = Path("out/results_movement_sst2"), tmp_path / "points"

    def of_the_store():
        runs = list(points.glob("results_movement_sst2-*"))
        return ResumeStore(str(points), runs[0].name).place() if runs else None

    monkeypatch.setattr(ray_backend, "_outlives", lambda place: stored)
    kept = of_the_store if stored else lambda: read_place(folder / CHECKPOINT)
    killed = []
    killer = threading.Thread(target=kill_past_the_first_epoch, args=(two_nodes, folder, kept, killed))
    killer.start()
    words = [*TINY, "--backend", "ray", "--ray-address", two_nodes.address]
    code = sweep("out", "movement", *words, *(["--checkpoint-dir", str(points)] if stored else []))
    killer.join()
    log = (folder / "log.txt").read_text()
    assert code == 0, capfd.readouterr()
    assert "the worker of this job is lost; it runs again on another one" in log
    ((epoch, batches),) = killed
    went_on = [int(number) for number in re.search(r"going on at epoch (\d+), step (\d+)", log).groups()]
    assert tuple(went_on) >= (epoch + 1, batches) >= (2, 2), "no earlier than what was kept when the node was lost"
    pd.testing.assert_frame_equal(measured(Path("out")), unbroken)
    assert status("out", "movement")["state"] == "finished" and load_model(folder / "model")
    assert not (folder / CHECKPOINT).exists() and not [name for name in os.listdir(folder) if "partial" in name]
    assert not stored or not any(points.rglob("*.*"))


@pytest.mark.nightly
def test_a_killed_launcher_leaves_what_the_next_goes_on_from(two_nodes, unbroken, monkeypatch, tmp_path):
    """Without a shared disk: the checkpoint is here, so a sweep on a restarted head goes on from it."""
    code = ("import sys; from tests.experiments import test_ray_backend as t\n"
            "from gated_bert.experiments.sweeps import jobs\n"
            "t.ray_backend.Path.touch = lambda path: None; jobs.job_command = t.slow_command\n"
            "t.ray_backend.job_memory = lambda config, on_gpu: 2**20\nsys.exit(t.sweep(*sys.argv[1:]))")  # fmt: skip
    words = ["out", "movement", *TINY, "--backend", "ray", "--ray-address", two_nodes.address]
    process = subprocess.Popen([sys.executable, "-c", code, *words], stdout=subprocess.DEVNULL)
    folder, deadline = Path("out/results_movement_sst2"), time.monotonic() + 240
    while (read_place(folder / CHECKPOINT) or (0, 0)) < (1, 2):
        assert process.poll() is None and time.monotonic() < deadline, "waited too long"
        time.sleep(0.02)
    process.kill()
    process.wait()
    epoch, batches = read_place(folder / CHECKPOINT)
    monkeypatch.setattr(ray_backend.Path, "touch", lambda path: None)
    monkeypatch.setattr(jobs, "job_command", TRAIN)
    assert sweep(*words, "--resume") == 0
    assert f"going on at epoch {epoch + 1}, step {batches}" in (folder / "log.txt").read_text()
    pd.testing.assert_frame_equal(measured(Path("out")), unbroken)
    assert not [name for name in os.listdir(folder) + os.listdir("out") if "partial" in name]


def test_a_node_that_comes_back_removes_what_its_jobs_left(tmp_path, monkeypatch):
    """A worker that cannot see the head's disk makes a folder of its own; that of a killed one goes with it."""
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    code = ("import os, sys\nfrom gated_bert.experiments.sweeps.ray_worker import RayWorker\n"
            "worker = RayWorker('no token', 'out/run', '/out/run', ['python', '-m', 'x', 'out/run'], {})\n"
            "worker.append('job.json', b'{}')\nos.kill(os.getpid(), 9)")  # fmt: skip
    for _ in range(2):
        assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -signal.SIGKILL
        (left,) = (tmp_path / "temporary").iterdir()
        assert (left / "run" / "job.json").is_file()


@pytest.mark.nightly
def test_a_job_that_fails_is_not_run_again(two_nodes, monkeypatch, capfd):
    monkeypatch.setenv("FAKE_FAIL", "spt")
    monkeypatch.setenv("FAKE_STEP", "0.001")
    assert sweep("out", "spt", "--backend", "ray", "--ray-address", two_nodes.address) == 1
    assert status("out", "spt")["state"] == "failed"
    assert "ValueError: this job was made to fail" in capfd.readouterr().out
    assert sum("resume" in line for line in Path("out/results_spt_sst2/log.txt").read_text().splitlines()) == 1


@pytest.mark.nightly
def test_ctrl_c_leaves_consistent_files_and_no_job(two_nodes, monkeypatch):
    """Without a shared disk: what the jobs had written is here, and a resumed sweep goes on from it."""
    monkeypatch.setattr(ray_backend.Path, "touch", lambda path: None)

    def interrupt():
        wait_for_the_first_epoch("out")
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    words = ("--backend", "ray", "--ray-address", two_nodes.address)
    assert sweep("out", "spt", *words) == 130
    told = status("out", "spt")
    assert told["state"] == "stopped" and not psutil.pid_exists(told["pid"])
    assert Path("out/results_spt_sst2/tidied-up").exists()
    assert sweep("out", "spt", "--resume", *words) == 0
    assert "resume True" in Path("out/results_spt_sst2/log.txt").read_text()
    assert status("out", "spt")["state"] == "finished"


def test_no_cluster_and_no_room_are_told_in_one_line(two_nodes, monkeypatch, capsys):
    monkeypatch.setattr(ray_backend, "job_memory", lambda config, on_gpu: 2**60)
    assert sweep("out", "spt", "--backend", "ray", "--ray-address", two_nodes.address) == 2
    line = capsys.readouterr().err
    assert "--backend ray: no node has a core and 1073741824.0 GiB of memory" in line and line.count("\n") == 1
    assert not Path("out").exists()


def test_an_address_where_nothing_listens_is_answered_at_once(capsys):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{unused.getsockname()[1]}"
        assert sweep("out", "spt", "--backend", "ray", "--ray-address", address) == 2
    line = capsys.readouterr().err
    assert f"--ray-address: {address} cannot be used (" in line and "ray start --head" in line and line.count("\n") == 1


def test_jobs_share_the_nodes_out():
    machine = resources.Machine
    nodes = [machine(8, 32 * GIB), machine(8, 32 * GIB), machine(0, 64 * GIB)]
    assert room(nodes, 1, 2 * GIB, 0) == 16
    assert room(nodes, 1, 10 * GIB, 0) == 6
    assert [cores_each(nodes, slots, GIB, 0) for slots in (1, 2, 3, 4, 5, 16)] == [8, 8, 4, 4, 2, 1]
    with_gpus = [machine(8, 64 * GIB, ("0", "1")), machine(4, 64 * GIB, ("0",)), machine(64, 64 * GIB)]
    assert room(with_gpus, 1, GIB, 1) == 3 and cores_each(with_gpus, 3, GIB, 1) == 4


def test_the_state_is_finished_only_when_the_files_are_here(tmp_path):
    """A status that says so while the files are still on the node would make `--resume` leave the run as it is."""
    job = jobs.Job("spt", None, tmp_path, ())
    running = object.__new__(ray_backend.RayJob)
    running._job, running._status = job, b""
    running._take(json.dumps({"state": "running", "epoch": 2}).encode(), b"epoch 1 done\n")
    running._take(json.dumps({"state": "finished"}).encode(), b"epoch 2 done\n")
    assert jobs.read_status(tmp_path) == {"state": "running", "epoch": 2}
    assert (tmp_path / "log.txt").read_text() == "epoch 1 done\nepoch 2 done\n"
