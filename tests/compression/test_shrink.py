"""Shrinking: exact whatever is closed and whatever the biases, and a model like any other afterwards."""

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gated_bert.compression.shrink import kept_units, shrink, shrunk_config
from gated_bert.config import GatedBertConfig
from gated_bert.models.architecture import BertConfig, LayerSizes
from gated_bert.models.bert import BertClassifier
from gated_bert.models.folder import load_model, save_model
from gated_bert.pruning.pruner import Pruner
from gated_bert.support.errors import UserError
from gated_bert.tasks.task import TASKS
from gated_bert.tasks.wordpiece import Tokenizer
from tests.compression.conftest import INPUTS, randomize

FULL = LayerSizes(4, 4, 4, 12)


def array(tensor):
    return keras.ops.convert_to_numpy(tensor)


def difference(one, other, inputs=INPUTS):
    return float(np.abs(array(one(inputs)) - array(other(inputs))).max())


def close(layer, rows=None, columns=None, by="gates"):
    """Closes whole rows or columns, or sets their weights to zero."""
    variable = layer.raw_kernel if by == "weights" else layer.mask_variable
    values = array(variable).copy()
    values[rows if rows is not None else slice(None), columns if columns is not None else slice(None)] = 0
    variable.assign(values)


def close_head(model, layer, head):
    dims = np.arange(4 * head, 4 * head + 4)
    attention = model.encoder.blocks[layer].attention
    for matrix in (attention.query, attention.key, attention.value):
        close(matrix, columns=dims)
    close(attention.output_dense, rows=dims)


def close_neurons(model, layer, neurons):
    ffn = model.encoder.blocks[layer].ffn
    close(ffn.intermediate, columns=neurons)
    close(ffn.output_dense, rows=neurons)


def test_heads_and_neurons_go_layer_by_layer(make_model):
    model = make_model()
    close_head(model, 0, 1)
    close_head(model, 0, 3)
    close_neurons(model, 1, [0, 5, 11])
    before = [array(variable) for variable in model.weights]
    small = shrink(model)
    assert small.bert_config.layers == (LayerSizes(2, 4, 4, 12), LayerSizes(4, 4, 4, 9))
    assert difference(model, small) < 1e-5
    assert all(np.array_equal(one, array(other)) for one, other in zip(before, model.weights, strict=True))
    assert shrunk_config(model) == small.bert_config


@pytest.mark.parametrize("matrix", ["value", "attention_output", "ffn_intermediate", "ffn_output"])
@pytest.mark.parametrize("by", ["gates", "weights"])
def test_one_closed_side_is_enough_and_its_constant_stays(make_model, matrix, by):
    model = make_model(num_layers=1)
    layer = model.gated_layers((matrix,))[0]
    units = {"columns": [0, 1, 2, 3]} if matrix in ("value", "ffn_intermediate") else {"rows": [0, 1, 2, 3]}
    close(layer, **units, by=by)
    small = shrink(model)
    assert small.bert_config.layers == (LayerSizes(4, 4, 4, 8) if "ffn" in matrix else LayerSizes(3, 4, 4, 12),)
    assert difference(model, small) < 1e-5


@pytest.mark.parametrize(("part", "sizes"), [("heads", LayerSizes(0, 0, 0, 12)), ("neurons", LayerSizes(4, 4, 4, 0))])
@pytest.mark.parametrize("side", ["in", "out"])
def test_an_emptied_sub_layer_keeps_its_residual_path_and_its_constant(make_model, part, sizes, side):
    model = make_model()
    block = model.encoder.blocks[0]
    if part == "heads":
        close(block.attention.value if side == "in" else block.attention.output_dense)
    else:
        close(block.ffn.intermediate if side == "in" else block.ffn.output_dense)
    small = shrink(model)
    assert small.bert_config.layers == (sizes, FULL)
    assert difference(model, small) < 1e-5
    assert difference(small, shrink(small)) == 0


def test_a_model_without_an_open_weight_shrinks_to_its_constant(make_model):
    model = make_model()
    for layer in model.gated_layers():
        if layer.layer_index is not None:
            close(layer)
    small = shrink(model)
    assert small.bert_config.layers == (LayerSizes(0, 0, 0, 0),) * 2
    assert difference(model, small) < 1e-5


