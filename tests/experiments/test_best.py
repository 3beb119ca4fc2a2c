"""Both meanings of sparsity, and which epoch is the best."""

import itertools
import json
import math

import numpy as np
import pandas as pd
import pytest
from synthetic_runs import write_run

from gated_bert.cli.main import main
from gated_bert.config import GatedBertConfig
from gated_bert.experiments.reports import plots
from gated_bert.experiments.reports.best import best_row
from gated_bert.experiments.reports.compare import compare
from gated_bert.experiments.reports.results import read_run
from gated_bert.experiments.runs import run as run_module
from gated_bert.experiments.runs.finished import headline
from gated_bert.experiments.runs.output_folder import set_tables_aside
from gated_bert.experiments.runs.run import train
from gated_bert.experiments.runs.run_state import newest_metadata, read_status
from gated_bert.models.folder import load_model
from gated_bert.support.records import read_record

NAN = math.nan
ATTENTION, FFN = 4 * 32 * 32, 2 * 32 * 64


def rows_of(*pairs):
    return [{"epoch": epoch, "sparsity": closed, "val": value} for epoch, (closed, value) in enumerate(pairs, 1)]


@pytest.mark.parametrize(
    ("pairs", "best"),
    [
        ([(0.0, 0.9), (0.5, 0.8), (0.5, 0.85), (0.5, 0.8)], 3),
        # Of equals the first.
        ([(0.5, 0.8), (0.5, 0.8)], 1),
        # 0.3 of all weights is all that -f 0.9 closes where the pattern has a third of them.
        ([(0.1, 0.9), (0.3, 0.7), (0.2999, 0.75)], 3),
        # Rising by less than counts, and by more altogether.
        ([(0.5000, 0.9), (0.5008, 0.8), (0.5015, 0.7)], 3),
        # Weights that open again.
        ([(0.9, 0.5), (0.4, 0.9)], 1),
        ([(0.9, NAN), (0.9, 0.6), (0.9, NAN)], 2),
        ([(0.5, 0.6), (0.9, NAN)], 1),
        ([(0.5, NAN), (0.9, NAN), (0.9, NAN)], 2),
        ([(0.5, NAN), (0.4, 0.1), (0.9, math.inf)], 2),
    ],
)  # fmt: skip
def test_the_best_epoch(pairs, best):
    assert best_row(rows_of(*pairs), "val")["epoch"] == best


def aiming(*rows):
    names = ("epoch", "target_sparsity", "pattern_sparsity", "val", "sparsity")
    return [dict(zip(names, (epoch, *row, row[1] / 2), strict=True)) for epoch, row in enumerate(rows, 1)]


@pytest.mark.parametrize(
    ("rows", "best"),
    [
        # Beyond what was asked is no better than there.
        ([(0.6, 0.52, 0.9), (0.6, 0.98, 0.5), (0.6, 0.66, 0.7)], 3),
        # As little below it as the published code lets pass.
        ([(0.3, 0.6, 0.9), (0.6, 0.605, 0.6), (0.6, 0.591, 0.8)], 3),
        # Too far below.
        ([(0.6, 0.605, 0.6), (0.6, 0.58, 0.8)], 1),
        ([(0.6, 0.1, 0.9), (0.6, 0.2, 0.4)], 2),
    ],
)
def test_the_best_epoch_of_a_run_that_swings_about_its_target(rows, best):
    rows = aiming(*rows)
    assert best_row(rows, "val", aims=True)["epoch"] == best
    kept = [best_row(rows[:count], "val", aims=True) for count in range(1, len(rows) + 1)]
    assert all(now is before or now is last for before, now, last in zip(kept, kept[1:], rows[1:], strict=False))


def test_what_a_run_reached_says_where_that_is_not_what_was_asked():
    rows = aiming((0.6, 0.939, 0.55), (0.6, 0.591, 0.55), (NAN, 0.3, 0.55))
    said = [headline(row, "val") for row in rows]
    assert said[0] == "val 0.5500 at sparsity 0.4695; 0.9390 of the pattern's weights closed, 0.6000 asked"
    assert said[1:] == ["val 0.5500 at sparsity 0.2955", "val 0.5500 at sparsity 0.1500"]


