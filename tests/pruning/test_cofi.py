"""CoFi: the Lagrangian by other means, what its gates close, and that a run comes to the sparsity asked for."""

import keras
import numpy as np
import pytest
from any_models import array, encoder
from keras import ops

import gated_bert
from gated_bert import ConfigError, GatedBertConfig, PruningCallback
from gated_bert.compression.shrink_keras import shrink_keras
from gated_bert.models.gate_rules import HARD_CONCRETE_SHIFT
from gated_bert.pruning import Cofi, Linear, Movement, Pruner
from gated_bert.pruning.named_patterns import get_pattern
from gated_bert.support.backend import compiled, with_gradients

HEADS, FEATURES = 4, np.random.default_rng(2).normal(size=(48, 6, 16)).astype("float32")
INPUTS = {"features": FEATURES, "padding_mask": np.ones((48, 6), np.float32)}
LABELS = np.random.default_rng(3).integers(0, 2, 48)
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def sigmoid(values):
    return 1 / (1 + np.exp(-np.asarray(values, np.float64)))


def gated(pattern="head_neuron", seed=None, **options):
    """A model under CoFi, its criterion, and the matrices that its four sublayers end with."""
    criterion = Cofi(**options)
    model = gated_bert.gate(encoder(), criterion, exclude="head")
    layers = gated_bert.gated_layers(model)
    pruner = Pruner(layers, criterion, get_pattern(GatedBertConfig(pattern=pattern)), "global",
                    schedule=Linear(0.0, 0.5, 1, 2))  # fmt: skip
    if seed is not None:
        rng = np.random.default_rng(seed)
        for layer in layers:
            if layer.scores.trainable:
                layer.scores.assign(rng.normal(0, 2, layer.scores.shape))
    return model, criterion, pruner, [group.layers[-1] for group in pruner.groups]


def expected_sparsity(scores, rows, weights):
    """Of lists of scores, rows a unit, and weights of all units, with NumPy alone."""
    is_open = [sigmoid(each[:-1].reshape(-1, size).mean(1) - HARD_CONCRETE_SHIFT).mean()
               * sigmoid(each[-1] - HARD_CONCRETE_SHIFT) for each, size in zip(scores, rows, strict=True)]  # fmt: skip
    return 1 - np.dot(weights, is_open) / np.sum(weights)


def test_the_scores_get_the_gradient_of_the_lagrangian():
    """λ₁ (s − t) + λ₂ (s − t)² times its weight, differentiated by differences."""
    model, criterion, pruner, endings = gated(seed=1, penalty=2.5, learning_rate=1e-30)
    criterion.load_state({"multipliers": np.array([0.7, 1.9, *[0.0] * 4, 9])})
    criterion.aim(0.3)
    rows = [layer.unit_rows for layer in endings]
    weights = [group.num_units * group.unit_weights for group in pruner.groups]
    scores = [array(layer.scores).astype(np.float64) for layer in endings]
    assert criterion.expected_sparsity() == pytest.approx(expected_sparsity(scores, rows, weights), abs=1e-6)

    def lagrangian():
        missed = expected_sparsity(scores, rows, weights) - 0.3
        return 2.5 * (0.7 * missed + 1.9 * missed**2)

    for place, layer in enumerate(endings):
        expected = np.zeros(layer.scores.shape)
        for index in range(len(expected)):
            scores[place][index] += 1e-5
            above = lagrangian()
            scores[place][index] -= 2e-5
            expected[index] = (above - lagrangian()) / 2e-5
            scores[place][index] += 1e-5
        np.testing.assert_allclose(gradient_of_penalty(layer), expected, atol=1e-6)


def gradient_of_penalty(layer):
    def penalty(scores):
        with keras.StatelessScope(state_mapping=[(layer.scores, scores[0])]):
            return layer.rule.penalty(layer), []

    found = compiled(lambda scores: with_gradients(penalty, [scores])[1])(ops.convert_to_tensor(layer.scores))
    return array(found[0])


def test_the_multipliers_climb_as_keras_adam_does():
    model, criterion, pruner, endings = gated(seed=4, learning_rate=0.05)
    reference, optimizer = keras.Variable([0.0, 0.0]), keras.optimizers.Adam(0.05, epsilon=1e-8)
    optimizer.build([reference])
    for due in (0.9, 0.1, 0.45, 0.7, 0.7):
        criterion.aim(due)
        missed = criterion.expected_sparsity() - due
        optimizer.apply_gradients([(ops.convert_to_tensor([-missed, -(missed**2)]), reference)])
        found = criterion.report()
        np.testing.assert_allclose([found["lambda_1"], found["lambda_2"]], array(reference), rtol=1e-4)
    again = Cofi(learning_rate=0.05)
    again.bind(pruner.groups)
    again.load_state(criterion.state())
    for each in (criterion, again):
        each.aim(0.2)
    assert again.report() == criterion.report()


def test_drawn_gates_are_open_as_often_as_is_expected_and_alike_in_a_head():
    _, _, _, endings = gated(seed=5)
    attention = endings[0]
    attention.scores.assign(np.full(attention.scores.shape, -0.5))
    drawn = np.stack([array(attention.effective_gates(training=True)) for _ in range(400)])
    size = drawn.shape[1] // HEADS
    assert np.array_equal(drawn, drawn[:, :, :1] * np.ones(drawn.shape[2]))
    heads = drawn[:, :, 0].reshape(-1, HEADS, size)
    assert np.array_equal(heads, heads[:, :, :1] * np.ones(size))
    likely = sigmoid(-0.5 - HARD_CONCRETE_SHIFT)
    np.testing.assert_allclose((heads[:, :, 0] > 0).mean(0), likely**2, atol=0.1)
    assert (heads.max((1, 2)) > 0).mean() == pytest.approx(likely * (1 - (1 - likely) ** HEADS), abs=0.1)


