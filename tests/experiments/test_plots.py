"""Plots drawn from synthetic run folders: what is on them, and that none overlaps."""

import io

import pandas as pd
import pytest
from PIL import Image
from synthetic_runs import write_run

from gated_bert.experiments.reports import plots
from gated_bert.experiments.reports.aggregate import group_runs
from gated_bert.experiments.reports.many_plot import MANY
from gated_bert.experiments.reports.results import find_runs, read_run, read_runs
from gated_bert.support.files import write_csv_atomic

FULL_SCALE = True


@pytest.fixture
def drawn(monkeypatch):
    """The figures made, before they become files."""
    figures = []
    original = plots.png

    def keep(figure):
        figures.append(figure)
        return original(figure)

    monkeypatch.setattr(plots, "png", keep)
    return figures


def test_a_run_gets_its_plots_under_the_contracted_names(tmp_path):
    files = plots.plot_run(read_run(write_run(tmp_path, task="cola", epochs=6)))
    assert [path.name for path in files] == [f"{kind}_sparsity_spt_20250102_030405.png"
                                            for kind in ("accuracy", "loss", "reward")]  # fmt: skip
    for path in files:
        with Image.open(io.BytesIO(path.read_bytes())) as image:
            assert image.format == "PNG" and image.width >= 1200


def test_both_splits_over_epochs_and_over_sparsity_in_per_cent(tmp_path):
    run = read_run(write_run(tmp_path, epochs=5, steps=(50, 90)))
    figure = next(iter(plots.run_figures(run).values()))
    over_epochs, over_sparsity = figure.axes[:2]
    lines = {line.get_label(): line for line in over_epochs.get_lines()}
    assert list(lines["development"].get_ydata()) == list(100 * run.rows["val_accuracy"])
    assert list(lines["training"].get_ydata()) == list(100 * run.rows["train_accuracy"])
    assert over_epochs.get_ylabel() == "accuracy (%)" and over_sparsity.get_xlabel() == plots.SPARSITY_LABEL
    places = {line.get_label(): list(line.get_xdata()) for line in over_sparsity.get_lines()}
    assert places["development"] == places["training"] == [0, 50, 90]


def test_the_baseline_is_drawn_over_epochs_alone(tmp_path):
    figures = plots.run_figures(read_run(write_run(tmp_path, "baseline", epochs=4)))
    assert len(figures) == 2
    assert [axes.get_xlabel() for figure in figures.values() for axes in figure.axes] == ["epoch", "epoch"]


def test_a_run_of_one_epoch_and_one_of_nan_are_drawn(tmp_path):
    plots.plot_run(read_run(write_run(tmp_path / "a", epochs=1)))
    path = next(write_run(tmp_path / "b", epochs=5, steps=(50, 90)).glob("results_*.csv"))
    rows = pd.read_csv(path)
    rows[["val_accuracy", "val_loss"]] = float("nan")
    write_csv_atomic(path, rows)
    assert plots.plot_run(read_run(path.parent))
    assert plots.plot_comparison([read_run(path.parent)], tmp_path / "nan.png").exists()


def test_comparison_has_a_panel_per_task_and_one_legend_outside(tmp_path, drawn):
    for task in ("sst2", "stsb"):
        for method in ("baseline", "magnitude", "spt"):
            for seed in (1, 2, 3):
                write_run(tmp_path, method, task, seed)
    plots.plot_comparison(read_runs(find_runs(tmp_path))[0], tmp_path / "all.png")
    figure = drawn[0]
    panels = [axes for axes in figure.axes if axes.get_title()]
    assert [axes.get_title() for axes in panels] == ["SST-2 · embedded data · tiny", "STS-B · embedded data · tiny"]
    assert [axes.get_ylabel() for axes in panels] == ["accuracy (%), solid", "Pearson correlation × 100, solid"]
    assert "99.5" in [tick.get_text() for tick in panels[0].get_xticklabels()]
    legend = figure.legends[0]
    assert [text.get_text() for text in legend.get_texts()] == [
        "baseline, dense, best epoch (3 seeds)",
        "magnitude (3 seeds)",
        "spt (3 seeds)",
        "95 % t-interval over seeds",
    ]
    box = legend.get_window_extent()
    assert all(box.y1 <= axes.get_tightbbox().y0 + 1 for axes in panels)


def test_of_many_methods_each_gets_a_line_with_its_last_epoch(tmp_path, drawn):
    methods = ["baseline", *(f"method{index:02d}" for index in range(MANY))]
    for method in methods:
        write_run(tmp_path, method, "sst2", 1)
    runs = read_runs(find_runs(tmp_path))[0]
    plots.plot_comparison(runs, tmp_path / "all.png")
    metric, saved = drawn[0].axes
    assert sorted(text.get_text() for text in metric.get_yticklabels()) == methods
    last = {run.method: 100 * run.rows["val_accuracy"].iloc[-1] for run in runs}
    places = [line.get_xdata()[0] for line in metric.lines if line.get_marker() == "o"]
    assert places == pytest.approx([last[text.get_text()] for text in metric.get_yticklabels()])
    closed = [bar.get_width() for bar in saved.containers[0]]
    assert closed[0] == 0 and min(closed[1:]) > 0


def test_metric_and_loss_do_not_cross(tmp_path, drawn):
    for method in ("baseline", "random"):
        write_run(tmp_path, method)
    plots.plot_comparison(read_runs(find_runs(tmp_path))[0], tmp_path / "all.png")
    left, right = drawn[0].axes

    def heights(axes):
        return [axes.transAxes.inverted().transform(axes.transData.transform((0, y)))[1]
                for line in axes.get_lines() for y in line.get_ydata()]  # fmt: skip

    assert min(heights(left)) > max(heights(right)) and max(heights(left)) < 1 and min(heights(right)) > 0


def test_the_dense_line_is_the_best_epoch_over_the_seeds(tmp_path, drawn):
    runs = [read_run(write_run(tmp_path, "baseline", seed=seed, epochs=5)) for seed in (1, 2)]
    plots.plot_comparison(runs, tmp_path / "dense.png")
    best = [100 * run.rows["val_accuracy"].max() for run in runs]
    assert drawn[0].axes[0].get_lines()[0].get_ydata()[0] == pytest.approx(sum(best) / 2)


def test_the_curve_takes_the_last_epoch_at_each_sparsity(tmp_path):
    run = read_run(write_run(tmp_path, epochs=7, steps=(50, 90)))
    curve = plots.sparsity_curve(group_runs([run])[0][0], "val_accuracy")
    assert [point["sparsity"] for point in curve] == [0.0, 0.5, 0.9]
    assert [point["mean"] for point in curve] == [run.rows["val_accuracy"][row] for row in (2, 3, 6)]


def test_every_method_keeps_its_colour_and_variants_get_their_own(tmp_path):
    runs = [read_run(write_run(tmp_path / "a", method, epochs=4)) for method in plots.STYLES if method in
            ("baseline", "magnitude", "movement", "spt", "random")]  # fmt: skip
    runs.append(read_run(write_run(tmp_path / "b", "spt", epochs=4, learning_rate=1e-4)))
    styles = plots.group_styles(group_runs(runs)[0])
    assert styles["magnitude"] == plots.STYLES["magnitude"]
    assert len(set(styles.values())) == 6 and len({colour for colour, _ in styles.values()}) == 6
