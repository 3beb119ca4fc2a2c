"""Saliency scores against finite differences in plain NumPy, and the runs they drive."""


import keras
import numpy as np
import pytest
from keras import ops

import gated_bert
from gated_bert.config import ConfigError, GatedBertConfig
from gated_bert.config.methods import METHODS
from gated_bert.models.architecture import BertConfig
from gated_bert.models.bert import BertClassifier
from gated_bert.models.gated_dense import GatedDense, output_hook
from gated_bert.pruning.callbacks import PruningCallback
from gated_bert.pruning.pruner import Pruner, sparsity

CRITERIA = (
    "gradient_magnitude", "activation_magnitude", "grad_cam", "smooth_grad", "smooth_grad_cam", "grad_cam_shift",
    "smooth_grad_cam_shift",
)  # fmt: skip
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


class TwoLayers(keras.Model):
    """tanh(x W₁ + b₁) of every position, averaged over the real ones, then W₂."""

    def __init__(self):
        super().__init__()
        self.first = GatedDense(4, role="query", layer_index=0, activation="tanh", name="first")
        self.second = GatedDense(3, role="classifier", name="second")
        self.first.build((None, None, 5))
        self.second.build((None, 4))
        self.built = True

    def call(self, inputs, training=None):
        hidden = self.first(inputs["x"])
        real = ops.cast(inputs["attention_mask"], "float32")[..., None]
        return self.second(ops.sum(hidden * real, axis=1) / ops.sum(real, axis=1))


@pytest.fixture(scope="module")
def two_layers():
    """A model with biases and closed weights, its values in NumPy, and three batches with padding."""
    rng = np.random.default_rng(3)
    model = TwoLayers()
    model.compile("sgd", LOSS)
    values = {}
    for layer in (model.first, model.second):
        shape = tuple(layer.raw_kernel.shape)
        kernel, bias = rng.standard_normal(shape), rng.standard_normal(shape[1])
        gates = (rng.random(shape) > 0.3).astype(float)
        layer.raw_kernel.assign(kernel)
        layer.bias.assign(bias)
        layer.gates.assign(gates)
        values[layer.name] = (kernel, bias, gates)
    batches = []
    for lengths in ([6, 2, 4, 1], [3, 3, 5, 1], [4, 2]):
        x = 0.4 * rng.standard_normal((len(lengths), max(lengths), 5))
        mask = (np.arange(max(lengths)) < np.array(lengths)[:, None]).astype("int32")
        x[mask == 0] = 50.0
        inputs = {"x": x.astype("float32"), "attention_mask": mask}
        batches.append((inputs, rng.integers(0, 3, len(lengths)).astype("int32")))
    return model, values, batches


def forward(values, batch, draws=1, sigma=0.0, relative=False, spread=None):
    """Loss and statistics of a batch by NumPy, averaged over `draws` of noise on the output of both layers.

    `spread` replaces the deviation of the second layer's inputs that its noise is relative to: gradients ignore it.
    """
    (inputs, labels), rng = batch, np.random.default_rng(8)
    x, real = inputs["x"].astype(float)[None], inputs["attention_mask"].astype(float)[None, ..., None]
    seen = {}
    deviation = np.sqrt((real * x**2).sum() / real.sum() / 5 - ((real * x).sum() / real.sum() / 5) ** 2)
    kernel, bias, gates = values["first"]
    noise = sigma * rng.standard_normal((draws, *x.shape[1:3], 4)) * (deviation if relative else 1.0)
    output = x @ (kernel * gates) + bias + noise
    seen["first"] = (
        (real * abs(x)).sum((0, 1, 2)) / real.sum(), (real * output).sum((0, 1, 2)) / real.sum() / draws
    )  # fmt: skip
    pooled = (real * np.tanh(output)).sum(2) / real.sum(2)
    seen["spread"] = pooled.std(axis=(1, 2), keepdims=True) if spread is None else spread
    kernel, bias, gates = values["second"]
    noise = sigma * rng.standard_normal((draws, x.shape[1], 3)) * (seen["spread"] if relative else 1.0)
    logits = pooled @ (kernel * gates) + bias + noise
    seen["second"] = (abs(pooled).mean((0, 1)), logits.mean((0, 1)))
    chosen = np.take_along_axis(logits, np.broadcast_to(labels[None, :, None], (draws, len(labels), 1)), 2)[..., 0]
    return (np.log(np.exp(logits).sum(2)) - chosen).mean(), seen


