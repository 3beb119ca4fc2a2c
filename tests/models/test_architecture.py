"""The record of the sizes."""

import json

import pytest

from gated_bert.models.architecture import BertConfig, LayerSizes
from gated_bert.support.errors import UserError


def test_json_round_trip_with_different_layers():
    layers = (LayerSizes(3, 8, 5, 100), LayerSizes(0, 0, 0, 7), LayerSizes(1, 8, 8, 0))
    config = BertConfig(
        100, 32, layers, original_head_dim=8, num_outputs=3, dropout_rate=0.1, gate_rule="hard_concrete"
    )
    assert BertConfig.from_json(config.to_json()) == config
    assert json.loads(config.to_json())["layers"][1]["num_heads"] == 0


def test_uniform_divides_the_hidden_size_between_the_heads():
    config = BertConfig.uniform(2, 768, 12, 3072, vocab_size=30522)
    assert config.layers == (LayerSizes(12, 64, 64, 3072),) * 2
    assert config.original_head_dim == 64
    assert config.num_layers == 2


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: BertConfig.uniform(2, 10, 3, 5, vocab_size=9), "num_heads: 3 does not divide the hidden size 10"),
        (lambda: BertConfig.uniform(2, 10, 0, 5, vocab_size=9), "num_heads is 0; it must be a whole number from 1 to"),
        (lambda: BertConfig(9, 8, (LayerSizes(2, 0, 4, 8),), 4), r"layers\[0\].query_key_dim is 0"),
        (lambda: BertConfig(9, 8, (LayerSizes(2, 4, 4, -1),), 4), r"layers\[0\].intermediate_size is -1"),
        (lambda: BertConfig(9.5, 8, (), 4), "vocab_size is 9.5"),
        (lambda: BertConfig.from_dict({"vocab_size": 3}), "the architecture: no field 'hidden_size'"),
        (lambda: BertConfig.from_dict(BertConfig(9, 8, (), 4).to_dict() | {"depth": 3}), "field 'depth' is unknown"),
        (lambda: BertConfig.from_dict(BertConfig(9, 8, (), 4).to_dict() | {"hidden_act": "tanh"}),
         "the architecture: architecture: hidden_act is 'tanh'; allowed: gelu"),
        (lambda: BertConfig.from_dict(BertConfig(9, 8, (), 4).to_dict() | {"hidden_act": ["gelu"]}),
         "hidden_act is a list; allowed: a text"),
    ],
)
def test_sizes_that_make_no_model_are_refused(make, message):
    with pytest.raises(UserError, match=message):
        make()


def test_equal_layers_are_described_together():
    full, small = LayerSizes(12, 64, 64, 3072), LayerSizes(1, 64, 32, 1)
    layers = (full, full, small, LayerSizes(0, 0, 0, 0), full)
    assert BertConfig(9, 768, layers, original_head_dim=64).describe_layers().splitlines() == [
        "layers 0–1: 12 heads of 64, 3,072 neurons",
        "layer 2: 1 head of 64 (query and key) and 32 (value), 1 neuron",
        "layer 3: no heads, no neurons",
        "layer 4: 12 heads of 64, 3,072 neurons",
    ]