def test_a_run_that_keeps_its_best_model_has_the_right_one_at_its_end():
    """Of rows with numbers as they come: the best of all is the last one or the best of those before."""
    rng = np.random.default_rng(5)
    for _ in range(2000):
        length = rng.integers(1, 8)
        closed = np.round(np.cumsum(rng.choice([0, 4e-4, 0.1, -0.05], length)), 4)
        rows = rows_of(*zip(closed.tolist(), rng.choice([0.1, 0.2, 0.3, NAN], length).tolist(), strict=True))
        kept = [best_row(rows[:count], "val") for count in range(1, length + 1)]
        for before, now, last in zip(kept, kept[1:], rows[1:], strict=False):
            assert now is before or now is last
        known = [row for row in rows if math.isfinite(row["val"])]
        if known:
            deepest = max(row["sparsity"] for row in known)
            rivals = [row["val"] for row in known if row["sparsity"] == deepest]
            assert kept[-1]["sparsity"] >= deepest - 1e-3 and kept[-1]["val"] >= max(rivals)


def config_of(**options):
    sizes = {"model_size": "tiny", "num_layers": 1, "d_model": 32, "num_heads": 4, "dff": 64, "max_len": 24}
    plan = {"epochs": 3, "pruning_start_epoch": 2, "pruning_end_epoch": 3, "batch_size": 32, "train_examples": 64}
    return GatedBertConfig(data="embedded", learning_rate=1e-3, **{"pruning_method": "magnitude", **sizes, **plan,
                                                                   **options})  # fmt: skip


