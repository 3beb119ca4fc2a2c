"""PLATON and SNIP with momentum step by step against NumPy: gradients by hand, SGD, windows, global top-k."""

import keras
import numpy as np
import pytest
from any_models import LABELS, LOSS, ROWS, array, mlp

import gated_bert
from gated_bert import ConfigError, GatedBertConfig, PruningCallback
from gated_bert.pruning import Block, Cubic, Linear, OneShot, Platon, Pruner, SnipMomentum

STEPS, EPOCHS, BATCH, RATE, FINAL = 8, 4, 8, 0.2, 0.7
WINDOW, BETA1, BETA2, SNIP_BETA = 3, 0.6, 0.7, 0.8
CRITERIA = {
    "platon": lambda: Platon(window=WINDOW, beta1=BETA1, beta2=BETA2),
    "snip_momentum": lambda: SnipMomentum(beta=SNIP_BETA),
}


def sensitivities(values, masks, rows):
    """|W ⊙ ∂L/∂W'| of both matrices, closed weights included, and the gradients of weights and biases."""
    w1, b1, w2, b2 = values
    x, labels = ROWS[rows].astype(np.float64), LABELS[rows]
    before = x @ (w1 * masks[0]) + b1
    hidden = np.maximum(before, 0)
    logits = hidden @ (w2 * masks[1]) + b2
    shares = np.exp(logits - logits.max(1, keepdims=True))
    shares /= shares.sum(1, keepdims=True)
    d_logits = (shares - np.eye(2)[labels]) / len(x)
    d_hidden = (d_logits @ (w2 * masks[1]).T) * (before > 0)
    g1, g2 = x.T @ d_hidden, hidden.T @ d_logits
    found = [np.abs(g1 * w1), np.abs(g2 * w2)]
    return found, [g1 * masks[0], d_hidden.sum(0), g2 * masks[1], d_logits.sum(0)]


def closed_least(scores, sparsity):
    flat = np.concatenate([score.ravel() for score in scores])
    mask = np.ones(flat.size)
    mask[np.argsort(flat, kind="stable")[: round(flat.size * sparsity)]] = 0
    return [part.reshape(score.shape) for part, score in
            zip(np.split(mask, [scores[0].size]), scores, strict=True)]  # fmt: skip


def by_hand(name, values):
    """Scores of both matrices after the last step, and the masks of every forward pass."""
    values = [value.astype(np.float64) for value in values]
    shapes = (values[0].shape, values[2].shape)
    masks, used = [np.ones(shape) for shape in shapes], []
    window, smooth, spread, snip = ([np.zeros(shape) for shape in shapes] for _ in range(4))
    for step in range(1, STEPS * EPOCHS + 1):
        used.append([mask.copy() for mask in masks])
        place = (step - 1) % STEPS
        found, gradients = sensitivities(values, masks, slice(place * BATCH, (place + 1) * BATCH))
        for value, gradient in zip(values, gradients, strict=True):
            value -= RATE * gradient
        for i in (0, 1):
            snip[i] = SNIP_BETA * snip[i] + found[i]
            window[i] += found[i] / WINDOW
            if step % WINDOW == 0:
                smooth[i] = BETA1 * smooth[i] + (1 - BETA1) * window[i]
                spread[i] = BETA2 * spread[i] + (1 - BETA2) * np.abs(window[i] - smooth[i])
                window[i] = np.zeros_like(window[i])
        scores = snip if name == "snip_momentum" else [a * b for a, b in zip(smooth, spread, strict=True)]
        every = 10 if name == "snip_momentum" else WINDOW
        if step % every == 0 or step % STEPS == 0:
            sparsity = FINAL * min(step / STEPS / (EPOCHS - 1), 1)
            if sparsity:
                masks = closed_least(scores, sparsity)
    return scores, used


