"""Mask tuning: the split between heads and neurons, swaps, scales, and what is left of the model."""

import itertools
from typing import ClassVar

import numpy as np
import pytest
from any_models import array, mlp
from test_second_order_criteria import bert, inputs_by_hand, token_batches

import gated_bert
from gated_bert.compression.shrink import shrink
from gated_bert.config import ConfigError, GatedBertConfig
from gated_bert.pruning import HEADS, NEURONS, Block, HeadDims, MaskTuning, Pruner, PruningCallback, Several
from gated_bert.pruning.calibration import Calibration, Moments, first_batches
from gated_bert.pruning.criteria import mask_tuning
from gated_bert.pruning.criteria.calibrated import gated_kernel
from gated_bert.pruning.mask_search import best_split, swapped, tuned_scales
from gated_bert.pruning.pruner import sparsity
from gated_bert.pruning.second_order import damped
from gated_bert.support.errors import UserError

BATCHES = token_batches()
LAST = ("attention_output", "ffn_output")


def ready():
    model = bert()
    for layer in model.gated_layers():
        layer.set_kernel(8 * array(layer.raw_kernel))
    model.compile("sgd", "sparse_categorical_crossentropy")
    return model


class Known(MaskTuning):
    """With the gradients of the model that `ready` makes, taken once."""

    taken: ClassVar[list] = []

    def prepare(self, model, dataset):
        if not self.taken:
            super().prepare(model, dataset)
            self.taken.extend(self._gradients.values())
        self._prepared = model, first_batches(dataset, self.options.mask_tuning_texts)
        self._gradients = dict(zip(self._groups, self.taken, strict=True))


def pruner_of(model, scope="global", **options):
    return Pruner(layers_of(model), Known(batch_size=2, **options), Several((HEADS, NEURONS)), scope, num_heads=[2, 2])


def pruned(share, scope="global", **options):
    model = ready()
    pruner_of(model, scope, **options).prune(share, model, BATCHES)
    return model


def layers_of(model):
    return [layer for layer in model.gated_layers() if layer.layer_index is not None]


def ends_of(model):
    return [layer for layer in model.gated_layers() if layer.role in LAST]


