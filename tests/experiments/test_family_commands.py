"""What a user types, on a small model of every family: training by a teacher, compression, explanations, students."""

import json

import pandas as pd
import pytest

from gated_bert.cli.main import main
from gated_bert.compression import latency_measure
from gated_bert.compression.onnx_fused import EMBEDDINGS
from gated_bert.models.family import _MODULES
from gated_bert.models.folder import load_model
from tests.models.family_models import FOLDERS

pytestmark = pytest.mark.nightly
DATA = "-d embedded -t sst2 -ml 16 -b 16 --train-examples 32".split()


@pytest.fixture(scope="module", params=sorted(_MODULES))
def family(request):
    return request.param


@pytest.fixture(scope="module")
def dense(family, tmp_path_factory):
    """The model folder of a run of that family."""
    place = tmp_path_factory.mktemp("commands")
    run(*"train -p baseline -e 1".split(), *DATA, "-pt", FOLDERS / family, "-o", place / family)
    return place / family / "results_baseline_sst2" / "model"


@pytest.fixture(autouse=True)
def here(jobs_here, commands_here, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VERBOSE", "0")
    # A busy machine is no fault of a family's.
    monkeypatch.setattr(latency_measure, "NOISE", 1.0)


def run(*words):
    assert main([*map(str, words)]) == 0


def test_it_learns_from_a_teacher_of_its_family(dense, family):
    run(*"train -p magnitude -f 0.5 -ps 1 -pe 1 -e 1 --distill-layers all".split(), *DATA, "-pt", dense, "--teacher",
        dense, "-o", "out")  # fmt: skip
    assert load_model("out/results_magnitude-distilled-all_sst2/model").config.model_type == family


@pytest.mark.parametrize("epochs", [0, 1])
def test_it_is_compressed_to_levels(dense, epochs):
    run("compress", *DATA, *f"--levels 40 --dense-epochs {epochs} -e {epochs} -o study".split(), "-pt", dense)
    table = pd.read_csv("study/reports/compression.csv")
    assert set(table["form"]) == {"keras", "onnx", "int8", "fp16"} and table["value"].notna().all()
    sizes = load_model("study/models/shrunk_40").config.layers
    assert all(each.num_heads < 3 and each.intermediate_size < 13 for each in sizes)


@pytest.mark.parametrize("epochs", [0, 1])
def test_it_is_compressed_to_speeds(dense, family, epochs):
    run("compress", dense, *f"--speedups 1.05 -d embedded -e {epochs} --length 8 --texts 32 --search-steps 2".split(),
        *("-ml 16 -b 16 --train-examples 32".split() if epochs else ()), "-o", "study")
    rows = pd.read_csv("study/family.csv")
    assert list(rows["precision"]) == ["fp32", "int8"] * 2
    assert load_model("study/models/speedup_1.05x").config.model_type == family


def test_its_latency_is_tabulated(dense, family, capsys):
    run("latency-table", dense, *"--repeats 3 -o table.json".split())
    record = json.loads(open("table.json").read())
    assert record["conditions"]["length"] == 20, "no more than it takes"
    assert record["conditions"]["graph"] == ("fused" if family in EMBEDDINGS else "standard")
    if family not in EMBEDDINGS:
        capsys.readouterr()
        assert main(["latency-table", str(dense), "--graph", "fused", "-o", "other.json"]) == 2
        assert "--graph: 'fused' is refused; allowed: standard" in capsys.readouterr().err


def test_it_is_pruned_by_how_activations_change(dense, family):
    config = {"data": "embedded", "num_epochs": 1, "batch_size": 16, "max_len": 16, "train_examples": 32, "seeds": [3],
              "thresholds": {"half": {"attention": [0, 0.5], "ffn": [0, 0.5], "scale": "quantile"}},
              "model_path": str(dense)}  # fmt: skip
    if family == "modernbert":
        config["thresholds"]["half"] = {"attention": [0, 0.5, 0], "ffn": [0, 0.5, 0], "scale": "quantile"}
    with open("config.json", "w") as file:
        json.dump(config, file)
    run("activation-change", "--config", "config.json", "-o", "out")
    assert list(pd.read_csv("out/activation_change.csv")["variant"]) == ["unpruned", "half"]
    assert load_model("out/results_half_sst2_seed3/model").config.layers[1].intermediate_size in (6, 7)


def test_it_is_measured_and_explained_and_teaches_students(dense):
    run("export", dense, "model.onnx")
    run("benchmark", dense, "model.onnx", *"-d embedded --batches 1 --lengths 8 -o measured".split())
    assert pd.read_csv("measured/benchmark.csv")["value"].nunique() == 1
    documents = "-d embedded --split train --documents 8 --num-samples 20"
    run("explain", dense, *f"{documents} --token-level -o explained".split())
    run("explain", dense, *f"{documents} -o words".split())
    run("sp-lime", "words", *"--pick 2 -o picked".split())
    run("student", "explained", *"-d embedded --documents 16 --seeds 1 --xai-weights 0.5 -e 1 -o students".split())