def gate_gradients(values, batch, **noise):
    """∂L/∂G by central differences: layer name → array."""
    gradients, spread = {}, forward(values, batch, **noise)[1]["spread"]
    for name, (kernel, bias, gates) in values.items():
        gradients[name] = np.zeros(kernel.shape)
        for place in np.ndindex(kernel.shape):
            losses = []
            for step in (1e-5, -1e-5):
                moved = gates.copy()
                moved[place] += step
                losses.append(forward(values | {name: (kernel, bias, moved)}, batch, spread=spread, **noise)[0])
            gradients[name][place] = (losses[0] - losses[1]) / 2e-5
    return gradients


FORMULAS = {
    "gradient_magnitude": lambda kernel, gradient, inputs, outputs: gradient,
    "activation_magnitude": lambda kernel, gradient, inputs, outputs: kernel * inputs[:, None],
    "grad_cam": lambda kernel, gradient, inputs, outputs: gradient * outputs,
    "grad_cam_shift": lambda kernel, gradient, inputs, outputs: gradient * (10 + outputs),
}


def expected_scores(name, values, batches, **noise):
    sums = {layer: 0.0 for layer in values}
    formula = FORMULAS[{"smooth_grad": "gradient_magnitude"}.get(name, name.removeprefix("smooth_"))]
    for batch in batches:
        gradients, seen = gate_gradients(values, batch, **noise), forward(values, batch, **noise)[1]
        for layer, (kernel, _, _) in values.items():
            sums[layer] = sums[layer] + abs(formula(kernel, gradients[layer], *seen[layer]))
    return sums


def scores_of(criterion_name, model, batches, **options):
    """Scores of both layers by the criterion under test, from one call of `prepare`."""
    config = GatedBertConfig(
        model_size="tiny", criterion=criterion_name, prunable_roles=("query", "classifier"), **options
    )
    layers = [model.first, model.second]
    criterion = Pruner.from_config(config, layers).criterion
    criterion.prepare(model, batches)
    return {layer.name: criterion.scores(layer) for layer in layers}


@pytest.mark.daily_every(2)
@pytest.mark.parametrize("name", CRITERIA)
def test_scores_are_those_of_finite_differences_summed_over_batches(two_layers, name):
    model, values, batches = two_layers
    found = scores_of(name, model, batches, noise_std=1e-6)
    for layer, expected in expected_scores(name, values, batches).items():
        np.testing.assert_allclose(found[layer], expected, rtol=2e-3, atol=2e-5)
        closed = values[layer][2] == 0
        assert (found[layer][closed] > 0).any()


def test_published_activation_magnitude_takes_the_size_of_the_mean_input(two_layers):
    model, values, batches = two_layers
    found = scores_of("activation_magnitude", model, batches, activation_variant="published")
    expected = {name: 0.0 for name in values}
    for inputs, _ in batches:
        real = inputs["attention_mask"].astype(bool)
        (first, bias, gates), (second, _, _) = values["first"], values["second"]
        hidden = np.tanh(inputs["x"] @ (first * gates) + bias)
        pooled = np.stack([row[keep].mean(0) for row, keep in zip(hidden, real, strict=True)])
        expected["first"] = expected["first"] + abs(first) * abs(inputs["x"][real].mean(0))[:, None]
        expected["second"] = expected["second"] + abs(second) * abs(pooled.mean(0))[:, None]
    usual = scores_of("activation_magnitude", model, batches)
    for name, scores in expected.items():
        np.testing.assert_allclose(found[name], scores, rtol=1e-4, atol=1e-6)
        assert not np.allclose(usual[name], scores, rtol=0.1)


