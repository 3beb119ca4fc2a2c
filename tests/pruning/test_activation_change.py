"""Activation change: the deltas against plain NumPy, thresholds on small arrays, pruning that shrinks exactly."""

import numpy as np
import pytest
from keras import ops

from gated_bert.compression.model_statistics import parameter_counts
from gated_bert.compression.shrink import shrink
from gated_bert.models.architecture import BertConfig, LayerSizes
from gated_bert.models.bert import BertClassifier
from gated_bert.pruning.activation_change import (
    activation_changes,
    close_units,
    kept_layers,
    kept_units,
    tracked_activations,
)
from tests.compression.conftest import VOCAB, randomize


@pytest.fixture
def model():
    model = BertClassifier(BertConfig.uniform(2, 16, 4, 12, vocab_size=VOCAB, max_position=16))
    randomize(model, 3)
    return model


def batch(lengths, width, seed):
    rng = np.random.default_rng(seed)
    mask = (np.arange(width) < np.array(lengths)[:, None]).astype(np.int32)
    ids = rng.integers(1, VOCAB, mask.shape).astype(np.int32) * mask
    return {"input_ids": ids, "token_type_ids": np.zeros_like(ids), "attention_mask": mask}


def numbers(variable):
    return np.asarray(ops.convert_to_numpy(variable), dtype=np.float64)


def first_layer_by_hand(model, inputs):
    """Context of attention and the FFN's first output of layer 0, one sequence and one head at a time."""
    block = model.encoder.blocks[0]
    hidden = numbers(model.encoder.embeddings(inputs["input_ids"], inputs["token_type_ids"]))
    attention = block.attention
    query, key, value = (
        hidden @ numbers(layer.raw_kernel) + numbers(layer.bias)
        for layer in (attention.query, attention.key, attention.value)
    )
    context = np.zeros_like(hidden)
    for row, mask in enumerate(inputs["attention_mask"].astype(bool)):
        for head in range(4):
            part = slice(4 * head, 4 * head + 4)
            scores = np.exp(query[row, :, part] @ key[row, mask, part].T / 2)
            context[row, :, part] = scores / scores.sum(axis=1, keepdims=True) @ value[row, mask, part]
    output, norm = attention.output_dense, block.attention_norm
    summed = hidden + context @ numbers(output.raw_kernel) + numbers(output.bias)
    centred = summed - summed.mean(axis=-1, keepdims=True)
    normed = centred / centred.std(axis=-1, keepdims=True) * numbers(norm.gamma) + numbers(norm.beta)
    return context, normed @ numbers(block.ffn.intermediate.raw_kernel) + numbers(block.ffn.intermediate.bias)


def mean_change(first, second, real):
    """Mean over positions of the mean over the sequences that have a token there in both batches."""
    difference = np.abs(second - first)
    return np.mean([difference[real[:, p], p].mean(axis=0) for p in range(real.shape[1]) if real[:, p].any()], axis=0)


def widened(inputs, width):
    return {name: np.pad(array, ((0, 0), (0, width - array.shape[1]))) for name, array in inputs.items()}


