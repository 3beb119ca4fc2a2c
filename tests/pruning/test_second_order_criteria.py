"""SparseGPT and oBERT as criteria: what is looked at, in which order, what closes and what the rest becomes."""

import keras
import numpy as np
import pytest
from any_models import IMAGES, LABELS, LOSS, ROWS, array, mlp, vit
from test_second_order import least, published, share, two_of_four

import gated_bert
from gated_bert.models.architecture import BertConfig
from gated_bert.models.bert import BertClassifier
from gated_bert.models.gated_dense import output_hook
from gated_bert.pruning import Block, Obert, Pruner, PruningCallback, SparseGpt, Vectors, Wanda
from gated_bert.pruning.any_model import Batches
from gated_bert.pruning.calibration import Calibration, first_batches
from gated_bert.pruning.second_order import damped
from tests.marks import nightly

ROWS_DATA = Batches(ROWS, LABELS, 16)


def bert(**options):
    keras.utils.set_random_seed(0)
    return BertClassifier(BertConfig.uniform(2, 16, 2, 24, vocab_size=40, num_outputs=2, **options))


def token_batches():
    rng, found = np.random.default_rng(0), []
    for length in (6, 9):
        mask = (np.arange(length) < rng.integers(2, length, 5)[:, None]).astype("int32")
        ids = rng.integers(0, 40, (5, length)).astype("int32")
        inputs = {"input_ids": ids, "token_type_ids": 0 * ids, "attention_mask": mask}
        found.append((inputs, rng.integers(0, 2, 5).astype("int32")))
    return found


def inputs_by_hand(model, layer, batches):
    """The real rows of what comes into a layer, float64, from passes of the whole model as it is."""
    seen = []

    def hook(called, inputs, outputs):
        if called is layer:
            rows = array(called.input_features(inputs)).astype(np.float64)
            mask = batch.get("attention_mask") if isinstance(batch, dict) else None
            padded = mask is not None and rows.ndim == 3
            seen.append(rows[mask == 1] if padded else rows.reshape(-1, rows.shape[-1]))
        return outputs

    with output_hook(hook):
        for batch, _ in batches:
            model(batch, training=False)
    return np.concatenate(seen)


MODELS = {
    "bert": (bert, token_batches()),
    "vit": (lambda: gated_bert.gate(vit()), [(IMAGES[:6], None), (IMAGES[6:], None)]),
    "mlp": (lambda: gated_bert.gate(mlp()), [(ROWS, LABELS)]),
}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.daily_every(3)
def test_every_layer_is_looked_at_after_those_before_it_have_changed(name):
    build, batches = MODELS[name]
    model = build()
    layers = gated_bert.gated_layers(model)
    calibration = Calibration(model, layers, batches, products=True, reference=True)
    assert sorted(layer.path for part in calibration.parts for layer in part) == sorted(each.path for each in layers)
    before = {layer: inputs_by_hand(model, layer, batches) for layer in layers}
    for layer, found in calibration.at_once().items():
        np.testing.assert_allclose(found.products(), before[layer].T @ before[layer], rtol=1e-4, atol=1e-4)
        assert not found.has_reference
    moved = 0
    for seen in calibration.in_order():
        for layer, found in seen.items():
            rows = inputs_by_hand(model, layer, batches)
            assert found.rows == len(rows)
            for one, other in ((found.mean, rows.mean(0)), (found.reference_mean, before[layer].mean(0)),
                               (found.products(), rows.T @ rows), (found.cross(), rows.T @ before[layer]),
                               (found.squares, np.square(rows).sum(0)),
                               (found.products(True), len(rows) * np.cov(rows.T, bias=True))):  # fmt: skip
                np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)
            moved += not np.allclose(rows, before[layer], atol=1e-3)
        for layer in seen:
            layer.set_kernel(0.5 * array(layer.raw_kernel))
    assert moved >= len(layers) - 3


def test_of_an_encoder_query_key_and_value_are_one_part():
    model = bert()
    parts = Calibration(model, model.gated_layers(), token_batches(), products=False).parts
    assert [[layer.role for layer in part] for part in parts[:4]] == [
        ["query", "key", "value"], ["attention_output"], ["ffn_intermediate"], ["ffn_output"]]  # fmt: skip
    assert [part[0].role for part in parts[8:]] == ["pooler", "classifier"]