@pytest.mark.parametrize("strategy", ["GlobalMagAct", "LayerMagAct"])
def test_published_activation_strategies_prune_what_shrinkbench_prunes(strategy):
    keras.utils.set_random_seed(0)
    mlp = keras.Sequential([keras.Input((10,)), keras.layers.Dense(16, "relu"), keras.layers.Dense(4)])
    rng = np.random.default_rng(2)
    x, y = rng.standard_normal((32, 10)).astype("float32"), rng.integers(0, 4, 32)
    gated_bert.gate(mlp, strategy)
    mlp.compile("sgd", LOSS)
    options = {"end_sparsity": 0.6, "min_kept": 0.0, "score_batches": 1, "activation_variant": "published"}
    callback = PruningCallback.for_model(mlp, strategy, pruning_end_epoch=1, data=(x, y), batch_size=32, **options)
    callback.criterion.prepare(mlp, callback.dataset)
    callback.pruner.update(0.6, step=1)
    kernels = [ops.convert_to_numpy(layer.raw_kernel).astype(float) for layer in callback.layers]
    hidden = np.maximum(x @ kernels[0], 0)
    scores = [abs(kernel) * abs(seen.mean(0))[:, None] for kernel, seen in zip(kernels, (x, hidden), strict=True)]
    together = np.quantile(np.concatenate([each.ravel() for each in scores]), 0.6)
    for layer, each in zip(callback.layers, scores, strict=True):
        threshold = together if strategy.startswith("Global") else np.quantile(each, 0.6)
        kept = ops.convert_to_numpy(layer.gates) != 0
        assert (kept != (each >= threshold)).sum() <= 1


@pytest.mark.nightly
@pytest.mark.parametrize(
    ("name", "kind"),
    [("smooth_grad", "constant"), ("smooth_grad_cam", "constant"), ("smooth_grad_cam_shift", "activation")],
)
@pytest.mark.daily_every(3)
def test_large_noise_gives_the_mean_gradient_over_noisy_passes(two_layers, name, kind):
    model, values, batches = two_layers
    found = scores_of(name, model, batches[:1], noise_std=1.0, noise=kind, smooth_passes=300)
    noise = {"draws": 4000, "sigma": 1.0}
    expected = expected_scores(name, values, batches[:1], relative=kind == "activation", **noise)
    other = expected_scores(name, values, batches[:1], relative=kind != "activation", **noise)
    plain = expected_scores(name, values, batches[:1])
    for layer in values:
        errors = [np.linalg.norm(found[layer] - side[layer]) / np.linalg.norm(side[layer]) for side in
                  (expected, other, plain)]  # fmt: skip
        assert 2 * errors[0] < min(errors[1:]), (layer, errors)


@pytest.mark.nightly
def test_noise_is_that_of_the_seed_and_new_in_every_pass_and_batch(two_layers):
    model, _, batches = two_layers
    noisy = {"noise_std": 1.0, "smooth_passes": 1}
    first, again, other = (
        scores_of("smooth_grad", model, batches, seed=seed, **noisy)["first"] for seed in (1, 1, 2)
    )  # fmt: skip
    np.testing.assert_array_equal(first, again)
    assert not np.allclose(first, other, rtol=1e-3)
    two = scores_of("smooth_grad", model, batches, seed=1, noise_std=1.0, smooth_passes=2)["first"]
    assert not np.allclose(first, two, rtol=1e-3)
    once, twice = (scores_of("smooth_grad", model, batches[:1] * n, seed=1, **noisy)["first"] for n in (1, 2))
    assert not np.allclose(twice, 2 * once, rtol=1e-3)


def test_only_so_many_batches_are_scored(two_layers):
    model, _, batches = two_layers
    found, fewer, one = (scores_of("grad_cam", model, b, score_batches=n)["second"]
                         for b, n in ((batches, 2), (batches[:2], 8), (batches, 1)))  # fmt: skip
    np.testing.assert_array_equal(found, fewer)
    assert not np.allclose(found, one, rtol=1e-3)


