"""The JAX backend beside TensorFlow: the same masks and curves, folders that both read, a user of JAX alone."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from gated_bert.cli.main import main
from gated_bert.config import GatedBertConfig
from gated_bert.experiments.reports.results import read_run
from gated_bert.models.build import build_model
from gated_bert.models.checkpoints import GoogleCheckpoint
from gated_bert.models.folder import load_model, save_model
from gated_bert.support.errors import UserError
from gated_bert.tasks.data import load_task_data
from gated_bert.tasks.tokenizer import load_tokenizer
from tests.marks import nightly
from tests.without_tensorflow import INPUTS, RECORD, masks_of_all_patterns, train_from

FULL_SCALE = True

REPOSITORY = Path(__file__).resolve().parents[1]
BATTERY = ("tests/models/test_gated_dense.py", "tests/models/test_gate_rules.py", "tests/pruning/test_patterns.py",
           "tests/pruning/test_device_choice.py", "tests/experiments/test_training_loss.py")  # fmt: skip
"""Of what `KERAS_BACKEND=jax ./run_tests.sh` runs, the layers and masks chosen on a device; patterns and the loss of a
user's own are nightly."""
QUICK = ("-k", "not test_training_loss and not test_patterns", "-m", "not nightly")


def under_jax(*words: str) -> subprocess.CompletedProcess:
    environment = os.environ | {"KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, *words]
    return subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The folder of a user of JAX, with `start`, made on this process's backend."""
    pytest.importorskip("jax")
    folder = tmp_path_factory.mktemp("jax")
    config = GatedBertConfig(model_size="tiny", num_layers=1, d_model=16, num_heads=2, dff=32, **RECORD)
    keras.utils.set_random_seed(0)
    task, tokenizer = load_task_data(config).task, load_tokenizer(config)
    model = build_model(config, task, tokenizer.vocab_size)
    # Larger than initial weights usually are, so that the loss moves within a few steps.
    for layer in model.gated_layers():
        layer.raw_kernel.assign(8 * keras.ops.convert_to_numpy(layer.raw_kernel))
    save_model(folder / "start", model, tokenizer, task, {})
    done = under_jax("tests/without_tensorflow.py", str(folder))
    assert done.returncode == 0, done.stdout + done.stderr
    (folder / "stderr.txt").write_text(done.stderr, encoding="utf-8")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("chosen", [QUICK, nightly(("-k", "not it_compiles"))], ids=["quick", "whole"])
def test_the_battery_passes_under_jax(chosen):
    pytest.importorskip("jax")
    done = under_jax("-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", *BATTERY, *chosen)
    assert done.returncode == 0, done.stdout[-5000:]


@pytest.mark.nightly
def test_masks_of_the_same_kernels_are_identical(made):
    expected = masks_of_all_patterns()
    with np.load(made / "masks.npz") as found:
        assert found.files == list(expected)
        for name, mask in expected.items():
            np.testing.assert_array_equal(found[name], mask, err_msg=name)
        assert 0.4 < np.mean([np.mean(mask == 0) for mask in expected.values()]) < 0.6


@pytest.mark.nightly
def test_curves_from_the_same_start_agree(made, tmp_path):
    train_from(made / "start", tmp_path / "run")
    jax, here = read_run(made / "from_start"), read_run(tmp_path / "run")
    assert jax.metadata["versions"]["backend"] == "jax"
    for column, apart in (("train_loss", 1e-5), ("val_loss", 1e-5), ("sparsity", 0)):
        np.testing.assert_allclose(jax.rows[column], here.rows[column], rtol=apart)
    assert abs(jax.rows["val_loss"][1] - jax.rows["val_loss"][0]) > 2e-2, "or agreeing would mean little"


@pytest.mark.nightly
def test_a_folder_trained_under_jax_is_any_folder(made, tmp_path, capsys):
    pytest.importorskip("onnx")
    source = made / "run" / "model"
    np.testing.assert_allclose(
        load_model(source).model.predict_on_batch(INPUTS), np.load(made / "logits.npy"), atol=1e-5
    )
    for words in (
        ("shrink", str(source), "small"),
        ("export", str(source), "m.onnx"),
        ("quantize", "m.onnx", "q.onnx"),
    ):
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(tmp_path)
            assert main(list(words)) == 0, capsys.readouterr().err
    assert {"m.onnx", "q.onnx", "small"} <= {path.name for path in tmp_path.iterdir()}


@pytest.mark.nightly
def test_jax_alone_trains_shrinks_compares_and_says_what_needs_tensorflow(made):
    run = read_run(made / "run")
    assert run.finished and run.rows["sparsity"].iloc[-1] == 0.25, "half of the neurons, a quarter of the weights"
    assert (made / "compared" / "comparison.csv").exists() and (made / "at_once" / "oneshot.csv").exists()
    assert len((made / "predicted.csv").read_text(encoding="utf-8").splitlines()) == 3
    refused = [line for line in (made / "stderr.txt").read_text(encoding="utf-8").splitlines() if "error: " in line]
    way_out = "set KERAS_BACKEND=tensorflow (pip install 'gated_bert[tensorflow]')"
    assert refused == [
        f"error: KERAS_BACKEND=jax: the standard graph is made from TensorFlow's; {way_out}, or take the fused graph "
        "(--fused; for compress --speedups: --graph fused), which needs no TensorFlow",
        f"error: compress: KERAS_BACKEND=jax: its ONNX files are made from TensorFlow's graphs; {way_out}",
    ]


def test_a_tensorflow_checkpoint_needs_tensorflow(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    with pytest.raises(
        UserError, match=r"bert_model.ckpt: reading a TensorFlow .* pip install 'gated_bert\[tensorflow\]'"
    ):
        GoogleCheckpoint(Path("bert_model.ckpt")).read(())


def test_a_missing_backend_is_named_with_its_extra(monkeypatch, capsys):
    def without_jax(words):
        raise ModuleNotFoundError("No module named 'jax'", name="jax.numpy")

    from gated_bert.cli import main as cli

    monkeypatch.setitem(cli.COMMANDS, "shrink", cli.Command("", without_jax))
    assert main(["shrink"]) == 2
    assert capsys.readouterr().err == "error: jax.numpy is not installed; pip install 'gated_bert[jax]'\n"
