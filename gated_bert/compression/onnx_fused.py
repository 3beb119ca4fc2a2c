"""The fused ONNX graph of a model, with ONNX Runtime's own attention, embedding and layer norm operators."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from keras import ops

from gated_bert.compression.kept import effective_kernel
from gated_bert.compression.onnx_bert import bert_embeddings, roberta_embeddings
from gated_bert.models.backbone import EncoderClassifier
from gated_bert.models.encoder import MASKED, EncoderBlock
from gated_bert.models.gated_dense import GatedDense
from gated_bert.support.errors import UserError
from gated_bert.support.tensors import Tensor

if TYPE_CHECKING:
    import onnx

OPSET = 17
RUNTIME = "com.microsoft"
"""Domain of ONNX Runtime's own operators."""

EMBEDDINGS = {
    **dict.fromkeys(("bert", "distilbert", "electra"), bert_embeddings),
    **dict.fromkeys(("roberta", "xlm-roberta"), roberta_embeddings),
}
"""Family → what adds its embeddings to a graph: of the builder, and of name → value of the model's inputs, the name of
what the first block reads."""


def fused_graph(model: EncoderClassifier) -> onnx.ModelProto:
    """The ONNX model of `model` in inference, the gates multiplied into the kernels; runs in ONNX Runtime alone.

    Args:
        model: a model that computes in float32; any Keras backend.

    Returns:
        An `onnx.ModelProto`: the model's inputs, int64 [batch, length], to float32 `logits`.
    """
    return GraphBuilder(model).build()


class Graph:
    """Nodes and arrays of an ONNX graph in the making.

    Attributes:
        nodes: the nodes, in the order in which they run.
        arrays: name → array.
    """

    def __init__(self):
        self.nodes, self.arrays = [], {}

    def add(self, operator: str, inputs: list[str], outputs: list[str] | None = None, **attributes: Any) -> str:
        """Adds a node; returns the name of its first output."""
        from onnx import helper

        name = f"{operator}_{len(self.nodes)}"
        outputs = outputs or [f"{name}_out"]
        self.nodes.append(helper.make_node(operator, inputs, outputs, name=name, **attributes))
        return outputs[0]

    def constant(self, name: str, values: Tensor) -> str:
        """Stores an array, or a variable, under a name, which is returned; int64 stays, all else becomes float32."""
        array = np.asarray(values if isinstance(values, np.ndarray) else ops.convert_to_numpy(values))
        self.arrays[name] = array if array.dtype == np.int64 else np.ascontiguousarray(array, dtype=np.float32)
        return name

    def to_model(
        self, name: str, inputs: dict[str, list], outputs: dict[str, list], input_type: int
    ) -> onnx.ModelProto:
        """The graph as an `onnx.ModelProto`.

        Args:
            name: what the graph is called.
            inputs: name → dimensions, numbers or names.
            outputs: the same of the outputs, which are float32.
            input_type: an `onnx.TensorProto` type.
        """
        from onnx import TensorProto, helper, numpy_helper

        tensors = [numpy_helper.from_array(array, name) for name, array in self.arrays.items()]
        ins = [helper.make_tensor_value_info(name, input_type, shape) for name, shape in inputs.items()]
        outs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in outputs.items()]
        opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(RUNTIME, 1)]
        # The oldest format that has this opset, so that older runtimes read it too.
        version = helper.find_min_ir_version_for(opsets[:1])
        graph = helper.make_graph(self.nodes, name, ins, outs, tensors)
        return helper.make_model(graph, opset_imports=opsets, ir_version=version, producer_name="gated_bert")


