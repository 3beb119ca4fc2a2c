"""The one operation of Keras' exact GELU that tf2onnx, by which Keras exports under TensorFlow, does not know."""

from __future__ import annotations

import functools
import importlib.util

import keras
import numpy as np

from gated_bert.models.roles import walk


def let_keras_export(model: keras.Model) -> None:
    """Teaches tf2onnx, where it is installed, the complementary error function, if a model has an exact GELU."""
    needs = any(getattr(layer, "activation", None) is keras.activations.gelu for layer in walk(model))
    if needs and keras.backend.backend() == "tensorflow" and importlib.util.find_spec("tf2onnx"):
        _teach()


@functools.cache
def _teach():
    from tf2onnx.handler import tf_op
    from tf2onnx.utils import map_onnx_to_numpy_type

    @tf_op("Erfc")
    class Erfc:
        @classmethod
        def version_9(cls, ctx, node, **kwargs):
            shapes, dtypes = node.output_shapes, node.output_dtypes
            one = ctx.make_const(f"{node.name}/one", np.ones((), map_onnx_to_numpy_type(dtypes[0])))
            erf = ctx.make_node("Erf", [node.input[0]], shapes=shapes, dtypes=dtypes)
            outputs = list(node.output)
            ctx.remove_node(node.name)
            ctx.make_node("Sub", [one.output[0], erf.output[0]], outputs=outputs, shapes=shapes, dtypes=dtypes)
