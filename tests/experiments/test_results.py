"""Reading, finding and averaging run folders; the folders are synthetic (`synthetic_runs`)."""

import json
import math
import os
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from synthetic_runs import write_run

from gated_bert.experiments.reports.aggregate import (
    best_at,
    comparison,
    group_runs,
    statistics,
    summary,
    write_comparison,
)
from gated_bert.experiments.reports.compare import compare
from gated_bert.experiments.reports.results import Failure, find_runs, model_label, read_failure, read_run, read_runs
from gated_bert.support.errors import UserError
from gated_bert.support.files import write_bytes_atomic, write_csv_atomic, write_json_atomic

STEPS = (50, 90)


def newest_csv(folder):
    return max(folder.glob("results_*.csv"))


def test_csv_keeps_every_digit_and_leaves_missing_cells_empty(tmp_path):
    rows = [{"epoch": 1, "value": 0.1 + 0.2}, {"epoch": np.int64(2), "value": np.float64("nan"), "late": 3}]
    write_csv_atomic(tmp_path / "rows.csv", rows)
    assert (tmp_path / "rows.csv").read_text() == "epoch,value,late\n1,0.30000000000000004,\n2,,3\n"
    write_csv_atomic(tmp_path / "frame.csv", pd.DataFrame(rows))
    assert (tmp_path / "frame.csv").read_text() == "epoch,value,late\n1,0.30000000000000004,\n2,,3.0\n"


def test_json_has_no_nan_and_takes_numpy_and_paths(tmp_path):
    content = {"a": math.nan, "b": np.float32(0.5), 3: tmp_path, "d": (1, True)}
    path = write_json_atomic(tmp_path / "new" / "a.json", content)
    assert json.loads(path.read_text()) == {"a": None, "b": 0.5, "3": str(tmp_path), "d": [1, True]}


def test_a_write_that_is_killed_leaves_the_old_file(tmp_path):
    path = write_bytes_atomic(tmp_path / "a.csv", b"old")
    script = (
        "import os, sys\nfrom gated_bert.support import files\n"
        "os.replace = lambda *names: os.kill(os.getpid(), 9)\n"
        "files.write_bytes_atomic(sys.argv[1], b'new')"
    )
    assert subprocess.run([sys.executable, "-c", script, str(path)]).returncode == -9
    assert path.read_bytes() == b"old"


def test_an_unwritable_folder_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="file/a.csv: cannot be written"):
        write_csv_atomic(tmp_path / "file" / "a.csv", [{"a": 1}])
    assert os.listdir(tmp_path) == ["file"]


def test_finds_runs_at_any_depth_once_and_leaves_out_saved_ones(tmp_path):
    first, second = write_run(tmp_path / "a" / "b"), write_run(tmp_path / "c", "magnitude")
    write_run(tmp_path / "saved_results")
    write_run(tmp_path / ".hidden")
    assert find_runs(tmp_path, second, tmp_path / "a") == [first, second]
    assert find_runs(first) == [first]
    with pytest.raises(UserError, match="no such folder"):
        find_runs(tmp_path / "nothing")


def test_the_newest_csv_is_read_with_its_own_metadata(tmp_path):
    folder = write_run(tmp_path, epochs=5)
    newer = write_run(tmp_path / "other", epochs=7, timestamp="20250103_000000")
    for path in newer.glob("*_20250103_000000.*"):
        path.rename(folder / path.name)
    os.utime(newest_csv(folder), (0, 0))
    run = read_run(folder)
    assert (len(run.rows), run.timestamp, run.config["epochs"]) == (7, "20250103_000000", 7)
    assert (run.method, run.task, run.metric, run.seed) == ("spt", "sst2", "accuracy", 1)
    assert run.data_label == "embedded data"


def test_partial_data_is_always_named(tmp_path):
    assert "partial" in read_run(write_run(tmp_path, label="QNLI (partial training data)")).data_label


@pytest.mark.parametrize(
    "old, new, message",
    [
        ("epoch,", "epoch_number,", "no column epoch"),
        ("val_accuracy", "val", "no column val_<metric>"),
        ("\n2,0.0", "\n2,zero", "row 3, column target_sparsity: 'zero' is no number"),
        ("\n2,0.0,0.0", "\n2,0.0,50", "column sparsity: a value is empty or not a fraction"),
        ("\n2,", "\n1,", "an epoch is empty or written twice"),
        ("\n1,", '\n"1,', "cannot be read as CSV"),
    ],
)
def test_a_broken_csv_is_named_and_the_others_are_read(tmp_path, old, new, message):
    write_run(tmp_path, "magnitude", epochs=3)
    path = newest_csv(write_run(tmp_path, epochs=3))
    path.write_text(path.read_text().replace(old, new, 1))
    runs, problems = read_runs(find_runs(tmp_path))
    assert [run.method for run in runs] == ["magnitude"]
    assert len(problems) == 1 and str(path) in problems[0] and message in problems[0] and "\n" not in problems[0]


