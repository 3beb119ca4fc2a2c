"""The portable ONNX graph of a model, of the operators of the ONNX standard alone, made by tf2onnx."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import keras
import numpy as np
from keras import ops

from gated_bert.compression.kept import effective_kernel
from gated_bert.compression.onnx_file import fits
from gated_bert.models.backbone import EncoderClassifier
from gated_bert.models.gated_dense import GatedLayer, output_hook
from gated_bert.support.errors import UserError

if TYPE_CHECKING:
    import onnx

OPSET = 18
"""From here on ONNX Runtime's optimiser fuses the layer norms."""


def check_standard() -> None:
    """Refuses what no standard graph is made under.

    Raises:
        UserError: a Keras backend other than TensorFlow, whose graphs tf2onnx reads.
    """
    if keras.backend.backend() != "tensorflow":
        raise UserError(f"KERAS_BACKEND={keras.backend.backend()}: the standard graph is made from TensorFlow's; set "
                        "KERAS_BACKEND=tensorflow (pip install 'gated_bert[tensorflow]'), or take the fused graph "
                        "(--fused; for compress --speedups: --graph fused), which needs no TensorFlow")  # fmt: skip


def standard_graph(model: EncoderClassifier) -> onnx.ModelProto:
    """The ONNX model of `model` in inference, the gates multiplied into the kernels.

    Args:
        model: a model that computes in float32.

    Returns:
        An `onnx.ModelProto`: the model's inputs, int64 [batch, length], to float32 `logits`.

    Raises:
        UserError: a Keras backend other than TensorFlow, whose graphs tf2onnx reads.
    """
    check_standard()
    import tensorflow
    import tf2onnx

    names = model.architecture.input_names
    layers = model.gated_layers()
    matrices = {f"matrix_{place}": effective_kernel(layer) for place, layer in enumerate(layers)}
    tables = {f"table_{place}": variable for place, variable in enumerate(model.weights) if _is_table(variable, layers)}
    # TensorFlow's graphs have the same limit as ONNX files: what exceeds it goes round them, as inputs.
    passed = {**matrices, **{name: np.asarray(ops.convert_to_numpy(table)) for name, table in tables.items()}}
    if fits(sum(array.nbytes for array in passed.values())):
        passed = {}

    def call(*inputs):
        given = dict(zip((*names, *passed), inputs, strict=True))
        kernels = {id(layer): given.get(name, matrices[name]) for name, layer in zip(matrices, layers, strict=True)}

        def with_folded_gates(layer, inputs, outputs):
            # Not keras.ops.matmul, which for three axes by two reshapes to and fro.
            product = tensorflow.matmul(inputs, tensorflow.convert_to_tensor(kernels[id(layer)]))
            return product if layer.bias is None else product + layer.bias

        instead = [(table, given[name]) for name, table in tables.items() if name in given]
        with keras.StatelessScope(instead), output_hook(with_folded_gates):
            logits = model({name: given[name] for name in names}, training=False)
        return {"logits": logits}

    signature = [tensorflow.TensorSpec((None, None), tensorflow.int64, name=name) for name in names]
    signature += [tensorflow.TensorSpec(array.shape, array.dtype, name=name) for name, array in passed.items()]
    logging.getLogger("tf2onnx").setLevel(logging.ERROR)
    function = tensorflow.function(call, input_signature=signature)
    graph, _ = tf2onnx.convert.from_function(function, input_signature=signature, opset=OPSET)
    _store(graph.graph, passed)
    _name_axes(graph.graph, model.architecture.output_shape("batch", "length"))
    _divide_in_gelu(graph.graph)
    _sum_before_norms(graph.graph)
    return graph


def _is_table(variable: keras.Variable, layers: Sequence[GatedLayer]) -> bool:
    """Whether it is a matrix that no gated layer multiplies by: an embedding."""
    kernels_and_gates = {id(each) for layer in layers for each in layer.weights}
    return len(variable.shape) == 2 and id(variable) not in kernels_and_gates


def _store(graph, arrays: Mapping[str, np.ndarray]):
    """Turns inputs of a graph into arrays that it stores."""
    from onnx import numpy_helper

    for value in [each for each in graph.input if each.name in arrays]:
        graph.input.remove(value)
        graph.initializer.append(numpy_helper.from_array(arrays[value.name], value.name))


def _name_axes(graph, outputs: Sequence[str | int]):
    for value, sizes in [*((each, ("batch", "length")) for each in graph.input), (graph.output[0], outputs)]:
        for dim, size in zip(value.type.tensor_type.shape.dim, sizes, strict=True):
            if isinstance(size, str):
                dim.dim_param = size


def _divide_in_gelu(graph):
    """Turns erf(x · 1/√2), which TensorFlow's optimiser makes, back into erf(x / √2), which ONNX Runtime's fuses."""
    from onnx import numpy_helper

    producers = {output: node for node in graph.node for output in node.output}
    scalars = {each.name: numpy_helper.to_array(each) for each in graph.initializer if not each.dims}
    root = numpy_helper.from_array(np.float32(math.sqrt(2)), "square_root_of_2")
    replaced = set()
    for erf in (node for node in graph.node if node.op_type == "Erf"):
        factor = producers[erf.input[0]]
        reciprocal = [name for name in factor.input if name in scalars]
        if (
            factor.op_type == "Mul"
            and reciprocal
            and math.isclose(scalars[reciprocal[0]], math.sqrt(0.5), rel_tol=1e-6)
        ):
            (x,) = (name for name in factor.input if name not in scalars)
            factor.op_type, factor.input[:] = "Div", [x, root.name]
            replaced.add(reciprocal[0])
    if replaced:
        graph.initializer.append(root)
    used = {name for node in graph.node for name in node.input}
    for unused in [each for each in graph.initializer if each.name in replaced - used]:
        graph.initializer.remove(unused)


def _sum_before_norms(graph):
    """Spells additions before layer norms Sum: of Add and the norm ONNX Runtime makes one operator where it knows their
    shapes, which takes ten times as long (in 1.32)."""
    constant = {each.name for each in graph.initializer}
    normed = {name for node in graph.node if node.op_type == "ReduceMean" for name in node.input[:1]}
    for node in graph.node:
        if node.op_type == "Add" and node.output[0] in normed and not constant & set(node.input):
            node.op_type = "Sum"
