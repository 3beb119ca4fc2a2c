"""Pruning inside `fit`: what the criteria see, and the sparsity they reach."""

import keras
import numpy as np
import pytest
from keras import ops
from sklearn.linear_model import Ridge

from gated_bert.config import ConfigError, GatedBertConfig
from gated_bert.pruning.callbacks import PruningCallback
from gated_bert.pruning.criteria import StepContext, criterion_class
from gated_bert.pruning.criteria.ridge import RidgeCredit
from gated_bert.pruning.criteria.spt import Spt
from gated_bert.pruning.named_patterns import get_pattern
from gated_bert.pruning.optimizers import build_optimizer
from gated_bert.pruning.pruner import Pruner, sparsity
from gated_bert.support.errors import UserError
from tests.marks import nightly

LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def config_of(method, **options):
    defaults = {
        "model_size": "tiny",
        "epochs": 3,
        "learning_rate": 1e-3,
        "pruning_start_epoch": 1,
        "pruning_end_epoch": 3,
        "end_sparsity": 0.9,
        "warmup_ratio": 0.0,
    }
    return GatedBertConfig(pruning_method=method, **{**defaults, **options})


def fit(make_model, batches, config, epochs=None):
    criterion = criterion_class(config)
    model = make_model(criterion.gate_rule, num_layers=1)
    model.compile(build_optimizer(config, model, len(batches) * config.epochs, criterion.score_rule), LOSS)
    callback = PruningCallback.from_config(config, model, batches, len(batches))
    logs = model.fit(batches, epochs=epochs or config.epochs, callbacks=[callback], verbose=0, shuffle=False).history
    return model, callback, logs


@pytest.mark.parametrize(
    "options",
    [
        nightly({"pruning_method": "magnitude"}),
        nightly({"pruning_method": "random"}),
        nightly({"pruning_method": "movement"}),
        {"pruning_method": "spt"},
        {"pruning_method": "movement", "movement_schedule": "cubic"},
        nightly({"pruning_method": "spt", "spt_reward": "taylor"}),
        {"pruning_method": "spt", "spt_unit": "neuron", "spt_credit": "regression"},
        nightly({"pruning_method": "spt", "spt_unit": "head"}),
        nightly({"pruning_method": "spt", "spt_explore_per_layer": True}),
        {"pruning_method": "spt", "spt_variant": "published"},
        {"pruning_method": "movement", "pattern": "block"},
        nightly({"pruning_method": "magnitude", "schedule": "one_shot"}),
        nightly({"pruning_method": "taylor", "pruning_start_epoch": 2}),
        nightly({"pruning_method": "taylor", "pruning_start_epoch": 2, "pattern": "head_dim"}),
        {"pruning_method": "taylor", "pruning_start_epoch": 2, "taylor_variant": "published"},
        nightly({"pruning_method": "movement", "pattern": "vector"}),
        {"pruning_method": "magnitude", "pattern": "tile", "granularity": 8, "tile_dims": "kn", "scope": "global"},
        {"pruning_method": "taylor", "pruning_start_epoch": 2, "pruning_type": 3, "tilesparsity_variant": "code",
         "granularity": 8},
        nightly({"pruning_method": "magnitude", "pruning_type": 6, "sparsity_per_dim": False}),
        {"pruning_method": "activation_magnitude", "activation_variant": "published"},
    ],
    ids=lambda options: "-".join(map(str, options.values())),
)
@pytest.mark.daily_every(6)
def test_every_method_reaches_the_scheduled_sparsity(make_model, batches, options):
    config = config_of(
        options["pruning_method"],
        **{name: value for name, value in options.items() if name != "pruning_method"},
        movement_pruning_frequency_steps=2,
        end_sparsity=0.75,
    )
    model, callback, logs = fit(make_model, batches, config)
    group = callback.pruner.groups[0]
    layers = [layer for tied in callback.pruner.groups for layer in tied.layers]
    assert sparsity(layers) == pytest.approx(callback.target(3.99), abs=1.01 / group.num_units)
    assert np.isfinite(logs["loss"]).all()
    assert logs["sparsity"] == sorted(logs["sparsity"])
    assert all(name in logs for name in callback.columns)