def test_scores_follow_the_weights_and_leave_the_model_as_it_was(two_layers):
    model, values, batches = two_layers
    config = GatedBertConfig(model_size="tiny", criterion="grad_cam", prunable_roles=("query", "classifier"))
    criterion = Pruner.from_config(config, [model.first, model.second]).criterion
    criterion.prepare(model, batches)
    before = criterion.scores(model.second)
    kernel, bias, gates = values["second"]
    try:
        model.second.bias.assign(bias + 1.0)
        criterion.prepare(model, batches)
        moved = values | {"second": (kernel, bias + 1.0, gates)}
        expected = expected_scores("grad_cam", moved, batches)["second"]
        np.testing.assert_allclose(criterion.scores(model.second), expected, rtol=2e-3, atol=2e-5)
        assert not np.allclose(before, expected, rtol=1e-2)
    finally:
        model.second.bias.assign(bias)
    np.testing.assert_array_equal(ops.convert_to_numpy(model.second.gates), gates)


def test_a_hook_changes_outputs_before_the_activation_function_and_only_while_active():
    layer = GatedDense(2, activation="relu", kernel_initializer="ones")
    x = np.ones((1, 3), np.float32)
    with output_hook(lambda layer, inputs, outputs: outputs - 2.0 * ops.sum(inputs)):
        assert ops.convert_to_numpy(layer(x)).tolist() == [[0.0, 0.0]]
    assert ops.convert_to_numpy(layer(x)).tolist() == [[3.0, 3.0]]


def config_of(criterion, **options):
    defaults = {"model_size": "tiny", "epochs": 3, "pruning_start_epoch": 1, "pruning_end_epoch": 3}
    return GatedBertConfig(criterion=criterion, **(defaults | {"end_sparsity": 0.6} | options))


@pytest.mark.parametrize("name", ["activation_magnitude", "grad_cam", "smooth_grad_cam_shift"])
@pytest.mark.daily_every(3)
@pytest.mark.nightly
def test_padding_changes_no_score(make_model, batches, name):
    model = make_model()
    model.compile("sgd", LOSS)
    padded = [({key: np.pad(value, ((0, 0), (0, 3))) for key, value in inputs.items()}, labels)
              for inputs, labels in batches.batches]  # fmt: skip
    found = []
    for data in (batches, padded):
        criterion = Pruner.from_config(config_of(name, noise_std=0.0, smooth_passes=2), model.gated_layers()).criterion
        criterion.prepare(model, data)
        found.append([criterion.scores(layer) for layer in model.gated_layers()])
    for scores, same in zip(*found, strict=True):
        np.testing.assert_allclose(scores, same, rtol=2e-3, atol=2e-5 * scores.max())


@pytest.mark.parametrize("kind", ["classification", "regression", "span"])
def test_gradients_are_those_of_the_tasks_loss(kind):
    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    outputs = {"classification": 2, "regression": 1, "span": 2}[kind]
    model = BertClassifier(
        BertConfig.uniform(1, 32, 4, 64, vocab_size=40, num_outputs=outputs, span_head=kind == "span", dropout_rate=0.5)
    )
    loss = keras.losses.MeanSquaredError() if kind == "regression" else LOSS
    model.compile("sgd", loss)
    ids = rng.integers(5, 40, (8, 6)).astype("int32")
    inputs = {"input_ids": ids, "token_type_ids": np.zeros_like(ids), "attention_mask": np.ones_like(ids)}
    labels = {"classification": ids[:, 1] % 2, "regression": rng.random(8), "span": ids[:, :2] % 6}[kind]
    layers = model.gated_layers(("ffn_output",))
    criterion = Pruner.from_config(config_of("gradient_magnitude", prunable_roles=("ffn_output",)), layers).criterion
    criterion.prepare(model, [(inputs, labels)])
    scores = criterion.scores(layers[0])
    place = np.unravel_index(scores.argmax(), scores.shape)
    losses = []
    for gate in (2.0, 0.0):
        gates = np.ones(scores.shape, np.float32)
        gates[place] = gate
        layers[0].gates.assign(gates)
        losses.append(float(loss(labels, model(inputs))))
    assert scores[place] == pytest.approx(abs(losses[0] - losses[1]) / 2, rel=5e-2)