def test_changes_are_those_of_a_plain_computation(model):
    one, two = batch([5, 3, 4], 5, 0), batch([7, 2, 6], 7, 1)
    changes = activation_changes(model, [one, two])
    wide = widened(one, 7)
    real = (wide["attention_mask"] * two["attention_mask"]).astype(bool)
    by_hand = first_layer_by_hand(model, wide), first_layer_by_hand(model, two)
    for name, before, after in zip(("context", "intermediate"), *by_hand, strict=True):
        np.testing.assert_allclose(changes.layers[0][name], mean_change(before, after, real), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(changes.heads[0], changes.layers[0]["context"].reshape(4, 4).mean(axis=1))
    shapes = {name: values.shape for name, values in changes.layers[1].items()}
    assert shapes == {"attention_weights": (4,), "context": (16,), "attention_output": (16,), "intermediate": (12,),
                      "ffn_output": (16,)}  # fmt: skip
    pooled = [numbers(model.encoder(inputs)[1]) for inputs in (wide, two)]
    np.testing.assert_allclose(changes.pooler, np.abs(pooled[1] - pooled[0]).mean(axis=0), rtol=1e-4, atol=1e-5)


def test_the_tracked_pass_is_the_models_own(model):
    inputs = batch([6, 4], 6, 0)
    tracked = tracked_activations(model, inputs)
    np.testing.assert_allclose(tracked[2, "pooler"], numbers(model.encoder(inputs)[1]), atol=1e-5)
    weights = tracked[1, "attention_weights"]
    np.testing.assert_allclose(weights.sum(axis=-1), 1.0, atol=1e-5)
    assert np.all(weights[1, :, :, 4:] == 0)


def test_of_more_batches_the_mean_over_consecutive_pairs_counts(model):
    batches = [batch([5, 5], 5, seed) for seed in range(3)]
    pairs = [activation_changes(model, batches[first : first + 2]).layers[1]["intermediate"] for first in (0, 1)]
    both = activation_changes(model, batches).layers[1]["intermediate"]
    np.testing.assert_allclose(both, np.mean(pairs, axis=0), rtol=1e-6)
    assert activation_changes(model, [batches[0]] * 2).layers[0]["intermediate"].max() == 0
    with pytest.raises(ValueError, match="two batches of equally many"):
        activation_changes(model, batches[:1])
    with pytest.raises(ValueError, match="two batches of equally many"):
        activation_changes(model, [batches[0], batch([5], 5, 0)])


@pytest.mark.parametrize(
    ("changes", "threshold", "scale", "kept"),
    [
        ([0.1, 0.3, 0.2, 0.8], 0.3, "raw", [0, 1, 0, 1]),
        ([0.1, 0.3, 0.2, 0.8], 0.0, "raw", [1, 1, 1, 1]),
        ([2.0, 4.0, 3.0, 6.0], 0.5, "minmax", [0, 1, 0, 1]),
        ([2.0, 4.0, 3.0, 6.0], 0.0, "minmax", [1, 1, 1, 1]),
        ([5.0, 5.0], 0.7, "minmax", [1, 1]),
        ([1.0, 4.0, 2.0, 3.0], 0.5, "quantile", [0, 1, 0, 1]),
        ([1.0, 4.0, 2.0, 3.0], 1.0, "quantile", [0, 1, 0, 0]),
        ([0.1, 0.3, 0.2], 9.0, "raw", [0, 1, 0]),
        ([], 0.5, "quantile", []),
    ],
)
def test_thresholds(changes, threshold, scale, kept):
    assert kept_units(np.array(changes), threshold, scale).tolist() == [bool(value) for value in kept]


@pytest.mark.parametrize(("attention", "ffn", "heads", "neurons"), [(0.5, 0.75, 2, 3), (1.0, 1.0, 1, 1)])
def test_pruned_and_shrunk_compute_the_same_and_one_unit_stays(model, attention, ffn, heads, neurons):
    one, two = batch([5, 3, 4], 5, 0), batch([4, 2, 5], 5, 1)
    kept = kept_layers(activation_changes(model, [one, two]), [0, attention], [0, ffn], "quantile")
    close_units(model, kept)
    small = shrink(model)
    assert small.bert_config.layers == (LayerSizes(4, 4, 4, 12), LayerSizes(heads, 4, 4, neurons))
    np.testing.assert_allclose(numbers(small(two)), numbers(model(two)), atol=1e-5)
    again = activation_changes(small, [one, two])
    assert len(again.heads[1]) == heads and len(again.layers[1]["intermediate"]) == neurons


def test_layers_without_heads_or_neurons_have_nothing_to_prune(model):
    close_units(model, [type(layer)(layer.heads & False, layer.neurons & False) for layer in
                        kept_layers(activation_changes(model, [batch([4], 4, 0)] * 2), [0, 0], [0, 0])])  # fmt: skip
    empty = shrink(model)
    changes = activation_changes(empty, [batch([4], 4, 0), batch([4], 4, 1)])
    assert "context" not in changes.layers[0] and changes.heads[0].size == 0
    close_units(empty, kept_layers(changes, [1, 1], [1, 1]))


def test_the_published_sizes_have_the_published_parameters():
    dense = BertConfig.uniform(4, 512, 8, 2048, vocab_size=30522)
    pruned = dense.replace(layers=(*dense.layers[:2], LayerSizes(6, 64, 64, 193), LayerSizes(1, 64, 64, 83)))
    before, after = (parameter_counts(BertClassifier(config))[0] for config in (dense, pruned))
    assert (before, before - after) == (28_764_674, 5_096_876)
