"""`gated-bert export MODEL OUT.onnx`: graphs of every kind of model, and the command."""

import json
import shutil
from collections import Counter

import numpy as np
import pytest

from gated_bert.cli.main import main
from gated_bert.compression import onnx_export, onnx_standard
from gated_bert.compression.inspect_onnx import read_onnx
from gated_bert.compression.model_statistics import random_inputs
from gated_bert.compression.onnx_export import GRAPHS, export_onnx
from gated_bert.compression.onnx_model import open_model, write_record
from gated_bert.compression.predict import evaluation_config
from gated_bert.compression.quantize import quantize_dynamically
from gated_bert.explain.lime import explain_texts, predict_samples
from gated_bert.models.architecture import BertConfig, LayerSizes
from gated_bert.models.bert import BertClassifier
from gated_bert.models.folder import LoadedModel, save_model
from gated_bert.support.errors import UserError
from gated_bert.tasks.evaluation import make_dataset
from gated_bert.tasks.examples import Examples, SpanExamples
from gated_bert.tasks.task import TASKS
from gated_bert.tasks.wordpiece import Tokenizer
from tests.compression.conftest import INPUTS, VOCAB, randomize
from tests.marks import nightly
from tests.refused import refusal

onnx = pytest.importorskip("onnx")

TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "good", "bad", "film", "##s"]
UNIFORM = BertConfig.uniform(2, 16, 4, 12, vocab_size=VOCAB, max_position=16)
MODELS = {
    "classes": (UNIFORM, "sst2"),
    "other heads and widths in every layer": (
        UNIFORM.replace(layers=(LayerSizes(3, 4, 4, 7), LayerSizes(1, 4, 4, 12))),
        "mnli",
    ),
    "a regression whose queries and values differ in size": (
        UNIFORM.replace(layers=(LayerSizes(3, 2, 4, 7), LayerSizes(2, 3, 2, 5))),
        "stsb",
    ),
    "emptied layers": (
        UNIFORM.replace(layers=(LayerSizes(0, 0, 0, 7), LayerSizes(2, 4, 4, 0), LayerSizes(0, 0, 0, 0))),
        "sst2",
    ),
    "spans": (UNIFORM.replace(span_head=True), "squad"),
}


def loaded_model(name, closed=0.4, **options):
    """A model of `MODELS` with large random weights, some of which are closed."""
    config, task = MODELS[name]
    model = BertClassifier(config.replace(num_outputs=TASKS[task].num_outputs), **options)
    randomize(model, 0)
    rng = np.random.default_rng(1)
    for layer in model.gated_layers():
        if layer.role != "classifier":
            layer.gates.assign((rng.random(tuple(layer.gates.shape)) > closed).astype(np.float32))
    return LoadedModel(model, Tokenizer.from_vocab(TOKENS), TASKS[task], model.bert_config, {"method": "magnitude"})


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    place = tmp_path_factory.mktemp("saved") / "model"
    found = loaded_model("classes")
    save_model(place, found.model, found.tokenizer, found.task, found.metadata)
    return place