CASES = {
    # Asked, reached of the pattern's matrices, and the part of the prunable weights that these are.
    "head": ({"pattern": "head", "end_sparsity": 0.5}, 0.5, 0.5, ATTENTION / (ATTENTION + FFN)),
    "neuron": ({"pattern": "neuron", "end_sparsity": 0.5}, 0.5, 0.5, FFN / (ATTENTION + FFN)),
    "qkv_row": ({"pattern": "qkv_row", "end_sparsity": 0.75}, 0.75, 0.75, 0.75 * ATTENTION / (ATTENTION + FFN)),
    "head_dim": ({"pattern": "head_dim", "end_sparsity": 0.25}, 0.25, 0.25, ATTENTION / (ATTENTION + FFN)),
    # The unit's size and the floor.
    "vector": ({"pattern": "vector", "end_sparsity": 0.9}, 0.9, 14 / 16, 1.0),
    "element": ({"pattern": "element", "end_sparsity": 0.999, "min_kept": 0.05}, 0.999, 0.95, 1.0),
    # Two steps, each by the fraction.
    "per_dim": ({"pattern": "tile", "tile_dims": "kn", "granularity": 8, "sparsity_per_dim": True,
                 "end_sparsity": 0.5}, 0.75, 0.75, 1.0),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
@pytest.mark.daily_every(9)
def test_both_sparsities_and_the_best_model_of_every_pattern(tmp_path, case, no_steps):
    options, asked, reached, part = CASES[case]
    result = train(config_of(**options), tmp_path)
    run = read_run(tmp_path)
    last = run.rows.iloc[-1]
    assert last["target_sparsity"] == pytest.approx(asked)
    assert last["pattern_sparsity"] == pytest.approx(reached, abs=0.01)
    assert last["sparsity"] == pytest.approx(last["pattern_sparsity"] * part)
    for row in (result.best, result.final, newest_metadata(tmp_path)["final"], read_status(tmp_path)):
        assert row["pattern_sparsity"] == pytest.approx(last["pattern_sparsity"])
    assert read_record(tmp_path / "model_best" / "metadata.json", nan=True)["row"]["epoch"] == result.best["epoch"]
    assert result.best["sparsity"] == run.rows["sparsity"].max()
    layers = load_model(tmp_path / "model_best").model.gated_layers(config_of().prunable_roles)
    closed = [np.asarray(layer.gates) == 0 for layer in layers]
    assert sum(map(np.sum, closed)) / sum(map(np.size, closed)) == pytest.approx(result.best["sparsity"])


@pytest.mark.parametrize("values", list(itertools.permutations((NAN, 0.4, 0.6))) + [(NAN, NAN, NAN), (0.5, 0.5, NAN)])
@pytest.mark.daily_every(3)
def test_one_evaluation_that_is_no_number_is_not_the_best(tmp_path, monkeypatch, values, no_steps):
    found = iter(values)
    monkeypatch.setattr(run_module, "evaluate_model", lambda *_: ({"loss": 1.0, "accuracy": next(found)}, None))
    result = train(config_of(pruning_method="baseline"), tmp_path)
    finite = [value for value in values if math.isfinite(value)]
    assert "NaN" not in (tmp_path / "status.json").read_text()
    assert not finite or result.best["val_accuracy"] == max(finite)
    assert read_record(tmp_path / "model_best" / "metadata.json", nan=True)["row"]["epoch"] == result.best["epoch"]


def test_compressions_count_the_matrices_of_the_pattern(tmp_path, capsys):
    """All parameters ÷ those left is what was asked for, though heads have half of the prunable weights."""
    words = ("oneshot -d embedded -m tiny --num-layers 1 --d-model 32 --num-heads 4 --dff 64 --vocab-size 600 -ml 24 "
             "-e 1 --strategy LayerMagWeight --pattern head --compression 1.05").split()  # fmt: skip
    assert main([*words, "-o", str(tmp_path), "--dry-run"]) == 0
    from gated_bert.experiments.studies.oneshot import Point, model_sizes

    config = config_of(pattern="head", vocab_size=600, prunable_roles=("query", "key", "value", "attention_output",
                       "ffn_intermediate", "ffn_output", "pooler"))  # fmt: skip
    parameters, prunable, own = model_sizes(config)
    assert (prunable, own) == (ATTENTION + FFN + 32 * 32, ATTENTION)
    asked = Point(compression=1.05).sparsity_in(parameters, prunable, own)
    assert parameters / (parameters - asked * ATTENTION) == pytest.approx(1.05)
    # Where the end sparsity is that of each of two steps, both together remove as much.
    each = Point(compression=1.05).sparsity_in(parameters, prunable, own, per_dimension=True)
    assert 1 - (1 - each) ** 2 == pytest.approx(asked)
    assert f"{100 * asked:.4g} %" in capsys.readouterr().out
    assert json.loads(config.to_json())["pattern"] == "head"


def test_runs_of_before_are_compared_with_those_that_report_both_sparsities(tmp_path):
    """Tables, page and plots of an old folder beside a new one, whose pattern has half of the prunable weights."""
    old = write_run(tmp_path / "runs", "magnitude", epochs=6, steps=(50, 90))
    new = write_run(tmp_path / "runs", "movement", epochs=6, steps=(50, 90), pattern="head")
    path = next(new.glob("results_*.csv"))
    rows = pd.read_csv(path)
    rows["pattern_sparsity"] = rows["target_sparsity"]
    rows["sparsity"] = rows["target_sparsity"] / 2
    rows.to_csv(path, index=False)
    compare([tmp_path / "runs"], tmp_path / "out", say=lambda line: None)
    epochs = pd.read_csv(tmp_path / "out" / "comparison.csv").groupby("method").tail(1).set_index("method")
    columns = ["sparsity_mean", "pattern_sparsity_mean", "target_sparsity"]
    assert epochs.loc["movement", columns].tolist() == [0.45, 0.9, 0.9]
    assert epochs.loc["magnitude", columns].tolist() == pytest.approx([0.9, NAN, 0.9], nan_ok=True)
    summary = pd.read_csv(tmp_path / "out" / "comparison_summary.csv").set_index("method")
    assert summary["final_sparsity_mean"].to_dict() == {"magnitude": 0.9, "movement": 0.45}
    assert summary.loc["movement", "final_pattern_sparsity_mean"] == 0.9
    page = (tmp_path / "out" / "report.html").read_text()
    assert "<td>45.00 %</td><td>90.00 %</td>" in page and "<td>90.00 %</td><td>–</td>" in page

    def legend(folder):
        figure = next(iter(plots.run_figures(read_run(folder)).values()))
        return [text.get_text() for text in figure.legends[0].get_texts()], figure.axes[1].get_xlabel()

    assert "that of the pattern's matrices (right axis)" in legend(new)[0]
    assert "that of the pattern's matrices (right axis)" not in legend(old)[0]
    assert legend(new)[1] == legend(old)[1] == "sparsity of all prunable weights (%)"


def test_tables_that_are_made_anew_are_set_aside(tmp_path, capsys):
    (tmp_path / "lottery.csv").write_text("of hours")
    (tmp_path / "lottery.png").write_text("a picture")
    set_tables_aside(tmp_path, ("lottery.csv", "lottery_summary.csv", "lottery.png"))
    (aside,) = (tmp_path / "saved_results").iterdir()
    assert (aside / "lottery.csv").read_text() == "of hours" and sorted(path.name for path in tmp_path.iterdir()) == [
        "saved_results"
    ]
    assert f"the earlier tables in {tmp_path} are now in {aside}" in capsys.readouterr().out
    set_tables_aside(tmp_path, ("lottery.csv",))
    assert not capsys.readouterr().out