def test_missing_files_are_named(tmp_path):
    for number, name in enumerate(("metadata_*.json", "results_*.csv")):
        next(write_run(tmp_path / str(number), epochs=2).glob(name)).unlink()
    (tmp_path / "2" / "results_spt_sst2").mkdir(parents=True)
    (tmp_path / "2" / "results_spt_sst2" / "log.txt").write_text("killed")
    runs, problems = read_runs(find_runs(tmp_path))
    assert not runs and len(problems) == 3
    assert "metadata_spt" in problems[0] and "no results_*.csv" in problems[1] and "no results_*.csv" in problems[2]


def test_statistics_agree_with_scipy():
    values = [0.8, 0.83, 0.79, 0.85]
    found = statistics(values)
    low, high = stats.t.interval(0.95, 3, np.mean(values), stats.sem(values))
    assert found["n"] == 4
    assert [found[name] for name in ("mean", "std", "low", "high")] == pytest.approx(
        [np.mean(values), np.std(values, ddof=1), low, high]
    )
    one = statistics([0.5, math.nan])
    assert (one["n"], one["mean"]) == (1, 0.5) and math.isnan(one["low"]) and math.isnan(one["std"])
    assert statistics([])["n"] == 0


def test_comparison_averages_seeds_epoch_by_epoch(tmp_path):
    for seed, epochs in ((1, 5), (2, 5), (3, 4)):
        write_run(tmp_path, seed=seed, epochs=5, steps=STEPS)
        if epochs == 4:
            path = newest_csv(tmp_path / "results_spt_sst2_seed3")
            path.write_text("\n".join(path.read_text().splitlines()[:-1]) + "\n")
    runs = read_runs(find_runs(tmp_path))[0]
    table = comparison(runs).set_index("epoch")
    assert list(table["n"]) == [3, 3, 3, 3, 2] and table["seeds"][5] == "1 2"
    expected = [run.rows["val_accuracy"][3] for run in runs]
    assert table["val_accuracy_mean"][4] == pytest.approx(np.mean(expected))
    assert table["val_accuracy_std"][4] == pytest.approx(np.std(expected, ddof=1))
    assert table["sparsity_mean"][4] == 0.5 and table["val_accuracy_n"][4] == 3


def test_summary_against_the_dense_baseline(tmp_path):
    for method in ("baseline", "magnitude"):
        write_run(tmp_path, method, epochs=6, steps=STEPS)
    runs = read_runs(find_runs(tmp_path))[0]
    table = summary(runs).set_index("method")
    dense, pruned = (run.rows["val_accuracy"] for run in runs)
    assert table["dense_best_mean"]["magnitude"] == dense.max()
    assert table["final_mean"]["magnitude"] == pruned.iloc[-1] and table["final_sparsity_mean"]["magnitude"] == 0.9
    assert table["best_at_80_mean"]["magnitude"] == pruned[4:].max() and table["best_at_80_n"]["baseline"] == 0
    assert math.isnan(table["best_at_95_mean"]["magnitude"]) and math.isnan(table["final_low"]["magnitude"])
    assert table["seconds_mean"]["magnitude"] == pytest.approx(6 * 24.5)


def test_a_sparsity_counts_as_reached_within_whole_units(tmp_path):
    path = newest_csv(write_run(tmp_path, epochs=4, steps=(50,)))
    path.write_text(path.read_text().replace("4,0.5,0.5,", "4,0.5,0.49998,"))
    run = read_run(path.parent)
    assert best_at(run, 0.5) == run.rows["val_accuracy"][3]


def test_runs_that_differ_in_more_than_the_seed_are_kept_apart(tmp_path):
    write_run(tmp_path / "a", seed=1, epochs=4)
    write_run(tmp_path / "b", seed=2, epochs=4, learning_rate=1e-4)
    write_run(tmp_path / "c", seed=3, epochs=4, num_layers=1)
    groups, notes = group_runs(read_runs(find_runs(tmp_path))[0])
    assert sorted((group.model, group.settings, len(group.runs)) for group in groups) == [
        ("tiny", "learning_rate=0.0001", 1), ("tiny", "learning_rate=2e-05", 1), ("tiny, 1 layer", "", 1)]  # fmt: skip
    assert len(notes) == 1 and "differ in learning_rate" in notes[0]


def test_a_run_of_a_version_without_a_field_is_one_that_leaves_it_none(tmp_path):
    write_run(tmp_path / "a", seed=1, epochs=4)
    write_run(tmp_path / "b", seed=2, epochs=4, criterion_options=None, plugins=[])
    groups, notes = group_runs(read_runs(find_runs(tmp_path))[0])
    assert [(group.settings, len(group.runs)) for group in groups] == [("", 2)] and not notes


