"""Multi-stage pruning by command: chains of runs, their table, and what is refused."""

import json

import numpy as np
import pandas as pd
import pytest

from gated_bert.cli import main
from gated_bert.models.folder import load_model

SMALL = (
    "-d embedded -t sst2 -m tiny --num-layers 1 --d-model 32 --num-heads 2 --dff 64 -e 2 -b 32 -l 1e-3 -ml 24 "
    "--train-examples 64 --output-mode logs"
).split()


def test_every_stage_starts_from_the_last_ones_weights(tmp_path, capsys):
    words = [*SMALL, "-p", "taylor", "--stages", "30,60", "-o", str(tmp_path)]
    assert main(["sweep", *words, "--mode", "pretrain"]) == 0
    assert main(["sweep", *words, "--mode", "prune"]) == 0
    table = pd.read_csv(tmp_path / "stages.csv")
    assert table[["stage", "method"]].values.tolist() == [[30, "taylor"], [60, "taylor"]]
    np.testing.assert_allclose(table["sparsity"], [0.3, 0.6], atol=2e-3)
    # Of the products with single weights closed, those of attention scores stay.
    assert (table["mac_reduction"] < table["sparsity"]).all() and (table["layer_0_mac_reduction"] > 0.2).all()
    assert (tmp_path / "stages.png").stat().st_size > 5000
    first, second = (
        load_model(tmp_path / stage / "results_taylor_sst2" / "model").model.gated_layers(("query",))[0]
        for stage in ("stage_01_30", "stage_02_60")
    )
    assert (np.asarray(second.gates) <= np.asarray(first.gates)).all()
    record = json.loads((tmp_path / "stage_01_30" / "results_taylor_sst2" / "job.json").read_text())
    assert record["pretrained"].endswith("pretrain/results_baseline_sst2_seed42/model")
    capsys.readouterr()
    assert main(["stages", *words, "--mode", "prune", "--resume"]) == 0
    assert capsys.readouterr().out.count("skipped") == 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--stages", "50,25"], "--stages: '50,25' is refused; allowed: percentages above 0 and below 100 that rise"),
        (["--stages", "half"], "--stages: 'half' is refused"),
        (["--stages", "50", "--mode", "prune"], "--mode prune: no model in"),
        (["--stages", "50", "--device", "-1"], "--device: -1 is refused; allowed: the number of a GPU, from 0"),
        (["--stages", "50", "--mode", "test"], "--mode: 'test' is refused; allowed: pretrain, prune"),
    ],
)
def test_what_stages_refuse(tmp_path, capsys, words, message):
    assert main(["stages", *SMALL, "-p", "magnitude", "-o", str(tmp_path), *words]) == 2
    assert message in capsys.readouterr().err


def test_patterns_are_drawn(tmp_path, capsys):
    assert main(["patterns", "-o", str(tmp_path / "p.png")]) == 0
    assert (tmp_path / "p.png").stat().st_size > 50_000
    assert main(["patterns", "-f", "2"]) == 2
    assert "-f/--sparsity: 2.0 is refused; allowed: a number between 0 and 1" in capsys.readouterr().err
