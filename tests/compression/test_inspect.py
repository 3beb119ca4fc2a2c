"""What is counted of a model's matrices and of an ONNX file, by hand."""

import numpy as np
import pytest

from gated_bert.compression.model_statistics import macs, parameter_counts
from gated_bert.compression.model_summary import block_means, layer_rows, matrix_rows, model_text
from gated_bert.compression.shrink import shrink


@pytest.fixture
def pruned(make_model):
    """A third of the first layer's neurons and the second layer's first head closed."""
    model = make_model()
    model.encoder.blocks[0].ffn.intermediate.gates.assign(np.repeat([[0, 1, 1]], 16, axis=0).repeat(4, axis=1))
    attention = model.encoder.blocks[1].attention
    for matrix in (attention.query, attention.key, attention.value):
        matrix.gates.assign(np.repeat([[0, 1, 1, 1]], 16, axis=0).repeat(4, axis=1))
    return model


def test_every_matrix_has_a_row_and_all_rows_are_the_model(pruned):
    rows = {(row["layer"], row["role"]): row for row in matrix_rows(pruned)}
    assert rows[0, "ffn_intermediate"] == {
        "layer": 0, "role": "ffn_intermediate", "rows": 16, "columns": 12, "parameters": 192, "nonzero": 128,
        "sparsity": 1 - 128 / 192,
    }  # fmt: skip
    assert rows[1, "query"]["sparsity"] == 0.25 and rows[0, "query"]["sparsity"] == 0.0
    assert rows[None, "token_embedding"]["parameters"] == 40 * 16 and rows[None, "classifier"]["columns"] == 2
    # Four biases of attention, two of the feed-forward network, two norms of two vectors each.
    assert rows[1, "biases and norms"]["parameters"] == 4 * 16 + 12 + 16 + 4 * 16
    totals = tuple(sum(row[name] for row in rows.values()) for name in ("parameters", "nonzero"))
    assert totals == parameter_counts(pruned)


def test_layers_show_what_shrinking_leaves(pruned):
    rows, small = layer_rows(pruned, 8), shrink(pruned).bert_config
    for row, sizes in zip(rows, small.layers, strict=True):
        assert (row["heads"], row["neurons"], row["query_key_dim"]) == (4, 12, 4)
        assert (row["heads_left"], row["neurons_left"]) == (sizes.num_heads, sizes.intermediate_size)
    assert [(row["heads_left"], row["neurons_left"]) for row in rows] == [(4, 8), (3, 12)]
    assert [row["shrunk_macs_per_token"] for row in rows] == list(macs(small, 8).per_layer)
    text = model_text(pruned, matrix_rows(pruned), rows, 8)
    assert "4 → 3" in text and "12 → 8" in text and "33.3" in text


def test_emptied_layers_have_no_matrices(make_model):
    model = make_model(num_layers=1)
    model.encoder.blocks[0].attention.value.gates.assign(np.zeros((16, 16)))
    model.encoder.blocks[0].ffn.intermediate.gates.assign(np.zeros((16, 12)))
    small = shrink(model)
    assert {row["role"] for row in matrix_rows(small) if row["layer"] == 0} == {"biases and norms"}
    assert "–" in model_text(small, matrix_rows(small), layer_rows(small, 8), 8)


def test_means_of_cells():
    matrix = np.array([[1, 1, 0, 0, 1], [1, 0, 0, 0, 1], [0, 0, 1, 1, 1]], bool)
    assert block_means(matrix, 8).tolist() == matrix.tolist()
    # Rows 1 | 2–3 and columns 1–2 | 3–5.
    assert block_means(matrix, 2).tolist() == [[1.0, 1 / 3], [0.25, 4 / 6]]
    assert block_means(np.ones((300, 2), bool), 96).shape == (96, 2)


def test_an_onnx_file_is_counted_by_operator_and_array():
    onnx = pytest.importorskip("onnx")
    from gated_bert.compression.inspect_onnx import initializer_rows, onnx_nonzero, onnx_text, operator_rows

    helper, numpy_helper = onnx.helper, onnx.numpy_helper
    arrays = {
        "w_quantized": np.array([[3, 3], [5, 0]], np.uint8),
        "w_zero_point": np.array(3, np.uint8),
        "w_scale": np.array(0.1, np.float32),
        "bias": np.array([0, 1.5], np.float32),
        "axes": np.array([1, 2], np.int64),
        "epsilon": np.array([1e-12], np.float32),
    }
    nodes = [helper.make_node("Relu", ["x"], ["y"]), helper.make_node("Relu", ["y"], ["z"]),
             helper.make_node("Gelu", ["z"], ["out"], domain="com.microsoft")]  # fmt: skip
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes, "g", [value("x", 1, ["batch", 2])], [value("out", 1, ["batch", 2])],
        [numpy_helper.from_array(array, name) for name, array in arrays.items()],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], producer_name="hand")
    operators, stored = operator_rows(model), initializer_rows(model)
    assert operators == [{"domain": "ai.onnx", "operator": "Relu", "count": 2},
                         {"domain": "com.microsoft", "operator": "Gelu", "count": 1}]  # fmt: skip
    assert stored[0] == {"name": "axes", "dtype": "int64", "shape": "2", "values": 2, "nonzero": 2, "bytes": 16}
    # A weight of 8 bits is zero where it is its zero point.
    assert onnx_nonzero(model) == 2 + 1
    text = onnx_text(model, operators, stored)
    assert "opset: ai.onnx 18; made by hand" in text and "[batch, 2]" in text
