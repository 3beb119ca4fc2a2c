"""The table of the accuracy study: levels, ways of pruning, shares of the dense model of the same seed."""

from __future__ import annotations

import shutil

import numpy as np
import pandas as pd
import pytest

from gated_bert.experiments.reports.results import read_run
from gated_bert.experiments.studies.accuracy_table import PLOT, SUMMARY, TABLE, accuracy_figure, write_accuracy
from gated_bert.experiments.studies.speed_table import TABLE as SPEED
from gated_bert.experiments.studies.study import publish
from tests.experiments.synthetic_runs import write_run
from tests.pictures import is_drawn

STEPS = (50, 50, 80, 80, 90, 90, 95, 95, 97)
DENSE = {"epochs": 2, "enable_pruning": False}


def pruned(folder, method, seed, **config):
    return write_run(folder, method, seed=seed, steps=STEPS, epochs=12, criterion=method, enable_pruning=True, **config)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    for seed in (1, 2, 3):
        write_run(folder / "sst2-dense", "baseline", seed=seed, **DENSE)
        pruned(folder / f"sst2-alone-{seed}", "magnitude", seed)
        pruned(folder / f"sst2-taught-{seed}", "magnitude", seed, teacher="/somewhere")
    pruned(folder / "sst2-alone-1", "movement", 1)
    pruned(folder / "no-dense", "movement", 4)
    write_run(folder / "no-dense", "baseline", seed=4, status="interrupted", **DENSE)
    pruned(folder / "begun", "spt", 1, status="interrupted")
    write_accuracy(folder)
    return folder


def test_each_level_has_the_last_row_at_its_sparsity_as_a_share_of_its_own_dense_model(study):
    table = pd.read_csv(study / TABLE)
    assert set(table["level"]) == {0, 0.5, 0.8, 0.9, 0.95, 0.97}
    ((_, row),) = table[(table["way"] == "trained") & (table["seed"] == 2) & (table["level"] == 0.8)].iterrows()
    run = read_run(study / "sst2-alone-2" / "results_magnitude_sst2_seed2").rows
    dense = read_run(study / "sst2-dense" / "results_baseline_sst2_seed2").rows["val_accuracy"].iloc[-1]
    expected = run.loc[run["sparsity"] == 0.8, "val_accuracy"].tolist()
    assert len(expected) == 2 and row["value"] == expected[1]
    assert row["share_of_dense"] == expected[1] / dense


def test_what_cannot_be_compared_is_left_out(study, tmp_path, capsys):
    table = pd.read_csv(study / TABLE)
    assert set(table["seed"]) == {1, 2, 3} and "spt" not in set(table["method"])
    write_accuracy(shutil.copytree(study, tmp_path / "study"))
    (said,) = capsys.readouterr().out.splitlines()
    assert "results_movement_sst2_seed4: no finished dense run of sst2, seed 4" in said


def test_the_summary_is_over_seeds(study):
    table, summary = pd.read_csv(study / TABLE), pd.read_csv(study / SUMMARY)
    rows = summary[(summary["way"] == "with a teacher") & (summary["level"] == 0.97)]
    values = table[(table["way"] == "with a teacher") & (table["level"] == 0.97)]["share_of_dense"]
    assert rows["seeds"].tolist() == [3]
    half = 4.302652729911275 * values.std(ddof=1) / np.sqrt(3)
    np.testing.assert_allclose(rows[["share_low", "share_high"]].iloc[0], [values.mean() - half, values.mean() + half])
    assert summary[summary["method"] == "movement"]["seeds"].unique().tolist() == [1]
    assert is_drawn(study / PLOT)


def test_runs_of_one_method_that_were_pruned_otherwise_are_told_apart():
    kinds = [("magnitude", "magnitude-steps"), ("magnitude", "magnitude-cubic"), ("wanda", "wanda-steps")]
    rows = [
        {"task": "sst2", "metric": "accuracy", "way": way, "method": method, "label": label, "level": level, "seeds": 1,
         "share_of_dense": level, "share_low": np.nan, "share_high": np.nan}
        for way in ("trained", "with a teacher") for method, label in kinds for level in (0.5, 0.9)
    ]  # fmt: skip
    for axes in accuracy_figure(pd.DataFrame(rows)).axes:
        shown = {line.get_label(): (line.get_color(), line.get_linestyle()) for line in axes.get_legend().get_lines()}
        assert list(shown) == ["magnitude-steps", "magnitude-cubic", "wanda"]
        assert shown["magnitude-steps"][0] == shown["magnitude-cubic"][0] != shown["wanda"][0]
        assert shown["magnitude-steps"][1] != shown["magnitude-cubic"][1]


def test_a_task_that_was_pruned_in_fewer_ways_has_fewer_panels(study):
    summary = pd.read_csv(study / SUMMARY)
    other = summary[summary["way"] == "with a teacher"].assign(task="stsb", metric="pearson")
    panels = accuracy_figure(pd.concat([summary, other])).axes
    shown = [axes.get_title() for axes in panels if axes.axison]
    assert shown == ["sst2, trained", "sst2, with a teacher", "stsb, with a teacher"]
    assert panels[2].get_ylabel().startswith("Pearson correlation, %") and panels[2].axison


@pytest.mark.parametrize(("of_part", "of_study"), [("oneshot.csv", TABLE), ("family.csv", SPEED)])
def test_tables_of_parts_are_published_only_where_no_table_of_the_study_has_their_rows(tmp_path, of_part, of_study):
    part = tmp_path / "study" / "sst2-part-1"
    part.mkdir(parents=True)
    for name in (of_part, "stages.csv"):
        (part / name).write_text("task\nsst2\n")
    publish(tmp_path / "study", tmp_path / "without")
    (tmp_path / "study" / of_study).write_text("task\nsst2\n")
    publish(tmp_path / "study", tmp_path / "with")
    names = {folder: {file.name for file in (tmp_path / folder).rglob("*.csv")} for folder in ("without", "with")}
    assert names == {"without": {of_part, "stages.csv"}, "with": {"stages.csv", of_study}}


def test_no_runs_no_table(tmp_path):
    write_accuracy(tmp_path)
    assert not list(tmp_path.iterdir())