@pytest.mark.daily_every(3)
@pytest.mark.parametrize(
    ("options", "closed"),
    [
        ({"pruning_method": "spt", "spt_reward": "taylor", "pruning_type": 1}, 0.5),
        ({"pruning_method": "movement", "movement_pruning_frequency_steps": 2, "pruning_type": 6}, 0.75),
        ({"pruning_method": "taylor", "taylor_variant": "published", "pruning_type": 8}, 0.75),
    ],
    ids=["spt", "movement", "taylor"],
)
def test_trained_scores_drive_the_types_of_tilesparsitys_code(make_model, batches, options, closed):
    options = {"pruning_start_epoch": 2, "granularity": 8, "end_sparsity": 0.5, "epochs": 3} | options
    method = options.pop("pruning_method")
    _, callback, logs = fit(make_model, batches, config_of(method, tilesparsity_variant="code", **options))
    assert np.isfinite(logs["loss"]).all()
    assert sparsity(callback.layers) == pytest.approx(closed, abs=0.15)


def test_masks_of_one_epoch_are_those_of_its_beginning(make_model, batches):
    _, _, logs = fit(make_model, batches, config_of("magnitude", sparsity_steps=(10, 50, 90)))
    assert logs["target_sparsity"] == [0.1, 0.5, 0.9]
    np.testing.assert_allclose(logs["sparsity"], [0.1, 0.5, 0.9], atol=1e-3)


def test_movement_scores_take_one_sgd_step_along_the_gates_gradient(make_model, batches):
    """S ← S − η_S g ⊙ W, with g ⊙ W from finite differences of the loss in one gate."""
    config = config_of(
        "movement",
        optimizer="sgd",
        momentum=0.0,
        clip_norm=None,
        weight_decay=0.0,
        epochs=1,
        pruning_end_epoch=1,
        start_sparsity=0.0,
        end_sparsity=0.0,
        movement_learning_rate=1.0,
        warmup_ratio=0.0,
    )
    model = make_model("straight_through")
    layer = model.gated_layers()[2]
    gates = ops.convert_to_numpy(layer.gates)
    inputs, labels = batches[0]

    def loss(value):
        changed = gates.copy()
        changed[3, 5] = value
        layer.gates.assign(changed)
        return float(LOSS(labels, model(inputs)))

    slope = (loss(1.01) - loss(0.99)) / 0.02
    layer.gates.assign(gates)
    model.compile(build_optimizer(config, model, 1, "gradient"), LOSS)
    model.train_on_batch(inputs, labels)
    # The schedule's first step of one is at the peak, and the scores' rate is 1 whatever that of the weights.
    assert ops.convert_to_numpy(layer.scores)[3, 5] == pytest.approx(-slope, rel=2e-2, abs=1e-5)


