"""The plotting notebook runs from a results folder."""

import os
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from synthetic_runs import write_run

NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "plot_results.ipynb"


@pytest.mark.slow
def test_the_notebook_runs_and_draws(tmp_path, monkeypatch):
    for method in ("baseline", "magnitude", "spt"):
        for seed in (1, 2):
            write_run(tmp_path / "results", method, seed=seed, epochs=5, steps=(50, 90))
    monkeypatch.setenv("GATED_BERT_RESULTS", str(tmp_path / "results"))
    monkeypatch.setenv("GATED_BERT_PLOTS", str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(NOTEBOOK.parents[1]), os.environ.get("PYTHONPATH", "")]))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    where = {"metadata": {"path": str(tmp_path)}}
    NotebookClient(notebook, timeout=120, kernel_name="python3", resources=where).execute()
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 3 + 1 + 1
    assert "6 runs in 3 groups" in "".join(output.get("text", "") for output in outputs)
    assert (tmp_path / "pruning_methods_comparison_dual_axis.png").exists()


def test_the_notebook_is_committed_without_outputs():
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    assert all(not cell.outputs and cell.execution_count is None for cell in notebook.cells if cell.cell_type == "code")
