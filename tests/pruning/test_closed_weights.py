"""What is closed stays closed and counts, whoever closed it: random masks, every criterion, pattern and scope."""

import re

import keras
import numpy as np
import pytest
from any_models import LABELS, LOSS, ROWS, array, mlp
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from keras import ops

import gated_bert
from gated_bert.config import ConfigError, GatedBertConfig
from gated_bert.config.parts import CRITERIA
from gated_bert.config.space import PATTERNS, SCOPES
from gated_bert.models.gated_dense import GatedDense
from gated_bert.pruning import closed
from gated_bert.pruning.criteria import criterion_class
from gated_bert.pruning.patterns import ColumnsThenTiles, TilesRestored
from gated_bert.pruning.pruner import Pruner, sparsity
from gated_bert.pruning.tilesparsity import Spans
from gated_bert.support.backend import view

SIZES = {
    "query": (8, 8), "key": (8, 8), "value": (8, 8), "attention_output": (8, 8),
    "ffn_intermediate": (8, 12), "ffn_output": (12, 8),
}  # fmt: skip
REOPENING = ("movement", "soft_movement", "l0", "platon", "snip_momentum")
CLOSING = [
    *({"pruning_method": criterion} for criterion in CRITERIA if criterion not in (*REOPENING, "cofi")),
    {"pruning_method": "taylor", "taylor_variant": "published"},
    {"pruning_method": "spt", "spt_reward": "taylor"},
]
SHAPES = [*({"pattern": pattern} for pattern in PATTERNS),
          *({"pattern": pattern, "tile_dims": "kn"} for pattern in ("tile", "tile_element")),
          {"pattern": "tile", "tile_dims": "kn", "sparsity_per_dim": True},
          {"pattern": "vector", "vector_axis": "n"}]  # fmt: skip
many = settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def encoder_block(rule="fixed", **options):
    """The matrices of an encoder block of hidden size 8, two heads and 12 neurons."""
    layers = []
    for role, (rows, columns) in SIZES.items():
        layer = GatedDense(columns, role=role, layer_index=0, name=f"encoder_0_{role}", gate_rule=rule, **options)
        layer.build((None, rows))
        layers.append(layer)
    return layers


@pytest.fixture(scope="module")
def blocks():
    return {rule: encoder_block(rule) for rule in ("fixed", "straight_through", "weighted_straight_through")}


def pruner_of(blocks, rng, **options):
    """A pruner of fresh kernels and whatever its criterion ranks by, or None where the record is refused."""
    options = {"granularity": 4, "block_size": (4, 4), "vector_size": 4, "pruning_start_epoch": 2, **options}
    if options["pruning_method"] == "spt":
        options["spt_unit"] = options["pattern"]
    try:
        config = GatedBertConfig(model_size="tiny", **options)
    except ConfigError:
        return None
    layers = blocks[criterion_class(config).gate_rule]
    for layer in layers:
        layer.raw_kernel.assign(rng.standard_normal(SIZES[layer.role]).astype(np.float32))
        if layer.scores is not None:
            scores = rng.standard_normal(SIZES[layer.role])
            layer.scores.assign(scores if options["pruning_method"] == "spt" else scores**2)
    pruner = Pruner.from_config(config, layers, [2])
    criterion = pruner.criterion
    if criterion.needs_data:
        criterion.scores = {layer: rng.random(SIZES[layer.role], np.float32) for layer in layers}.__getitem__
    if hasattr(criterion, "q"):
        criterion.q = [rng.standard_normal(group.num_units).astype(np.float32) for group in pruner.groups]
    return pruner


def gates(layers):
    return {layer: np.array(ops.convert_to_numpy(layer.gates)) for layer in layers}