@pytest.mark.parametrize("pattern", ["head_neuron", "head", "neuron"])
def test_the_least_likely_units_close_in_all_their_matrices_and_the_small_model_is_the_same(pattern):
    model, criterion, pruner, endings = gated(pattern, seed=6)
    endings[0].scores.assign(np.append(array(endings[0].scores)[:-1], -9.0))
    criterion.aim(0.5)
    likely, closed, weights = [], [], []
    for group in pruner.groups:
        layer = group.layers[-1]
        scores = array(layer.scores).astype(np.float64)
        units, whole = scores[:-1].reshape(group.num_units, -1).mean(1), scores[-1]
        is_open = array(layer.effective_gates()).reshape(group.num_units, -1).any(1)
        for member, factor in zip(group.layers, group.expand(is_open), strict=True):
            found = array(member.effective_gates()) != 0
            np.testing.assert_array_equal(found, np.broadcast_to(factor, found.shape))
        expected = np.repeat(sigmoid(1.2 * units) * sigmoid(1.2 * whole) * is_open, layer.unit_rows)
        np.testing.assert_allclose(array(layer.effective_gates())[:, 0], expected, atol=1e-6)
        likely += list(sigmoid(units - HARD_CONCRETE_SHIFT) * sigmoid(whole - HARD_CONCRETE_SHIFT))
        closed += list(~is_open)
        weights += [group.unit_weights] * group.num_units
    likely, closed, weights = map(np.array, (likely, closed, weights))
    assert 0 < closed.sum() < len(closed)
    assert likely[closed].max() < likely[~closed].min()
    assert abs(weights[closed].sum() - weights @ (1 - likely)) <= weights.max() / 2
    assert max(np.abs(array(layer.scores)).max() for layer in endings) == pytest.approx(np.log(100))
    assert not array(endings[0].effective_gates()).any()
    before = array(model(INPUTS))
    small = shrink_keras(model)
    np.testing.assert_allclose(array(small(INPUTS)), before, atol=1e-5)
    assert small.count_params() < gated_bert.ungate(model).count_params()
    np.testing.assert_allclose(array(model(INPUTS)), before, atol=1e-6)


def test_what_was_closed_before_counts_and_stays_closed():
    model, criterion, pruner, endings = gated()
    group = pruner.groups[0]
    for layer, factor in zip(group.layers, group.expand(np.array([0.0, 1.0, 0.0, 1.0])), strict=True):
        layer.mask_variable.assign(array(layer.mask_variable) * factor)
    weights = [each.num_units * each.unit_weights for each in pruner.groups]
    assert criterion.expected_sparsity() == pytest.approx(weights[0] / 2 / sum(weights), abs=1e-3)
    criterion.aim(0.5)
    assert array(endings[0].effective_gates()).reshape(HEADS, -1).any(1).tolist() == [False, True, False, True]


def test_a_run_comes_to_the_sparsity_asked_for_and_says_how_near_it_is():
    model = gated_bert.gate(encoder(), "cofi", exclude="head")
    callback = PruningCallback.for_model(model, "cofi", pruning_end_epoch=9, end_sparsity=0.5)
    model.compile(callback.optimizer(keras.optimizers.Adam(1e-3)), LOSS)
    found = model.fit(INPUTS, LABELS, batch_size=4, epochs=30, callbacks=[callback], verbose=0).history
    assert found["target_sparsity"][0] == pytest.approx(0.5 / 8) and found["target_sparsity"][-1] == 0.5
    assert found["expected_sparsity"][-1] == pytest.approx(0.5, abs=0.06)
    weights = [(group.unit_weights, group.num_units) for group in callback.pruner.groups]
    half = max(weights)[0] / 2 / sum(unit * count for unit, count in weights)
    assert found["pattern_sparsity"][-1] == pytest.approx(found["expected_sparsity"][-1], abs=half)
    assert np.isfinite(found["loss"]).all()


def test_what_it_is_made_for_and_its_usual_values():
    config = GatedBertConfig(pruning_method="cofi")
    assert (config.pattern, config.scope, config.movement_learning_rate) == ("head_neuron", "global", 0.1)
    assert config.movement_pruning_frequency_steps == 1 and Cofi().update_every == 1
    assert GatedBertConfig(pruning_method="movement").movement_pruning_frequency_steps == Movement().update_every == 10
    with pytest.raises(ConfigError, match="pattern: .*element.* is refused; allowed: head_neuron, head, neuron"):
        GatedBertConfig(pruning_method="cofi", pattern="element")
    model = gated_bert.gate(encoder(), "cofi", exclude="head")
    trained = [variable.path for variable in model.trainable_variables if variable.name == "scores"]
    assert len(trained) == 4 and all("attention_output" in path or "output_dense" in path for path in trained)
    with pytest.raises(ConfigError, match="head_neuron, head, neuron"):
        Pruner(gated_bert.gated_layers(model), Cofi())
