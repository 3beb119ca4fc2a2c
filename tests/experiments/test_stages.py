"""Multi-stage pruning by command: chains of runs, their table, and what is refused."""

import json
import re

import numpy as np
import pandas as pd
import pytest

from gated_bert.cli.main import main
from gated_bert.models.folder import load_model
from tests.pictures import is_drawn

SMALL = (
    "-d embedded -t sst2 -m tiny --num-layers 1 --d-model 32 --num-heads 2 --dff 64 -e 2 -b 32 -l 1e-3 -ml 24 "
    "--train-examples 64 --output-mode logs"
).split()


@pytest.mark.nightly
def test_every_stage_starts_from_the_last_ones_weights(tmp_path, capsys, jobs_here):
    words = [*SMALL, "-p", "taylor", "--stages", "30,60", "-o", str(tmp_path)]
    assert main(["sweep", *words, "--mode", "pretrain"]) == 0
    assert main(["sweep", *words, "--mode", "prune"]) == 0
    table = pd.read_csv(tmp_path / "stages.csv")
    assert table[["stage", "method"]].values.tolist() == [[30, "taylor"], [60, "taylor"]]
    np.testing.assert_allclose(table["sparsity"], [0.3, 0.6], atol=2e-3)
    # Of the products with single weights closed, those of attention scores stay.
    assert (table["mac_reduction"] < table["sparsity"]).all() and (table["layer_0_mac_reduction"] > 0.2).all()
    assert is_drawn(tmp_path / "stages.png")
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
        (["--stages", "50", "--device", "-1"], "--device: -1 is refused; allowed: a whole number from 0 up"),
        (["--stages", "50", "--mode", "test"], "--mode: 'test' is refused; allowed: pretrain, prune"),
    ],
)
def test_what_stages_refuse(tmp_path, capsys, words, message):
    assert main(["stages", *SMALL, "-p", "magnitude", "-o", str(tmp_path), *words]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "label"),
    [
        (["-f", "0.9"], "-f/--end-sparsity"),
        (["-s", "0.1"], "-s/--start-sparsity"),
        (["--schedule", "linear"], "--schedule"),
        (["-ss", "10,50"], "-ss/--sparsity-steps"),
        (["-ps", "2"], "-ps/--pruning-start"),
        (["-pe", "2"], "-pe/--pruning-end"),
        (["--movement-schedule", "cubic"], "--movement-schedule"),
    ],
)
@pytest.mark.parametrize("command", [["stages"], ["sweep", "--stages", "50"]], ids=" ".join)
def test_flags_that_stages_decide_are_refused(tmp_path, capsys, command, words, label):
    assert main([*command, *SMALL, "-p", "movement", "-o", str(tmp_path), *words]) == 2
    assert f"error: {label}: not with stages, each of which prunes once" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("words, told", [
    (["--teacher", "self"], "error: --teacher: 'self' is refused; allowed: a folder"),
    (["--recipe", "obert"], "error: --teacher: 'self' is refused; allowed: a folder"),
    (["-e", "0"], "error: -e/--epochs: 0 is refused; allowed: 1 up with stages"),
])  # fmt: skip
def test_what_no_stage_can_do_is_refused_by_its_own_flag(tmp_path, capsys, words, told):
    assert main(["stages", *SMALL, "-p", "magnitude", "-o", str(tmp_path), *words]) == 2
    assert told in capsys.readouterr().err and not list(tmp_path.iterdir())


def test_a_dry_run_shows_the_jobs_and_records_that_run(tmp_path, monkeypatch, capsys):
    """The folders, the sparsities, and where each stage starts from, are those of the jobs that are started."""
    words = ["stages", *SMALL, "-p", "magnitude,random", "--stages", "30,60", "--seeds", "1,2", "-o", str(tmp_path)]
    assert main([*words, "--dry-run"]) == 0
    shown = capsys.readouterr().out
    assert not list(tmp_path.iterdir())
    started = []
    monkeypatch.setattr("gated_bert.experiments.sweeps.sweep.sweep", lambda plan: started.append(plan) or 0)
    monkeypatch.setattr("gated_bert.experiments.studies.stages.write_table", lambda *_: None)
    assert main(words) == 0
    jobs = [job for plan in started for job in plan.jobs]
    assert re.findall(r"--run-dir (\S+)", shown) == [str(job.folder) for job in jobs] and len(jobs) == 8
    assert re.findall(r"Stage \d of 2: (\d+) %", shown) == ["30", "60"]
    assert re.findall(r"end sparsity +(.*)", shown) == ["30 %", "60 %"]
    assert re.findall(r"schedule +(.*)", shown) == ["30 %", "60 %"]
    first, second = (plan.jobs[0] for plan in started)
    assert first.config.pretrained is None and second.config.pretrained == str(first.folder / "model")


def test_what_a_stage_would_refuse_is_refused_before_the_first(tmp_path, capsys):
    """Taylor adds up gradients in an epoch of its own."""
    words = [*SMALL, "-e", "1", "-p", "taylor", "--stages", "30,60", "-o", str(tmp_path)]
    assert main(["stages", *words, "--check"]) == 2
    assert "-ps/--pruning-start" in capsys.readouterr().err


def test_patterns_are_drawn(tmp_path, capsys):
    assert main(["patterns", "-o", str(tmp_path / "p.png")]) == 0
    assert is_drawn(tmp_path / "p.png")
    assert main(["patterns", "-f", "2"]) == 2
    assert "-f/--sparsity: 2.0 is refused; allowed: a number between 0 and 1" in capsys.readouterr().err