def random_masks(layers, rng):
    """Closed single weights, rows and columns, of some matrices many, of some none, of some all."""
    for layer in layers:
        rows, columns = SIZES[layer.role]
        kind = rng.choice(["none", "weights", "units", "both", "most", "all"], p=[0.15, 0.3, 0.3, 0.15, 0.05, 0.05])
        mask = np.ones((rows, columns), np.float32)
        if kind in ("weights", "both", "most"):
            mask[rng.random((rows, columns)) < (0.95 if kind == "most" else rng.random())] = 0
        if kind in ("units", "both"):
            mask[rng.random(rows) < 0.4 * rng.random()] = 0
            mask[:, rng.random(columns) < 0.6 * rng.random()] = 0
        layer.gates.assign(0 * mask if kind == "all" else mask)


def closed_share(pruner, members, masks):
    layers = list(dict.fromkeys(layer for index in members for layer in pruner.groups[index].layers))
    return sum(int((masks[layer] == 0).sum()) for layer in layers), sum(masks[layer].size for layer in layers)


def check(pruner, before, target, scope):
    after = gates(pruner.layers)
    for layer, mask in before.items():
        assert not after[layer][mask == 0].any(), layer.name
    if scope == "output":
        check_columns(before, after, target)
        return after
    share = pruner.pattern.steps(target)[-1][1]
    restores = isinstance(pruner.pattern, TilesRestored)
    for members in pruner.competitors(pruner.groups, "global" if restores else scope):
        closed, weights = closed_share(pruner, members, before)
        reached, _ = closed_share(pruner, members, after)
        unit = 1 if restores else max(pruner.groups[index].unit_weights for index in members)
        if isinstance(getattr(pruner.pattern, "pattern", pruner.pattern), ColumnsThenTiles):
            # The first of its steps closes whole columns.
            unit = max(layer.gates.shape[0] for index in members for layer in pruner.groups[index].layers)
        assert reached <= max(closed, share * weights + unit / 2 + 1e-6)
        # From below, but for a unit of every group that always stays where it is open.
        floor = sum(pruner.groups[index].unit_weights for index in members)
        assert reached >= min(max(closed, share * weights - unit / 2 - 1e-6), weights - floor)
    return after


def check_columns(before, after, target):
    """A column in which more is closed stays as it is, and others do not pay for it; one weight of each stays."""
    for layer, mask in after.items():
        closed, rows = (before[layer] == 0).sum(0), len(mask)
        np.testing.assert_array_equal((mask == 0).sum(0), np.maximum(closed, min(round(target * rows), rows - 1)))


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: "-".join(map(str, shape.values())))
@many
@given(st.integers(0, 10**6), st.lists(st.floats(0.02, 0.95), min_size=2, max_size=3), st.sampled_from(CLOSING))
@pytest.mark.daily_every(3)
def test_closed_stays_closed_and_the_rest_reaches_the_target(blocks, shape, scope, seed, targets, method):
    rng = np.random.default_rng(seed)
    pruner = pruner_of(blocks, rng, scope=scope, min_kept=0.0, **shape, **method)
    if pruner is None:
        return
    random_masks(pruner.layers, rng)
    masks = gates(pruner.layers)
    for step, target in enumerate(targets):
        pruner.update(target, step)
        masks = check(pruner, masks, target, scope)
        # Whatever is behind the next update, the masks alone decide.
        for layer in pruner.layers:
            layer.raw_kernel.assign(rng.standard_normal(SIZES[layer.role]).astype(np.float32))


OF_CODE = [{"pruning_type": number, "tilesparsity_variant": "code", "vector_size": 4} for number in range(9)]


