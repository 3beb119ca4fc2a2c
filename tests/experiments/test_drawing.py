"""No text of a user's is markup: plots, pages and what is printed show it as it is; a plot that fails stops nothing."""

import ast
import io
import json
import logging
import re
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from PIL import Image
from rich.console import Console
from synthetic_runs import write_run

from gated_bert.config import GatedBertConfig
from gated_bert.experiments.explanations import parts_of_speech, similarity_table
from gated_bert.experiments.explanations.explanation_page import explanation_page
from gated_bert.experiments.models import benchmark_table, iou
from gated_bert.experiments.reports import compare as comparing
from gated_bert.experiments.reports import drawing, plots
from gated_bert.experiments.reports.results import read_run
from gated_bert.experiments.studies import activation_table, lottery_table, oneshot_table, stage_table
from gated_bert.experiments.sweeps import progress
from gated_bert.experiments.sweeps.jobs import Job
from gated_bert.explain.pos import TAGSETS
from gated_bert.explain.similarity import MEASURES
from gated_bert.support import progress_bar as progress_module

FULL_SCALE = True

NAMES = ("a$b$c.tsv", "[red]x[/]", "<script>alert(1)</script>", "_hidden", "%s{0}", r"$\frac{", ":smile: [/]",
         r"\$x\$ $y$", "x" * 300, "два\n$$", "\udcff中文 😀")  # fmt: skip
MATH = ("a$b$c.tsv", r"$\frac{")


def texts(figure):
    """What is drawn, and that none of it is taken for mathematics."""
    content = drawing.png(figure)
    with Image.open(io.BytesIO(content)) as image:
        assert image.format == "PNG"
    found = [text for text in figure.findobj(lambda each: hasattr(each, "get_parse_math")) if text.get_text()]
    assert not any(text.get_parse_math() for text in found if "mathdefault" not in text.get_text())
    return "\n".join(text.get_text() for text in found)


@pytest.mark.parametrize("name", NAMES)
def test_titles_ticks_and_legends_show_a_name_as_it_is(name):
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    axes.plot([1, 2], [1, 10], label=drawing.label_text(name))
    axes.set_yscale("log")
    axes.set_xticks([1, 2], [name, "b"])
    axes.set_title(name)
    axes.legend()
    figure.suptitle(name)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        shown = texts(figure)
    if len(name) < 80:
        said = name.encode("utf-8", "replace").decode()
        assert shown.count(said.split("\n")[0]) >= 4
    else:
        assert max(map(len, shown.split("\n"))) < 90 and shown.count(" … ") >= 4
    assert "mathdefault" in shown, "powers of ten stay as the library writes them"


def test_a_name_with_an_underscore_is_in_the_legend():
    axes = Figure().subplots()
    for name in ("_hidden", "shown"):
        axes.plot([1], [1], label=drawing.label_text(name))
    assert [text.get_text().strip("\u2060") for text in axes.legend().get_texts()] == ["_hidden", "shown"]


@pytest.mark.daily_every(3)
@pytest.mark.parametrize("name", (MATH[0], NAMES[2], NAMES[8]))
def test_a_run_and_a_comparison_of_data_with_such_a_name(tmp_path, name, capfd):
    for method in ("baseline", "magnitude"):
        folder = write_run(tmp_path, method, label=name, epochs=3, steps=(50, 90), pretrained=f"/models/{name}")
        assert len(plots.plot_run(read_run(folder))) == 2
    write_run(tmp_path, "magnitude", seed=2, label=name, epochs=3, steps=(50, 90), pretrained="/models/other")
    lines = []
    files = comparing.compare([tmp_path], tmp_path / "out", lines.append)
    assert plots.COMPARISON_PNG in [path.name for path in files] and not capfd.readouterr().err
    page = (tmp_path / "out" / "report.html").read_text()
    # A page has one script of its own.
    assert page.count("<script>") == 1 and "<script>alert" not in page
    assert ("&lt;script&gt;" in page) == ("script" in name)
    shown = texts(next(iter(plots.run_figures(read_run(folder)).values())))
    assert len(name) > 80 or name in shown


@pytest.mark.daily_every(3)
@pytest.mark.parametrize("name", (r"$\frac{", "_hidden", "x" * 300))
def test_every_other_plot_with_such_names(name, tmp_path):
    names = [name, f"{name} 2"]
    rng = np.random.default_rng(0)
    part = {"metric": "accuracy", "task": name, "data": name}
    stage = pd.DataFrame([{"stage": s, "method": m, "task": name, "metric": "accuracy", "value": 0.8, "sparsity": s / 4}
                          for s in (1, 2) for m in names])  # fmt: skip
    around = {"sparsity": 0.5, "n": 1, "mean": 0.8, "low": 0.7, "high": 0.9}
    found = pd.DataFrame([{**part, "method": m, "kind": k, **around} for m in names for k in ("dense", "ticket")])
    shot = pd.DataFrame([{**part, "strategy": m, "asked_value": v, "after": 0.5, "final": 0.7, "before": 0.8, "seed": 1,
                          "compression": v, "sparsity": 0.5} for m in names for v in (2, 4)])  # fmt: skip
    stage_table.write_stage_plot(stage, tmp_path / "stages.png")
    lottery_table.write_lottery_plot(found, tmp_path / "lottery.png")
    oneshot_table.write_plot(shot, tmp_path / "oneshot.png")
    variants = pd.DataFrame([{"variant": v, "seed": 1, **dict.fromkeys(activation_table.METRICS, 0.8),
                              **dict.fromkeys(activation_table.COSTS, 2.0)}
                             for v in (activation_table.UNPRUNED, *names)])  # fmt: skip
    shown = [texts(activation_table._figure(variants, name))]
    counts = {each: {kind: dict.fromkeys(groups, 3) for kind, groups in TAGSETS.items()} for each in names}
    tests = parts_of_speech.tested_rows(counts)
    shown.append(texts(parts_of_speech.pos_figure(counts, tests, name)))
    about = {"base": name, "documents": 2, "top_k": 5, "data": name, "judged_on": None, "base_facts": {}}
    rows = [{"variant": v, "document": d, **dict.fromkeys(MEASURES, float(rng.random()))}
            for v in (similarity_table.NOISE, *names) for d in (1, 2)]  # fmt: skip
    shown.append(texts(similarity_table.distribution_figure(rows, about)))
    cell = benchmark_table.cell_name(1, 8)
    measured = [{"model": each, "metric": "accuracy", "value": 0.8, f"p50_ms_{cell}": 2.0 + index}
                for index, each in enumerate(names)]  # fmt: skip
    shown.append("\n".join(handle.get_label() for handle in benchmark_table._handles(measured)))
    shown.append(texts(iou._pairs_figure(pd.DataFrame([{"first": names[0], "second": names[1], "mean": 0.5,
                                                        "by_chance": 0.4}]), names)))  # fmt: skip
    if len(name) < 80:
        assert all(name in each for each in shown)


