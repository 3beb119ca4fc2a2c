"""`gated-bert quantize`: exported models in 8 and 16 bits."""

import json
import shutil
from collections import Counter

import numpy as np
import pytest

from gated_bert.cli.main import main
from gated_bert.compression import quantize as module
from gated_bert.compression.onnx_export import export_onnx
from gated_bert.compression.onnx_model import open_model, write_record
from gated_bert.compression.quantize import needs_reduced_range, quantize
from gated_bert.models.architecture import BertConfig
from gated_bert.models.bert import BertClassifier
from gated_bert.models.folder import LoadedModel, save_model
from gated_bert.support.errors import UserError
from gated_bert.tasks.embedded import embedded_vocabulary
from gated_bert.tasks.task import TASKS
from gated_bert.tasks.wordpiece import Tokenizer

onnx = pytest.importorskip("onnx")
ONE = {"input_ids": [[2, 9, 30, 3]], "attention_mask": [[1, 1, 1, 1]], "token_type_ids": [[0, 0, 0, 0]]}
ONE = {name: np.array(values) for name, values in ONE.items()}


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A folder with a model of embedded SST-2 as `model`, `standard.onnx` and `fused.onnx`."""
    tokenizer = Tokenizer.from_vocab(embedded_vocabulary())
    sizes = BertConfig.uniform(2, 64, 4, 128, vocab_size=tokenizer.vocab_size, max_position=64)
    model = BertClassifier(sizes)
    rng = np.random.default_rng(0)
    for layer in model.gated_layers():
        layer.raw_kernel.assign(rng.normal(0, 0.1, tuple(layer.raw_kernel.shape)))
    place = tmp_path_factory.mktemp("exported")
    save_model(place / "model", model, tokenizer, TASKS["sst2"], {})
    for graph in ("standard", "fused"):
        export_onnx(place / f"{graph}.onnx", LoadedModel(model, tokenizer, TASKS["sst2"], sizes, {}), graph)
    return place


@pytest.fixture
def folder(exported, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(exported, tmp_path, dirs_exist_ok=True)
    return tmp_path


def operators(path):
    return Counter(node.op_type for node in onnx.load(path).graph.node)


def stored_types(path):
    """Bytes of the initialisers by their type."""
    sizes = Counter()
    for tensor in onnx.load(path).graph.initializer:
        array = onnx.numpy_helper.to_array(tensor)
        sizes[array.dtype.name] += array.nbytes
    return sizes


@pytest.mark.parametrize("graph", ["standard", "fused"])
def test_eight_bits_hold_every_matrix(exported, tmp_path, graph):
    fp32 = open_model(exported / f"{graph}.onnx")
    int8 = quantize(exported / f"{graph}.onnx", tmp_path / "m.onnx", "int8", reduce_range=False)
    count = operators(tmp_path / "m.onnx")
    # Six matrices a layer, pooler and classifier; the fused attention holds three of them.
    expected = {"standard": (14, 0), "fused": (8, 2)}[graph]
    assert (count["MatMulInteger"], count["QAttention"]) == expected
    assert stored_types(tmp_path / "m.onnx")["int8"] > 0.5 * 2 * (4 * 64 * 64 + 2 * 64 * 128)
    difference = np.abs(fp32.model.predict_on_batch(ONE) - int8.model.predict_on_batch(ONE)).max()
    assert 0 < difference < 0.05 * np.abs(fp32.model.predict_on_batch(ONE)).max() + 0.05


def test_scales_are_per_column(exported, tmp_path):
    quantize(exported / "standard.onnx", tmp_path / "m.onnx", "int8", reduce_range=False)
    scales = [tensor for tensor in onnx.load(tmp_path / "m.onnx").graph.initializer if tensor.name.endswith("_scale")]
    assert sum(list(tensor.dims) == [128] for tensor in scales) == 2


@pytest.mark.parametrize(("reduce_range", "largest"), [(False, 127), (True, 64)])
def test_a_reduced_range_takes_seven_bits(exported, tmp_path, reduce_range, largest):
    quantize(exported / "standard.onnx", tmp_path / "m.onnx", "int8", reduce_range)
    arrays = [onnx.numpy_helper.to_array(tensor) for tensor in onnx.load(tmp_path / "m.onnx").graph.initializer]
    matrices = [array for array in arrays if array.dtype == np.int8 and array.shape == (64, 128)]
    assert len(matrices) == 2 and max(int(np.abs(array.astype(int)).max()) for array in matrices) == largest
    assert json.loads((tmp_path / "m.json").read_text())["reduce_range"] is reduce_range


def test_sixteen_bits_halve_the_weights_and_compute_in_32(exported, tmp_path):
    fp16 = quantize(exported / "standard.onnx", tmp_path / "m.onnx", "fp16")
    before, after = stored_types(exported / "standard.onnx"), stored_types(tmp_path / "m.onnx")
    assert after["float16"] > 0.49 * before["float32"] and after["float32"] < 100
    fp32 = open_model(exported / "standard.onnx").model.predict_on_batch(ONE)
    assert 0 < np.abs(fp16.model.predict_on_batch(ONE) - fp32).max() < 2e-3
    assert fp16.model.record["precision"] == "fp16" and fp16.model.record["quantized_from"] == "standard.onnx"


def test_a_weight_too_large_for_sixteen_bits_keeps_its_tensor(exported, tmp_path):
    proto = onnx.load(exported / "fused.onnx")
    (tensor,) = (each for each in proto.graph.initializer if each.name == "encoder_0_ffn_output_bias")
    values = onnx.numpy_helper.to_array(tensor).copy()
    values[0] = 1e6
    tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
    onnx.save(proto, tmp_path / "large.onnx")
    loaded = open_model(exported / "fused.onnx")
    write_record(tmp_path / "large.onnx", loaded.model.record, loaded.tokenizer)
    quantize(tmp_path / "large.onnx", tmp_path / "m.onnx", "fp16")
    assert stored_types(tmp_path / "m.onnx")["float32"] == 64 * 4


def test_the_command_says_what_became_of_size_and_metrics(folder, capsys):
    words = ["quantize", "standard.onnx", "m.onnx", "--precision", "int8-static", "-d", "embedded"]
    assert main(words) == 0
    printed = capsys.readouterr().out
    assert "of the" in printed and "MB of fp32" in printed and "dev" in printed and "accuracy" in printed
    assert operators("m.onnx")["QuantizeLinear"] > 10
    assert open_model("m.onnx").model.record["precision"] == "int8-static"


def test_a_model_folder_is_exported_on_the_way(folder, capsys):
    assert main(["quantize", "model", "m.onnx", "--fused"]) == 0
    assert open_model("m.onnx").model.record["graph"] == "fused"
    assert "largest difference of a logit" in capsys.readouterr().out
    assert sorted(path.name for path in folder.iterdir() if path.name.startswith("m.")) == [
        "m.json",
        "m.onnx",
        "m.tokenizer.json",
    ]


@pytest.mark.parametrize("graph, precision", [
    ("--fused", "int8-static"), ("--tiled", "int8"), ("--tiled", "int8-static"),
])  # fmt: skip
def test_a_graph_that_cannot_be_quantised_so_is_refused_before_the_export(folder, capsys, graph, precision):
    assert main(["quantize", "model", "n.onnx", graph, "--precision", precision, "-d", "embedded"]) != 0
    said = capsys.readouterr()
    assert f"--precision: '{precision}' is refused with {graph}; allowed: " in said.err and not said.out


def test_what_cannot_be_quantised_is_refused(exported, tmp_path):
    quantize(exported / "fused.onnx", tmp_path / "m.onnx", "fp16")
    with pytest.raises(UserError, match="m.onnx: has fp16 already"):
        quantize(tmp_path / "m.onnx", tmp_path / "n.onnx", "int8")
    with pytest.raises(UserError, match="fused.onnx: a fused graph; int8-static needs the standard one"):
        quantize(exported / "fused.onnx", tmp_path / "n.onnx", "int8-static")
    with pytest.raises(UserError, match="int8-static: needs data"):
        quantize(exported / "standard.onnx", tmp_path / "n.onnx", "int8-static")
    assert not (tmp_path / "n.onnx").exists()


@pytest.mark.parametrize(
    ("machine", "flags", "expected"),
    [
        ("x86_64", "flags : avx2 fma", True),
        ("x86_64", "flags : avx2 avx512_vnni", False),
        ("AMD64", None, True),
        ("aarch64", None, False),
    ],
)
def test_the_processor_decides_on_the_range(machine, flags, expected, tmp_path, monkeypatch):
    monkeypatch.setattr(module.platform, "machine", lambda: machine)
    monkeypatch.setattr(module, "CPU_FLAGS", tmp_path / "cpuinfo")
    if flags:
        (tmp_path / "cpuinfo").write_text(flags)
    assert needs_reduced_range() is expected
