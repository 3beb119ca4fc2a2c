"""Exports that are too large for one file: their arrays in a second one, as other tools look for it."""

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from gated_bert.cli.main import main
from gated_bert.compression import onnx_file
from gated_bert.compression.benchmark import model_costs
from gated_bert.compression.latency import Conditions
from gated_bert.compression.latency_measure import prediction
from gated_bert.compression.onnx_export import export_onnx
from gated_bert.compression.onnx_file import data_file
from gated_bert.compression.onnx_fused import EMBEDDINGS
from gated_bert.compression.onnx_model import open_model
from gated_bert.compression.optimum_export import export_optimum
from gated_bert.compression.parity import check_inputs, largest_difference
from gated_bert.compression.quantize import quantize
from gated_bert.compression.source import load_source
from gated_bert.support.errors import UserError
from tests.marks import nightly
from tests.models.family_models import FOLDERS


@pytest.fixture
def limit(monkeypatch):
    """`limit(bytes)` instead of protobuf's 2 GiB."""
    return lambda size: monkeypatch.setattr(onnx_file, "LARGEST", size)


@pytest.fixture(scope="module")
def loaded():
    """A model of each family that was asked for."""
    known = {}
    return lambda family: known.setdefault(family, load_source(FOLDERS / family))


@pytest.mark.parametrize(("family", "graph"), [
    ("modernbert", "standard"), ("bert", "fused"), *(nightly(family, "standard") for family in EMBEDDINGS),
    *(nightly(family, "fused") for family in EMBEDDINGS if family != "bert"),
])  # fmt: skip
def test_a_large_model_stands_in_two_files_that_compute_the_same(loaded, family, graph, limit, tmp_path):
    limit(30_000)
    path = tmp_path / "large.onnx"
    assert export_onnx(path, loaded(family), graph) < 1e-4
    assert sorted(each.name for each in tmp_path.iterdir()) == [
        "large.json", "large.onnx", "large.onnx_data", "large.tokenizer.json"]  # fmt: skip
    left = onnx.load(path, load_external_data=False).graph
    assert {each.name for each in left.input} == set(loaded(family).config.input_names)
    stays = sum(len(each.raw_data) for each in left.initializer)
    assert stays < 30_000 < stays + data_file(path).stat().st_size
    opened = open_model(path)
    assert largest_difference(loaded(family).model, opened.model, check_inputs(opened)) < 1e-4
    assert model_costs(path, opened, 16)["size_bytes"] == path.stat().st_size + data_file(path).stat().st_size


@pytest.mark.parametrize("precision", ["int8", "fp16"])
def test_what_takes_fewer_bits_stands_in_one_file_where_it_fits(loaded, limit, precision, tmp_path):
    limit(30_000)
    export_onnx(tmp_path / "large.onnx", loaded("roberta"), "fused")
    for size, apart in ((3_000, True), (10**9, False)):
        limit(size)
        path = tmp_path / precision / "small.onnx"
        small = quantize(tmp_path / "large.onnx", path, precision)
        assert data_file(path).is_file() == apart
        assert len(list(path.parent.iterdir())) == 3 + apart, "what stood there before is gone"
        assert largest_difference(loaded("roberta").model, small.model, check_inputs(small)) < 0.2


def test_files_that_do_not_belong_together_are_refused(loaded, limit, tmp_path, capsys):
    limit(30_000)
    path = tmp_path / "large.onnx"
    export_onnx(path, loaded("bert"), "fused")
    assert main(["inspect", str(path)]) == 0
    assert "large.onnx_data" in capsys.readouterr().out
    content = data_file(path).read_bytes()
    data_file(path).write_bytes(content[:-4] + bytes(4))
    with pytest.raises(UserError, match="large.onnx_data: its bytes are not those that were exported"):
        open_model(path)
    data_file(path).unlink()
    with pytest.raises(UserError, match="large.onnx_data: no such file, and large.onnx keeps its arrays there"):
        open_model(path)


def test_an_export_that_ends_on_its_way_leaves_no_file_with_the_arrays_of_another(loaded, limit, tmp_path, monkeypatch):
    limit(30_000)
    path = tmp_path / "large.onnx"
    export_onnx(path, loaded("bert"), "fused")
    replace = Path.replace

    def ends(source, target):
        if target == path:
            raise KeyboardInterrupt
        return replace(source, target)

    monkeypatch.setattr(Path, "replace", ends)
    with pytest.raises(KeyboardInterrupt):
        export_onnx(path, loaded("bert"), "fused")
    assert data_file(path).is_file() and not path.exists()


@pytest.mark.nightly
def test_a_folder_for_other_tools_says_which_graphs_stand_in_two_files(loaded, limit, tmp_path):
    limit(30_000)
    export_optimum(tmp_path / "web", loaded("bert"))
    names = {"model.onnx", "model.onnx_data", "model_quantized.onnx"}
    assert {each.name for each in (tmp_path / "web" / "onnx").iterdir()} == names
    told = json.loads((tmp_path / "web" / "config.json").read_text())["transformers.js_config"]
    assert told == {"use_external_data_format": {"model.onnx": True}}
    inputs = {name: array.astype(np.int64) for name, array in check_inputs(loaded("bert"))[0].items()}
    found = onnxruntime.InferenceSession(tmp_path / "web" / "onnx" / "model.onnx").run(None, inputs)[0]
    assert np.abs(found - loaded("bert").model.predict_on_batch(inputs)).max() < 1e-4


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_the_latency_of_a_large_model_is_measured(loaded, limit, precision):
    limit(30_000)
    assert np.isfinite(prediction(loaded("bert").model, Conditions(length=8, precision=precision))()[0]).all()


def test_a_name_that_no_onnx_file_can_hold_is_refused(loaded, limit, tmp_path):
    limit(30_000)
    with pytest.raises(UserError, match="its arrays go into a second file"):
        export_onnx(tmp_path / "\udcff.onnx", loaded("bert"), "fused")
    assert not list(tmp_path.iterdir())


def test_a_single_array_that_no_onnx_file_can_hold_is_refused(loaded, limit, tmp_path):
    limit(20_000)
    with pytest.raises(UserError, match="token_embedding.* GB, and an ONNX file takes 2 GiB of one array at most"):
        export_onnx(tmp_path / "large.onnx", loaded("bert"), "fused")
    assert not list(tmp_path.iterdir())