def test_gradients_are_those_of_masks_on_the_contributions_of_heads_and_neurons(monkeypatch):
    model, seen = ready(), []
    monkeypatch.setattr(mask_tuning, "swapped", lambda closed, gradients, gains: seen.append(gradients) or closed)
    pruner_of(model, no_update=True).prune(0.2, model, BATCHES)
    # Of heads first, then of neurons; the third of a batch of five is alone.
    model, places = ready(), [(0, slice(0, 2)), (0, slice(4, 5)), (1, slice(2, 4))]
    for layer, found in zip([ends_of(model)[0], ends_of(model)[3]], [seen[0], seen[3]], strict=True):
        assert found.shape == (6, 2 if layer.role == LAST[0] else 24)
        for row, (batch, own) in zip((0, 2, 4), places, strict=True):
            inputs, labels = {name: each[own] for name, each in BATCHES[batch][0].items()}, BATCHES[batch][1][own]
            for unit in (0, 1):
                losses = []
                for step in (1e-2, -1e-2):
                    mask = np.ones((found.shape[1], layer.mask_variable.shape[0] // found.shape[1], 1))
                    mask[unit] += step
                    layer.gates.assign(np.broadcast_to(mask.reshape(-1, 1), layer.gates.shape))
                    outputs = model(inputs, training=False)
                    losses.append(float(model.compute_loss(inputs, labels, outputs, training=False)))
                layer.gates.assign(np.ones(layer.gates.shape))
                assert found[row, unit] == pytest.approx((losses[0] - losses[1]) / 2e-2, rel=2e-2, abs=2e-4)


@pytest.mark.parametrize("seed", range(6))
def test_no_set_of_units_that_closes_as_much_leaves_more_importance(seed):
    rng = np.random.default_rng(seed)
    importance = [rng.random(2) * 4, rng.random(3) * 4, rng.random(3), rng.random(4)]
    gains = [np.full(2, 4), np.full(3, 4), np.ones(3, int), np.ones(4, int)]
    kinds = ["head", "head", "neuron", "neuron"]
    gains[1][1] = gains[3][2] = 0
    floors, weights, ends = [1, 1, 1, 2], float(rng.integers(1, 12)), np.cumsum([2, 3, 3])
    flat, size = np.concatenate(importance), np.concatenate(gains)
    closes = []
    for choice in itertools.product((False, True), repeat=len(flat)):
        chosen = np.array(choice)
        left = [np.count_nonzero(part) for part in np.split((size > 0) & ~chosen, ends)]
        # Of each group the best are what its floor keeps.
        kept = all(not part[np.argsort(np.where(own > 0, each, -1))[-floor:]].any() for part, own, each, floor
                   in zip(np.split(chosen, ends), gains, importance, floors, strict=True))  # fmt: skip
        if chosen[size == 0].any() or not kept or any(np.less(left, floors)):
            continue
        missed, cost = abs(size[chosen].sum() - weights), flat[chosen].sum()
        closes.append((max(missed, 0.5), cost))
    found = np.concatenate(best_split(importance, gains, kinds, weights, floors))
    assert (max(abs(size[found].sum() - weights), 0.5), flat[found].sum()) == pytest.approx(min(closes))


def test_swaps_lower_what_the_fisher_matrix_says_of_all_that_closes():
    rng, optimal = np.random.default_rng(0), 0
    for _ in range(30):
        gradients, gains = rng.normal(size=(5, 7)), np.ones(7, int)
        gains[rng.integers(7)] = 0
        closed = np.zeros(7, bool)
        closed[np.argsort(np.where(gains > 0, np.square(gradients).sum(0), 9e9))[:3]] = True
        found = swapped(closed, gradients, gains)
        assert found.sum() == 3 and not found[gains == 0].any()

        def length(which, gradients=gradients):
            return np.square(gradients[:, np.array(which)].sum(1)).sum()

        now = length(np.flatnonzero(found))
        assert now <= length(np.flatnonzero(closed))
        optimal += now <= min(map(length, itertools.combinations(np.flatnonzero(gains), 3))) + 1e-9
    assert optimal >= 15


def test_units_of_other_sizes_are_not_swapped():
    gradients = np.array([[3.0, 1.0, -1.0, -3.0]])
    np.testing.assert_array_equal(swapped(np.array([True, False, False, False]), gradients, np.array([1, 2, 2, 1])),
                                  [True, False, False, False])  # fmt: skip
    np.testing.assert_array_equal(swapped(np.array([True, False, False, False]), gradients, np.array([1, 1, 2, 1])),
                                  [False, True, False, False])  # fmt: skip


@pytest.mark.parametrize("share, scope", [(0.3, "global"), (0.5, "global"), (0.5, "layer"), (0.9, "role")])
def test_as_much_is_closed_as_is_asked_for_in_every_scope(share, scope):
    model = pruned(share, scope=scope, no_update=True)
    for layer, before in zip(layers_of(model), layers_of(ready()), strict=True):
        assert sparsity([layer]) < 1
        np.testing.assert_array_equal(array(layer.raw_kernel), array(before.raw_kernel))
    # A neuron is 1/48 of a third of the weights twice over; of a layer's two heads none or one closes.
    if scope == "global":
        assert sparsity(layers_of(model)) == pytest.approx(share, abs=0.5 * 32 / 3584 + 1e-9)


def test_a_second_update_leaves_closed_what_is_and_closes_more():
    model = ready()
    pruner = pruner_of(model, texts=5)
    pruner.prune(0.3, model, BATCHES)
    before = [array(layer.gates) for layer in layers_of(model)]
    pruner.prune(0.6, model, BATCHES)
    for layer, gates in zip(layers_of(model), before, strict=True):
        assert np.all(array(layer.gates) <= gates)
    assert sparsity(layers_of(model)) == pytest.approx(0.6, abs=0.5 * 32 / 3584 + 1e-9)


def sublayers_by_hand(model, layer, batches):
    """Inputs of a sublayer's last layer, the sum of its outputs and its residual path, at real positions."""
    norm = {"attention_output": "attention_norm", "ffn_output": "ffn_norm"}[layer.role]
    block, sums = model.encoder.blocks[layer.layer_index], []
    called = getattr(block, norm).call

    def call(inputs, *rest, **options):
        sums.append(array(inputs)[mask == 1].astype(np.float64))
        return called(inputs, *rest, **options)

    getattr(block, norm).call = call
    rows = []
    for inputs, labels in batches:
        mask = inputs["attention_mask"]
        rows.append(inputs_by_hand(model, layer, [(inputs, labels)]))
    getattr(block, norm).call = called
    return np.concatenate(rows), np.concatenate(sums)


@pytest.mark.daily_every(2)
@pytest.mark.parametrize("share", [0.3, 0.6])
def test_scales_are_the_damped_least_squares_of_contributions_sublayer_after_sublayer(share):
    dense, closed, tuned = ready(), pruned(share, no_update=True), pruned(share)
    moved = 0
    for layer, before, found in zip(ends_of(closed), ends_of(dense), ends_of(tuned), strict=True):
        np.testing.assert_array_equal(array(layer.gates), array(found.gates))
        target, kernel = sublayers_by_hand(dense, before, BATCHES)[1], gated_kernel(layer).astype(np.float64)
        rows, given = sublayers_by_hand(closed, layer, BATCHES)
        units = 2 if layer.role == LAST[0] else 24
        each = [np.s_[unit * len(kernel) // units : (unit + 1) * len(kernel) // units] for unit in range(units)]
        contributions = np.stack([(rows[:, own] @ kernel[own]).ravel() for own in each], 1)
        is_open = np.flatnonzero(np.square(contributions).sum(0))
        damping = np.sqrt(0.01 * np.square(contributions[:, is_open]).sum(0).mean())
        system = np.concatenate([contributions[:, is_open], damping * np.eye(len(is_open))])
        missing = np.concatenate([(target - given).ravel(), np.zeros(len(is_open))])
        scales = np.ones(units)
        scales[is_open] += np.linalg.lstsq(system, missing, rcond=None)[0]
        assert np.abs(scales).max() < 10
        moved += np.abs(scales - 1).max() > 0.01
        expected = array(layer.raw_kernel) * scales.repeat(len(kernel) // units)[:, None]
        np.testing.assert_allclose(array(found.raw_kernel), expected, rtol=5e-3, atol=1e-3)
        layer.set_kernel(array(found.raw_kernel))
        after = sublayers_by_hand(closed, layer, BATCHES)[1]
        assert np.square(after - target).sum() <= np.square(given - target).sum() * (1 + 1e-6)
    assert moved >= 3


def test_the_tuned_model_is_the_masked_one_with_scaled_masks_and_shrinks_to_it():
    scaled, tuned = pruned(0.5, no_update=True), pruned(0.5)
    for layer, found in zip(ends_of(scaled), ends_of(tuned), strict=True):
        assert set(np.unique(array(found.gates))) <= {0.0, 1.0}
        kernel, new = array(layer.raw_kernel), array(found.raw_kernel)
        place = np.abs(kernel).argmax(1)[:, None]
        scales = np.take_along_axis(new, place, 1) / np.take_along_axis(kernel, place, 1)
        layer.gates.assign(array(layer.gates) * scales)
    small = shrink(tuned)
    assert small.count_params() < tuned.count_params()
    for inputs, _ in BATCHES:
        expected = array(scaled(inputs, training=False))
        np.testing.assert_allclose(array(tuned(inputs, training=False)), expected, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(array(small(inputs, training=False)), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("factor, expected", [(3.0, 3.0), (9.0, 9.0), (12.0, 1.0), (-9.0, -9.0), (-12.0, 1.0)])
def test_a_layer_whose_scale_leaves_the_range_stays_as_it_is(factor, expected):
    rng = np.random.default_rng(0)
    kernel, rows, seen = rng.normal(size=(6, 4)), rng.normal(size=(50, 6)), Moments(6, True, 4)
    seen.add(rows.astype("float32"), (rows @ (kernel * np.repeat([1, factor], 3)[:, None])).astype("float32"))
    np.testing.assert_allclose(tuned_scales(kernel, seen, 2), [1, expected], atol=0.02 * abs(factor))


def test_closed_units_keep_a_scale_of_one():
    rng = np.random.default_rng(0)
    kernel, rows, seen = rng.normal(size=(6, 4)), rng.normal(size=(50, 6)), Moments(6, True, 4)
    kernel[2:4] = 0
    seen.add(rows.astype("float32"), rng.normal(size=(50, 4)).astype("float32"))
    scales = tuned_scales(kernel, seen, 3)
    assert scales[1] == 1 and np.all(scales[[0, 2]] != 1)
    assert damped(np.zeros((2, 2))).trace() == 2 and np.all(tuned_scales(0 * kernel, seen, 3) == 1)


def test_the_reference_is_the_model_before_its_masks_whenever_they_are_chosen():
    model = ready()
    layer = ends_of(model)[2]
    before = inputs_by_hand(model, layer, BATCHES)
    calibration = Calibration(model, layers_of(model), BATCHES, products=True, reference=True)
    for each in layers_of(model):
        each.gates.assign(np.random.default_rng(0).random(each.gates.shape) < 0.5)
    now = inputs_by_hand(model, layer, BATCHES)
    (seen,) = (seen[layer] for seen in calibration.in_order() if layer in seen)
    np.testing.assert_allclose(seen.cross(), now.T @ before, rtol=1e-4, atol=1e-4)
    assert not np.allclose(now, before, atol=1e-2)


@pytest.mark.parametrize("pattern", [Block(), Block(0, 1), HeadDims()], ids=["element", "column", "head_dim"])
def test_other_patterns_are_refused(pattern):
    with pytest.raises(ConfigError, match="pattern.*head_neuron, head, neuron"):
        Pruner(layers_of(ready()), MaskTuning(), pattern, "global", num_heads=[2, 2])


def test_models_without_heads_and_neurons_are_refused():
    model = gated_bert.gate(mlp(), "mask_tuning")
    with pytest.raises(UserError, match="pattern: heads are refused: hidden, head are not known"):
        PruningCallback.for_model(model, "mask_tuning", pruning_end_epoch=2)


def test_records_say_so_by_name_and_have_heads_and_neurons_by_default():
    config = GatedBertConfig(pruning_method="mask_tuning")
    assert (config.pattern, config.scope, config.mask_tuning_texts) == ("head_neuron", "global", 2048)
    for pattern in ("head", "neuron"):
        assert GatedBertConfig(pruning_method="mask_tuning", pattern=pattern).pattern == pattern
    for pattern in ("element", "head_dim", "qkv_row"):
        with pytest.raises(ConfigError, match="pattern.*head_neuron, head, neuron"):
            GatedBertConfig(pruning_method="mask_tuning", pattern=pattern)