@pytest.mark.parametrize(
    ("closed", "query_bias", "dim"),
    [("key", 0.7, 3), ("query", 0.0, 3), ("query", 0.7, 4), ("both", 0.7, 3), ("both", 0.0, 3)],
)
def test_a_query_key_dimension_goes_where_the_softmax_does_not_see_it(make_model, closed, query_bias, dim):
    model = make_model(num_layers=1)
    attention = model.encoder.blocks[0].attention
    dims = [0, 5, 10, 15]
    bias = array(attention.query.bias).copy()
    bias[dims] = query_bias
    attention.query.bias.assign(bias)
    for matrix in (attention.query, attention.key):
        if closed in (matrix.role, "both"):
            close(matrix, columns=dims)
    small = shrink(model)
    assert small.bert_config.layers == (LayerSizes(4, dim, 4, 12),)
    assert difference(model, small) < 1e-5


def test_a_head_that_attends_to_all_alike_keeps_one_dimension(make_model):
    model = make_model(num_layers=1)
    close(model.encoder.blocks[0].attention.key)
    small = shrink(model)
    assert small.bert_config.layers == (LayerSizes(4, 1, 4, 12),)
    assert difference(model, small) < 1e-5


def test_heads_of_different_needs_get_the_dimensions_of_the_largest(make_model):
    model = make_model(num_layers=1)
    # Heads 0 to 3 need 1, 3, 0 and 2 of their 4 value dimensions.
    close(model.encoder.blocks[0].attention.value, columns=[0, 1, 3, 6, 8, 9, 10, 11, 12, 15])
    assert kept_units(model)[0].value.tolist() == [0, 1, 2, 4, 5, 7, 12, 13, 14]
    small = shrink(model)
    assert small.bert_config.layers == (LayerSizes(3, 4, 3, 12),)
    assert difference(model, small) < 1e-5


@pytest.mark.parametrize("gate_trainable", [False, True])
@settings(max_examples=12, deadline=None)
@given(data=st.data())
@pytest.mark.daily_every(2)
@pytest.mark.nightly
def test_any_closed_set_is_shrunk_exactly(gate_trainable, data):
    config = BertConfig.uniform(2, 16, 4, 12, vocab_size=40, max_position=16, gate_trainable=gate_trainable)
    model = BertClassifier(config)
    randomize(model, data.draw(st.integers(0, 99)))
    roles = ("query", "key", "value", "attention_output", "ffn_intermediate", "ffn_output")
    for layer in model.gated_layers(roles):
        by = data.draw(st.sampled_from(["gates", "weights"]))
        height, width = layer.raw_kernel.shape
        if data.draw(st.booleans()):
            close(layer, columns=sorted(data.draw(st.sets(st.integers(0, width - 1)))), by=by)
        if data.draw(st.booleans()):
            close(layer, rows=sorted(data.draw(st.sets(st.integers(0, height - 1)))), by=by)
        if data.draw(st.booleans()):
            layer.bias.assign(np.zeros(width))
        if gate_trainable:
            layer.gates.assign(data.draw(st.sampled_from([0.5, 1.0, -2.0])) * array(layer.gates))
    for layer in range(2):
        for head in data.draw(st.sets(st.integers(0, 3))):
            close_head(model, layer, head)
        close_neurons(model, layer, sorted(data.draw(st.sets(st.integers(0, 11)))))
    round_to = data.draw(st.sampled_from([1, 1, 2, 4, 5]))
    small = shrink(model, round_to)
    assert difference(model, small) < 1e-4
    assert small.bert_config == shrunk_config(model, round_to)
    assert difference(small, shrink(small)) < 1e-4


def test_what_remains_keeps_its_weights_its_gates_and_its_mask(make_model):
    model = make_model(num_layers=1, gate_trainable=True)
    close_neurons(model, 0, [0, 1])
    layer = model.encoder.blocks[0].ffn.intermediate
    close(layer, rows=[3], columns=[5])
    layer.gates.assign(np.full((16, 12), 0.5))
    small = shrink(model).encoder.blocks[0].ffn.intermediate
    assert array(small.mask)[3, 3] == 0 and array(small.mask).sum() == 16 * 10 - 1
    assert np.array_equal(array(small.raw_kernel), array(layer.raw_kernel)[:, 2:])
    assert np.array_equal(array(small.gates), np.full((16, 10), 0.5))


