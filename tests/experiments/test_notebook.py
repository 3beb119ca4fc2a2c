"""The notebooks run in an empty folder and say what their texts say; what is stored in them can be read anywhere."""

import importlib.util
import json
import re
from pathlib import Path

import nbformat
import pandas as pd
import pytest
from synthetic_runs import write_run

from gated_bert.models.folder import read_architecture

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = {path.stem: path for path in (ROOT / "notebooks").glob("*.ipynb")}
OF_A_MACHINE = (r"/home/\w", r"/root\b", r"/tmp\b", r"/work\b", r"/Users/", r"\b[A-Z]:\\\w", "site-packages", str(ROOT))


def run(name, folder):
    """What a notebook's cells show when they are run in a folder; a cell that fails is an error."""
    spec = importlib.util.spec_from_file_location("run_notebooks", ROOT / "scripts" / "run_notebooks.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return shown(module.executed(NOTEBOOKS[name], folder))


def shown(notebook):
    return [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]


def printed(outputs):
    return "".join(output.get("text", output.get("data", {}).get("text/plain", "") + "\n") for output in outputs)


def pictures(outputs):
    return sum("image/png" in output.get("data", {}) for output in outputs)


def frames(outputs):
    return sum("<iframe srcdoc" in output.get("data", {}).get("text/html", "") for output in outputs)


def check_pruned(outputs, folder):
    small = read_architecture(folder / "small")
    assert {(layer.num_heads, layer.intermediate_size) for layer in small.layers} == {(2, 256)}
    rows = pd.read_csv(next((folder / "run").glob("results_*.csv")))
    assert rows["sparsity"].round(2).tolist() == [0, 0, 0, 0.5, 0.5]
    before, after = rows["val_accuracy"].iloc[[2, 4]]
    assert after > 0.85 and after > before - 0.02
    predictions = pd.read_csv(folder / "predictions.csv")["prediction"]
    assert predictions.tolist() == ["positive", "positive", "positive", "negative"]
    assert pictures(outputs) == 1


def check_criterion(outputs, folder):
    said = printed(outputs)
    table = re.findall(r"^\d +(\d+)% +(\w+) +([\d.]+) +([\d.]+)$", said, re.MULTILINE)
    names = [(part, name) for part in ("70", "80", "90") for name in ("magnitude", "by_input")]
    assert [row[:2] for row in table] == names
    for magnitude, own in zip(table[::2], table[1::2], strict=True):
        assert float(own[2]) > float(magnitude[2]) and float(own[3]) < 0.02 < float(magnitude[3])
    assert "'power=3' is refused; allowed: for power a number from 0 to 2" in said
    record = json.loads(next((folder / "run").glob("metadata_*.json")).read_text())["config"]
    assert (record["criterion"], record["criterion_options"]) == ("by_input", {"power": 1.0})


def check_keras(outputs, folder):
    said = printed(outputs)
    assert "the same predictions: True" in said and (folder / "pruned.keras").is_file()
    zeros = re.findall(r"(\w+): keras Dense, (\d+)% zeros", said)
    assert [share for _, share in zeros] == ["90", "90", "0"] and zeros[-1][0] == "head"
    accuracy = {int(epoch): float(value) for epoch, value in
                re.findall(r"^\d+ +(\d+) +[\d.]+ +([\d.]+)$", said, re.MULTILINE)}  # fmt: skip
    assert accuracy[20] > 0.85 and accuracy[20] > accuracy[7] - 0.03
    reached = re.search(r"sparsity ([\d.]+), accuracy (\d+)%; always saying the more common: (\d+)%", said)
    assert float(reached[1]) == pytest.approx(0.5, abs=0.02) and int(reached[2]) > int(reached[3]) + 20


def check_family(outputs, folder):
    family = pd.read_csv(folder / "family" / "family.csv")
    assert family["target"].tolist() == [1, 1, 1.5, 1.5, 2, 2]
    served = family[family["precision"] == "fp32"].set_index("target")
    # Timed once more for the table, while other processes may run.
    assert served.loc[2, "speedup"] > served.loc[1.5, "speedup"] > 1.1
    assert served["parameters"].is_monotonic_decreasing and served.loc[1.5, "value"] > 0.8
    assert pictures(outputs) == 1 and "models/int8/speedup_2x.onnx" in printed(outputs)


def check_reports(outputs, folder):
    assert "6 runs in 3 groups" in printed(outputs)
    assert (pictures(outputs), frames(outputs)) == (2 + 1 + 1, 3)


CHECKS = {
    "first_pruned_model": check_pruned, "own_criterion": check_criterion, "any_keras_model": check_keras,
    "family_of_fast_models": check_family, "plot_results": check_reports,
}  # fmt: skip
NEEDS = {"any_keras_model": "keras_hub", "family_of_fast_models": "onnxruntime"}


@pytest.mark.nightly
@pytest.mark.parametrize("name", sorted(CHECKS))
def test_a_notebook_runs_and_shows_what_it_says(name, tmp_path, monkeypatch):
    if name in NEEDS:
        pytest.importorskip(NEEDS[name])
    for variable in ("GATED_BERT_RESULTS", "GATED_BERT_PLOTS", "VERBOSE"):
        monkeypatch.delenv(variable, raising=False)
    CHECKS[name](run(name, tmp_path), tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == [name], "it writes into its own folder alone"


@pytest.mark.slow
@pytest.mark.nightly
def test_the_reports_of_a_folder_are_read_and_drawn(tmp_path, monkeypatch):
    for method in ("baseline", "magnitude", "spt"):
        for seed in (1, 2):
            write_run(tmp_path / "results", method, seed=seed, epochs=5, steps=(50, 90))
    monkeypatch.setenv("GATED_BERT_RESULTS", str(tmp_path / "results"))
    monkeypatch.setenv("GATED_BERT_PLOTS", str(tmp_path))
    outputs = run("plot_results", tmp_path)
    assert (pictures(outputs), frames(outputs)) == (3 + 1 + 1, 3)
    assert "6 runs in 3 groups" in printed(outputs)
    assert (tmp_path / "pruning_methods_comparison_dual_axis.png").exists()
    assert not (tmp_path / "plot_results").exists(), "nothing was trained"


def test_every_notebook_is_tried_and_named_in_the_documentation():
    assert set(CHECKS) == set(NOTEBOOKS)
    text = (ROOT / "docs" / "tutorials.md").read_text(encoding="utf-8")
    assert set(re.findall(r"\(\.\./notebooks/(\w+)\.ipynb\)", text)) == set(NOTEBOOKS)


@pytest.mark.parametrize("name", sorted(NOTEBOOKS))
def test_what_is_stored_can_be_read_anywhere(name):
    notebook = nbformat.read(NOTEBOOKS[name], as_version=4)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, 1 + len(cells))), "run from top to bottom, once"
    outputs = shown(notebook)
    assert len(outputs) >= 4
    assert {output.output_type for output in outputs} <= {"stream", "execute_result", "display_data"}, "no error"
    assert all(output.get("name") != "stderr" for output in outputs), printed(outputs)
    texts = "\n".join(text for output in outputs for kind, text in [("text", output.get("text", "")),
                      *output.get("data", {}).items()] if kind.startswith("text"))  # fmt: skip
    for place in OF_A_MACHINE:
        assert not re.search(place, texts), place
    assert NOTEBOOKS[name].stat().st_size < 250_000


@pytest.mark.parametrize("name", sorted(NOTEBOOKS))
def test_links_of_a_notebook_lead_somewhere(name):
    texts = [cell.source for cell in nbformat.read(NOTEBOOKS[name], as_version=4).cells if cell.cell_type == "markdown"]
    targets = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", "\n".join(texts))
    assert targets
    for target in targets:
        assert (NOTEBOOKS[name].parent / target).exists(), target
