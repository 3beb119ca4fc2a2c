"""The guards of the tests' order find what they are for."""

import os
import subprocess
import sys
from pathlib import Path

import keras
import pytest

from gated_bert.models.gated_dense import GatedDense
from tests.shared_state import state

MODULE = """
import pytest

@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("place")
    (folder / "a").write_text("as made")
    return folder, {"same": folder / "a"}

@pytest.fixture
def part(place):
    return place[0] / "a"

def test_reads(part): assert part.read_text()
def test_writes(part): part.write_text("changed")
def test_adds(place): (place[0] / "b").touch()
def test_removes(place): (place[0] / "a").unlink()
"""


def pytest_of(folder, *words):
    command = [sys.executable, "-m", "pytest", "-q", "-p", "tests.shared_state", "-p", "no:cacheprovider", *words]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[1]), "PYTEST_ADDOPTS": ""}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True).stdout


def test_a_test_that_changes_what_its_module_shares_fails_though_it_asserts_nothing(tmp_path):
    (tmp_path / "test_any.py").write_text(MODULE)
    shown = pytest_of(tmp_path)
    assert "3 failed, 1 passed" in shown
    assert shown.count("the test changes what its module's place holds: ") >= 3


def test_weights_are_part_of_what_is_shared():
    model = keras.Sequential([keras.Input((3,)), GatedDense(2)])
    before = state((model, "a name"))
    assert state((model, "a name")) == before
    for variable in (model.layers[0].bias, model.layers[0].gates):
        variable.assign(variable + 1.0)
        assert state((model, "a name")) != before
        variable.assign(variable - 1.0)
        assert state((model, "a name")) == before


@pytest.mark.nightly
def test_an_order_is_drawn_by_modules_and_is_that_of_its_seed(tmp_path):
    for name in "abcd":
        (tmp_path / f"test_{name}.py").write_text("".join(f"def test_{number}(): pass\n" for number in range(9)))
    words = ("-v", "--collect-only", "--shuffle=3")
    shown = pytest_of(tmp_path, *words)
    listed = [line for line in shown.splitlines() if "<" in line]
    modules = [line for line in listed if "<Module" in line]
    assert "order of tests: --shuffle=3" in shown
    assert len(modules) == 4 and len(listed) >= 40, "the tests of a module stay together"
    functions = [line.split()[1] for line in listed if "<Function" in line]
    assert len(functions) == 36 and any(functions[at : at + 9] != sorted(functions[:9]) for at in range(0, 36, 9))
    assert [line for line in pytest_of(tmp_path, *words).splitlines() if "<" in line] == listed
