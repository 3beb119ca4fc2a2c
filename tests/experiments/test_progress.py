"""What the displays show of jobs in every state."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from gated_bert.config import GatedBertConfig
from gated_bert.experiments.jobs import Job
from gated_bert.experiments.progress import Display, JobView, LogLines


def view(name: str, state: str = "running", folder: Path = Path("nowhere"), **status) -> JobView:
    return JobView(Job(name, GatedBertConfig(model_size="tiny"), folder / name, ()), state, status)


def drawn(views, width: int, height: int = 30) -> str:
    console = Console(file=io.StringIO(), width=width, height=height, force_terminal=False)
    console.print(Display("bars", live=False, console=console).table(views))
    return console.file.getvalue()


@pytest.mark.parametrize(
    ("status", "fraction"),
    [
        ({}, 0.0),
        ({"epoch": 1, "epochs": 4}, 0.0),
        ({"epoch": 2, "epochs": 4, "step": 5, "steps": 10}, 0.375),
        ({"epoch": 4, "epochs": 4, "step": 12, "steps": 10}, 1.0),
        ({"epoch": 3, "epochs": 4, "step": 0, "steps": 0}, 0.5),
        ({"epoch": "x", "epochs": None}, 0.0),
    ],
)
def test_the_fraction_counts_epochs_and_steps(status, fraction):
    assert view("a", **status).fraction == fraction


@pytest.mark.parametrize("width", [80, 100, 160])
def test_a_row_holds_all_there_is_to_know(width):
    status = {"epoch": 12, "epochs": 25, "step": 120, "steps": 702, "metric": 0.8123, "metric_name": "accuracy"}
    text = drawn([view("magnitude sst2", sparsity=0.975, seconds_left=3723.0, **status)], width)
    for part in (
        "magnitude sst2",
        "45%",
        "12/25",
        "120/702",
        "accuracy",
        "0.812",
        "97.5 %",
        "1:02:03",
        "0 of 1 finished",
    ):
        assert part in text
    assert max(map(len, text.splitlines())) <= width


def test_many_jobs_fit_the_window_with_the_running_ones_in_sight():
    views = [view(f"waiting {number}", "waiting") for number in range(90)]
    views += [view("[brackets]", "running"), view("broken", "failed"), view("long done", "finished")]
    text = drawn(views, 100, height=20)
    assert len(text.splitlines()) <= 20
    assert "[brackets]" in text and "failed" in text and "1 of 93 finished, 90 waiting, 1 running, 1 failed" in text


def test_log_lines_are_whole_and_new(tmp_path):
    job = view("spt sst2", folder=tmp_path)
    job.job.folder.mkdir()
    log = job.job.folder / "log.txt"
    log.write_text("from an earlier start\n")
    noise = b"I0000 00:00:1795224392.760590   19666 port.cc:153] oneDNN custom operations are on.\n"
    lines = LogLines([job])
    assert lines.new([job]) == []
    with open(log, "ab") as file:
        file.write(noise + b"one\n10%\r20%\rtwo\n\nhalf a li")
    assert lines.new([job]) == ["[spt sst2] one", "[spt sst2] two"]
    with open(log, "ab") as file:
        file.write("ne \u00e9".encode())
    job.state = "failed"
    assert lines.new([job]) == ["[spt sst2] half a line \u00e9"]
    assert lines.new([job]) == []
