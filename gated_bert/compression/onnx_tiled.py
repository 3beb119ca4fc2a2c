"""The fused ONNX graph with tile-wise products: every tile one small dense product on the inputs that it reads.

Inputs are gathered as rows of the transposed activations, where each is contiguous, and a tile's product transposes
them back on the way: gathering columns would cost what the tiles save.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from keras import ops

from gated_bert.compression.kept import effective_kernel
from gated_bert.compression.onnx_fused import RUNTIME, GraphBuilder
from gated_bert.compression.shrink import shrink
from gated_bert.compression.tiles import Tile, find_tiles
from gated_bert.models.backbone import EncoderClassifier
from gated_bert.models.encoder import MASKED, EncoderBlock
from gated_bert.models.gated_dense import GatedDense
from gated_bert.support.errors import UserError

if TYPE_CHECKING:
    import onnx


def tiled_graph(model: EncoderClassifier) -> onnx.ModelProto:
    """The ONNX model of `model` in inference with tile-wise products; runs in ONNX Runtime alone.

    The model is shrunk first: neurons and heads that are closed as a whole take part in no product.

    Args:
        model: a model that computes in float32, in whose encoder matrices columns share their open rows, as patterns
            `tile` and `row` leave them; any Keras backend.

    Returns:
        An `onnx.ModelProto` as of `fused_graph`.

    Raises:
        UserError: no matrix has such tiles.
    """
    builder = TiledBuilder(shrink(model))
    if not builder.tiles:
        raise UserError("--tiled: no matrix of the encoder has columns that share their open rows and close enough of "
                        "them; prune with --pattern tile or row, or export without --tiled")  # fmt: skip
    return builder.build()


class TiledBuilder(GraphBuilder):
    """Adds tile-wise products where a matrix has tiles.

    Attributes:
        tiles: name of a layer → its tiles, where it has some.
    """

    def __init__(self, model: EncoderClassifier):
        super().__init__(model)
        layers = [layer for layer in model.gated_layers() if layer.layer_index is not None]
        found = {layer.name: find_tiles(_open(layer)) for layer in layers}
        self.tiles: dict[str, list[Tile]] = {name: tiles for name, tiles in found.items() if tiles}
        self._transposed: dict[str, str] = {}

    def product(self, inputs: str, layer: GatedDense) -> str:
        if layer.name not in self.tiles:
            return super().product(inputs, layer)
        return self._tiled(self._transpose(inputs, layer.raw_kernel.shape[0]), layer, inputs)

    def _tiled(self, source: str, layer: GatedDense, like: str) -> str:
        """The product [batch, length, out] of `source`, [in, tokens]; batch and length are those of `like`."""
        tiles = self.tiles[layer.name]
        if _in_turn(tiles, layer):
            flat = self.add("Concat", self._tile_products(source, layer, tiles), axis=1)
        else:
            flat = self.add("Transpose", [self._in_order(source, layer, tiles)], perm=[1, 0])
        return self.add("Reshape", [flat, self._shape(like, layer.units)])

    def _attend(self, block: EncoderBlock, hidden: str, mask: str):
        attention = block.attention
        layers = [*(attention.projections() or ())]
        if not any(layer.name in self.tiles for layer in layers):
            return super()._attend(block, hidden, mask)
        bias = self.constant(f"{block.name}_attention_output_bias", attention.output_dense.bias)
        biases = np.concatenate([ops.convert_to_numpy(layer.bias) for layer in layers])
        inputs = [
            *(self.product(hidden, layer) for layer in layers),
            self.constant(f"{block.name}_qkv_bias", biases),
            mask,
        ]
        context = self.add("MultiHeadAttention", inputs, domain=RUNTIME, num_heads=attention.sizes.num_heads,
                           scale=attention.scale, mask_filter_value=MASKED)  # fmt: skip
        return self.product(context, attention.output_dense), bias

    def _transform(self, block: EncoderBlock, hidden: str):
        ffn = block.ffn
        if ffn.intermediate is None or not {ffn.intermediate.name, ffn.output_dense.name} <= self.tiles.keys():
            return super()._transform(block, hidden)
        # Between the two matrices the neurons stay transposed, where the second one's tiles gather them.
        bias = self.constant(f"{block.name}_ffn_output_bias", ffn.output_dense.bias)
        inner = self.constant(
            f"{block.name}_ffn_intermediate_bias", ops.convert_to_numpy(ffn.intermediate.bias)[:, None]
        )
        source = self._transpose(hidden, self.config.hidden_size)
        summed = self.add("Add", [self._in_order(source, ffn.intermediate, self.tiles[ffn.intermediate.name]), inner])
        return self._tiled(self.activate_sum(summed), ffn.output_dense, hidden), bias

    def _tile_products(self, source: str, layer: GatedDense, tiles: list[Tile]) -> list[str]:
        """Of each tile [tokens, columns]; `source` is [in, tokens]."""
        kernel = effective_kernel(layer)
        return [
            self.add("Gemm", [self._gather(source, layer, index, tile),
                              self.constant(f"{layer.name}_tile_{index}", kernel[np.ix_(tile.rows, tile.columns)])],
                     transA=1)  # fmt: skip
            for index, tile in enumerate(tiles)
        ]  # fmt: skip

    def _in_order(self, source: str, layer: GatedDense, tiles: list[Tile]) -> str:
        """The product [out, tokens], its rows in the order of the layer's columns, closed ones zero."""
        kernel, in_turn = effective_kernel(layer), _in_turn(tiles, layer)
        parts = []
        for index, tile in enumerate(tiles):
            weights = kernel[np.ix_(tile.rows, tile.columns)].T
            if index == len(tiles) - 1 and not in_turn:
                # One row of zeros, which closed columns take.
                weights = np.concatenate([weights, np.zeros((1, len(tile.rows)), np.float32)])
            parts.append(self.add("MatMul", [self.constant(f"{layer.name}_tile_{index}", weights),
                                             self._gather(source, layer, index, tile)]))  # fmt: skip
        joined = self.add("Concat", parts, axis=0)
        if in_turn:
            return joined
        columns = np.concatenate([tile.columns for tile in tiles])
        places = np.full(layer.units, len(columns), np.int64)
        places[columns] = np.arange(len(columns))
        return self.add("Gather", [joined, self.constant(f"{layer.name}_order", places)], axis=0)

    def _gather(self, source: str, layer: GatedDense, index: int, tile: Tile) -> str:
        rows = self.constant(f"{layer.name}_rows_{index}", tile.rows.astype(np.int64))
        return self.add("Gather", [source, rows], axis=0)

    def _transpose(self, inputs: str, width: int) -> str:
        """Activations [batch, length, width] as [width, tokens], made once for all matrices that read them."""
        if inputs not in self._transposed:
            flat = self.add("Reshape", [inputs, self.constant(f"flat_{width}", np.array([-1, width]))])
            self._transposed[inputs] = self.add("Transpose", [flat], perm=[1, 0])
        return self._transposed[inputs]

    def _shape(self, inputs: str, width: int) -> str:
        """The shape [batch, length, width], batch and length those of `inputs`."""
        tokens = self.add("Shape", [inputs], start=0, end=2)
        return self.add("Concat", [tokens, self.constant(f"width_{width}", np.array([width]))], axis=0)


def _open(layer: GatedDense) -> np.ndarray:
    return ops.convert_to_numpy(layer.effective_gates(training=False)) != 0


def _in_turn(tiles: list[Tile], layer: GatedDense) -> bool:
    """Whether the tiles, one after the other, have all columns of the layer in their order."""
    return np.array_equal(np.concatenate([tile.columns for tile in tiles]), np.arange(layer.units))
