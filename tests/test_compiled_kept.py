"""What JAX compiles is kept for the next process, where nobody has said otherwise."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from gated_bert.cli import common
from gated_bert.cli.common import prepare_environment

TINY = (
    "-d embedded -t sst2 -m tiny --num-layers 1 --d-model 16 --num-heads 2 --dff 32 -p magnitude -e 1 -ps 1 -ss 50 "
    "-b 64 --train-examples 256"
)


@pytest.fixture
def environment(monkeypatch, tmp_path):
    monkeypatch.setattr(os, "environ", dict(os.environ) | {"KERAS_BACKEND": "jax", "XDG_CACHE_HOME": str(tmp_path)})
    for name in [name for name in os.environ if name.startswith("JAX_")]:
        del os.environ[name]
    return os.environ


def test_jax_keeps_what_it_compiles(environment, tmp_path):
    prepare_environment()
    assert environment["JAX_COMPILATION_CACHE_DIR"] == str(tmp_path / "gated_bert" / "compiled")


def test_what_was_kept_first_goes_where_there_is_too_much(environment, monkeypatch, tmp_path):
    folder = tmp_path / "gated_bert" / "compiled"
    folder.mkdir(parents=True)
    for place, name in enumerate("dacb"):
        (folder / name).write_bytes(bytes(10))
        os.utime(folder / name, (place, place))
    (folder / "folder").mkdir()
    monkeypatch.setattr(common, "_MOST_COMPILED", 25)
    prepare_environment()
    assert {file.name for file in folder.iterdir()} == {"b", "c", "folder"}
    prepare_environment()
    assert len(list(folder.iterdir())) == 3


@pytest.mark.parametrize("said", ["elsewhere", ""])
def test_a_user_says_where(environment, said):
    environment["JAX_COMPILATION_CACHE_DIR"] = said
    prepare_environment()
    assert environment["JAX_COMPILATION_CACHE_DIR"] == said


def test_tensorflow_and_users_without_a_home_need_nothing(environment, monkeypatch):
    environment["KERAS_BACKEND"] = "tensorflow"
    prepare_environment()
    assert "JAX_COMPILATION_CACHE_DIR" not in environment
    environment["KERAS_BACKEND"] = "jax"
    del environment["XDG_CACHE_HOME"]
    monkeypatch.setattr("pathlib.Path.home", lambda: (_ for _ in ()).throw(RuntimeError("no home")))
    prepare_environment()
    assert "JAX_COMPILATION_CACHE_DIR" not in environment


@pytest.mark.nightly
@pytest.mark.slow
def test_a_second_run_takes_what_the_first_compiled(environment, tmp_path):
    pytest.importorskip("jax")
    environment["JAX_PLATFORMS"], environment["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "cpu", "0"

    def train(seed):
        words = ["train", *TINY.split(), "--seed", str(seed), "--run-dir", str(tmp_path / f"run{seed}")]
        command = [sys.executable, "-m", "gated_bert", *words]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return {file.name for file in (tmp_path / "gated_bert" / "compiled").glob("*train_step*-cache")}

    first = train(1)
    assert first and train(2) == first
