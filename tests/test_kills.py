"""Commands killed at any of their file operations: the next one leaves no trace of it, and removes nothing else."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from gated_bert.models.folder import load_model, save_model
from gated_bert.support.partial import _NAME
from tests.explain.conftest import loaded_model
from tests.marks import nightly

KILLS = int(os.environ.get("KILLS", "2"))
"""Of each command, first into an empty folder and then over what is there, where the command does not refuse to."""
OTHERS = ("notes.txt", ".hidden", "x.partial", ".out.partial", ".out.onnx.tmp", "another/.model.previous/file")
COMMANDS = {
    "train": ("out", "--resume", "train -p magnitude -d embedded -m tiny --num-layers 1 --d-model 16 --num-heads 2 "
              "--dff 32 -e 2 -ps 1 -b 16 --train-examples 64 --checkpoint-steps 2 --run-dir out"),
    "shrink": (".", "", "shrink model out --length 16 --batch 1"),
    "export": (".", "", "export model out.onnx --fused"),
    "export hf": (".", "", "export model out --format hf"),
    "quantize": (".", "", "quantize model.onnx out.onnx"),
    "explain": (".", "--resume", "explain model a.tsv --num-samples 20 -o out --text-column sentence"),
}  # fmt: skip


def pruned_model(folder: Path):
    """A model that `shrink` finds something in: a closed neuron in each layer."""
    loaded = loaded_model("sst2")
    for layer in loaded.model.gated_layers(("ffn_intermediate",)):
        layer.mask_variable.assign(layer.mask_variable * (np.arange(layer.units) > 0))
    save_model(folder, loaded.model, loaded.tokenizer, loaded.task, {"config": {"max_len": 20}})


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A folder with a model, its export and documents."""
    from gated_bert.compression.onnx_export import export_onnx

    folder = tmp_path_factory.mktemp("place")
    pruned_model(folder / "model")
    export_onnx(folder / "model.onnx", load_model(folder / "model"), "fused")
    rows = (f"{text}\t{label}\n" for label, text in enumerate(("a dull film", "a good film")))
    (folder / "a.tsv").write_text("sentence\tlabel\n" + "".join(rows))
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", ["export", *map(nightly, ("train", "explain", "shrink", "export hf", "quantize"))])
@pytest.mark.nightly
def test_the_next_command_leaves_no_temporary_file_of_a_killed_one(place, tmp_path, name):
    watched, restart, words = COMMANDS[name]
    work = tmp_path / "work"
    shutil.copytree(place, work)
    folder, temporaries = (work / watched).resolve(), tmp_path / "temporaries"
    temporaries.mkdir()
    for other in OTHERS:
        (folder / other).parent.mkdir(parents=True, exist_ok=True)
        (folder / other).write_text("not of a command")
    home = {"TMPDIR": str(temporaries), "HOME": str(tmp_path / "home"), "KILL_LOG": str(tmp_path / "log"),
            "VERBOSE": "0", "OMP_NUM_THREADS": "1", "TF_CPP_MIN_LOG_LEVEL": "2"}  # fmt: skip
    driver = [sys.executable, str(Path(__file__).with_name("kill_at.py")), str(folder), str(KILLS), restart]
    ended = subprocess.run([*driver, *words.split()], cwd=work, env=os.environ | home, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr + (tmp_path / "log").read_text()
    whole, *kills = [json.loads(line) for line in ended.stdout.splitlines()]
    assert len(kills) >= min(KILLS, 2)
    for kill in kills:
        here = f"{name} killed at operation {kill['at']} of {kill['of']}, into {kill['into']}"
        # A command that was killed when all was done finds its own output in the way.
        done = kill["code"] == 0 or (kill["code"], kill["names"]) == (2, whole["names"])
        assert kill["killed"] and done, here + "\n" + (tmp_path / "log").read_text()[-3000:]
        assert not [each for each in kill["names"] if _NAME.fullmatch(each.rpartition("/")[2])], here
        assert set(OTHERS) <= {*kill["names"], *kill["aside"]}, here
        # A run begun anew has another time in the names of its results.
        assert name == "train" or kill["names"] == whole["names"], here
    assert KILLS < 4 or [each for kill in kills for each in kill["left"] if _NAME.fullmatch(each.rpartition("/")[2])]
    # Keras' is an empty folder, ONNX Runtime's a number.
    assert not [path for path in temporaries.rglob("*") if path.is_file() and path.name != ".ses"]
