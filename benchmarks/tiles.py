"""Tile-wise products in ONNX Runtime against dense ones: single matrices of base size, and whole encoders."""

from __future__ import annotations

from functools import partial

import numpy as np

from benchmarks.figures import Figure
from benchmarks.timing import interleave, main, ratio
from gated_bert.compression.model_statistics import macs, open_macs, random_inputs
from gated_bert.compression.onnx_fused import GraphBuilder, fused_graph
from gated_bert.compression.onnx_model import session_options
from gated_bert.compression.onnx_tiled import TiledBuilder, tiled_graph
from gated_bert.config import GatedBertConfig
from gated_bert.config.space import ENCODER_ROLES
from gated_bert.models.architecture import BertConfig
from gated_bert.models.bert import BertClassifier
from gated_bert.pruning.pruner import Pruner

SPARSITY, LAYERS = 0.75, 4
"""Layers are all alike: four of twelve take a third of the time and give the same ratios."""

PATTERNS = {"tile k": {}, "tile kn": {"tile_dims": "kn"}, "row (one set for all tiles)": {"pattern": "row"}}


def pruned(sizes: BertConfig, size: str, granularity: int, **pattern) -> BertClassifier:
    """A model of random weights, 75 % of its encoder pruned by magnitude in tiles that all compete."""
    model = BertClassifier(sizes)
    record = {"pattern": "tile", "scope": "global", "granularity": granularity} | pattern
    config = GatedBertConfig(model_size=size, pruning_method="magnitude", **record)
    layers = model.gated_layers(ENCODER_ROLES)
    Pruner.from_config(config, layers, [each.num_heads for each in sizes.layers]).update(SPARSITY, 0)
    return model


def session(proto):
    """The graph in ONNX Runtime, on one thread."""
    import onnxruntime

    return onnxruntime.InferenceSession(proto.SerializeToString(), session_options(1), ["CPUExecutionProvider"])


def product_graph(builder: GraphBuilder, role: str):
    """The graph of one matrix of the first layer alone, made by a builder of whole models."""
    from onnx import TensorProto

    (layer,) = (each for each in builder.model.gated_layers((role,)) if each.layer_index == 0)
    name = builder.product("x", layer)
    height, width = layer.raw_kernel.shape
    shape = ["batch", "length"]
    return builder.to_model({"x": [*shape, int(height)]}, {name: [*shape, int(width)]}, TensorProto.FLOAT)


def measure_products(model: BertClassifier, quick: bool) -> list[Figure]:
    """Each shape of matrix, dense and by tiles, for one and for eight sequences of 128 tokens."""
    figures, rng = [], np.random.default_rng(0)
    for role in ("query", "ffn_intermediate", "ffn_output"):
        layer = model.gated_layers((role,))[0]
        height, width = (int(side) for side in layer.raw_kernel.shape)
        sides = {"dense": session(product_graph(GraphBuilder(model), role)),
                 "tiles": session(product_graph(TiledBuilder(model), role))}  # fmt: skip
        kept = float(np.mean(np.asarray(layer.mask_variable) != 0))
        for tokens in (128,) if quick else (128, 1024):
            x = rng.normal(size=(1, tokens, height)).astype(np.float32)
            runs = {name: partial(each.run, None, {"x": x}) for name, each in sides.items()}
            times = interleave(runs, repeats=3 if quick else 51, warm_up=3)
            value, details = ratio(times["dense"], times["tiles"])
            where = f"{height} × {width}, {tokens} tokens"
            promise = f"the MACs promise {1 / kept:.2f}×"
            figures.append(Figure(f"dense / tiles, {where}", value, "×", "≥ 1.8", f"{promise}; {details}"))
    return figures


def measure(options) -> list[Figure]:
    """Products and whole models by tiles against dense ones, 75 % of the weights closed, one thread."""
    size, granularity, layers = ("tiny", 32, 1) if options.quick else ("base", 128, LAYERS)
    config = GatedBertConfig(model_size=size)
    sizes = BertConfig.uniform(layers, config.d_model, config.num_heads, config.dff, vocab_size=30522)
    models = {name: pruned(sizes, size, granularity, **pattern) for name, pattern in PATTERNS.items()}
    figures = measure_products(models["tile k"], options.quick)
    sides = {"dense": session(fused_graph(BertClassifier(sizes)))}
    sides |= {name: session(tiled_graph(model)) for name, model in models.items()}
    for batch in (1,) if options.quick else (1, 8):
        inputs = {name: array.astype(np.int64) for name, array in random_inputs(sizes, batch, 128).items()}
        runs = {name: partial(each.run, None, inputs) for name, each in sides.items()}
        times = interleave(runs, repeats=3 if options.quick else 21, warm_up=2)
        for name, model in models.items():
            value, details = ratio(times["dense"], times[name])
            promise = macs(sizes, 128).total / open_macs(model, 128).total
            where = f"{size}, {layers} layers, batch {batch} × 128"
            details = f"the MACs promise {promise:.2f}×; {details}; {where}"
            figures.append(Figure(f"dense / {name} latency, whole model, batch {batch}", value, "×", "", details))
    return figures


if __name__ == "__main__":
    main("tiles", measure)