@pytest.mark.parametrize("shape", SHAPES + OF_CODE, ids=lambda shape: "-".join(map(str, shape.values())))
@many
@given(st.integers(0, 10**6), st.floats(0.02, 0.95), st.sampled_from(["magnitude", "gradient_magnitude", "taylor"]))
@pytest.mark.daily_every(3)
def test_a_second_update_to_the_same_sparsity_changes_nothing(blocks, shape, seed, target, method):
    def new_scores():
        for layer in pruner.layers:
            for variable in (layer.raw_kernel, layer.scores):
                if variable is not None:
                    variable.assign(rng.random(SIZES[layer.role]).astype(np.float32))

    rng = np.random.default_rng(seed)
    pruner = pruner_of(blocks, rng, pruning_method=method, **shape)
    random_masks(pruner.layers, rng)
    before = gates(pruner.layers)
    pruner.update(target, 0)
    masks = gates(pruner.layers)
    options = {"num_heads": [2], "seed": pruner.seed}
    for again in (pruner, Pruner(pruner.layers, type(pruner.criterion)(), pruner.pattern, pruner.scope, **options)):
        if again is not pruner:
            # As of a run that was stopped after the update.
            again.settle(target)
            again.criterion = pruner.criterion
        new_scores()
        assert not again.due(target), "scores on data would be computed for nothing"
        again.update(target, 1)
        assert all((mask == masks[layer]).all() for layer, mask in gates(pruner.layers).items())
    # Where gates were opened since, they are as due as at first.
    for layer, mask in before.items():
        layer.gates.assign(mask)
    assert pruner.due(target) or all((masks[layer] == mask).all() for layer, mask in before.items())


def closing_callback(model, end_sparsity, **options):
    return gated_bert.PruningCallback.for_model(model, end_sparsity=end_sparsity, pruning_end_epoch=3, **options)


def masks_of(model):
    return [array(layer.gates) for layer in gated_bert.gated_layers(model)]


def test_a_new_callback_goes_on_from_what_another_closed():
    model = gated_bert.gate(mlp())
    model.compile("sgd", LOSS, run_eagerly=True)
    model.fit(ROWS, LABELS, epochs=3, callbacks=[closing_callback(model, 0.75)], verbose=0)
    before = masks_of(model)
    history = model.fit(ROWS, LABELS, epochs=3, callbacks=[closing_callback(model, 0.9)], verbose=0).history
    assert history["sparsity"] == pytest.approx([0.75, 0.75, 0.9], abs=0.01)
    assert history["target_sparsity"] == [0.0, 0.45, 0.9]
    assert all((after <= mask).all() for after, mask in zip(masks_of(model), before, strict=True))


@pytest.mark.parametrize("method", ["magnitude", "gradient_magnitude"])
def test_a_callback_acts_again_after_more_open_masks_were_restored(method):
    model = gated_bert.gate(mlp(), method)
    pruning = closing_callback(model, 0.9, method=method, data=(ROWS, LABELS), score_batches=1)
    model.compile("sgd", LOSS, run_eagerly=True)
    weights = model.get_weights()
    assert model.fit(ROWS, LABELS, epochs=4, callbacks=[pruning], verbose=0).history["sparsity"][-1] > 0.89
    model.set_weights(weights)
    history = model.fit(ROWS, LABELS, epochs=4, callbacks=[pruning], verbose=0).history
    assert history["sparsity"] == pytest.approx([0.0, 0.45, 0.9, 0.9], abs=0.01)
    # Also where the schedule no longer rises.
    model.set_weights(weights)
    history = model.fit(ROWS, LABELS, initial_epoch=3, epochs=4, callbacks=[pruning], verbose=0).history
    assert history["sparsity"] == pytest.approx([0.9], abs=0.01)


def test_scores_on_data_are_computed_only_where_something_may_close(monkeypatch):
    model = gated_bert.gate(mlp(), "gradient_magnitude")
    pruning = closing_callback(model, 0.99, method="gradient_magnitude", data=(ROWS, LABELS), min_kept=0.1)
    model.compile("sgd", LOSS, run_eagerly=True)
    prepared, prepare = [], pruning.criterion.prepare
    monkeypatch.setattr(pruning.criterion, "prepare", lambda *words: prepared.append(1) or prepare(*words))
    model.fit(ROWS, LABELS, epochs=5, callbacks=[pruning], verbose=0)
    # In the second and third epoch; after that floors keep what the target would close.
    assert len(prepared) == 2