def test_the_first_batches_are_as_many_as_hold_the_texts():
    assert [len(first_batches(ROWS_DATA, texts)) for texts in (1, 16, 17, 1000)] == [1, 1, 2, 4]


def ready(model):
    model.compile("sgd", LOSS)
    return model


@pytest.mark.parametrize("calibrate", ["sequential", "parallel"])
@pytest.mark.parametrize("pattern", ["element", "2:4"])
def test_sparsegpt_is_the_published_algorithm_layer_after_layer(calibrate, pattern):
    model, by_hand = ready(gated_bert.gate(mlp())), gated_bert.gate(mlp())
    chosen = {"element": (Block(), share(128, 0.5), 128), "2:4": (Vectors(4), two_of_four, 128)}[pattern]
    criterion = SparseGpt(target="layer", calibration_texts=64, calibrate=calibrate)
    pruner = Pruner(gated_bert.gated_layers(model), criterion, chosen[0], min_kept=0.0)
    pruner.prune(0.5, model, ROWS_DATA)
    layers = gated_bert.gated_layers(by_hand)
    rows = {layer: inputs_by_hand(by_hand, layer, [(ROWS, None)]) for layer in layers}
    for layer, found in zip(layers, gated_bert.gated_layers(model), strict=True):
        seen = inputs_by_hand(by_hand, layer, [(ROWS, None)]) if calibrate == "sequential" else rows[layer]
        kernel, mask = published(array(layer.raw_kernel), damped(seen.T @ seen), *chosen[1:])
        layer.set_kernel(kernel)
        np.testing.assert_array_equal(array(found.gates), mask)
        np.testing.assert_allclose(array(found.raw_kernel), kernel, rtol=2e-3, atol=1e-4)


