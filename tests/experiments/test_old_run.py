"""Run folders of an earlier version, a finished one and one killed in its second epoch, under today's code.

`tests/fixtures/old_run` was written when a run's best model was kept only at the sparsity asked for, when records had
fewer fields. `expected.csv` holds the rows that a later version, still before options were declared, came to when it
went on with the killed one.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from gated_bert.cli.main import main
from gated_bert.config import GatedBertConfig
from gated_bert.experiments.reports.results import read_run
from gated_bert.experiments.runs.run import train
from gated_bert.models.folder import load_model

OLD = Path(__file__).parents[1] / "fixtures/old_run"
TIMED = ["seconds", "examples_per_second"]


@pytest.fixture
def old(tmp_path):
    """Copies of the folders."""
    return Path(shutil.copytree(OLD, tmp_path / "old"))


def test_a_finished_run_is_read_and_stays_as_it_is(old):
    folder = old / "results_magnitude_sst2"
    run = read_run(folder)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != "status.json"}
    config = GatedBertConfig.from_dict(run.metadata["config"])
    result = train(config, folder, resume=True)
    final = run.metadata["final"]
    assert {name: result.final[name] for name in final} == pytest.approx(final)
    assert {path: path.read_bytes() for path in before} == before
    assert len(list(folder.glob("*.png"))) == 2, "its plots were lost, and are drawn again"
    layers = load_model(folder / "model").model.gated_layers(config.prunable_roles)
    gates = [np.asarray(layer.gates) for layer in layers]
    closed = sum(int((gate == 0).sum()) for gate in gates) / sum(gate.size for gate in gates)
    assert closed == pytest.approx(run.metadata["final"]["sparsity"])


@pytest.mark.nightly
def test_a_killed_run_goes_on_to_the_rows_that_it_came_to_before(old):
    folder = old / "results_movement_sst2"
    written = json.loads(next(folder.glob("metadata_*.json")).read_text())["config"]
    result = train(GatedBertConfig.from_dict(written), folder, resume=True)
    expected = pd.read_csv(old / "expected.csv").drop(columns=TIMED)
    found = pd.DataFrame(result.rows)[list(expected.columns)]
    # Not to the bit, as they are on the processor that wrote them: others round otherwise.
    pd.testing.assert_frame_equal(found, expected, check_dtype=False, rtol=1e-4)
    assert read_run(folder).finished and (folder / "model/model.keras").is_file()


@pytest.mark.nightly
def test_a_job_of_an_earlier_launcher_goes_on_by_its_command_and_not_with_another_record(old, capsys):
    folder = old / "results_movement_sst2"
    written = json.loads(next(folder.glob("metadata_*.json")).read_text())["config"]
    command = ["train", "--config-file", str(folder / "job.json"), "--run-dir", str(folder), "--resume"]
    (folder / "job.json").write_text(json.dumps(written | {"seed": 7}))
    assert main(command) == 2
    assert "--resume with seed=7, but the run was begun with 42" in capsys.readouterr().err
    (folder / "job.json").write_text(json.dumps(written))
    assert main(command) == 0
    assert read_run(folder).finished


def test_old_runs_are_compared_and_reported(old):
    assert main(["compare", str(old), "-o", str(old / "compared")]) == 0
    assert any((old / "compared").iterdir())


def test_an_old_model_is_shrunk_exported_and_asked(old, capsys):
    pytest.importorskip("onnxruntime")
    model, texts = old / "results_magnitude_sst2/model", old / "texts.txt"
    texts.write_text("a fine film\na dull film\n")
    places = (model, old / "small", old / "old.onnx")
    assert main(["shrink", str(model), str(places[1])]) == 0
    assert main(["export", str(model), str(places[2])]) == 0
    answers = []
    for place in places:
        capsys.readouterr()
        assert main(["predict", str(place), str(texts), "-o", str(old / "answers.csv")]) == 0
        answers.append(pd.read_csv(old / "answers.csv").select_dtypes("number"))
        (old / "answers.csv").unlink()
    for other in answers[1:]:
        pd.testing.assert_frame_equal(other, answers[0], rtol=1e-4)