def begun(criterion):
    model = gated_bert.gate(mlp(), criterion)
    layers = gated_bert.gated_layers(model)
    pruner = Pruner(layers, criterion, scope="global", schedule=Linear(0.0, FINAL, 1, EPOCHS), min_kept=0.0)
    callback = PruningCallback(pruner, model=model)
    model.compile(callback.optimizer(keras.optimizers.SGD(RATE)), LOSS)
    return model, layers, callback


@pytest.mark.parametrize("name", CRITERIA)
def test_scores_and_masks_are_those_of_an_independent_port_at_every_step(name):
    criterion = CRITERIA[name]()
    model, layers, callback = begun(criterion)
    expected, masks = by_hand(name, [array(v) for layer in layers for v in (layer.raw_kernel, layer.bias)])
    seen = []

    def look(batch, logs):
        # On JAX this brings the variables back.
        assert callback.model is model
        seen.append([array(layer.gates) for layer in layers])

    watch = keras.callbacks.LambdaCallback(on_train_batch_begin=look)
    model.fit(ROWS, LABELS, batch_size=BATCH, epochs=EPOCHS, shuffle=False, callbacks=[callback, watch], verbose=0)
    for step, (found, wanted) in enumerate(zip(seen, masks, strict=True)):
        for i in (0, 1):
            np.testing.assert_array_equal(found[i], wanted[i], err_msg=f"matrix {i} in step {step}")
    for layer, scores in zip(layers, expected, strict=True):
        np.testing.assert_allclose(criterion.scores(layer), scores, rtol=2e-4, atol=1e-9)
    opened = sum((new > old).sum() for before, after in zip(masks, masks[1:], strict=False)
                 for old, new in zip(before, after, strict=True))  # fmt: skip
    assert opened, "nothing opened again, so this would show little"


def test_platon_goes_on_from_what_it_remembers():
    first, second = Platon(window=2), Platon(window=2)
    _, layers, _ = begun(first)
    for value in (1.0, 3.0):
        for layer in layers:
            layer.scores.assign(np.full(layer.scores.shape, value))
        first.collect()
    state = first.state()
    # Window means 0.5 and 1.5: sensitivity 0.075, then 0.28875; uncertainty 0.06375, then 0.235875.
    assert np.allclose(state["sensitivity0"], 0.28875) and np.allclose(state["uncertainty0"], 0.235875)
    assert not np.any(array(layers[0].scores))
    second.bind(first.groups)
    second.load_state(state)
    for layer in layers:
        np.testing.assert_array_equal(first.scores(layer), second.scores(layer))
        assert np.allclose(first.scores(layer), 0.28875 * 0.235875)


def test_before_its_first_window_has_ended_platon_ranks_by_what_there_is_of_it():
    criterion = Platon(window=100)
    model, layers, callback = begun(criterion)
    model.fit(ROWS, LABELS, batch_size=BATCH, epochs=EPOCHS, shuffle=False, callbacks=[callback], verbose=0)
    sums = np.concatenate([array(layer.scores).ravel() for layer in layers])
    gates = np.concatenate([array(layer.gates).ravel() for layer in layers])
    assert sums[gates == 0].max() <= sums[gates == 1].min()


@pytest.mark.parametrize("criterion", CRITERIA)
def test_what_would_be_closed_before_anything_is_known_is_refused(criterion):
    for options in ({"schedule": "one_shot"}, {"start_sparsity": 0.5, "schedule": "cubic"}, {"sparsity_steps": (50,)}):
        with pytest.raises(ConfigError, match="pruning_start_epoch: 1 is refused; allowed: 2 up, or a schedule"):
            GatedBertConfig(pruning_method=criterion, pruning_start_epoch=1, **options)
        GatedBertConfig(pruning_method=criterion, pruning_start_epoch=2, **options)
    made = CRITERIA[criterion]()
    layers = gated_bert.gated_layers(gated_bert.gate(mlp(), made))
    for schedule in (OneShot(0.0, 0.5, 1, 1), Cubic(0.5, 0.9, 1, 3)):
        with pytest.raises(ConfigError, match="schedule: '50 % at once' is refused"):
            PruningCallback(Pruner(layers, made, Block(), schedule=schedule))