def test_figures_become_files_in_one_place():
    package = Path(drawing.__file__).parents[1]
    found = {path.name for path in package.rglob("*.py") if re.search(r"savefig|FigureCanvas|pyplot", path.read_text())}
    assert found == {"drawing.py"}


def draws(node):
    name = getattr(node.func, "id", "") if isinstance(node, ast.Call) else ""
    return name == "png" or re.fullmatch(r"write_(\w+_)?plot|plot_comparison", name)


def unguarded(path):
    """Calls that draw outside of `tolerated`, but for those of functions that only draw, which are called so."""
    found = []

    def look(node, guarded, function):
        if isinstance(node, ast.FunctionDef):
            function = node.name
        if isinstance(node, ast.With):
            guarded = guarded or any(ast.unparse(item).startswith("tolerated(") for item in node.items)
        only_draws = draws(ast.Call(ast.Name(function)))
        if draws(node) and not guarded and not only_draws:
            found.append(f"{path.name}: {ast.unparse(node)}")
        for child in ast.iter_child_nodes(node):
            look(child, guarded, function)

    look(ast.parse(path.read_text()), False, "")
    return found


def test_whatever_draws_after_other_work_is_tolerated():
    package = Path(drawing.__file__).parents[1]
    found = [line for path in sorted(package.rglob("*.py")) for line in unguarded(path)]
    assert found == ["pattern_pictures.py: png(figure)"], "whose picture is all that it makes"


def fail(*_args, **_options):
    raise ValueError("no such $font$\nsecond line")


def test_a_plot_that_fails_is_told_in_one_line_logged_and_leaves_no_old_one(tmp_path, capfd, caplog):
    (tmp_path / "a.png").write_bytes(b"old")
    failed = []
    with caplog.at_level(logging.INFO, "gated_bert"), drawing.tolerated(tmp_path / "a.png", failed):
        fail()
    assert failed == ["a.png could not be drawn (ValueError: no such $font$)"]
    assert capfd.readouterr().err == f"note: {tmp_path}: {failed[0]}; all else is there\n"
    assert "second line" in caplog.text and not (tmp_path / "a.png").exists()
    with pytest.raises(KeyboardInterrupt), drawing.tolerated(tmp_path / "a.png"):
        raise KeyboardInterrupt


def test_a_comparison_whose_plots_fail_still_has_tables_and_report(tmp_path, monkeypatch):
    folder = write_run(tmp_path, "magnitude", epochs=3)
    path = next(folder.glob("metadata_*.json"))
    path.write_text(json.dumps(json.loads(path.read_text()) | {"plots_failed": ["loss.png could not be drawn (E: e)"]}))
    monkeypatch.setattr(plots, "_figure", fail)
    lines = []
    files = comparing.compare([tmp_path], tmp_path / "out", lines.append)
    assert [file.name for file in files] == ["comparison.csv", "comparison_summary.csv", "report.html"]
    assert f"note: {folder}: loss.png could not be drawn (E: e)" in lines
    assert f"{plots.COMPARISON_PNG} could not be drawn (ValueError" in files[-1].read_text()


def test_names_are_no_markup_of_the_terminal(tmp_path, monkeypatch):
    written = io.StringIO()
    for name in NAMES[:-2]:
        job = Job(name, GatedBertConfig(), tmp_path / "job", ())
        view = progress.JobView(job, "running", {"epoch": 1, "epochs": 1, "step": 1, "steps": 1})
        console = Console(file=written, width=500, height=40)
        display = progress.Display("bars", live=False, console=console)
        console.print(display.table([view]))
        display.start([view])
        assert len(name) > 80 or written.getvalue().count(name) == 2, name
        written.truncate(0)
    monkeypatch.setattr(progress_module, "Console", lambda **_: Console(file=written, width=500, force_terminal=True))
    with progress_module.progress_bar("[/] a", 2) as advance:
        advance(":smile: [red]x[/]", 1)
    assert "[/] a: :smile: [red]x[/]" in written.getvalue()


def test_an_explanation_page_escapes_all_it_shows():
    name = '<script>"&'
    line = {"document": 1, "text": f"{name} film", "predicted": name, "label": name, "probabilities": {name: 0.5},
            "explanations": [{"class": name, "fidelity": 0.5,
                              "words": [{"word": "film", "weight": 0.1, "positions": [len(name) + 1]}]}]}  # fmt: skip
    content = explanation_page(name, name, {name: [line]}).decode()
    assert "<script" not in content and content.count("&lt;script&gt;&quot;&amp;") >= 7
