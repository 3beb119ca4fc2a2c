"""BERT's embeddings as ONNX Runtime's own operator."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gated_bert.compression.onnx_fused import GraphBuilder


def bert_embeddings(graph: GraphBuilder, inputs: dict[str, str]) -> str:
    """Adds the normalised sum of token, position and segment embeddings; see `onnx_fused.EMBEDDINGS`."""
    parts = graph.model.encoder.embeddings
    tables = {"token": parts.token.embeddings, "position": parts.position, "type": parts.token_type.embeddings,
              "gamma": parts.norm.gamma, "beta": parts.norm.beta}  # fmt: skip
    names = [graph.constant(f"embeddings_{name}", values) for name, values in tables.items()]
    read = [inputs["input_ids"], inputs["token_type_ids"], *names]
    return graph.add("EmbedLayerNormalization", read, ["embedded", "embedded_lengths"], domain=graph.RUNTIME,
                     epsilon=graph.config.layer_norm_epsilon)  # fmt: skip
