"""What the displays show of jobs in every state."""

from __future__ import annotations

import contextlib
import io
import math
import time
from pathlib import Path

import keras
import pytest
from any_models import LABELS, LOSS, ROWS, mlp
from rich.console import Console

import gated_bert
from gated_bert.config import GatedBertConfig
from gated_bert.experiments.runs.status import Status, StatusCallback
from gated_bert.experiments.sweeps.jobs import Job
from gated_bert.experiments.sweeps.progress import Display, JobView, LogLines
from gated_bert.pruning import callbacks
from gated_bert.pruning.callbacks import StepCallback
from gated_bert.pruning.pruner import sparsity
from gated_bert.support.quiet import Logged


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


class Steps(StepCallback):
    """Calls the live status as a run does and keeps what it says after every step."""

    def __init__(self, path, pruning, steps, epochs):
        super().__init__(steps)
        told = self.told = []
        self.status = Status(path, lambda fields: told.append(fields["sparsity"]))
        self.feed = StatusCallback(self.status, steps, epochs, "loss", 0, pruning.closed_share)
        self.shown = []

    def on_epoch_begin(self, epoch, logs=None):
        self.feed.on_epoch_begin(epoch)
        self.shown.append(self.told[-1])

    def on_train_batch_end(self, batch, logs=None):
        self.status._written = -math.inf
        self.feed.on_train_batch_end(batch, logs)
        self.shown.append(self.told[-1])


@pytest.mark.daily_every(3)
@pytest.mark.parametrize("method", ["magnitude", "movement", "soft_movement"])
def test_the_sparsity_shown_is_that_of_the_masks_and_counted_only_after_they_changed(tmp_path, monkeypatch, method):
    model = gated_bert.gate(mlp(), method)
    pruning = gated_bert.PruningCallback.for_model(
        model, method, end_sparsity=0.75, pruning_end_epoch=3, movement_pruning_frequency_steps=2,
        soft_movement_penalty=50.0, soft_movement_threshold=0.49,
    )  # fmt: skip
    model.compile(pruning.optimizer(keras.optimizers.SGD(0.1)), LOSS, run_eagerly=True)
    steps, true, counted = Steps(tmp_path, pruning, 4, 3), [], []
    monkeypatch.setattr(callbacks, "sparsity", lambda layers: counted.append(1) or sparsity(layers))
    real = keras.callbacks.LambdaCallback(
        on_epoch_begin=lambda epoch, logs: true.append(sparsity(pruning.layers)),
        on_train_batch_end=lambda batch, logs: true.append(sparsity(pruning.layers)),
    )
    model.fit(ROWS, LABELS, batch_size=16, epochs=3, callbacks=[pruning, steps, real], verbose=0)
    if method == "soft_movement":
        # Its gates move with every step; what is shown is from the last step at which the threshold moved.
        updates = [place for place in range(15) if place % 5 in (0, 2, 4)]
        steps.shown, true = ([values[place] for place in updates] for values in (steps.shown, true))
    assert steps.shown == true and max(true) > 0
    # Once at every epoch's beginning and end, and where masks moved inside one after every second step.
    assert len(counted) <= 3 * (2 + 2 * (method != "magnitude"))


def test_a_clock_that_is_set_back_does_not_stop_the_live_state(tmp_path, monkeypatch):
    told = []
    status = Status(tmp_path, told.append)
    status.update(state="running")
    monkeypatch.setattr(time, "time", lambda: 0.0)
    elapsed = time.monotonic() + 1
    monkeypatch.setattr(time, "monotonic", lambda: elapsed)
    status.update(step=2)
    assert told[-1]["step"] == 2


def test_what_is_printed_is_logged_line_by_line_and_so_is_what_has_no_end(caplog):
    with caplog.at_level("INFO", "gated_bert"), Logged() as lines, contextlib.redirect_stdout(lines):
        print("one\n\ntwo")
        print("three", end="")
    assert caplog.messages == ["one", "two", "three"]
