"""Tiles: found in a mask, and as products in an ONNX graph."""

import numpy as np
import pytest

from gated_bert.compression.onnx_tiled import TiledBuilder, tiled_graph
from gated_bert.compression.shrink import shrink
from gated_bert.compression.tiles import find_tiles
from gated_bert.config import GatedBertConfig
from gated_bert.config.space import ENCODER_ROLES
from gated_bert.models.architecture import BertConfig
from gated_bert.models.bert import BertClassifier
from gated_bert.pruning.pruner import Pruner
from gated_bert.support.errors import UserError
from tests.compression.conftest import INPUTS, VOCAB, randomize


def pruned(span=False, sparsity=0.7, hidden_act="gelu", **pattern):
    """A model of two layers, hidden size 32, pruned by magnitude in one of the patterns."""
    sizes = BertConfig.uniform(2, 32, 4, 64, vocab_size=VOCAB, max_position=16, span_head=span,
                               hidden_act=hidden_act)  # fmt: skip
    model = BertClassifier(sizes)
    randomize(model, 0)
    config = GatedBertConfig(model_size="tiny", pruning_method="magnitude", **pattern)
    Pruner.from_config(config, model.gated_layers(ENCODER_ROLES), [4, 4]).update(sparsity, 0)
    return model


def run(graph, inputs):
    onnxruntime = pytest.importorskip("onnxruntime")
    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {name: array.astype(np.int64) for name, array in inputs.items()})[0]


def test_columns_of_equal_rows_are_a_tile_and_closed_ones_none():
    is_open = np.zeros((6, 36), bool)
    is_open[[0, 4], 0:12] = True
    is_open[[1], 12:18] = True
    is_open[[1], 24:30] = True
    tiles = find_tiles(is_open)
    assert [tile.rows.tolist() for tile in tiles] == [[0, 4], [1]]
    assert [tile.columns.tolist() for tile in tiles] == [list(range(12)), [*range(12, 18), *range(24, 30)]]
    assert [tile.products for tile in tiles] == [24, 12]


@pytest.mark.parametrize(
    "is_open",
    [
        np.ones((8, 16), bool),
        np.zeros((8, 16), bool),
        np.random.default_rng(0).random((8, 64)) < 0.3,
        np.repeat(np.arange(8)[:, None] < 7, 16, axis=1),
        np.arange(8)[:, None] == np.arange(88) // 11,
    ],
    ids=["all open", "all closed", "single weights", "an eighth closed", "tiles of eleven columns"],
)
def test_no_tiles_where_they_would_save_nothing(is_open):
    assert find_tiles(is_open) is None


@pytest.mark.parametrize("span", [False, True], ids=["classes", "spans"])
@pytest.mark.parametrize(
    "pattern",
    [
        {"pattern": "tile", "granularity": 16, "scope": "global"},
        {"pattern": "tile", "granularity": 32, "scope": "layer", "tile_dims": "kn"},
        {"pattern": "row", "scope": "layer"},
    ],
    ids=["k", "kn", "row"],
)
@pytest.mark.daily_every(3)
def test_a_tiled_graph_computes_what_the_masked_model_computes(pattern, span):
    model = pruned(span, **pattern)
    graph = tiled_graph(model)
    expected = model.predict_on_batch(INPUTS)
    assert np.abs(run(graph, INPUTS) - expected).max() < 1e-5
    # Of another batch and length than those it was made with, which are none.
    other = {name: array[:3, :5] for name, array in INPUTS.items()}
    assert np.abs(run(graph, other) - model.predict_on_batch(other)).max() < 1e-5


def test_the_graph_holds_the_open_weights_alone():
    model = pruned(pattern="tile", granularity=16, scope="global")
    small = shrink(model)
    builder = TiledBuilder(small)
    builder.build()
    stored = {name: array.size for name, array in builder.arrays.items() if "_tile_" in name}
    layers = {layer.name: layer for layer in small.gated_layers(ENCODER_ROLES)}
    for name in builder.tiles:
        weights = sum(size for key, size in stored.items() if key.startswith(f"{name}_tile_"))
        assert weights == np.count_nonzero(np.asarray(layers[name].mask_variable))
    assert len(builder.tiles) >= 6


def test_a_model_without_tiles_is_refused():
    with pytest.raises(UserError, match="--tiled: no matrix of the encoder has columns that share"):
        tiled_graph(pruned(pattern="element", scope="layer"))
