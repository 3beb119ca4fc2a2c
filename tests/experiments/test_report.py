"""The report: one page that stands alone and says what is on it."""

import dataclasses
import json
import re
from html.parser import HTMLParser

import pytest
from synthetic_runs import write_run

from gated_bert.cli.parsing import make_parser, read_flags
from gated_bert.config import GatedBertConfig
from gated_bert.config.flag_table import RUN_FLAGS
from gated_bert.experiments.reports import report
from gated_bert.experiments.reports.report import launcher_flags, write_report
from gated_bert.experiments.reports.results import Failure, find_runs, read_run, read_runs


class Page(HTMLParser):
    """Collects text and what a browser would load, and sees that tags are closed."""

    VOID = {"meta", "img", "br"}

    def __init__(self, text):
        super().__init__()
        self.open, self.text, self.loads, self.charts, self.tags = [], [], [], [], []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.loads += [value for name, value in attributes if name in ("src", "href", "srcset", "data")]
        self.charts += [json.loads(value) for name, value in attributes if name == "data-chart"]
        self.tags.append(tag)
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


@pytest.fixture
def runs(tmp_path):
    for method in ("baseline", "spt"):
        for seed in (1, 2):
            write_run(tmp_path / "runs", method, seed=seed, epochs=5, steps=(50, 90))
    return read_runs(find_runs(tmp_path / "runs"))[0]


def test_the_page_stands_alone(tmp_path, runs):
    text = write_report(tmp_path, runs).read_text()
    page = Page(text)
    assert page.loads and all(load.startswith("data:image/png;base64,") for load in page.loads)
    assert not re.search(r"https?://|@import|url\(", text.replace("http://www.w3.org/2000/svg", ""))
    assert page.tags.count("script") == 1 and "script-src 'sha256-" in text and "default-src 'none'" in text
    assert 'name="viewport"' in text and len(page.loads) == 1 + 2 * 2 + 2 * 3


def test_tables_show_seeds_means_and_deviations(tmp_path, runs):
    text = " ".join(Page(write_report(tmp_path, runs).read_text()).text)
    best = [100 * run.rows["val_accuracy"].max() for run in runs if run.method == "baseline"]
    mean, deviation = sum(best) / 2, abs(best[0] - best[1]) / 2**0.5
    assert f"{mean:.2f} ± {deviation:.2f}" in text and "90.00 %" in text
    assert "Embedded data" in text and "not figures on GLUE" in text
    assert "keras" in text and "3.15.0" in text and "learning_rate" in text


def test_everything_from_outside_is_escaped(tmp_path):
    nasty = "<script>alert(1)</script>"
    write_run(tmp_path / "runs", epochs=3, label=nasty, data=nasty)
    runs = read_runs(find_runs(tmp_path / "runs"))[0]
    text = write_report(tmp_path, runs, [Failure(nasty, nasty, nasty)], [nasty]).read_text()
    page = Page(text)
    assert page.tags.count("script") == 1 and "&lt;script&gt;" in text
    assert page.charts and "".join(page.text).count(nasty) > 3


def test_failed_jobs_stand_with_the_end_of_their_log(tmp_path):
    text = " ".join(Page(write_report(tmp_path, [], [Failure("l0_sst2", "killed", "last line")]).read_text()).text)
    assert "l0_sst2" in text and "killed" in text and "last line" in text and "no finished run" in text


def test_what_differs_stands_apart_from_what_is_the_same(tmp_path):
    write_run(tmp_path / "a", epochs=3)
    write_run(tmp_path / "b", "magnitude", epochs=3, learning_rate=1e-4)
    text = write_report(tmp_path, read_runs(find_runs(tmp_path))[0]).read_text()
    differs, same = text.split("Differs between runs")[1].split("The same in all runs")
    assert "<td>learning_rate</td><td>2e-05</td><td>spt</td>" in differs and "<td>num_layers</td>" in same
    assert "learning_rate" not in same.split("Commands")[0]


CONFIGS = (
    {},
    {"model_size": "tiny", "pruning_method": "magnitude", "end_sparsity": 0.9, "epochs": 8, "pruning_end_epoch": 8},
    {"pruning_method": "spt", "end_sparsity": 0.9, "spt_explore_per_layer": True, "clip_norm": None},
    {"pruning_method": "movement", "movement_schedule": "cubic", "pretrained": "../MiniLM", "num_layers": 3},
    {"sparsity_steps": (10, 97.5), "prunable_roles": ("query", "key")},
    {"pruning_method": "baseline", "dropout_rate": 0.1},
)


