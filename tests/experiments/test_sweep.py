"""The launcher as a user meets it, with a stand-in for training: failures, Ctrl-C, kill -9, resume, two launchers."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pexpect
import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
LAUNCHER = Path(__file__).with_name("fake_sweep.py")
SLOW = {"FAKE_STEP": "0.5"}


def environment(**more: str) -> dict[str, str]:
    kept = dict(os.environ)
    for name in ("OMP_NUM_THREADS", "GATED_BERT_DATA", "CUDA_VISIBLE_DEVICES", "VERBOSE", "BENCHMARK_EPOCHS"):
        kept.pop(name, None)
    return {**kept, "PYTHONPATH": str(REPOSITORY), "FAKE_STEP": "0.01", "COLUMNS": "110", **more}


def launch(folder: Path, *words: str, **more: str) -> subprocess.CompletedProcess:
    options = {"text": True, "capture_output": True, "stdin": subprocess.DEVNULL, "timeout": 60}
    command = [sys.executable, LAUNCHER, "-o", "out", *words]
    return subprocess.run(command, cwd=folder, env=environment(**more), **options)


def start(folder: Path, *words: str, **more: str) -> subprocess.Popen:
    """A launcher that is left to run; its output goes to `launcher.txt`."""
    with open(folder / "launcher.txt", "w") as output:
        return subprocess.Popen([sys.executable, LAUNCHER, "-o", "out", *words], cwd=folder, env=environment(**more),
                                stdout=output, stderr=output, stdin=subprocess.DEVNULL)  # fmt: skip


def status(folder: Path, method: str) -> dict:
    path = folder / "out" / f"results_{method}_sst2" / "status.json"
    return json.loads(path.read_text()) if path.exists() else {}


def wait_until(condition, seconds: float = 20.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.05)


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except FileNotFoundError:
        return False


def times_run(folder: Path, method: str) -> int:
    return len(list((folder / "out" / f"results_{method}_sst2").glob("ran-*")))


@pytest.fixture(scope="module")
def mixed(tmp_path_factory) -> tuple[Path, subprocess.CompletedProcess]:
    """A parallel sweep in which the job of spt fails."""
    folder = tmp_path_factory.mktemp("mixed")
    words = ("-e", "2", "-p", "spt,magnitude,baseline", "-max-parallel-jobs", "2", "--output-mode", "both")
    return folder, launch(folder, *words, FAKE_FAIL="spt")


def test_a_failed_job_stops_no_other_and_is_reported(mixed):
    folder, done = mixed
    assert done.returncode == 1, done.stderr
    states = [status(folder, name)["state"] for name in ("spt", "magnitude", "baseline")]
    assert states == ["failed", "finished", "finished"]
    end = done.stdout[done.stdout.index("spt sst2 failed") :]
    assert "ValueError: this job was made to fail" in end and "1 of 3 jobs failed" in end
    assert "Configuration" in done.stdout and "up to 2 at a time" in done.stdout


def test_threads_are_shared_out(mixed):
    cores = len(os.sched_getaffinity(0))
    assert f"threads {max(1, cores // 2)}" in (mixed[0] / "out/results_magnitude_sst2/log.txt").read_text()


def test_the_comparison_is_written_though_a_job_failed(mixed):
    names = {path.name for path in (mixed[0] / "out").iterdir()}
    assert {"comparison.csv", "report.html", "pruning_methods_comparison_dual_axis.png"} <= names
    assert "made to fail" in (mixed[0] / "out/report.html").read_text()


def test_plain_lines_and_log_lines_name_their_job(mixed):
    lines = mixed[1].stdout
    assert len(set(re.findall(r"\[magnitude sst2\] (\d+) %: epoch", lines))) >= 2
    assert "[magnitude sst2] epoch 2 done" in lines and "[magnitude sst2] finished after" in lines


def test_resume_runs_only_what_is_not_finished_and_a_rerun_loses_nothing(mixed, tmp_path):
    folder = Path(shutil.copytree(mixed[0], tmp_path, dirs_exist_ok=True))
    words = ("-p", "spt,magnitude,baseline")
    refused = launch(folder, "-e", "3", *words, "--resume")
    assert refused.returncode == 2 and refused.stderr.count("\n") == 1
    assert "--resume: out/results_spt_sst2 was started with epochs=2 (now 3)" in refused.stderr

    done = launch(folder, "-e", "2", *words, "--resume", VERBOSE="0")
    assert done.returncode == 0, done.stderr
    assert [times_run(folder, name) for name in ("spt", "magnitude", "baseline")] == [1, 1, 1]
    assert "resume True" in (folder / "out/results_spt_sst2/log.txt").read_text()
    assert "Configuration" not in done.stdout and "[spt" not in done.stdout and "accuracy" in done.stdout

    again = launch(folder, "-e", "1", "-p", "spt")
    assert again.returncode == 0
    assert times_run(folder, "spt") == 1
    (saved,) = (folder / "out/saved_results").iterdir()
    assert {path.name for path in saved.iterdir()} >= {"results_spt_sst2", "report.html"}
    assert (folder / "out/results_magnitude_sst2").exists() and str(saved.relative_to(folder)) in again.stdout


def test_bars_move_on_a_terminal_and_ctrl_c_stops_all_jobs(tmp_path):
    words = ["-e", "4", "-p", "magnitude,baseline", "-parallel", "-max-parallel-jobs", "2", "-o", "out"]
    terminal = pexpect.spawn(sys.executable, [str(LAUNCHER), *words], cwd=str(tmp_path), timeout=30, encoding="utf-8",
                             env=environment(FAKE_STEP="0.1", TERM="xterm"), dimensions=(30, 110))  # fmt: skip
    terminal.expect_exact("bars, logs or both? [bars]")
    terminal.sendline("pictures")
    terminal.expect_exact("bars, logs or both? [bars]")
    terminal.sendline("both")
    terminal.expect(r"epoch 1 done")
    shown = terminal.before
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown)
    for job in ("magnitude sst2", "baseline sst2"):
        seen = {int(number) for number in re.findall(rf"{job}\W+?(\d+)%", plain)}
        assert len(seen) >= 4, (job, seen)
    pids = [status(tmp_path, name)["pid"] for name in ("magnitude", "baseline")]
    terminal.sendintr()
    terminal.expect_exact("the same command with --resume goes on")
    terminal.expect(pexpect.EOF)
    terminal.close()
    assert terminal.exitstatus == 130
    assert not any(is_alive(pid) for pid in pids)
    for name in ("magnitude", "baseline"):
        assert status(tmp_path, name)["state"] == "stopped"
        assert (tmp_path / "out" / f"results_{name}_sst2" / "tidied-up").exists()
    assert launch(tmp_path, *words[:-2], "--resume").returncode == 0


@pytest.mark.nightly
def test_sigterm_ends_even_a_job_that_will_not(tmp_path):
    launcher = start(tmp_path, "-e", "9", "-p", "spt,magnitude", FAKE_STUBBORN="1", **SLOW)
    wait_until(lambda: "pid" in status(tmp_path, "spt"))
    launcher.send_signal(signal.SIGTERM)
    assert launcher.wait(20) == 130
    assert not is_alive(status(tmp_path, "spt")["pid"])
    assert status(tmp_path, "spt")["state"] == "stopped"
    assert not (tmp_path / "out/results_magnitude_sst2").exists()


def test_one_launcher_a_folder_and_no_orphans_after_kill_9(tmp_path):
    launcher = start(tmp_path, "-e", "9", "-p", "spt,magnitude", "-max-parallel-jobs", "2", **SLOW)
    wait_until(lambda: all("pid" in status(tmp_path, name) for name in ("spt", "magnitude")))
    second = launch(tmp_path, "-p", "movement")
    assert second.returncode == 2 and second.stderr.count("\n") == 1
    assert f"-o/--output-dir: out is in use by another run (process {launcher.pid})" in second.stderr
    pids = [status(tmp_path, name)["pid"] for name in ("spt", "magnitude")]
    launcher.kill()
    launcher.wait()
    wait_until(lambda: not any(is_alive(pid) for pid in pids), 8)
    assert (tmp_path / "out/results_spt_sst2/tidied-up").exists()


@pytest.mark.nightly
def test_a_refused_sweep_leaves_no_folder(tmp_path):
    done = launch(tmp_path, "-p", "spt", "-d", str(tmp_path))
    assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
    assert not (tmp_path / "out").exists()


def test_an_output_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "out").write_text("a file in the way")
    done = launch(tmp_path, "-p", "spt", "-e", "3")
    assert done.returncode == 2
    assert done.stderr.startswith("error: -o/--output-dir: 'out' is refused (a file is there)")
    assert done.stderr.count("\n") == 1


@pytest.mark.nightly
def test_a_sweep_removes_what_killed_ones_left_in_its_folders(tmp_path):
    assert launch(tmp_path, "-p", "spt", "-e", "3").returncode == 0
    run = tmp_path / "out/results_spt_sst2"
    before = {folder: set(os.listdir(folder)) for folder in (run, run.parent)}
    code = ("import os, sys\nfrom pathlib import Path\nfrom gated_bert.support.partial import partial, previous\n"
            "for name in ('status.json', 'checkpoint.npz', 'comparison.csv'):\n"
            "    partial(Path(sys.argv[1], name)).touch()\n"
            "partial(Path(sys.argv[1], 'arriving')).mkdir()\nos.kill(os.getpid(), 9)")  # fmt: skip
    for folder in before:
        subprocess.run([sys.executable, "-c", code, str(folder)], check=False)
        assert len(set(os.listdir(folder)) - before[folder]) == 4
    (run / "checkpoint.npz").touch()
    assert launch(tmp_path, "-p", "spt", "-e", "3", "--resume").returncode == 0
    assert {folder: set(os.listdir(folder)) for folder in before} == before
