"""Saliency criteria as they are typed: what is planned, and runs."""

import json

import pytest

from gated_bert.cli.main import main
from tests.marks import nightly

SMALL = (
    "-d embedded -t sst2 -m tiny --num-layers 1 --d-model 32 --num-heads 2 --dff 64 -b 32 -l 1e-3 -ml 24 "
    "--train-examples 96 --score-batches 2 --smooth-passes 2"
).split()


@pytest.mark.nightly
def test_strategies_are_typed_like_methods(capfd, tmp_path):
    words = ["sweep", "-p", "LayerGradCAM,GlobalMagWeight", "-f", "0.64", "-o", str(tmp_path), "--dry-run", *SMALL]
    assert main(words) == 0
    shown = capfd.readouterr().out
    assert "one_shot" in shown
    assert "layer (LayerGradCAM), global (GlobalMagWeight)" in shown
    assert f"{tmp_path}/results_LayerGradCAM_sst2" in shown
    assert main(["sweep", "-p", "layergradcm", "--check"]) == 2
    assert "did you mean LayerGradCAM?" in capfd.readouterr().err


@pytest.mark.parametrize(("name", "more"), [
    ("smooth_grad", "-ss 60"),
    ("grad_cam_shift", "--pattern tile --tile-dims kn --granularity 16"),
    nightly("gradient_magnitude", "--schedule cubic"),
    nightly("activation_magnitude", "--pattern column"),
    nightly("grad_cam", "--scope global"),
    nightly("smooth_grad_cam", "--noise activation"),
    nightly("smooth_grad_cam_shift", "--noise-std 0.01"),
    nightly("LayerSmoothGradCAMShift", ""),
])  # fmt: skip
@pytest.mark.daily_every(2)
@pytest.mark.nightly
def test_every_criterion_drives_a_run(tmp_path, capfd, name, more):
    steps = [] if "-ss" in more else ["-f", "0.6"]
    words = ["train", "-p", name, *SMALL, "-e", "1", "-ps", "1", "-pe", "1", *steps, "--run-dir", str(tmp_path)]
    assert main([*words, *more.split()]) == 0, capfd.readouterr().err
    metadata = json.loads(next(tmp_path.glob("metadata_*.json")).read_text())
    assert metadata["final"]["sparsity"] == pytest.approx(0.6, abs=0.02)
    assert metadata["config"]["score_batches"] == 2
