"""Runs the notebooks of `notebooks/` and stores what they show: `python scripts/run_notebooks.py [NAME ...]`."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = ROOT / "notebooks"


def executed(path: Path, folder: Path) -> nbformat.NotebookNode:
    """A notebook with what its cells show when they are run in a folder.

    Args:
        path: the notebook.
        folder: where its files go.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell that fails.
    """
    notebook = nbformat.read(path, as_version=4)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    # A bar of a library that wants a widget says so, with a path of this machine.
    environment["PYTHONWARNINGS"] = "ignore:IProgress not found"
    # What processes and native libraries write themselves, and when, differs from run to run: it goes to the terminal.
    quiet = ["--IPKernelApp.capture_fd_output=False"]
    client = NotebookClient(notebook, timeout=900, kernel_name="python3", record_timing=False, store_widget_state=False,
                            extra_arguments=quiet, resources={"metadata": {"path": str(folder)}})  # fmt: skip
    client.execute(env=environment)
    notebook.metadata["language_info"] = {"name": "python"}
    return notebook


def main(names: list[str]) -> None:
    """Runs the named notebooks, or all, and writes them with what they show."""
    paths = [NOTEBOOKS / f"{name.removesuffix('.ipynb')}.ipynb" for name in names] or sorted(NOTEBOOKS.glob("*.ipynb"))
    for path in paths:
        with tempfile.TemporaryDirectory() as folder:
            nbformat.write(executed(path, Path(folder)), path)
        print(f"wrote {path}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