def test_the_same_run_twice_is_not_two_seeds(tmp_path):
    write_run(tmp_path / "old", timestamp="20250101_000000", epochs=4)
    write_run(tmp_path / "new", epochs=4)
    groups, notes = group_runs(read_runs(find_runs(tmp_path))[0])
    assert [run.folder.parent.name for run in groups[0].runs] == ["new"]
    assert len(notes) == 1 and "old" in notes[0] and "same configuration and seed" in notes[0]


def test_unfinished_runs_are_said_and_kept_out_of_final_results(tmp_path):
    write_run(tmp_path, seed=1, epochs=5, steps=STEPS)
    path = newest_csv(write_run(tmp_path, seed=2, epochs=5, steps=STEPS, status="running"))
    path.write_text("\n".join(path.read_text().splitlines()[:3]) + "\n")
    runs = read_runs(find_runs(tmp_path))[0]
    row = summary(runs).iloc[0]
    assert (row["n"], row["status"], row["unfinished"], row["final_sparsity_mean"]) == (1, "finished", 1, 0.9)
    assert summary(runs[1:])["status"][0] == "unfinished"
    assert any("running after epoch 2 of 5" in note for note in group_runs(runs)[1])
    assert list(comparison(runs)["n"]) == [2, 2, 1, 1, 1]


def test_model_names():
    tiny = {"model_size": "tiny", "num_layers": 2, "d_model": 256, "num_heads": 4, "dff": 512}
    assert model_label(tiny) == "tiny"
    assert model_label(tiny | {"d_model": 128}) == "tiny, hidden size 128"
    assert model_label({"pretrained": "some/MiniLM", "num_layers": 3}) == "MiniLM, 3 layers"


def test_a_failed_job_leaves_its_message_and_the_end_of_its_log(tmp_path):
    (tmp_path / "status.json").write_text('{"state": "failed", "job": "spt_sst2", "message": "out of memory"}')
    (tmp_path / "log.txt").write_text("".join(f"line {number}\n" for number in range(100)))
    failure = read_failure(tmp_path, lines=2)
    assert (failure.job, failure.message, failure.log_tail) == ("spt_sst2", "out of memory", "line 98\nline 99")
    (tmp_path / "status.json").write_text('{"state": "finished"}')
    assert read_failure(tmp_path) is None


def test_compare_writes_everything_and_says_what_it_left_out(tmp_path):
    for method in ("baseline", "spt"):
        write_run(tmp_path / "runs", method, epochs=5, steps=STEPS)
    next(write_run(tmp_path / "runs", "random", epochs=5).glob("metadata*")).unlink()
    said = []
    files = compare([tmp_path / "runs"], tmp_path / "out", said.append)
    assert [path.name for path in files] == ["comparison.csv", "comparison_summary.csv",
                                            "pruning_methods_comparison_dual_axis.png", "report.html"]  # fmt: skip
    assert sorted(os.listdir(tmp_path / "out")) == sorted(path.name for path in files)
    assert any("results_random_sst2_seed1" in line and line.startswith("left out") for line in said)
    again = pd.read_csv(tmp_path / "out" / "comparison_summary.csv")
    assert list(again["method"]) == ["baseline", "spt"] and list(again["n"]) == [1, 1]


def test_compare_refuses_in_one_sentence(tmp_path):
    with pytest.raises(UserError, match="no runs here"):
        compare([tmp_path], tmp_path / "out")
    next(write_run(tmp_path, epochs=2).glob("metadata*")).unlink()
    with pytest.raises(UserError, match="none of 1 run folder"):
        compare([tmp_path], tmp_path / "out")


def test_tables_of_several_tasks_keep_whole_counts(tmp_path):
    for task in ("sst2", "stsb"):
        write_run(tmp_path, task=task, epochs=2)
    path = write_comparison(tmp_path / "out", read_runs(find_runs(tmp_path))[0])[0]
    table = pd.read_csv(path, dtype=str)
    assert set(table["val_pearson_n"].dropna()) == {"1"} and set(table["metric"]) == {"accuracy", "pearson"}


def test_reading_needs_no_framework():
    script = (
        "import sys\nfrom gated_bert.experiments.reports import aggregate, compare, plots, report, results\n"
        "sys.exit(bool({'pandas', 'matplotlib', 'keras', 'tensorflow', 'scipy', 'numpy'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", script]).returncode == 0


def test_numbers_come_back_as_they_were_written(tmp_path):
    path = newest_csv(write_run(tmp_path, epochs=3))
    values = [0.1 + 0.2, 1 / 3, 2.5e-07]
    write_csv_atomic(path, pd.read_csv(path).assign(val_accuracy=values))
    rows = read_run(path.parent).rows
    assert list(rows["val_accuracy"]) == values and rows["epoch"].dtype == int


def test_a_sweep_of_failures_still_gets_its_report(tmp_path):
    said = []
    files = compare([tmp_path], tmp_path / "out", said.append, [Failure("spt_sst2", "killed")])
    assert [path.name for path in files] == ["report.html"] and said[0] == "failed: spt_sst2: killed"
