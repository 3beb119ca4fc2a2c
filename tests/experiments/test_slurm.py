"""The array-job script: run by bash with the task's number set, as Slurm runs it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from gated_bert.cli import main as cli
from gated_bert.config import GatedBertConfig
from gated_bert.experiments.runs.run_state import is_finished
from gated_bert.experiments.sweeps import jobs, slurm
from gated_bert.experiments.sweeps.resources import job_memory
from gated_bert.start import ROOT
from gated_bert.support.records import read_record
from tests.refused import refusal

REPOSITORY = Path(__file__).resolve().parents[2]
FAKE_JOB = Path(__file__).with_name("fake_job.py")
TRAIN = jobs.job_command


@pytest.fixture
def place(tmp_path, monkeypatch) -> Path:
    """A working folder whose name has spaces, and characters that mean something to a shell."""
    folder = tmp_path / "a user's $HOME `x` \\ %j runs"
    folder.mkdir()
    monkeypatch.chdir(folder)
    for name in ("BENCHMARK_EPOCHS", "VERBOSE", "GATED_BERT_DATA", "OMP_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    return folder


@pytest.fixture
def fake_jobs(monkeypatch):
    def command(folder: Path) -> tuple[str, ...]:
        return (sys.executable, str(FAKE_JOB), *TRAIN(folder)[4:])

    for module in (jobs, slurm):
        monkeypatch.setattr(module, "job_command", command)


def write(*words: str) -> int:
    return cli.main(["sweep", "-d", "embedded", "-m", "tiny", "-e", "2", "-o", "my results", "--seeds", "1,2",
                     "-p", "spt,magnitude", "--slurm", "array job.sh", *words])  # fmt: skip


def submit(task: int | None, **more: str) -> subprocess.CompletedProcess:
    """What Slurm does for one task, from another folder than the one the script was written in."""
    environment = {**os.environ, "FAKE_STEP": "0.001", **more}
    environment |= {} if task is None else {"SLURM_ARRAY_TASK_ID": str(task)}
    return subprocess.run(["bash", Path("array job.sh").resolve()], cwd="/", env=environment, capture_output=True,
                          text=True, timeout=60)  # fmt: skip


def log(name: str) -> str:
    return Path("my results", name, "log.txt").read_text()


def test_each_task_runs_its_own_job_and_goes_on_where_it_was(place, fake_jobs, capsys):
    assert write("-max-parallel-jobs", "3") == 0
    shown = capsys.readouterr().out
    assert "wrote array job.sh: 4 runs, up to 3 at a time" in shown
    assert "sbatch 'array job.sh'" in shown and "gated-bert compare 'my results' -o 'my results'" in shown
    script = Path("array job.sh").read_text()
    assert subprocess.run(["bash", "-n", "array job.sh"]).returncode == 0
    assert "\n#SBATCH --array=0-3%3\n" in script and "\n#SBATCH --requeue\n" in script

    done = submit(2, SLURM_CPUS_PER_TASK="7")
    assert done.returncode == 0 and done.stdout == done.stderr == ""
    folder = Path("my results/results_spt_sst2_seed2")
    assert is_finished(folder) and len(list(folder.glob("ran-*"))) == 1
    assert "resume True, threads 7" in log(folder.name) and "epoch 2 done" in log(folder.name)
    record = json.loads((folder / "job.json").read_text())
    assert (record["pruning_method"], record["seed"], record["epochs"]) == ("spt", 2, 2)

    assert submit(2).returncode == 0
    assert len(list(folder.glob("ran-*"))) == 1, "a finished run is left alone"
    assert not any(is_finished(Path("my results", f"results_{name}")) for name in
                   ("spt_sst2_seed1", "magnitude_sst2_seed1", "magnitude_sst2_seed2"))  # fmt: skip

    assert write("--resume") == 0
    assert "3 runs, up to 3 at a time" in capsys.readouterr().out
    assert submit(0).returncode == submit(1).returncode == submit(2).returncode == 0
    assert write("--resume") == 0
    assert "all 4 runs in my results are finished" in capsys.readouterr().out
    assert cli.main(["compare", "my results", "-o", "my results"]) == 0
    assert Path("my results/report.html").exists()

    assert write() == 0
    assert "earlier runs in my results are now in my results/saved_results/" in capsys.readouterr().out


def test_a_failing_job_fails_its_task(place, fake_jobs):
    write()
    assert submit(0, FAKE_FAIL="spt").returncode == 1
    assert "ValueError: this job was made to fail" in log("results_spt_sst2_seed1")
    done = submit(None)
    assert done.returncode != 0 and "submit this script by sbatch" in done.stderr


def test_the_script_says_what_it_needs_and_calls_the_single_run(place):
    write()
    text = Path("array job.sh").read_text()
    config = read_record(Path("my results/results_spt_sst2_seed1/job.json"))
    assert f"--mem={job_memory(GatedBertConfig.from_dict(config), on_gpu=False) // 2**20 + 1}M" in text
    assert text.splitlines()[-1] == (
        f"exec {sys.executable} {ROOT}/gated_bert/start.py gated_bert train "
        '--config-file "$folder/job.json" --run-dir "$folder" --resume'
    )
    assert str(REPOSITORY) in text


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is not installed")
def test_shellcheck_has_nothing_to_say(place):
    write()
    assert subprocess.run(["shellcheck", "array job.sh"]).returncode == 0


@pytest.mark.parametrize("script", [".", "nowhere/array.sh"])
def test_a_script_that_cannot_be_written_is_refused_before_anything_is(place, capsys, script):
    words = ("-d", "embedded", "-m", "tiny", "-p", "spt", "--slurm", script)
    assert f"--slurm: {script!r} is refused; allowed: a file in an existing folder" in refusal(capsys, "sweep", *words)
    assert list(place.iterdir()) == []
