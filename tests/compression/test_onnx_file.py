"""ONNX files that lie about their arrays, or compute something else: one sentence from every command."""

import numpy as np
import pytest

from gated_bert.models.architecture import BertConfig
from tests.refused import refusal

onnx = pytest.importorskip("onnx")
helper, numpy_helper = onnx.helper, onnx.numpy_helper
Proto = onnx.TensorProto


def array(**fields) -> "onnx.TensorProto":
    tensor = Proto(name="w", data_type=Proto.FLOAT, dims=[2, 2])
    for name, value in fields.items():
        if isinstance(value, list):
            del getattr(tensor, name)[:]
            getattr(tensor, name).extend(value)
        else:
            setattr(tensor, name, value)
    return tensor


def outside(tensor):
    tensor.ClearField("raw_data")
    tensor.data_location = Proto.EXTERNAL
    tensor.external_data.add(key="location", value="../other.bin")
    return tensor


def beside(length: int):
    tensor = array(data_location=Proto.EXTERNAL)
    tensor.external_data.add(key="location", value="w.bin")
    tensor.external_data.add(key="length", value=str(length))
    return tensor


def with_segment():
    tensor = array(raw_data=bytes(16))
    tensor.segment.end = 1
    return tensor


ARRAYS = {
    "fewer numbers than declared": array(float_data=[1.0, 2.0]),
    "no numbers": array(dims=[10**6, 10**6]),
    "no bytes": array(dims=[10**6, 10**6], raw_data=b""),
    "fewer bytes": array(raw_data=bytes(12)),
    "negative": array(dims=[-2, -2], float_data=[1.0] * 4),
    "an unknown type": array(data_type=77, float_data=[1.0] * 4),
    "texts that are none": array(data_type=Proto.STRING, string_data=[b"\xff"] * 4),
    "half bytes": array(data_type=Proto.INT4, dims=[7], raw_data=b"ab"),
    "a segment": with_segment(),
    "outside": outside(array()),
    "beside, and too few": beside(4),
    "beside, and more than there is": beside(4 * 10**12),
}


def write(path, tensor, where: str):
    sparse = onnx.SparseTensorProto(values=tensor, indices=numpy_helper.from_array(np.array([0])), dims=[4])
    node = {"a function": helper.make_node("Constant", [], ["c"], value=tensor),
            "a sparse attribute": helper.make_node("Constant", [], ["c"], sparse_value=sparse)}.get(where)  # fmt: skip
    nodes = [helper.make_node("Relu", ["x"], ["y"])] + ([node] if where == "a sparse attribute" else [])
    value = helper.make_tensor_value_info
    stored = [tensor] if where == "the graph" else []
    graph = helper.make_graph(nodes, "g", [value("x", 1, [2])], [value("y", 1, [2])], stored)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    model = helper.make_model(graph, opset_imports=opsets)
    if where == "a function":
        model.functions.append(helper.make_function("own", "F", [], ["c"], [node], opsets[:1]))
    path.write_bytes(model.SerializeToString())
    path.with_name("w.bin").write_bytes(bytes(16))


# Of a sparse attribute nobody reads what lies beside the file.
@pytest.mark.parametrize(
    ("what", "where"),
    [(what, where) for what in ARRAYS for where in ("the graph", "a function", "a sparse attribute")
     if (what[:6], where) != ("beside", "a sparse attribute")],
)  # fmt: skip
def test_an_array_that_cannot_be_read_is_one_sentence(tmp_path, capsys, what, where):
    path = tmp_path / "folder" / "a.onnx"
    path.parent.mkdir()
    (tmp_path / "other.bin").write_bytes(bytes(16))
    write(path, ARRAYS[what], where)
    assert str(path) in refusal(capsys, "inspect", str(path))


def test_what_a_terminal_would_obey_is_shown(tmp_path, capsys):
    from gated_bert.cli.main import main

    value = helper.make_tensor_value_info
    odd = value("x\x1b[2J", 1, [2])
    odd.type.tensor_type.elem_type = 999
    graph = helper.make_graph([helper.make_node("A\x1b]0;b\a", ["x\x1b[2J"], ["y"], domain="\x9b31m")], "g", [odd],
                              [value("y", 1, [2])], [numpy_helper.from_array(np.ones(2), "n\x1b[2J")])  # fmt: skip
    path = tmp_path / "a.onnx"
    path.write_bytes(helper.make_model(graph, producer_name="\x1b[31m").SerializeToString())
    assert main(["inspect", str(path)]) == 0
    shown = capsys.readouterr().out
    assert not {"\x1b", "\a", "\x9b"} & set(shown) and "made by \\x1b[31m" in shown and "unknown" in shown


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        ([("Reshape", "f", "s", "y")], "ONNX Runtime cannot run it"),
        ([("ConstantOfShape", "big", "f2"), ("Slice", "f2", "z", "two", "y")], "ONNX Runtime cannot run it"),
        ([("Identity", "f", "y")], r"its output is float32 \[3, 4\]; allowed: floating-point numbers \[3, 2\]"),
        ([("Identity", "input_ids", "y")], r"its output is int64 \[3, 4\]"),
        ([("SequenceConstruct", "f", "y")], "its output is list"),
    ],
)
def test_a_graph_that_computes_no_logits_is_one_sentence(tmp_path, nodes, message):
    pytest.importorskip("onnxruntime")
    from gated_bert.compression.onnx_model import OnnxModel
    from gated_bert.support.errors import UserError

    stored = {"s": [7, 7], "big": [10**12], "z": [0], "two": [2]}
    found = [helper.make_node("Cast", ["input_ids"], ["f"], to=1)]
    found += [helper.make_node(kind, ins, [out]) for kind, *ins, out in nodes]
    value = helper.make_tensor_value_info
    make = helper.make_tensor_sequence_value_info if nodes[0][0] == "SequenceConstruct" else value
    end = make("y", 7 if nodes[0][1] == "input_ids" else 1, None)
    arrays = [numpy_helper.from_array(np.array(each), name) for name, each in stored.items()]
    graph = helper.make_graph(found, "g", [value("input_ids", 7, ["n", "l"])], [end], arrays)
    path = tmp_path / "a.onnx"
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path.write_bytes(model.SerializeToString())
    record = {"architecture": BertConfig.uniform(1, 8, 2, 8, vocab_size=9, max_position=16).to_dict()}
    with pytest.raises(UserError, match=message):
        OnnxModel(path, record).predict_on_batch({"input_ids": np.ones((3, 4), np.int64)})
