"""Data-parallel training: two devices compute what one does, a stopped run goes on exactly, and what is refused."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import pytest

from gated_bert.config import ConfigError, GatedBertConfig
from gated_bert.experiments.reports.results import read_run
from gated_bert.experiments.runs.devices import with_counted_devices
from gated_bert.experiments.sweeps import sweep
from gated_bert.models.folder import load_model, read_masks
from gated_bert.support.machine import GIB, Machine
from gated_bert.tasks.encoded import Encoded
from gated_bert.tasks.pipeline import BucketedDataset
from tests.marks import nightly

SCRIPT = Path(__file__).with_name("train_on_devices.py")
BACKENDS = ("tensorflow", "jax")
RUNS = [nightly(each) for each in itertools.product(BACKENDS, ("magnitude", "movement", "spt"))]


@pytest.fixture(scope="module", params=RUNS, ids="-".join)
def runs(request, tmp_path_factory):
    """The folder of the script's runs of a method on a backend."""
    backend, method = request.param
    pytest.importorskip(backend)
    folder = tmp_path_factory.mktemp(backend)
    environment = os.environ | {"KERAS_BACKEND": backend, "JAX_PLATFORMS": "cpu", "CUDA_VISIBLE_DEVICES": ""}
    # The runs of a backend mostly compile the same.
    environment |= {
        "JAX_COMPILATION_CACHE_DIR": str(folder / "compiled"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    environment["PYTHONPATH"] = os.pathsep.join([str(SCRIPT.parents[2]), os.environ.get("PYTHONPATH", "")])
    words = [sys.executable, str(SCRIPT), str(folder), method]
    done = subprocess.run(words, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder


def rows(folder):
    return read_run(folder).rows.drop(columns=["seconds", "examples_per_second"])


@pytest.mark.slow
def test_two_devices_compute_what_one_does(runs):
    for name in ("usual", "loss"):
        one, two = runs / f"{name}_1", runs / f"{name}_2"
        pd.testing.assert_frame_equal(rows(two), rows(one), rtol=1e-5, atol=1e-6)
        assert rows(two)["sparsity"].iloc[-1] == pytest.approx(0.6, abs=1e-3)
        assert read_run(two).metadata["config"]["devices"] == 2
        before, after = (load_model(folder / "model").model.weights for folder in (one, two))
        for first, second in zip(before, after, strict=True):
            np.testing.assert_allclose(*(keras.ops.convert_to_numpy(w) for w in (first, second)), atol=1e-5)
        closed, expected = read_masks(two / "model"), read_masks(one / "model")
        assert all(np.array_equal(closed[matrix], expected[matrix]) for matrix in expected)


@pytest.mark.slow
def test_a_loss_that_is_handed_in_is_shared_too(runs):
    far, usual = rows(runs / "loss_2"), rows(runs / "usual_2")
    assert (far["train_loss"] > usual["train_loss"] + 0.1).all()


@pytest.mark.slow
def test_a_stopped_run_on_two_devices_goes_on_exactly(runs):
    pd.testing.assert_frame_equal(rows(runs / "resumed"), rows(runs / "usual_2"), check_exact=True)


def test_every_batch_can_be_shared():
    lengths = np.full(11, 3)
    inputs = {"input_ids": np.ones(33, np.int32), "token_type_ids": np.zeros(33, np.int32)}
    encoded = Encoded(inputs, np.concatenate([[0], np.cumsum(lengths)]))
    dataset = BucketedDataset(encoded, np.arange(11), batch_size=8, max_len=8, multiple=4)
    assert [size for size, _ in dataset.shapes] == [8, 4]
    np.testing.assert_array_equal(dataset.row_order(), [*range(11), 8])
    np.testing.assert_array_equal(dataset[1][1], [8, 9, 10, 8])


def test_what_cannot_be_shared_is_refused(monkeypatch):
    with pytest.raises(ConfigError, match="batch_size: 15 is refused; allowed: a multiple of devices=2"):
        GatedBertConfig(batch_size=15, devices=2)
    for value in (0, "some", True, 1.5):
        with pytest.raises(ConfigError, match="devices: .* is refused; allowed: a whole number from 1 up, or all"):
            GatedBertConfig(devices=value)
    monkeypatch.setattr(keras.distribution, "list_devices", lambda: ["gpu:0", "gpu:1"])
    monkeypatch.setattr(keras.backend, "backend", lambda: "tensorflow")
    with pytest.raises(ConfigError, match=r"devices: 3 is refused; allowed: 1 to 2: tensorflow finds gpu:0, gpu:1"):
        with_counted_devices(GatedBertConfig(devices=3))
    with pytest.raises(ConfigError, match="jit_compile: True is refused; .* devices=2, or KERAS_BACKEND=jax"):
        with_counted_devices(GatedBertConfig(devices="all", jit_compile=True))
    assert with_counted_devices(GatedBertConfig(devices="all")).devices == 2
    with pytest.raises(ConfigError, match="batch_size: 15"):
        with_counted_devices(GatedBertConfig(devices="all", batch_size=15))


def test_a_sweep_on_more_gpus_than_there_are_is_refused_before_it_starts(tmp_path, monkeypatch, capsys):
    from gated_bert.cli.main import main

    monkeypatch.setattr(sweep, "this_machine", lambda: Machine(8, 64 * GIB, ("0", "1")))
    assert main(["sweep", "--devices", "3", "-d", "embedded", "-o", str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err == (
        "error: --devices: 3 is refused; allowed: 1 to 2 (the GPUs of this machine), or all\n"
    )
    assert not (tmp_path / "out").exists()
