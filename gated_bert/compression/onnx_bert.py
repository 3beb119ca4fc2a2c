"""The embeddings of families of BERT's blocks in ONNX Runtime's own operators."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from keras import ops

if TYPE_CHECKING:
    from gated_bert.compression.onnx_fused import GraphBuilder


def bert_embeddings(graph: GraphBuilder, inputs: dict[str, str]) -> str:
    """Adds the normalised sum of token, position and segment embeddings; see `onnx_fused.EMBEDDINGS`.

    Without segments all tokens are in one, whose embedding is zero; where there is a projection, it follows.
    """
    parts, ids = graph.model.encoder.embeddings, inputs["input_ids"]  # type: ignore[attr-defined]
    segments, table = inputs.get("token_type_ids"), np.zeros((1, parts.norm.gamma.shape[0]), np.float32)
    if parts.token_type is not None:
        table = parts.token_type.embeddings
    tables = {"token": parts.token.embeddings, "position": parts.position, "type": table,
              "gamma": parts.norm.gamma, "beta": parts.norm.beta}  # fmt: skip
    names = [graph.constant(f"embeddings_{name}", values) for name, values in tables.items()]
    read = [ids, segments or graph.add("Sub", [ids, ids]), *names]
    embedded = graph.add("EmbedLayerNormalization", read, ["embedded", "embedded_lengths"], domain=graph.RUNTIME,
                         epsilon=parts.norm.epsilon)  # fmt: skip
    if parts.projection is None:
        return embedded
    kernel, bias = (graph.constant(f"projection_{name}", values) for name, values in
                    (("kernel", parts.projection.kernel), ("bias", parts.projection.bias)))  # fmt: skip
    return graph.add("Add", [graph.add("MatMul", [embedded, kernel]), bias])


def roberta_embeddings(graph: GraphBuilder, inputs: dict[str, str]) -> str:
    """Adds the same of RoBERTa, whose positions count what is no padding; see `models.roberta.position_ids`.

    ONNX Runtime's operator for all embeddings takes positions too, but not in 8 bits.
    """
    from onnx import TensorProto

    parts, ids = graph.model.encoder.embeddings, inputs["input_ids"]  # type: ignore[attr-defined]
    index = graph.constant("padding_index", np.array(graph.config.padding_index))  # type: ignore[attr-defined]
    index = graph.add("Cast", [index], to=TensorProto.INT32)
    real = graph.add("Cast", [graph.add("Not", [graph.add("Equal", [ids, index])])], to=TensorProto.INT32)
    counted = graph.add("CumSum", [real, graph.constant("token_axis", np.array(1))])
    places = graph.add("Add", [graph.add("Mul", [counted, real]), index])
    # All tokens are in the first segment.
    positions = ops.convert_to_numpy(parts.position) + ops.convert_to_numpy(parts.token_type.embeddings)[:1]
    tables = (("token", parts.token.embeddings, ids), ("position", positions, places))
    found = [graph.add("Gather", [graph.constant(f"embeddings_{name}", values), rows]) for name, values, rows in tables]
    norm = [graph.constant(f"embeddings_{name}", getattr(parts.norm, name)) for name in ("gamma", "beta")]
    return graph.add("LayerNormalization", [graph.add("Sum", found), *norm], axis=-1, epsilon=parts.norm.epsilon)
