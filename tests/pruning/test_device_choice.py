"""Masks chosen on the device beside those that NumPy chooses from the same scores; by JAX on a processor."""

import importlib

import keras
import numpy as np
import pytest

from gated_bert.config.presets import MIN_KEPT
from gated_bert.pruning import Block, Movement, Platon, Pruner, SnipMomentum
from gated_bert.pruning import pruner as pruners
from tests.marks import nightly

jax = pytest.importorskip("jax")
jnp = jax.numpy
device_choice = importlib.import_module("gated_bert.pruning.device_choice")
under_jax = pytest.mark.skipif(keras.backend.backend() != "jax", reason="KERAS_BACKEND is not jax")

ARRAYS = {
    "normal": lambda rng, size: rng.normal(size=size),
    "all sizes": lambda rng, size: rng.normal(size=size) * 10.0 ** rng.integers(-44, 38, size),
    "few values": lambda rng, size: rng.integers(-3, 4, size),
    "infinite": lambda rng, size: rng.choice([-np.inf, -1.0, -0.0, 0.0, 1e-45, np.inf], size),
}


@pytest.mark.parametrize("kind", ARRAYS)
def test_a_limit_is_numpys(kind):
    rng = np.random.default_rng(0)
    scopes = [[ARRAYS[kind](rng, size).astype(np.float32) for size in sizes]
              for sizes in (((7, 5), (3, 4)), ((47,),), ((6, 6), (11,)), ((9, 9),))]  # fmt: skip
    totals = [sum(array.size for array in scope) for scope in scopes]
    for counts in ([1] * 4, totals, *(rng.integers(1, np.array(totals) + 1) for _ in range(8))):
        on_device = [[jnp.asarray(array) for array in scope] for scope in scopes]
        found = device_choice.kth_smallest(on_device, list(counts))
        for scope, count, limit in zip(scopes, counts, found, strict=True):
            expected = np.sort(np.concatenate([array.ravel() for array in scope]))[count - 1]
            assert not limit.has_nan
            assert limit.below == [np.count_nonzero(array < expected) for array in scope]
            assert limit.equal == [np.count_nonzero(array == expected) for array in scope]


def test_a_nan_is_seen_in_its_scope_alone():
    scopes = [[jnp.asarray([1.0, np.nan])], [jnp.asarray([1.0, 2.0])]]
    assert [limit.has_nan for limit in device_choice.kth_smallest(scopes, [1, 2])] == [True, False]


def test_places_of_equal_values():
    array = jnp.asarray([[0.5, 1.0, 0.5], [2.0, 0.5, 1.0]])
    (limit,) = device_choice.kth_smallest([[array]], [2])
    np.testing.assert_array_equal(device_choice.places_of(array, limit.key), [0, 2, 4])
    np.testing.assert_array_equal(device_choice.places_of(array + 3, limit.key), [])


SCORES = {
    "no ties": lambda values: values,
    "some ties": lambda values: values.round(2),
    "many ties": lambda values: values.round(0),
    "a poor layer": lambda values: values,
}
TAKEN = {"no ties", "some ties", "a poor layer"}


def choose(monkeypatch, make_model, criterion, scope, kind, on_device, trained=False, pattern=None):
    """Masks after two updates, and whether the device chose them."""
    answers = []
    chosen = device_choice.choose_on_device
    monkeypatch.setattr(pruners, "on_accelerator", lambda: on_device)
    monkeypatch.setattr(device_choice, "choose_on_device", lambda *given: answers.append(chosen(*given)) or answers[-1])
    model = make_model(gate_rule="straight_through", gate_trainable=trained, gate_init_value=0.75)
    layers = model.gated_layers()
    pruner = Pruner(layers, criterion(), pattern, scope=scope, seed=3)
    for step, sparsity in enumerate((0.37, 0.8)):
        rng = np.random.default_rng(step)
        for place, layer in enumerate(layers):
            scores = SCORES[kind](rng.normal(size=layer.scores.shape).astype(np.float32))
            layer.scores.assign(scores - 9 if kind == "a poor layer" and not place else scores)
        pruner.criterion.collect()
        pruner.update(sparsity, step)
    monkeypatch.undo()
    return [np.array(keras.ops.convert_to_numpy(layer.effective_gates())) for layer in layers], answers


