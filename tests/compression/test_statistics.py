"""Parameters and multiply-accumulates, counted by hand; latency; the table."""

import keras
import numpy as np
import pytest

from gated_bert.compression.model_statistics import (
    ModelStatistics,
    comparison_table,
    layer_macs,
    macs,
    measure_latency,
    model_statistics,
    open_macs,
    parameter_counts,
)
from gated_bert.compression.shrink import shrink
from gated_bert.models.architecture import BertConfig, LayerSizes
from gated_bert.models.bert import BertClassifier


def test_the_macs_of_bert_base_are_the_known_ones():
    found = macs(BertConfig.uniform(12, 768, 12, 3072, vocab_size=30522), length=128)
    assert found.layers[0] == {
        "query": 589_824,
        "key": 589_824,
        "value": 589_824,
        "attention_scores": 98_304,
        "attention_context": 98_304,
        "attention_output": 589_824,
        "ffn_intermediate": 2_359_296,
        "ffn_output": 2_359_296,
    }
    assert found.per_layer == (7_274_496,) * 12
    assert found.head == (768 * 768 + 768 * 2) / 128
    assert found.total == 12 * 7_274_496 + 4_620


def test_the_macs_of_a_layer_of_odd_sizes():
    assert layer_macs(LayerSizes(3, 5, 2, 7), hidden_size=10, length=4) == {
        "query": 150,
        "key": 150,
        "value": 60,
        "attention_scores": 60,
        "attention_context": 24,
        "attention_output": 60,
        "ffn_intermediate": 70,
        "ffn_output": 70,
    }
    assert sum(layer_macs(LayerSizes(0, 0, 0, 0), 10, 4).values()) == 0


def test_parameters_are_those_of_the_model_without_its_gates():
    config = BertConfig.uniform(
        1, 4, 2, 6, vocab_size=10, max_position=5, gate_trainable=True, gate_rule="hard_concrete"
    )
    model = BertClassifier(config)
    # Embeddings and their norm, four attention matrices, the feed-forward network, two norms, pooler, head.
    by_hand = 10 * 4 + 5 * 4 + 2 * 4 + 8 + 4 * (16 + 4) + (24 + 6) + (24 + 4) + 16 + (16 + 4) + (8 + 2)
    assert parameter_counts(model)[0] == by_hand


def test_closed_and_zero_weights_are_no_nonzero_parameters(make_model):
    model = make_model(num_layers=1)
    total, nonzero = parameter_counts(model)
    before = open_macs(model, 8)
    assert before == macs(model.bert_config, 8)
    gates = np.ones((16, 12), np.float32)
    gates[:4] = 0
    block = model.encoder.blocks[0]
    block.ffn.intermediate.gates.assign(gates)
    kernel = keras.ops.convert_to_numpy(block.attention.key.raw_kernel).copy()
    kernel[:, :4] = 0
    block.attention.key.raw_kernel.assign(kernel)
    assert parameter_counts(model) == (total, nonzero - 48 - 64)
    after = open_macs(model, 8)
    assert before.total - after.total == 48 + 64
    assert after.layers[0]["ffn_intermediate"] == 12 * 12 and after.layers[0]["key"] == 16 * 12


def test_open_macs_of_what_can_be_shrunk_are_those_of_the_shrunk_model(make_model):
    model = make_model()
    attention = model.encoder.blocks[0].attention
    for matrix in (attention.query, attention.key, attention.value):
        matrix.gates.assign(np.repeat([[0, 1, 1, 1]], 16, axis=0).repeat(4, axis=1))
    attention.output_dense.gates.assign(np.repeat([[0], [1], [1], [1]], 16, axis=1).repeat(4, axis=0))
    attention.query.bias.assign(np.zeros(16))
    model.encoder.blocks[1].ffn.intermediate.gates.assign(np.zeros((16, 12)))
    model.encoder.blocks[1].ffn.output_dense.gates.assign(np.zeros((12, 16)))
    assert open_macs(model, 8) == macs(shrink(model).bert_config, 8)


def test_the_latency_of_all_models_is_measured(make_model):
    seconds = measure_latency({"one": make_model(num_layers=1), "two": make_model()}, batch=2, length=8, repeats=3)
    assert set(seconds) == {"one", "two"} and all(
        times.shape == (3,) and (times > 0).all() for times in seconds.values()
    )


def test_statistics_and_their_table(make_model):
    found = model_statistics(make_model(num_layers=1), 8, [0.3, 0.1, 0.2])
    assert isinstance(found, ModelStatistics) and found.latency == 0.2
    assert found.to_dict()["macs_per_token_and_layer"] == [found.macs.per_layer[0]]
    lines = comparison_table(found, found, (2_000_000, 1_000_000), batch=4).splitlines()
    assert lines[0].split() == ["before", "after", "after", "/", "before"]
    assert lines[5].split()[-3:] == ["2.00", "1.00", "0.500"]
    assert lines[6].split() == ["latency,", "ms", "(batch", "4", "×", "8)", "200.0", "200.0", "1.000"]
    assert len({len(line) for line in lines}) == 1


@pytest.mark.parametrize("length", [1, 16])
def test_the_head_is_spread_over_the_tokens(length):
    config = BertConfig.uniform(1, 4, 2, 6, vocab_size=10, num_outputs=3)
    assert macs(config, length).head * length == 4 * 4 + 4 * 3