@pytest.mark.parametrize("name", ["activation_magnitude", "grad_cam", "smooth_grad_cam_shift"])
@pytest.mark.daily_every(3)
def test_closed_weights_stay_closed_and_the_asked_sparsity_is_reached(make_model, batches, name):
    model = make_model(num_layers=1)
    config = config_of(name, score_batches=2, smooth_passes=2, learning_rate=1e-2)
    model.compile("adam", LOSS)
    callback = PruningCallback.from_config(config, model, batches, len(batches))
    masks = []
    keep = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: masks.append([ops.convert_to_numpy(layer.gates) for layer in callback.layers])
    )
    logs = model.fit(batches, epochs=3, callbacks=[callback, keep], verbose=0, shuffle=False).history
    np.testing.assert_allclose(logs["sparsity"], [0.0, 0.3, 0.6], atol=1e-3)
    assert all((after <= before).all() for before, after in zip(masks[1], masks[2], strict=True))


def test_one_shot_scores_once_and_prunes_at_the_start_epoch(make_model, batches, monkeypatch):
    model = make_model(num_layers=1)
    config = GatedBertConfig(model_size="tiny", pruning_method="LayerGradCAM", epochs=4, pruning_start_epoch=2,
                             pruning_end_epoch=4, end_sparsity=0.64)  # fmt: skip
    model.compile("sgd", LOSS)
    callback = PruningCallback.from_config(config, model, batches, len(batches))
    prepared, prepare = [], callback.criterion.prepare
    monkeypatch.setattr(callback.criterion, "prepare", lambda *a: (prepared.append(callback.epoch), prepare(*a)))
    logs = model.fit(batches, epochs=4, callbacks=[callback], verbose=0, shuffle=False).history
    assert prepared == [1]
    np.testing.assert_allclose(logs["sparsity"], [0.0, 0.64, 0.64, 0.64], atol=1e-3)
    assert sparsity(callback.layers) == pytest.approx(0.64, abs=1e-3)


def test_strategies_are_points_that_keep_their_names():
    points = {
        "GlobalMagWeight": ("magnitude", "global"), "LayerMagWeight": ("magnitude", "layer"),
        "GlobalMagGrad": ("gradient_magnitude", "global"), "LayerMagGrad": ("gradient_magnitude", "layer"),
        "GlobalMagAct": ("activation_magnitude", "global"), "LayerMagAct": ("activation_magnitude", "layer"),
        "LayerGradCAM": ("grad_cam", "layer"), "LayerSmoothGrad": ("smooth_grad", "layer"),
        "LayerSmoothGradCAM": ("smooth_grad_cam", "layer"), "LayerGradCAMShift": ("grad_cam_shift", "layer"),
        "LayerSmoothGradCAMShift": ("smooth_grad_cam_shift", "layer"), "RandomPruning": ("random", "layer"),
    }  # fmt: skip
    assert {name for name in METHODS if name[0].isupper()} == set(points)
    for name, point in points.items():
        for options in ({}, {"end_sparsity": 0.64}):
            config = GatedBertConfig(pruning_method=name, **options)
            assert (config.criterion, config.scope) == point
            assert (config.pattern, config.schedule, config.label) == ("element", "one_shot", name)
            assert GatedBertConfig.from_json(config.to_json()) == config
    assert GatedBertConfig(pruning_method="magnitude", end_sparsity=0.5).schedule == "linear"
    assert GatedBertConfig(criterion="magnitude").scope == "layer"


@pytest.mark.parametrize(
    ("field", "value"),
    [("score_batches", 0), ("smooth_passes", 0), ("noise", "relative"), ("noise_std", -1.0),
     ("activation_variant", "shrinkbench")],
)  # fmt: skip
def test_refused_values(field, value):
    with pytest.raises(ConfigError, match=f"{field}: {value!r}"):
        GatedBertConfig(pruning_method="smooth_grad", **{field: value})
