"""The wheel: it holds the whole package, and works where nothing of the checkout is on the path."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """What the wheel holds, in a folder of its own; built of a copy, so that nothing is left in the checkout."""
    pytest.importorskip("setuptools", "68", reason="no setuptools to build with")
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    shutil.copytree(ROOT / "gated_bert", source / "gated_bert", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    words = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", str(folder)]
    done = subprocess.run([*words, str(source)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    (wheel,) = folder.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(folder / "installed")
    return folder / "installed"


def run(installed: Path, *words: str, cwd: Path) -> subprocess.CompletedProcess:
    """The command, imported from the wheel's folder and from the libraries, never from the checkout."""
    code = (f"import sys; sys.path.insert(0, {str(installed)!r}); sys.argv = ['gated-bert', *{words!r}]\n"
            "import gated_bert; assert gated_bert.__file__.startswith(sys.path[0])\n"
            "from gated_bert.__main__ import main; sys.exit(main())")  # fmt: skip
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment["PYTHONDONTWRITEBYTECODE"] = "1"
    return subprocess.run([sys.executable, "-IB", "-c", code], cwd=cwd, env=environment, capture_output=True, text=True,
                          timeout=600)  # fmt: skip


def test_it_holds_every_file_of_the_package(installed):
    def files(folder):
        return {path.relative_to(folder).as_posix() for path in folder.rglob("*")
                if path.is_file() and "__pycache__" not in path.parts}  # fmt: skip

    assert files(installed / "gated_bert") == files(ROOT / "gated_bert")
    about = next(installed.glob("*.dist-info"))
    assert "gated-bert = gated_bert.__main__:main" in (about / "entry_points.txt").read_text()
    metadata = (about / "METADATA").read_text()
    version = next(line for line in (ROOT / "setup.cfg").read_text().splitlines() if line.startswith("version = "))
    assert f"Version: {version.split()[-1]}\n" in metadata and "Provides-Extra: mlflow" in metadata
    assert f"## {version.split()[-1]}" in (ROOT / "CHANGELOG.md").read_text()


def test_its_command_answers(installed, tmp_path):
    done = run(installed, "-h", cwd=tmp_path)
    assert done.returncode == 0 and "watch" in done.stdout and done.stderr == ""


@pytest.mark.nightly
def test_it_trains_compares_and_reports(installed, tmp_path):
    """The page needs the scripts that lie beside the modules."""
    sizes = ("-m", "tiny", "--num-layers", "1", "--d-model", "8", "--num-heads", "2", "--dff", "16")
    plan = ("-d", "embedded", "--train-examples", "48", "-e", "1", "-b", "16", "-ps", "1", "-pe", "1", "-p",
            "magnitude", "-o", "out")  # fmt: skip
    done = run(installed, "sweep", *sizes, *plan, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "data-chart" in (tmp_path / "out/report.html").read_text()