@under_jax
@pytest.mark.parametrize("kind", SCORES)
@pytest.mark.parametrize("scope", ["layer", "global", nightly("role")])
@pytest.mark.parametrize("criterion", [Movement, nightly(Platon), nightly(SnipMomentum)])
def test_masks_are_the_hosts(monkeypatch, make_model, criterion, scope, kind):
    expected, _ = choose(monkeypatch, make_model, criterion, scope, kind, False)
    found, answers = choose(monkeypatch, make_model, criterion, scope, kind, True)
    for mask, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(mask, other)
    assert 0.79 < np.mean(np.concatenate([mask.ravel() for mask in found]) == 0) < 0.81
    if kind == "no ties" or (kind in TAKEN and criterion is Movement):
        assert answers == [True, True]
    if kind == "many ties":
        assert answers == [False, False]
    if kind == "a poor layer" and criterion is Movement and scope != "layer":
        assert np.count_nonzero(found[0]) == np.ceil(MIN_KEPT * found[0].size), "or floors were not looked at"


@under_jax
def test_gates_that_are_trained_keep_their_values(monkeypatch, make_model):
    expected, _ = choose(monkeypatch, make_model, Movement, "layer", "some ties", False, trained=True)
    found, answers = choose(monkeypatch, make_model, Movement, "layer", "some ties", True, trained=True)
    assert answers == [True, True]
    for mask, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(mask, other)


class Overridden(Movement):
    """Of a user, who knows of arrays alone."""

    def scores(self, layer):
        return -super().scores(layer)


class Assigned(Movement):
    def __init__(self):
        super().__init__()
        self.scores = lambda layer: -np.asarray(layer.scores)


class Whole(Movement):
    def score_tensor(self, layer):
        return keras.ops.cast(100 * layer.scores, "int32")


class Narrow(Movement):
    def score_tensor(self, layer):
        return keras.ops.cast(layer.scores, "bfloat16")


class Flat(Movement):
    def score_tensor(self, layer):
        return keras.ops.reshape(layer.scores, (-1,))


class NewWeights(Movement):
    updates_weights = True

    def new_kernel(self, layer, keep):
        return np.asarray(layer.raw_kernel) * keep


class Staged(Movement):
    def stages(self, sparsity, competing):
        for layer in self.seen:
            layer.scores.assign(-layer.scores)
        yield from super().stages(sparsity, competing)

    def bind(self, groups, *options, **more):
        super().bind(groups, *options, **more)
        self.seen = [group.layers[0] for group in groups]


@under_jax
@pytest.mark.parametrize("criterion", [Overridden, Assigned, Whole, Narrow, Flat, NewWeights, Staged])
def test_what_a_user_says_beside_scores_is_left_to_the_host(monkeypatch, make_model, criterion):
    expected, _ = choose(monkeypatch, make_model, criterion, "layer", "some ties", False)
    found, answers = choose(monkeypatch, make_model, criterion, "layer", "some ties", True)
    assert not any(answers)
    for mask, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(mask, other)


class Variable(Movement):
    def score_tensor(self, layer):
        return layer.scores


class OnTop(Block):
    on_top = True


@under_jax
def test_a_variable_is_a_tensor_and_masks_on_top_are_the_hosts(monkeypatch, make_model):
    expected, _ = choose(monkeypatch, make_model, Movement, "layer", "no ties", False)
    found, answers = choose(monkeypatch, make_model, Variable, "layer", "no ties", True)
    assert answers == [True, True]
    for mask, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(mask, other)
    _, answers = choose(monkeypatch, make_model, Movement, "layer", "no ties", True, pattern=OnTop())
    assert not answers


@under_jax
def test_a_score_that_is_nan_is_refused_and_changes_nothing(monkeypatch, make_model):
    monkeypatch.setattr(pruners, "on_accelerator", lambda: True)
    layers = make_model(gate_rule="straight_through").gated_layers()
    pruner = Pruner(layers, Movement())
    scores = np.arange(layers[1].scores.shape[0] * layers[1].scores.shape[1], dtype=np.float32)
    scores[5] = np.nan
    layers[1].scores.assign(scores.reshape(layers[1].scores.shape))
    with pytest.raises(ValueError, match="a score is NaN"):
        pruner.update(0.5)
    assert all(np.all(keras.ops.convert_to_numpy(layer.mask_variable) == 1) for layer in layers)


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="JAX has another device here")
def test_on_a_processor_the_host_ranks():
    assert not pruners.on_accelerator()