@pytest.mark.parametrize("options", [{}, {"pattern": "tile_element", "granularity": 4}, {"pattern": "column"}])
def test_open_gates_keep_their_values(options):
    model = gated_bert.gate(mlp())
    rng = np.random.default_rng(0)
    for layer in gated_bert.gated_layers(model):
        layer.gates.assign(rng.normal(size=layer.gates.shape) * (rng.random(layer.gates.shape) < 0.7))
    before = masks_of(model)
    pruner = closing_callback(model, 0.9, **options).pruner
    pruner.update(0.6, step=0)
    assert any((after != mask).any() for after, mask in zip(masks_of(model), before, strict=True))
    for after, mask in zip(masks_of(model), before, strict=True):
        assert ((after == mask) | (after == 0)).all()


def test_trained_gates_that_are_zero_stay_closed():
    layers = encoder_block(gate_trainable=True)
    rng = np.random.default_rng(0)
    for layer in layers:
        layer.gates.assign(rng.normal(size=SIZES[layer.role]) * (rng.random(SIZES[layer.role]) < 0.6))
    closed = [array(layer.gates) == 0 for layer in layers]
    config = GatedBertConfig(model_size="tiny", pruning_method="magnitude", gate_trainable=True, scope="global")
    Pruner.from_config(config, layers, [2]).update(0.5, step=0)
    assert sparsity(layers) == pytest.approx(0.5, abs=1e-3)
    assert all(not array(layer.mask)[zeros].any() for layer, zeros in zip(layers, closed, strict=True))


@pytest.mark.parametrize("method", ["movement", "soft_movement", "l0"])
def test_what_opens_again_says_so_where_it_begins_with_closed_gates(method, caplog):
    model = gated_bert.gate(mlp(), method)
    pruning = closing_callback(model, 0.5, method=method)
    model.compile(pruning.optimizer(keras.optimizers.SGD(0.1)), LOSS, run_eagerly=True)
    with caplog.at_level("WARNING", "gated_bert"):
        model.fit(ROWS, LABELS, callbacks=[pruning], verbose=0)
        assert not caplog.records
        # Its own masks are no news.
        model.fit(ROWS, LABELS, callbacks=[pruning], verbose=0)
        assert not caplog.records
        layer = gated_bert.gated_layers(model)[0]
        layer.gates.assign(np.arange(12)[:, None] % 2 * np.ones(layer.gates.shape))
        other = closing_callback(model, 0.5, method=method)
        model.fit(ROWS, LABELS, callbacks=[other], verbose=0)
    assert re.search(rf"{method} chooses all masks anew: of the \d+\.\d % of the weights closed", caplog.text)


def test_an_update_looks_up_the_gates_of_a_layer_twice(monkeypatch):
    layers = encoder_block()
    config = GatedBertConfig(model_size="tiny", pruning_method="magnitude", scope="layer", min_kept=0.01)
    pruner, looked_at = Pruner.from_config(config, layers), []
    pruner.update(0.25, 0)
    monkeypatch.setattr(closed, "view", lambda variable: looked_at.append(variable) or view(variable))
    pruner.update(0.5, 1)
    # Once to count what is open, once to rank the rest.
    assert {id(variable) for variable in looked_at} == {id(layer.mask_variable) for layer in layers}
    assert len(looked_at) == 2 * len(layers)
    assert sparsity(layers) == 0.5


def test_units_of_a_wide_tile_with_one_open_column_are_open():
    layer = encoder_block()[4]
    mask = np.zeros((8, 12), np.float32)
    mask[:, [0, 1, 2, 11]] = 1
    layer.mask_variable.assign(mask)
    (group,) = Spans(1).groups([layer])
    # Tiles of 1, 1, 1 and 9 columns, 3 on average.
    assert closed.OpenUnits().count(group) == group.num_units == 8 * 4