class GraphBuilder(Graph):
    """Adds the nodes of a model one after the other.

    Args:
        model: the model, of post-norm blocks.

    Raises:
        UserError: its family is not in `EMBEDDINGS`.
    """

    RUNTIME = RUNTIME

    def __init__(self, model: EncoderClassifier):
        super().__init__()
        self.model, self.config = model, model.architecture
        embeddings = EMBEDDINGS.get(self.config.model_type)
        if embeddings is None:
            raise UserError(f"--fused, --tiled: {self.config.model_type!r} is no family whose fused graph is known; "
                            f"known: {', '.join(EMBEDDINGS)}; export without it")  # fmt: skip
        self._embeddings = embeddings

    def build(self) -> onnx.ModelProto:
        """The whole model as an `onnx.ModelProto`."""
        from onnx import TensorProto

        names = self.config.input_names
        inputs = {name: self.add("Cast", [name], to=TensorProto.INT32) for name in names}
        hidden, mask = self._embeddings(self, inputs), inputs["attention_mask"]
        for block in self.model.encoder.blocks:
            hidden = self._normalise(self._attend(block, hidden, mask), hidden, block.attention_norm)
            hidden = self._normalise(self._transform(block, hidden), hidden, block.ffn_norm)
        self._head(hidden, mask)
        shape = self.config.output_shape("batch", "length")
        return self.to_model(self.config.model_type, {name: ["batch", "length"] for name in names}, {"logits": shape},
                             TensorProto.INT64)  # fmt: skip

    def _attend(self, block: EncoderBlock, hidden: str, mask: str) -> tuple[str | None, str]:
        """The product of the output projection, None without heads, and its bias."""
        attention, name = block.attention, block.name
        bias = self.constant(f"{name}_attention_output_bias", attention.output_dense.bias)
        layers = attention.projections()
        if layers is None:
            return None, bias
        packed = np.concatenate([effective_kernel(layer) for layer in layers], axis=1)
        biases = np.concatenate([ops.convert_to_numpy(layer.bias) for layer in layers])
        inputs = [hidden, self.constant(f"{name}_qkv", packed), self.constant(f"{name}_qkv_bias", biases), mask]
        sizes = [layer.units for layer in layers]
        # Where all are equal they are left out: ONNX Runtime's quantised attention does not know them.
        unequal = {"qkv_hidden_sizes": sizes} if len(set(sizes)) > 1 else {}
        context = self.add("Attention", inputs, domain=RUNTIME, num_heads=attention.sizes.num_heads,
                           scale=attention.scale, mask_filter_value=MASKED, **unequal)  # fmt: skip
        return self.product(context, attention.output_dense), bias

    def _transform(self, block: EncoderBlock, hidden: str) -> tuple[str | None, str]:
        ffn = block.ffn
        bias = self.constant(f"{block.name}_ffn_output_bias", ffn.output_dense.bias)
        if ffn.intermediate is None:
            return None, bias
        inner = self.constant(f"{block.name}_ffn_intermediate_bias", ffn.intermediate.bias)
        return self.product(self.activate(self.product(hidden, ffn.intermediate), inner), ffn.output_dense), bias

    def activate(self, inputs: str, bias: str) -> str:
        """The activation function of inputs with their bias added.

        In 32 bits ONNX Runtime makes one operator of both; in 8 the product takes the bias, which is faster.
        """
        return self.activate_sum(self.add("Add", [inputs, bias]))

    def activate_sum(self, inputs: str, activation: str | None = None) -> str:
        """An activation function, by default the feed-forward network's, of inputs that hold their bias already."""
        activation = activation or self.config.activation
        if activation in ("relu", "tanh"):
            return self.add(activation.capitalize(), [inputs])
        if activation in ("gelu", "gelu_tanh"):
            return self.add({"gelu": "Gelu", "gelu_tanh": "FastGelu"}[activation], [inputs], domain=RUNTIME)
        return self.add("QuickGelu", [inputs], domain=RUNTIME, alpha={"silu": 1.0, "quick_gelu": 1.702}[activation])

    def product(self, inputs: str, layer: GatedDense) -> str:
        """The matrix product with a layer's kernel, without its bias."""
        return self.add("MatMul", [inputs, self.constant(layer.name, effective_kernel(layer))])

    def _normalise(self, added: tuple[str | None, str], residual: str, norm) -> str:
        """Layer norm of the sum of a sub-layer's product, its bias and the residual path."""
        product, bias = added
        # Norms have the same name in every block, nodes one of their own.
        place = f"norm_{len(self.nodes)}"
        scale, shift = self.constant(f"{place}_gamma", norm.gamma), self.constant(f"{place}_beta", norm.beta)
        # Of Add and the norm ONNX Runtime would make one operator, which takes ten times as long (in 1.32).
        total = self.add("Sum", [bias if product is None else self.add("Add", [product, bias]), residual])
        return self.add("LayerNormalization", [total, scale, shift], axis=-1, epsilon=norm.epsilon)

    def _head(self, hidden: str, mask: str):
        """Adds what makes `logits` of the last hidden states."""
        from onnx import TensorProto

        classifier = self.model.classifier
        pooler = self.model.encoder.pooler
        if pooler is not None:
            first = self.add("Gather", [hidden, self.constant("first_token", np.array(0))], axis=1)
            pooled = self.activate_sum(self._dense(first, pooler), self.model.encoder.pooler_activation)
            self._dense(pooled, classifier, ["logits"])
            return
        if self.config.token_head:
            self._dense(hidden, classifier, ["logits"])
            return
        each = self._dense(hidden, classifier)
        tokens_last = self.add("Transpose", [each], perm=[0, 2, 1])
        real = self.add("Cast", [self.add("Unsqueeze", [mask, self.constant("axis", np.array([1]))])],
                        to=TensorProto.BOOL)  # fmt: skip
        self.add("Where", [real, tokens_last, self.constant("masked", np.array(MASKED))], ["logits"])

    def _dense(self, inputs: str, layer: GatedDense, outputs: list[str] | None = None) -> str:
        """A layer with its bias on one vector of each sequence, or of each token."""
        bias = self.constant(f"{layer.name}_bias", layer.bias)
        return self.add("Add", [self.product(inputs, layer), bias], outputs)