@pytest.mark.parametrize("values", CONFIGS)
def test_the_commands_give_the_same_configuration(values):
    config = GatedBertConfig(**values)
    words = list(launcher_flags(dataclasses.asdict(config)))
    typed = read_flags(make_parser("x", "x", RUN_FLAGS, {}), RUN_FLAGS, words)
    typed["task"] = typed.pop("tasks")[0]
    if "sparsity_steps" in typed:
        typed["sparsity_steps"] = tuple(map(float, typed["sparsity_steps"]))
    assert GatedBertConfig(**typed, pruning_method=config.pruning_method, seed=config.seed) == config


def test_a_configuration_without_flags_is_given_whole(tmp_path):
    assert launcher_flags(dataclasses.asdict(GatedBertConfig(criterion="taylor", pattern="block"))) is None
    write_run(tmp_path, epochs=3, unknown_field=1)
    text = write_report(tmp_path, read_runs(find_runs(tmp_path))[0]).read_text()
    assert "gated-bert train --config-file run.json" in text and "unknown_field" in text


def test_of_very_many_runs_the_plots_stay_in_their_folders(tmp_path, monkeypatch):
    runs = [read_run(write_run(tmp_path / "runs", "magnitude", seed=seed, epochs=5)) for seed in (1, 2)]
    whole = write_report(tmp_path / "out", runs)
    assert whole.read_text().count("data:image/png") == 1 + 2 * 2
    monkeypatch.setattr(report, "MOST_BYTES", whole.stat().st_size - 1)
    less = write_report(tmp_path / "out", runs)
    assert less.stat().st_size <= report.MOST_BYTES
    assert "2 runs; the plots of 1 are in their folders" in less.read_text()
    assert less.read_text().count("data:image/png") == 1 + 2 and len(Page(less.read_text()).charts) == 1
    monkeypatch.setattr(report, "MOST_BYTES", 0)
    least = write_report(tmp_path / "out", runs).read_text()
    assert "the plots of 2 are in their folders" in least and "data:image/png" not in least and "magnitude" in least


def test_curves_hold_what_the_comparison_plot_draws(tmp_path):
    """The mean over seeds at the last epoch of each sparsity, per cent; the baseline at its best epoch."""
    runs = [read_run(write_run(tmp_path, method, seed=seed, epochs=6, steps=(50, 97)))
            for method in ("baseline", "magnitude") for seed in (1, 2, 3)]  # fmt: skip
    (views,) = Page(write_report(tmp_path / "out", runs).read_text()).charts
    names = [f"{what} over {axis}" for axis in ("sparsity", "epochs") for what in ("accuracy (%)", "development loss")]
    assert [view["name"] for view in views] == [*names, "every seed"]
    assert views[0]["stretch"] and views[1]["stretch"]
    dense, pruned = views[0]["lines"]
    best = [100 * run.rows["val_accuracy"].max() for run in runs[:3]]
    assert dense["level"] == pytest.approx(sum(best) / 3, rel=1e-4)
    assert [point[0] for point in pruned["points"]] == [0, 50, 97]
    final = [100 * run.rows["val_accuracy"].iloc[-1] for run in runs[3:]]
    last = pruned["points"][-1]
    assert last[1] == pytest.approx(sum(final) / 3, rel=1e-4) and last[2] < last[1] < last[3]
    assert len(views[4]["lines"]) == 6 and {line["name"] for line in views[4]["lines"]} == {"baseline", "magnitude"}
    assert [line["label"] for line in views[4]["lines"][:2]] == ["baseline, seed 1", "baseline, seed 2"]


def test_a_loss_that_was_lost_is_no_point(tmp_path):
    folder = write_run(tmp_path, "magnitude", epochs=4, steps=(50,))
    table = next(folder.glob("results_*.csv"))
    lines = table.read_text().splitlines()
    column = lines[0].split(",").index("val_loss")
    cells = lines[-1].split(",")
    cells[column] = "nan"
    table.write_text("\n".join([*lines[:-1], ",".join(cells)]) + "\n")
    (views,) = Page(write_report(tmp_path / "out", [read_run(folder)]).read_text()).charts
    assert views[-1]["lines"][0]["points"][-1] == [4, None]
