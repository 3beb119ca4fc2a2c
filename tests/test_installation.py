"""The scripts find a Python and what it lacks, whatever is on the PATH, and say in a line what is missing."""

import importlib.metadata
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from gated_bert.installation import missing, requirements

ROOT = Path(__file__).resolve().parents[1]
SETUP = ROOT / "setup.cfg"


def test_requirements_are_those_of_the_package_and_of_the_extras():
    base, more = requirements(SETUP, []), requirements(SETUP, ["export", "dev"])
    assert set(base) < set(more) and any(line.startswith("keras>=") for line in base)
    assert {line.split(">=")[0] for line in more} >= {"onnx", "pytest", "ruff"}
    assert all(line.count(">=") == 1 for line in more), "the lines that `missing` reads"
    with pytest.raises(KeyError):
        requirements(SETUP, ["nothing"])


@pytest.mark.parametrize(
    ("installed", "wanted", "lacks"),
    [("2.1.0", "2.1", False), ("2.1", "2.1.0", False), ("2.10.0", "2.9", False), ("2.9.1rc1", "2.10", True),
     (None, "1", True)],
)  # fmt: skip
def test_what_is_too_old_or_not_there_is_missing(monkeypatch, installed, wanted, lacks):
    def version(name):
        if installed is None:
            raise importlib.metadata.PackageNotFoundError(name)
        return installed

    monkeypatch.setattr(importlib.metadata, "version", version)
    assert missing([f"thing>={wanted}"]) == ([f"thing>={wanted}"] if lacks else [])


def test_another_name_of_a_package_counts(monkeypatch):
    def version(name):
        if name != "tensorflow-cpu":
            raise importlib.metadata.PackageNotFoundError(name)
        return "3.0"

    monkeypatch.setattr(importlib.metadata, "version", version)
    assert missing(["tensorflow>=2.21"]) == [] and missing(["jax>=0.6"]) == ["jax>=0.6"]


def test_the_module_says_what_is_lacking():
    command = [sys.executable, str(ROOT / "gated_bert" / "start.py"), "gated_bert.installation", "tensorflow"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip()) in ((0, ""), (1, done.stdout.strip())) and done.stderr == ""


def shell(script, path, **variables):
    """What a script says in a copy of the repository's scripts, with `path` alone as its PATH."""
    bash = shutil.which("bash")
    environment = {"PATH": str(path), "HOME": str(path), **variables}
    return subprocess.run([bash, "-c", f"set -euo pipefail\nsource scripts/environment.sh\n{script}"],
                          capture_output=True, text=True, env=environment, cwd=path.parent / "copy")  # fmt: skip


@pytest.fixture
def bin_folder(tmp_path):
    """A folder for the PATH with the tools that scripts use, beside a copy of the scripts."""
    folder, copy = tmp_path / "bin", tmp_path / "copy"
    folder.mkdir()
    for tool in ("dirname", "mkdir", "touch", "rm", "bash", "flock"):
        found = shutil.which(tool)
        if found:
            os.symlink(found, folder / tool)
    shutil.copytree(ROOT / "scripts", copy / "scripts")
    shutil.copy(SETUP, copy)
    (copy / "gated_bert").mkdir()
    return folder


def program(path, text):
    path.write_text("#!/usr/bin/env bash\n" + text)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


def test_no_python_is_one_line(bin_folder):
    done = shell("find_python", bin_folder)
    assert done.returncode == 2
    assert done.stderr == "error: no Python 3.11 or newer is on the PATH; install one\n"


def test_an_old_python_is_passed_over_and_a_newer_one_taken_only_alone(bin_folder):
    # The version that a stand-in says it has is compared as Python compares it.
    for name, version in (("python3", "(3, 9)"), ("python3.12", "(3, 12)"), ("python3.14", "(3, 14)")):
        code = f"${{2/sys.version_info\\[:2\\]/{version}}}"
        program(bin_folder / name, f'code="{code}"; exec {sys.executable} -c "$code"\n')
    assert shell('find_python; echo "$python"', bin_folder).stdout == "python3.12\n"
    (bin_folder / "python3.12").unlink()
    assert shell('find_python; echo "$python"', bin_folder).stdout == "python3.14\n"


def test_what_is_installed_is_not_installed_again(bin_folder):
    program(bin_folder / "good", "exit 0\n")
    done = shell('python=good; ensure_installed tensorflow; echo "$python"', bin_folder)
    assert done.stdout == "good\n" and done.stderr == ""
    assert not (bin_folder.parent / "copy" / ".venv").exists()


def test_an_environment_that_cannot_be_made_is_one_line(bin_folder):
    program(bin_folder / "bad", "exit 1\n")
    done = shell("python=bad; ensure_installed tensorflow", bin_folder)
    assert done.returncode == 2 and done.stderr.splitlines()[-1].startswith("error: bad -m venv failed")
    assert (bin_folder.parent / "copy" / ".venv" / ".incomplete").exists(), "the next try makes it anew"
    done = shell("python=bad; ensure_installed tensorflow", bin_folder)
    assert "half made; it is made anew" in done.stderr


def test_an_installation_that_fails_says_so_and_can_be_repeated(bin_folder):
    venv = bin_folder.parent / "copy" / ".venv" / "bin"
    venv.mkdir(parents=True)
    # Whole enough to start, but it lacks what is wanted, and pip fails.
    program(venv / "python", 'case "$*" in *"-c "*) exit 0;; *) exit 1;; esac\n')
    program(bin_folder / "bad", "exit 1\n")
    done = shell("python=bad; ensure_installed tensorflow", bin_folder)
    assert done.returncode == 2 and "error: the installation failed (above is why)" in done.stderr


def test_the_working_folder_is_taken_off_the_path(bin_folder):
    copy = bin_folder.parent / "copy"
    done = shell('echo "$PYTHONPATH"', bin_folder, PYTHONPATH=f":.:/elsewhere:{copy}")
    assert done.stdout == f"{copy}:/elsewhere\n"


@pytest.mark.parametrize(
    ("words", "extras"),
    [("", ""), ("--track mlflow", "mlflow"), ("--track=mlflow,wandb -p spt", "mlflow wandb"),
     ("--track tensorboard wandb -e 3", "tensorboard wandb"), ("-e 3 --track tensorboard", "tensorboard"),
     ("--backend ray --track mlflow", "cluster mlflow")],
)  # fmt: skip
def test_the_launcher_installs_what_its_flags_need(bin_folder, words, extras):
    copy = bin_folder.parent / "copy"
    shutil.copy(ROOT / "run_experiments.sh", copy)
    program(bin_folder / "python3", f'echo "$*" >>"{copy}/asked.txt"\n')
    done = subprocess.run([shutil.which("bash"), "./run_experiments.sh", *words.split()], cwd=copy, text=True,
                          capture_output=True, env={"PATH": str(bin_folder), "HOME": str(copy)})  # fmt: skip
    assert done.returncode == 0, done.stderr
    (asked,) = (line for line in (copy / "asked.txt").read_text().splitlines() if "gated_bert.installation" in line)
    assert asked.split("gated_bert.installation")[1].split() == ["tensorflow", *extras.split()]