@pytest.mark.nightly
def test_a_taylor_reward_is_minus_the_gates_gradient_and_then_its_moving_average(make_model, batches):
    config = config_of("spt", spt_reward="taylor", optimizer="sgd", momentum=0.0, learning_rate=1e-9, clip_norm=1e-3)
    model = make_model("straight_through")
    layer = model.gated_layers()[0]
    inputs, labels = batches[0]
    base = float(LOSS(labels, model(inputs)))
    gates = ops.convert_to_numpy(layer.gates)
    changed = gates.copy()
    changed[:, 4] = 0.99
    layer.gates.assign(changed)
    slope = (float(LOSS(labels, model(inputs))) - base) / -0.01
    layer.gates.assign(gates)
    model.compile(build_optimizer(config, model, 100, "reward"), LOSS)
    model.train_on_batch(inputs, labels)
    first = ops.convert_to_numpy(layer.scores)
    assert first[:, 4].sum() == pytest.approx(-slope, rel=5e-2, abs=1e-5)
    model.train_on_batch(*batches[1])
    second = ops.convert_to_numpy(layer.scores)
    model.train_on_batch(inputs, labels)
    np.testing.assert_allclose(ops.convert_to_numpy(layer.scores), 0.125 * first + 0.875 * second, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("variant", ["default", nightly("published")])
def test_taylor_adds_up_squares_of_what_a_gate_does_to_the_loss(make_model, batches, variant):
    """Against finite differences of the gate of one weight; an update begins a new sum."""
    options = {"taylor_variant": variant, "pruning_start_epoch": 2, "optimizer": "sgd", "momentum": 0.0}
    config = config_of("taylor", learning_rate=1e-9, clip_norm=1e-3, **options)
    criterion = criterion_class(config)
    model = make_model(criterion.gate_rule)
    layer = model.gated_layers()[5]
    place = np.unravel_index(np.argmax(np.abs(ops.convert_to_numpy(layer.raw_kernel))), (64, 32))
    expected = 0.0
    for inputs, labels in (batches[0], batches[1]):
        losses = []
        for gate in (1.05, 0.95):
            gates = np.ones((64, 32), np.float32)
            gates[place] = gate
            layer.gates.assign(gates)
            losses.append(float(LOSS(labels, model(inputs))))
        weight = float(ops.convert_to_numpy(layer.raw_kernel)[place]) if variant == "published" else 1.0
        expected += ((losses[0] - losses[1]) / 0.1 * weight) ** 2
    layer.gates.assign(np.ones((64, 32), np.float32))
    model.compile(build_optimizer(config, model, 100, criterion.score_rule), LOSS)
    for i in range(2):
        model.train_on_batch(*batches[i])
    assert ops.convert_to_numpy(layer.scores)[place] == pytest.approx(expected, rel=5e-2)
    pruner = Pruner.from_config(config, model.gated_layers(config.prunable_roles), [4, 4])
    pruner.update(0.5, step=2)
    assert ops.convert_to_numpy(layer.gates)[place] == (expected > 0)
    assert not ops.convert_to_numpy(layer.scores).any()


def spt(make_model, **options):
    config = config_of("spt", **options)
    model = make_model()
    groups = get_pattern(config).groups(model.gated_layers(config.prunable_roles), [4, 4])
    criterion = Spt.from_config(config)
    criterion.bind(groups, config.seed)
    return criterion, model


def test_q_is_the_reward_at_first_and_then_its_moving_average(make_model):
    criterion, _ = spt(make_model, spt_unit="neuron")
    criterion.credit([0], [np.array([3, 7])], 2.0)
    criterion.credit([0], [np.array([7])], 10.0)
    assert criterion.q[0][3] == 2.0
    assert criterion.q[0][7] == pytest.approx(0.125 * 10 + 0.875 * 2)
    assert criterion.explored[0][[3, 7, 8]].tolist() == [1, 2, 0]


@pytest.mark.parametrize("variant, rank", [("default", (2.0 + 3.0) / 2), ("published", 0.0)])
def test_units_never_explored_rank_at_the_mean_or_as_published_at_zero(make_model, variant, rank):
    criterion, _ = spt(make_model, spt_variant=variant)
    criterion.credit([0], [np.array([3])], 2.0)
    criterion.credit([1], [np.array([0])], 3.0)
    assert criterion.unit_scores(0, criterion.groups[0])[11] == pytest.approx(rank)


def test_the_probe_measures_the_loss_with_the_explored_units_closed(make_model, batches):
    """The reward of one explored head equals the difference of two losses computed with its gates set by hand."""
    criterion, model = spt(make_model, spt_unit="head", spt_epsilon=0.01)
    model.compile("sgd", LOSS)
    inputs, labels = batches[0]
    criterion.after_step(StepContext(model, inputs, labels, step=1))
    explored = [int(np.flatnonzero(~np.isnan(q))[0]) for q in criterion.q]
    open_loss = float(LOSS(labels, model(inputs)))
    for group, head in zip(criterion.groups, explored, strict=True):
        for layer in group.layers:
            gates = ops.convert_to_numpy(layer.gates).copy()
            span = slice(8 * head, 8 * head + 8)
            gates[(span,) if layer.role == "attention_output" else (slice(None), span)] = 0
            layer.gates.assign(gates)
    expected = float(LOSS(labels, model(inputs))) - open_loss
    assert abs(expected) > 1e-4
    assert criterion.q[0][explored[0]] == pytest.approx(expected, rel=1e-3)


@pytest.mark.nightly
def test_one_role_a_batch(make_model, batches):
    criterion, model = spt(make_model, spt_explore_per_layer=True)
    model.compile("sgd", LOSS)
    touched = []
    for step in range(6):
        before = [n.sum() for n in criterion.explored]
        criterion.after_step(StepContext(model, *batches[0], step=step))
        touched.append(
            {g.role for g, n, b in zip(criterion.groups, criterion.explored, before, strict=True) if n.sum() > b}
        )
    assert touched == [{"query"}, {"key"}, {"value"}, {"attention_output"}, {"ffn_intermediate"}, {"ffn_output"}]


def test_spt_state_survives_a_stop(make_model):
    criterion, _ = spt(make_model, spt_unit="neuron", spt_credit="regression")
    criterion.credit([0, 1], [np.array([1]), np.array([5])], 4.0)
    other, _ = spt(make_model, spt_unit="neuron", spt_credit="regression")
    other.load_state({name: array.copy() for name, array in criterion.state().items()})
    np.testing.assert_array_equal(other.q[0], criterion.q[0])
    np.testing.assert_array_equal(other.unit_scores(1, other.groups[1]), criterion.unit_scores(1, criterion.groups[1]))


@pytest.mark.parametrize("units", (12, 400), ids=("fewer units than rewards", "more"))
def test_regression_credit_is_weighted_ridge_about_the_mean(units):
    rng = np.random.default_rng(0)
    truth = rng.standard_normal(units)
    credit = RidgeCredit(units)
    sets, rewards = [], []
    for _ in range(300):
        explored = np.sort(rng.choice(units - 1, units // 4, replace=False))  # the last unit is never explored
        row = np.zeros(units)
        row[explored] = 1
        sets.append(row)
        rewards.append(row @ truth + 0.1 * rng.standard_normal())
        credit.add(explored, rewards[-1])
    sets, rewards = np.array(sets), np.array(rewards)
    weights = 0.999 ** np.arange(299, -1, -1)
    mean = (weights @ rewards) / (weights @ sets.sum(1))
    ridge = Ridge(alpha=1.0, fit_intercept=False).fit(sets, rewards - mean * sets.sum(1), sample_weight=weights)
    np.testing.assert_allclose(credit.solve(), mean + ridge.coef_, atol=1e-5)
    assert credit.solve()[-1] == pytest.approx(mean)
    found = np.corrcoef(credit.solve()[:-1], truth[:-1])[0, 1]
    assert found > (0.99 if units == 12 else 0.5)


def test_a_checkpoint_of_an_earlier_version_is_refused(make_model):
    criterion, _ = spt(make_model, spt_unit="neuron", spt_credit="regression")
    with pytest.raises(UserError, match="an earlier version wrote this checkpoint; remove it"):
        criterion.load_state(criterion.state() | {"ridge_gram": np.zeros((2, 2))})


def test_rewards_long_ago_are_forgotten():
    credit = RidgeCredit(3)
    for _ in range(5000):
        credit.add(np.array([0]), 5.0)
    assert len(credit.state()["ridge_rewards"]) == 4602
    for _ in range(4602):
        credit.add(np.array([1]), 1.0)
    assert credit.solve()[0] == credit.solve()[2] == pytest.approx(1.0)


def test_regression_over_single_weights_is_refused():
    with pytest.raises(ConfigError, match="spt_credit"):
        config_of("spt", spt_credit="regression")


@pytest.mark.nightly
def test_soft_movement_and_l0_report_what_they_reach(make_model, batches):
    for method, columns in (("soft_movement", {"threshold", "penalty_weight"}), ("l0", {"penalty_weight"})):
        _, callback, logs = fit(make_model, batches, config_of(method, soft_movement_penalty=3.0, l0_penalty=3.0))
        assert np.isnan(logs["target_sparsity"]).all()
        assert columns <= set(logs)
        assert set(callback.columns) == columns
