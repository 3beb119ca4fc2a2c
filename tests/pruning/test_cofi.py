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

    check_slopes(endings, scores, lagrangian)


def check_slopes(endings, scores, lagrangian):
    """The penalties' gradients are the differences of `lagrangian()`, which reads `scores`."""
    for layer, values in zip(endings, scores, strict=True):
        expected = np.zeros(values.shape)
        for index in range(len(values)):
            values[index] += 1e-5
            above = lagrangian()
            values[index] -= 2e-5
            expected[index] = (above - lagrangian()) / 2e-5
            values[index] += 1e-5
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


def test_single_weights_that_were_closed_before_count_in_the_lagrangian_its_value_and_its_gradient():
    """A random half of all weights and two heads are closed: s is what a count of open weights says."""
    model, criterion, pruner, endings = gated(seed=8, penalty=3.0, learning_rate=1e-30)
    rng = np.random.default_rng(0)
    for layer in {layer for group in pruner.groups for layer in group.layers}:
        layer.mask_variable.assign(rng.integers(0, 2, layer.mask_variable.shape))
    heads = pruner.groups[0]
    for layer, factor in zip(heads.layers, heads.expand(np.array([0.0, 1.0, 0.0, 1.0])), strict=True):
        layer.mask_variable.assign(array(layer.mask_variable) * factor)
    left = [sum(array(layer.mask_variable).sum(1 - axis).reshape(group.num_units, -1).sum(1)
                for layer, axis in zip(group.layers, group.axes, strict=True)) for group in pruner.groups]  # fmt: skip
    total = sum(array(layer.mask_variable).size for layer in {each for g in pruner.groups for each in g.layers})
    criterion.load_state({"multipliers": np.array([0.7, 1.9, *[0.0] * 4, 9])})
    criterion.aim(0.3)
    scores = [array(layer.scores).astype(np.float64) for layer in endings]

    def lagrangian():
        shifted = [np.append(each[:-1].reshape(len(units), -1).mean(1), each[-1]) - HARD_CONCRETE_SHIFT
                   for each, units in zip(scores, left, strict=True)]  # fmt: skip
        is_open = [sigmoid(each[:-1]) @ units * sigmoid(each[-1]) for each, units in zip(shifted, left, strict=True)]
        missed = 1 - sum(is_open) / total - 0.3
        return 3.0 * (0.7 * missed + 1.9 * missed**2), missed + 0.3

    value, closed = lagrangian()
    assert criterion.expected_sparsity() == pytest.approx(closed, abs=1e-6)
    assert sum(float(array(layer.rule.penalty(layer))) for layer in endings) == pytest.approx(value, abs=1e-5)
    check_slopes(endings, scores, lambda: lagrangian()[0])
    shut = np.concatenate([~array(layer.effective_gates()).reshape(len(units), -1).any(1)
                           for layer, units in zip(endings, left, strict=True)])  # fmt: skip
    shares = np.concatenate(left) / total
    assert abs(1 - shares[~shut].sum() - closed) <= shares.max() / 2 + 1e-6


def test_which_of_equally_likely_units_close_is_drawn_by_the_seed():
    closed = []
    for seed in (1, 2):
        _, criterion, pruner, endings = gated("neuron")
        criterion.bind(pruner.groups, seed)
        for layer in endings:
            layer.scores.assign(np.full(layer.scores.shape, 1.0))
        criterion.aim(0.5)
        closed.append([~array(layer.effective_gates()).any(1) for layer in endings])
    assert len(closed[0]) == 2 and all(0 < each.sum() < len(each) for each in closed[0])
    assert not np.array_equal(closed[0][0], closed[1][0])


@pytest.mark.parametrize("clipped", [None, 1e-3], ids=["", "clipped"])
def test_gates_take_steps_of_the_size_of_their_rate_whatever_becomes_of_the_weights(clipped):
    """Adam's first step is as long as its rate; the rate of the weights falls to 0."""
    model = gated_bert.gate(encoder(), "cofi", exclude="head")
    callback = PruningCallback.for_model(model, Cofi(learning_rate=0.05), pruning_end_epoch=3, end_sparsity=0.5)
    assert [group.layers[-1].unit_rows > 0 for group in callback.pruner.groups] == [True] * 4
    falling = keras.optimizers.schedules.PolynomialDecay(1e-3, 1, 0.0)
    model.compile(callback.optimizer(keras.optimizers.Adam(falling, global_clipnorm=clipped)), LOSS)
    layer = callback.pruner.groups[-1].layers[-1]
    before, kernel = array(layer.scores), array(layer.raw_kernel)
    for step in (1, 2):
        layer.penalty_weight.assign(np.full(layer.penalty_weight.shape, 50.0))
        model.train_on_batch({name: value[:8] for name, value in INPUTS.items()}, LABELS[:8])
        np.testing.assert_allclose(before - array(layer.scores), 0.05 * step, rtol=0.02)
        assert step == 1 or np.array_equal(array(layer.raw_kernel), kernel)
        kernel = array(layer.raw_kernel)
    again = type(model.optimizer).from_config(model.optimizer.get_config())
    assert (again.score_rule, again.score_rate) == ("apart", 0.05)


def test_what_means_nothing_to_gates_that_close_by_themselves_is_refused():
    for method in ("cofi", "soft_movement", "l0"):
        for refused in ({"scope": "layer" if method == "cofi" else "global"}, {"normalize_scores": True}):
            with pytest.raises(ConfigError, match=f"{next(iter(refused))}: .* is refused; allowed: .*{method}"):
                GatedBertConfig(pruning_method=method, **refused)
    with pytest.raises(ConfigError, match="optimizer: 'sgd' is refused; allowed: adamw, adam: .*cofi"):
        GatedBertConfig(pruning_method="cofi", optimizer="sgd")
    model, criterion, pruner, _ = gated()
    callback = PruningCallback(pruner, model=model)
    with pytest.raises(gated_bert.UserError, match="optimizer: .*SGD.* is refused; allowed: .*AdamW, Adam$"):
        callback.optimizer(keras.optimizers.SGD(0.1))
    with pytest.raises(gated_bert.UserError, match="score_multiplier: 5 is refused; allowed: None: Cofi "):
        callback.optimizer(keras.optimizers.Adam(0.1), 5)
    with pytest.raises(gated_bert.UserError, match="Pruner.update: Cofi chooses no masks"):
        pruner.update(0.5)


def test_whoever_freezes_the_model_and_thaws_it_trains_what_was_trained_before():
    model = gated_bert.gate(encoder(), "cofi", exclude="head")
    before = [variable.path for variable in model.trainable_variables]
    model.trainable = False
    model.trainable = True
    assert [variable.path for variable in model.trainable_variables] == before


@pytest.mark.nightly
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