@pytest.mark.parametrize("gate_rule", ["straight_through", "soft_threshold", "hard_concrete"])
def test_models_with_trained_scores_shrink_to_fixed_gates(make_model, gate_rule):
    model = make_model(gate_rule=gate_rule)
    for layer in model.gated_layers():
        layer.scores.assign(np.random.default_rng(1).normal(0, 2, layer.scores.shape))
    ffn = model.encoder.blocks[1].ffn
    scores = array(ffn.output_dense.scores).copy()
    scores[:5] = -9
    ffn.output_dense.scores.assign(scores)
    if gate_rule == "straight_through":
        close(ffn.output_dense, rows=range(5))
    if gate_rule == "soft_threshold":
        for layer in model.gated_layers():
            layer.threshold.assign(0.3)
    small = shrink(model)
    assert small.bert_config.gate_rule == "fixed"
    assert small.bert_config.layers == (FULL, LayerSizes(4, 4, 4, 7))
    assert difference(model, small) < 1e-5


@pytest.mark.parametrize(
    ("round_to", "sizes"),
    [
        (1, LayerSizes(1, 3, 4, 7)),
        # 2 divides heads' dimensions; 8 does not, so these are rounded to 4, and a second head is kept for 2 × 4.
        (2, LayerSizes(1, 4, 4, 8)),
        (8, LayerSizes(2, 4, 4, 8)),
        # 5 divides no width up to that of four heads; neurons go up to 10.
        (5, LayerSizes(1, 3, 4, 10)),
        (64, LayerSizes(1, 4, 4, 12)),
    ],
)
def test_sizes_are_rounded_up_with_closed_units(make_model, round_to, sizes):
    model = make_model(num_layers=1)
    for head in (0, 1, 3):
        close_head(model, 0, head)
    close(model.encoder.blocks[0].attention.key, columns=[9])
    close_neurons(model, 0, [1, 2, 3, 5, 8])
    small = shrink(model, round_to)
    assert small.bert_config.layers == (sizes,)
    assert difference(model, small) < 1e-5
    assert shrink(small).bert_config.layers == (LayerSizes(1, 3, 4, 7),)


@pytest.mark.parametrize("round_to", [0, -4, 2.0, True, "8"])
def test_a_round_to_that_is_no_size_is_refused(make_model, round_to):
    with pytest.raises(UserError, match="round_to: .* a whole number from 1 up"):
        shrink(make_model(num_layers=1), round_to)


def test_single_weights_leave_nothing_to_shrink(make_model):
    model = make_model()
    for layer in model.gated_layers():
        layer.gates.assign(np.random.default_rng(2).integers(0, 2, layer.gates.shape))
    small = shrink(model)
    assert small.bert_config == model.bert_config
    assert np.array_equal(array(small(INPUTS)), array(model(INPUTS)))


def test_a_shrunk_model_saves_loads_trains_and_shrinks_again(make_model, tmp_path):
    model = make_model()
    close_head(model, 0, 2)
    close_neurons(model, 0, list(range(12)))
    close_neurons(model, 1, [3])
    close(model.encoder.blocks[1].ffn.intermediate, rows=[2], columns=[0])
    small = shrink(model)
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    save_model(tmp_path / "model", small, Tokenizer.from_vocab(vocabulary), TASKS["sst2"], {})
    loaded = load_model(tmp_path / "model").model
    assert loaded.bert_config == small.bert_config
    assert np.array_equal(loaded.predict(INPUTS, verbose=0), small.predict(INPUTS, verbose=0))

    loaded.compile(keras.optimizers.AdamW(1e-2), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    labels = np.array([0, 1, 1, 0])
    before = loaded.evaluate(INPUTS, labels, verbose=0)
    loaded.fit(INPUTS, labels, epochs=5, verbose=0)
    assert loaded.evaluate(INPUTS, labels, verbose=0) < before
    assert array(loaded.encoder.blocks[1].ffn.intermediate.gates)[2, 0] == 0

    config = GatedBertConfig(pruning_method="magnitude", pattern="head", scope="layer")
    heads = [sizes.num_heads for sizes in loaded.bert_config.layers]
    Pruner.from_config(config, loaded.gated_layers(config.prunable_roles), heads).update(0.5, 0)
    again = shrink(loaded)
    assert [sizes.num_heads for sizes in again.bert_config.layers] == [1, 2]
    assert again.bert_config.layers[0].intermediate_size == 0
    assert difference(loaded, again) < 1e-5


def test_sixteen_bits_stay_sixteen_bits(make_model):
    model = make_model(dtype="mixed_float16")
    close_head(model, 0, 0)
    small = shrink(model)
    assert small.dtype_policy.name == "mixed_float16"
    assert small.bert_config.layers[0].num_heads == 3
    assert difference(model, small) < 0.05
