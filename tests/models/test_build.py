"""The model that a run's record asks for."""

from pathlib import Path

import keras
import pytest

from gated_bert.config import ConfigError, GatedBertConfig
from gated_bert.models.architecture import LayerSizes
from gated_bert.models.build import build_model
from gated_bert.support.errors import UserError
from gated_bert.tasks.task import TASKS

FIXTURE = str(Path(__file__).resolve().parent.parent / "fixtures" / "bert")


def config(**values):
    return GatedBertConfig(model_size="tiny", pruning_method="magnitude", **values)


def test_sizes_and_options_of_the_record_reach_the_model():
    record = config(num_layers=1, d_model=32, num_heads=2, dff=48, dropout_rate=0.1, gate_init_value=0.5,
                    gate_trainable=True, precision="mixed_bfloat16")  # fmt: skip
    model = build_model(record, TASKS["mnli"], vocab_size=100, gate_rule="straight_through")
    sizes = model.bert_config
    assert sizes.layers == (LayerSizes(2, 16, 16, 48),)
    assert (sizes.vocab_size, sizes.num_outputs, sizes.dropout_rate) == (100, 3, 0.1)
    assert model.dtype_policy.name == "mixed_bfloat16"
    layer = model.gated_layers()[0]
    assert layer.scores is not None and layer.gates.trainable and float(layer.gates[0, 0]) == 0.5


def test_regression_has_one_output():
    model = build_model(config(num_layers=1, d_model=8, num_heads=2, dff=8), TASKS["stsb"], vocab_size=10)
    assert model.bert_config.num_outputs == 1


def test_a_larger_vocabulary_may_be_asked_for_and_a_smaller_may_not():
    small = {"num_layers": 1, "d_model": 8, "num_heads": 2, "dff": 8}
    assert build_model(config(vocab_size=64, **small), TASKS["sst2"], 50).bert_config.vocab_size == 64
    with pytest.raises(ConfigError, match="vocab_size: 40 is refused; allowed: at least the tokeniser's 50 tokens"):
        build_model(config(vocab_size=40, **small), TASKS["sst2"], 50)


def test_pretrained_weights_bring_their_sizes():
    with pytest.warns(UserWarning, match="its head has the classes .* starts from random values"):
        model = build_model(config(pretrained=FIXTURE, num_layers=1, max_len=64), TASKS["sst2"], vocab_size=200)
    assert model.bert_config.layers == (LayerSizes(4, 8, 8, 64),)
    token = keras.ops.convert_to_numpy(model.encoder.embeddings.token.embeddings)
    assert token.std() > 0.1  # the fixture's embeddings; fresh ones have 0.02


@pytest.mark.parametrize(
    ("values", "vocab_size", "message"),
    [
        ({"d_model": 64}, 200, "d_model: 64 is refused; allowed: 32, that of the pretrained weights in"),
        ({"num_heads": 2}, 200, "num_heads: 2 is refused; allowed: 4, that of"),
        ({"dff": 65}, 200, "dff: 65 is refused; allowed: 64, that of"),
        ({"max_len": 128}, 200, "max_len: 128 is refused; allowed: 8 to 64, the longest input of"),
        ({}, 201, "allowed: a vocabulary of at most 200 tokens, that of .*; this one has 201"),
    ],
)
def test_sizes_that_the_pretrained_weights_contradict_are_refused(values, vocab_size, message):
    with pytest.raises(ConfigError, match=message):
        build_model(config(**{"pretrained": FIXTURE, "max_len": 64, **values}), TASKS["sst2"], vocab_size)


def test_more_layers_than_the_pretrained_weights_have_are_refused():
    with pytest.raises(UserError, match="num_layers: 3 is refused; .* has layers 1 to 2"):
        build_model(config(pretrained=FIXTURE, num_layers=3, max_len=64), TASKS["sst2"], 200)
