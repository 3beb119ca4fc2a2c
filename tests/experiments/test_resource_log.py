"""The log of resources: its columns, its events, and going on with it."""

import time

import pandas as pd

from gated_bert.experiments.runs import resource_log
from gated_bert.experiments.runs.resource_log import COLUMNS, ResourceCallback, ResourceLog


def test_readings_at_events_and_at_the_interval(tmp_path):
    with ResourceLog(tmp_path, 0.15) as log:
        callback = ResourceCallback(log, 1)
        for epoch in range(2):
            callback.on_epoch_begin(epoch)
            ends = time.time() + 0.4
            while time.time() < ends:
                sum(range(1000))
            callback.on_epoch_end(epoch)
    log.plot()
    rows = pd.read_csv(tmp_path / "resources.csv")
    assert tuple(rows.columns) == COLUMNS
    events = rows[rows["event"] != "interval"]
    assert events["event"].tolist() == ["start", "epoch begin", "epoch end", "epoch begin", "epoch end", "end"]
    assert events["epoch"].tolist() == [0, 1, 1, 2, 2, 2]
    assert (rows["event"] == "interval").sum() >= 2
    assert rows["seconds"].is_monotonic_increasing and rows["seconds"].iloc[0] < 1
    assert (rows["memory_peak_mb"] >= rows["memory_mb"]).all() and rows["memory_mb"].min() > 10
    assert rows["cpu_percent"].max() > 1
    assert (tmp_path / "resources.png").read_bytes().startswith(b"\x89PNG")


def test_a_run_that_goes_on_adds_to_its_log(tmp_path, monkeypatch):
    with ResourceLog(tmp_path, 60.0):
        pass
    with ResourceLog(tmp_path, 60.0, going_on=True) as log:
        log.read("epoch begin", 3)
    rows = pd.read_csv(tmp_path / "resources.csv")
    assert rows["event"].tolist() == ["start", "end", "start", "epoch begin", "end"]
    assert rows["seconds"].is_monotonic_increasing and rows["epoch"].tolist() == [0, 0, 0, 3, 3]
    with ResourceLog(tmp_path, 60.0):
        pass
    assert len(pd.read_csv(tmp_path / "resources.csv")) == 2


def test_gpu_memory_is_read_where_there_is_one(tmp_path, monkeypatch):
    monkeypatch.setattr(resource_log, "gpu_memory", lambda: (2_000_000, 3_000_000))
    with ResourceLog(tmp_path, 60.0) as log:
        log.read("epoch begin", 1)
        log.plot()
    rows = pd.read_csv(tmp_path / "resources.csv")
    assert rows.loc[1, ["gpu_memory_mb", "gpu_memory_peak_mb"]].tolist() == [2.0, 3.0]


def test_without_an_interval_nothing_is_written(tmp_path):
    with ResourceLog(tmp_path, 0.0) as log:
        log.plot()
    assert not list(tmp_path.iterdir())