@pytest.fixture
def folder(saved, tmp_path, monkeypatch):
    """The working directory, with a model folder in it as `model`."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(saved, "model")
    return tmp_path


@pytest.mark.parametrize("form", ["keras", "standard", "fused", "tiled", "int8"])
@pytest.mark.parametrize("name", MODELS)
@pytest.mark.daily_every(6)
def test_nothing_to_predict_is_refused_alike_by_models_of_every_form(name, form, tmp_path):
    if (name, form) == ("emptied layers", "tiled"):
        pytest.skip("its matrices are too small to be tiled")
    found = loaded_model(name)
    if form == "tiled":
        for layer in found.model.gated_layers(("query", "value", "ffn_output")):
            layer.gates.assign(np.repeat(np.arange(layer.gates.shape[0])[:, None] % 4 == 0, layer.gates.shape[1], 1))
    if form != "keras":
        export_onnx(tmp_path / "m.onnx", found, "fused" if form == "int8" else form)
        if form == "int8":
            quantize_dynamically(tmp_path / "m.onnx", tmp_path / "int8.onnx", False)
            write_record(tmp_path / "int8.onnx", json.loads((tmp_path / "m.json").read_text()), found.tokenizer)
        found = open_model(tmp_path / ("int8.onnx" if form == "int8" else "m.onnx"))
    nothing = {key: array[:0] for key, array in INPUTS.items()}
    one = {key: array[:1] for key, array in INPUTS.items()}
    assert len(found.model.predict_on_batch(one)) == 1
    with pytest.raises(UserError, match="a batch of 0 texts is refused; allowed: 1 or more"):
        found.model.predict_on_batch(nothing)
    if form != "keras":
        with pytest.raises(UserError, match="a batch of 0 texts"):
            found.model.predict([])
    config = evaluation_config(found, batch_size=2, max_len=16)
    spans, pair = found.task.kind == "span", found.task.pair
    none = SpanExamples([], [], np.zeros((0, 2)), [], []) if spans else Examples([], [] if pair else None, np.zeros(0))
    with pytest.raises(UserError, match=f"{found.task.name}: no texts were given"):
        make_dataset(found.task, found.tokenizer, none, config)
    if found.task.name == "sst2":
        with pytest.raises(UserError, match="explain: no texts were given"):
            predict_samples(found, [], 2, 16)
        assert list(explain_texts(found, [], [])) == []
    with pytest.raises(UserError, match="batch size 0 and length 4 are refused"):
        random_inputs(found.config, 0, 4)


@pytest.mark.parametrize("graph", ["standard", "fused"])
@pytest.mark.parametrize("name", MODELS)
@pytest.mark.daily_every(6)
def test_a_file_computes_what_the_gated_model_computes(name, graph, tmp_path):
    found = loaded_model(name)
    assert export_onnx(tmp_path / "m.onnx", found, graph) < 1e-5
    exported = open_model(tmp_path / "m.onnx")
    for inputs in (INPUTS, {key: array[:1, :3] for key, array in INPUTS.items()}):
        expected = found.model.predict_on_batch(inputs)
        assert np.abs(exported.model.predict_on_batch(inputs) - expected).max() < 1e-5
    assert (exported.task, exported.config) == (found.task, found.config)
    assert exported.metadata == {"method": "magnitude"}
    assert exported.tokenizer.encode(["good film"]).input_ids.tolist() == [2, 5, 7, 3]


def test_a_sixteen_bit_model_is_exported_in_32(tmp_path):
    found = loaded_model("classes", dtype="mixed_float16")
    assert export_onnx(tmp_path / "m.onnx", found) < 1e-5


def test_the_standard_graph_has_no_foreign_operators_and_dynamic_axes():
    graph = onnx_standard.standard_graph(loaded_model("classes").model)
    assert {entry.domain for entry in graph.opset_import} <= {"", "ai.onnx.ml"}
    axes = {each.name: [dim.dim_param for dim in each.type.tensor_type.shape.dim] for each in graph.graph.input}
    assert axes == dict.fromkeys(("input_ids", "attention_mask", "token_type_ids"), ["batch", "length"])
    assert [each.name for each in graph.graph.output] == ["logits"]
    operators = Counter(node.op_type for node in graph.graph.node)
    # Six matrices and two products of activations a layer, pooler and classifier: gates are folded, nothing is doubled.
    assert operators["MatMul"] == 2 * 8 + 2 and operators["Erf"] == 2
    assert not any("truediv_recip" in each.name for each in graph.graph.initializer)


@pytest.mark.parametrize("graph, quantised", [
    ("standard", False), nightly("standard", True), nightly("fused", False), ("fused", True),
])  # fmt: skip
def test_the_runtime_fuses_layer_norms_and_gelu_and_leaves_what_is_added_before_norms_apart(tmp_path, graph, quantised):
    onnxruntime = pytest.importorskip("onnxruntime")
    path = tmp_path / "model.onnx"
    onnx.save(GRAPHS[graph](loaded_model("classes").model), path)
    if quantised:
        quantize_dynamically(path, tmp_path / "int8.onnx", False)
        path = tmp_path / "int8.onnx"
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    operators = Counter(node.op_type for node in onnx.load(tmp_path / "optimised.onnx").graph.node)
    assert operators["SkipLayerNormalization"] == operators["Erf"] == operators["Sqrt"] == 0
    embedding = operators["EmbedLayerNormalization"] + operators["QEmbedLayerNormalization"]
    assert operators["LayerNormalization"] == 5 - embedding and embedding == (graph == "fused")
    assert operators["BiasGelu"] + operators["Gelu"] == 2 and operators["BiasGelu"] == (0 if quantised else 2)


def test_export_writes_three_files_and_says_how_exact_they_are(folder, capsys):
    assert main(["export", "model", "out/m.onnx"]) == 0
    assert "checked by ONNX; largest difference of a logit from the Keras model: " in capsys.readouterr().out
    assert sorted(path.name for path in (folder / "out").iterdir()) == ["m.json", "m.onnx", "m.tokenizer.json"]
    record = json.loads((folder / "out" / "m.json").read_text())
    assert (record["graph"], record["precision"], record["task"]["labels"]) == (
        "standard",
        "fp32",
        ["negative", "positive"],
    )


def test_logits_that_differ_are_not_written(folder, capsys, monkeypatch):
    monkeypatch.setattr(onnx_export, "largest_difference", lambda *_: float("nan"))
    assert main(["export", "model", "m.onnx", "--fused"]) == 2
    assert "logits differ from the model's by nan, more than 1e-04; nothing was written" in capsys.readouterr().err
    assert sorted(path.name for path in folder.iterdir()) == ["model"]


@pytest.mark.parametrize(
    ("words", "part"),
    [
        ("export model", "needs a model and a file ending in .onnx"),
        ("export model out", "needs a model and a file ending in .onnx"),
        ("export nowhere m.onnx", "nowhere: no such file or folder"),
        ("export text.txt m.onnx", "text.txt: no model"),
        ("export model there.onnx", "there.onnx: is there already"),
        ("export model text.txt/m.onnx", "export OUT: 'text.txt/m.onnx' is refused ("),
        ("export model m.onnx --fused --tiled", "--tiled: has the fused operators anyway"),
        ("export model m.onnx --tiled", "--tiled: no matrix of the encoder has columns"),
        ("export model hf --format hf --fused", "--fused: not together with --format"),
        ("export empty m.onnx", "empty: no config.json in it"),
        ("quantize model m.onnx --precision int4", "--precision: 'int4' is refused; allowed: int8, fp16, int8-static"),
        ("quantize model m.onnx --precision int8-static", "int8-static needs data"),
        ("quantize there.onnx m.onnx --fused", "--fused: only with a model folder; there.onnx is a graph already"),
        ("quantize there.onnx m.onnx", "there.json: no such file; an exported model is NAME.onnx with"),
    ],
)
def test_refusals_name_what_is_wrong(folder, capsys, words, part):
    (folder / "text.txt").write_text("x")
    (folder / "there.onnx").write_text("x")
    (folder / "empty").mkdir()
    assert part in refusal(capsys, *words.split())
    assert not (folder / "m.onnx").exists()


def test_files_that_do_not_belong_together_are_refused(tmp_path):
    export_onnx(tmp_path / "a.onnx", loaded_model("classes"), "fused")
    export_onnx(tmp_path / "b.onnx", loaded_model("spans"), "fused")
    shutil.copy(tmp_path / "b.onnx", tmp_path / "a.onnx")
    with pytest.raises(UserError, match="a.onnx: its bytes are not those that were exported"):
        open_model(tmp_path / "a.onnx")
    (tmp_path / "b.onnx").write_bytes((tmp_path / "b.onnx").read_bytes()[:200])
    with pytest.raises(UserError, match="b.onnx: its bytes are not those that were exported"):
        open_model(tmp_path / "b.onnx")
    for name in ("a", "b"):
        without_checksum(tmp_path / f"{name}.json")
    with pytest.raises(UserError, match="exported for task squad, and a.json beside it is of task sst2"):
        open_model(tmp_path / "a.onnx")
    with pytest.raises(UserError, match="b.onnx: not a whole ONNX file"):
        open_model(tmp_path / "b.onnx")
    (tmp_path / "b.json").write_text("{}")
    with pytest.raises(UserError, match="b.json: no field 'architecture'; export it again"):
        open_model(tmp_path / "b.onnx")


def without_checksum(record):
    """As files that were exported by earlier versions have it."""
    values = json.loads(record.read_text())
    record.write_text(json.dumps({name: value for name, value in values.items() if name != "sha256"}))


def test_every_changed_byte_of_an_export_is_seen(tmp_path):
    export_onnx(tmp_path / "a.onnx", loaded_model("classes"), "fused")
    whole = (tmp_path / "a.onnx").read_bytes()
    for place in np.random.default_rng(0).integers(0, len(whole), 20):
        broken = bytearray(whole)
        broken[place] ^= 1 << int(place) % 8
        (tmp_path / "a.onnx").write_bytes(broken)
        with pytest.raises(UserError, match="its bytes are not those that were exported"):
            open_model(tmp_path / "a.onnx")
    (tmp_path / "a.onnx").write_bytes(whole)
    open_model(tmp_path / "a.onnx")
    without_checksum(tmp_path / "a.json")
    open_model(tmp_path / "a.onnx")


def fewer_rows(graph):
    table = max(graph.initializer, key=lambda tensor: np.prod(tensor.dims))
    table.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(table)[:2], table.name))


def fixed_batch(graph):
    graph.input[0].type.tensor_type.shape.dim[0].dim_value = 3


def no_output(graph):
    del graph.output[:]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (fewer_rows, "a.onnx: ONNX Runtime cannot run it"),
        (fixed_batch, "a.onnx: ONNX Runtime cannot run it"),
        (no_output, "a.onnx: its output is of shape None, and the task in a.json has"),
        (lambda graph: None, "a.onnx: its output is of shape .*, and the task in a.json has 5 for each text"),
    ],
)
@pytest.mark.daily_every(2)
def test_graphs_that_load_and_do_not_run_are_one_sentence(tmp_path, capfd, damage, message):
    export_onnx(tmp_path / "a.onnx", loaded_model("classes"), "standard")
    model = onnx.load(tmp_path / "a.onnx")
    damage(model.graph)
    onnx.save(model, tmp_path / "a.onnx")
    without_checksum(tmp_path / "a.json")
    if "5 for each" in message:
        record = json.loads((tmp_path / "a.json").read_text())
        record["task"]["labels"] = ["a", "b", "c", "d", "e"]
        (tmp_path / "a.json").write_text(json.dumps(record))
    capfd.readouterr()
    with pytest.raises(UserError, match=message) as caught:
        inputs = {name: np.full((2, 8), 4 if name == "input_ids" else 1) for name in INPUTS}
        open_model(tmp_path / "a.onnx").model.predict_on_batch(inputs)
    assert "\n" not in str(caught.value) and capfd.readouterr().err == ""


def foreign(place, tensor):
    """An ONNX file that adds a stored array to its input."""
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Add", ["x", tensor.name], ["y"])], "g",
        [onnx.helper.make_tensor_value_info(name, 1, [None]) for name in "x"],
        [onnx.helper.make_tensor_value_info("y", 1, [None])], [tensor],
    )  # fmt: skip
    place.parent.mkdir(exist_ok=True)
    onnx.save(onnx.helper.make_model(graph), place)
    return place


@pytest.mark.parametrize("location", ["../secret", "/etc/hostname", "link", ""])
def test_arrays_outside_the_folder_of_a_file_are_not_read(tmp_path, location):
    (tmp_path / "secret").write_bytes(bytes(8))
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "link").symlink_to(tmp_path / "secret")
    tensor = onnx.TensorProto(name="w", data_type=1, dims=[2], data_location=onnx.TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value=location)
    with pytest.raises(UserError, match=r"w is kept in '.*', outside the file's folder"):
        read_onnx(foreign(tmp_path / "m" / "a.onnx", tensor))


def test_arrays_that_declare_more_than_they_store_are_refused(tmp_path):
    for dims in ([10**12], [3], [1], [-2], [2, 10**6]):
        tensor = onnx.TensorProto(name="w", data_type=1, dims=dims, raw_data=bytes(8))
        with pytest.raises(UserError, match="w declares .* values, and 8 bytes are there"):
            read_onnx(foreign(tmp_path / "a.onnx", tensor))
    read_onnx(foreign(tmp_path / "a.onnx", onnx.TensorProto(name="w", data_type=1, dims=[2], raw_data=bytes(8))))


def test_weights_that_are_no_numbers_are_named_before_they_are_exported(tmp_path):
    loaded = loaded_model("classes")
    kernel = loaded.model.encoder.blocks[1].ffn.intermediate.raw_kernel
    values = np.array(kernel)
    values[2, 3] = np.nan
    kernel.assign(values)
    with pytest.raises(UserError, match="NaN or infinite values in .*encoder_1_ffn_intermediate/kernel; nothing"):
        export_onnx(tmp_path / "a.onnx", loaded, "fused")
    assert not list(tmp_path.iterdir())


def test_the_standard_graph_needs_tensorflow(monkeypatch):
    monkeypatch.setattr(onnx_standard.keras.backend, "backend", lambda: "jax")
    with pytest.raises(UserError, match="KERAS_BACKEND=jax: the standard graph is made from TensorFlow's"):
        onnx_standard.standard_graph(None)