@pytest.mark.parametrize("scope, rank", [("global", "obs"), ("output", "wanda"), ("layer", "obs"), ("output", "obs")])
def test_the_exact_update_of_a_given_mask_is_the_constrained_minimum(scope, rank):
    model, by_hand = ready(gated_bert.gate(mlp())), gated_bert.gate(mlp())
    criterion = SparseGpt(target="layer", update="exact", rank=rank, calibration_texts=64)
    Pruner(gated_bert.gated_layers(model), criterion, scope=scope).prune(0.5, model, ROWS_DATA)
    for layer, found in zip(gated_bert.gated_layers(by_hand), gated_bert.gated_layers(model), strict=True):
        seen = inputs_by_hand(by_hand, layer, [(ROWS, None)])
        hessian, kernel = damped(seen.T @ seen), array(layer.raw_kernel).astype(np.float64)
        is_open = array(found.gates) != 0
        assert 0 < is_open.sum() < is_open.size
        expected = np.stack([least(hessian, kernel[:, o], is_open[:, o]) for o in range(kernel.shape[1])], 1)
        np.testing.assert_allclose(array(found.raw_kernel), expected, rtol=2e-3, atol=1e-4)
        layer.set_kernel(expected)
        if scope == "output":
            costs = {"wanda": np.abs(kernel) * np.linalg.norm(seen, axis=0)[:, None],
                     "obs": kernel**2 / np.diag(np.linalg.inv(hessian))[:, None]}[rank]  # fmt: skip
            np.testing.assert_array_equal(is_open, np.argsort(np.argsort(costs, 0), 0) >= len(kernel) // 2)


@pytest.mark.daily_every(2)
@pytest.mark.parametrize("name", ["mlp", "bert"])
def test_the_exact_update_to_what_the_model_gave_is_the_least_squares_of_it_with_a_free_bias(name):
    build, batches = MODELS[name]
    model, by_hand = ready(build()), build()
    # In the order of their calls, which the layers of a model of classes need not have.
    layers, dense = (each.gated_layers() if name == "bert" else gated_bert.gated_layers(each)
                     for each in (model, by_hand))  # fmt: skip
    outputs = {layer: inputs_by_hand(by_hand, layer, batches) @ array(layer.raw_kernel) + array(layer.bias)
               for layer in dense}  # fmt: skip
    Pruner(layers, SparseGpt(update="exact")).prune(0.5, model, batches)
    for layer, found in zip(dense, layers, strict=True):
        rows, is_open = inputs_by_hand(by_hand, layer, batches), array(found.gates) != 0
        kernel = array(layer.raw_kernel).astype(np.float64)
        new, bias = np.zeros(kernel.shape), np.zeros(kernel.shape[1])
        varies = np.square(rows - rows.mean(0)).sum(0)
        added = np.sqrt(0.01 * varies[varies > 1e-9].mean())
        for o in range(kernel.shape[1]):
            open_ = np.flatnonzero(is_open[:, o])
            # Damping pulls every weight to where it was, also those of inputs that are closed.
            system = np.concatenate([np.c_[rows[:, open_], np.ones(len(rows))],
                                     added * np.c_[np.eye(len(kernel))[:, open_], np.zeros(len(kernel))]])  # fmt: skip
            right = np.concatenate([outputs[layer][:, o], added * kernel[:, o]])
            *new[open_, o], bias[o] = np.linalg.lstsq(system, right, rcond=None)[0]
        np.testing.assert_allclose(array(found.raw_kernel), new, rtol=5e-3, atol=1e-3)
        np.testing.assert_allclose(array(found.bias), bias, rtol=5e-3, atol=1e-3)
        layer.set_kernel(new)
        layer.bias.assign(bias)


@pytest.mark.parametrize("criterion", [SparseGpt(no_update=True), Obert(no_update=True), Wanda()])
def test_without_an_update_the_weights_that_stay_are_as_they_were(criterion):
    model = ready(gated_bert.gate(mlp()))
    before = [array(layer.raw_kernel) for layer in gated_bert.gated_layers(model)]
    Pruner(gated_bert.gated_layers(model), criterion).prune(0.5, model, ROWS_DATA)
    for layer, kernel in zip(gated_bert.gated_layers(model), before, strict=True):
        assert 0.4 < (array(layer.gates) == 0).mean() < 0.6
        np.testing.assert_array_equal(array(layer.raw_kernel), kernel)


@pytest.mark.parametrize("make", [SparseGpt, lambda: SparseGpt(update="exact"), lambda: Obert(gradients=8)])
def test_gates_that_are_not_one_give_the_same_effective_weights_and_what_is_closed_stays(make):
    found = []
    for value in (1.0, 0.5):
        model = ready(gated_bert.gate(mlp()))
        layers = gated_bert.gated_layers(model)
        closed = np.random.default_rng(0).random((12, 16)) < 0.2
        layers[0].gates.assign(np.where(closed, 0, value))
        layers[0].set_kernel(array(layers[0].raw_kernel) / value)
        Pruner(layers, make()).prune(0.5, model, ROWS_DATA)
        assert not array(layers[0].gates)[closed].any() and (array(layers[0].gates) == 0).sum() == 96
        found.append([array(layer.raw_kernel) * array(layer.gates) for layer in layers])
    for one, two in zip(*found, strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-3, atol=1e-5)


def test_inputs_that_never_come_close_first():
    rows = ROWS * (np.arange(12) % 3 > 0)
    model = ready(gated_bert.gate(mlp()))
    layer = gated_bert.gated_layers(model)[0]
    Pruner([layer], SparseGpt(), min_kept=0).prune(1 / 3, model, Batches(rows, LABELS, 16))
    np.testing.assert_array_equal(array(layer.gates), np.repeat((np.arange(12) % 3 > 0)[:, None], 16, 1))


class OneLayer(keras.Sequential):
    """Softmax of x W: the gradient of a batch is xᵀ (p − y) / n."""

    def __init__(self):
        keras.utils.set_random_seed(0)
        super().__init__([keras.Input((12,)), keras.layers.Dense(3, name="head")])


def fisher_by_hand(kernel, bias, is_open, batch, size, damping):
    gradients = []
    for first in range(0, 64, batch):
        x, y = ROWS[first : first + batch].astype(np.float64), np.eye(3)[LABELS[first : first + batch]]
        logits = x @ (kernel * is_open) + bias
        p = np.exp(logits - logits.max(1, keepdims=True))
        gradients.append(x.T @ (p / p.sum(1, keepdims=True) - y) / len(x) * is_open)
    found = np.zeros((3, 12, 12))
    for g in gradients:
        found += np.einsum("io,jo->oij", g, g) / len(gradients)
    blocks = np.arange(12) // size
    return found * (blocks[:, None] == blocks) + damping * np.eye(12)


@pytest.mark.parametrize("pattern, size", [(Block(), 5), (Block(4, 1), 4), (Block(0, 1), 5), (Block(2, 1), 6)], ids=str)
def test_obert_closes_what_costs_least_and_moves_the_rest_to_the_minimum(pattern, size):
    model = ready(gated_bert.gate(OneLayer()))
    (layer,) = gated_bert.gated_layers(model)
    is_open = np.random.default_rng(1).random((12, 3)) > 0.15 if pattern == Block() else np.ones((12, 3), bool)
    layer.gates.assign(is_open)
    kernel, bias = array(layer.raw_kernel).astype(np.float64), array(layer.bias)
    fishers = fisher_by_hand(kernel, bias, is_open, 8, size, 1e-3)
    kernel = kernel * is_open
    options = {"block_size": size, "gradients": 8, "batch_size": 8, "damping": 1e-3}
    Pruner([layer], Obert(**options), pattern, scope="global", min_kept=0).prune(0.5, model, ROWS_DATA)
    height = pattern.height or 12
    costs = np.empty((12 // height, 3))
    for run, column in np.ndindex(costs.shape):
        left = np.ones(12, bool)
        left[run * height : (run + 1) * height] = False
        change = least(fishers[column], kernel[:, column], left) - kernel[:, column]
        costs[run, column] = 0.5 * change @ fishers[column] @ change
    costs[~is_open.reshape(costs.shape[0], height, 3).any(1)] = -1
    count = round(0.5 * costs.size)
    expected = (np.argsort(np.argsort(costs.ravel())) >= count).reshape(costs.shape).repeat(height, 0)
    np.testing.assert_array_equal(array(layer.gates) != 0, expected)
    updated = np.stack([least(fishers[o], kernel[:, o], expected[:, o]) for o in range(3)], 1)
    np.testing.assert_allclose(array(layer.raw_kernel) * expected, updated, rtol=2e-3, atol=1e-4)


@pytest.mark.parametrize("scope", ["layer", "global"])
def test_parts_that_fit_into_less_memory_give_the_same(scope):
    found = []
    for memory in (4.0, 1e-9):
        model = ready(gated_bert.gate(mlp()))
        layers = gated_bert.gated_layers(model)
        Pruner(layers, Obert(memory=memory, gradients=8, batch_size=8), scope=scope).prune(0.5, model, ROWS_DATA)
        found.append([array(each) for layer in layers for each in (layer.gates, layer.raw_kernel)])
    for one, two in zip(*found, strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-4, atol=1e-6)


def test_recomputations_close_in_equal_steps():
    model = ready(gated_bert.gate(mlp()))
    layers, seen = gated_bert.gated_layers(model), []

    class Watched(Obert):
        def prepare(self, model, dataset):
            seen.append(sum(int((array(layer.gates) == 0).sum()) for layer in layers))
            super().prepare(model, dataset)

    criterion = Watched(recomputations=4, gradients=4)
    Pruner(layers, criterion, scope="global").prune(0.5, model, ROWS_DATA)
    assert seen == [0, 28, 56, 84] and sum((array(layer.gates) == 0).sum() for layer in layers) == 112


def test_a_long_update_says_how_far_it_has_come():
    told = []
    for criterion in (Wanda(calibration_texts=16), Obert(recomputations=2, gradients=2)):
        model = ready(gated_bert.gate(mlp()))
        criterion.listener = told.append
        Pruner(gated_bert.gated_layers(model), criterion).prune(0.5, model, ROWS_DATA)
    layers = len(gated_bert.gated_layers(model))
    of_layers = [f"to 50.0 %: layer {layer + 1} of {layers}" for layer in range(layers)]
    assert told == of_layers + [f"to {share}.0 %: gradient {number} of 2" for share in (25, 50) for number in (1, 2)]


@pytest.mark.parametrize("method", [nightly("wanda"), "sparsegpt", "obert"])
@pytest.mark.daily_every(3)
def test_any_model_is_pruned_in_the_middle_of_training(method):
    model = gated_bert.gate(vit(), method)
    data = IMAGES, (IMAGES.mean((1, 2, 3)) > 0).astype("int32")
    model.compile(keras.optimizers.Adam(1e-3), LOSS)
    options = {"obert_gradients": 4} if method == "obert" else {"calibration_texts": 16}
    callback = PruningCallback.for_model(
        model, method, end_sparsity=0.5, pruning_end_epoch=2, data=data, batch_size=8, **options
    )
    history = model.fit(*data, batch_size=8, epochs=3, callbacks=[callback], verbose=0).history
    assert history["sparsity"][-1] == pytest.approx(0.5, abs=0.02) and np.isfinite(history["loss"]).all()
