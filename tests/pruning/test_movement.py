"""Movement pruning step by step against NumPy: gradients by hand, clipping, AdamW and SGD, schedules, top-k."""

import itertools

import keras
import numpy as np
import pytest
from any_models import LOSS, array

import gated_bert
from gated_bert.config import GatedBertConfig
from gated_bert.pruning.callbacks import PruningCallback
from gated_bert.pruning.optimizers import build_optimizer
from tests.marks import nightly

STEPS, EPOCHS, BATCH = 6, 5, 16
RATE, SCORE_RATE, DECAY, CLIP = 2e-2, 5e-2, 0.1, 0.3
FINAL = 0.713


def data(seed):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(STEPS * BATCH, 6)).astype("float32")
    return x, rng.integers(0, 3, STEPS * BATCH).astype("int32")


def network(seed):
    keras.utils.set_random_seed(seed)
    hidden, head = keras.layers.Dense(10, "tanh", name="hidden"), keras.layers.Dense(3, name="head")
    return gated_bert.gate(keras.Sequential([keras.Input((6,)), hidden, head]), "movement")


def kept_share(step, schedule, first):
    """What the published schedule keeps in the forward pass of a step, counted from 0; pruning to the last epoch."""
    total, step = (EPOCHS - first) * STEPS, step - (first - 1) * STEPS
    if schedule == "linear":
        return 1 - FINAL * min(max(step / total, 0.0), 1.0)
    if step <= 0.1 * total:
        return 1.0
    if step > 0.9 * total:
        return 1 - FINAL
    left = 1 - (step - 0.1 * total) / (0.8 * total)
    return (1 - FINAL) + FINAL * left**3


def warmed_up(step, warmup):
    total = STEPS * EPOCHS
    return step / warmup if step < warmup else (total - step) / (total - warmup)


def top(scores, share):
    mask = np.zeros(scores.size)
    mask[np.argsort(-scores.ravel(), kind="stable")[: scores.size - round(scores.size * (1 - share))]] = 1
    return mask.reshape(scores.shape)


def gradients(values, masks, x, labels):
    """Of the mean cross-entropy: weights and biases of both layers, then the masks' gradients as the scores'."""
    w1, b1, w2, b2, *_ = values
    hidden = np.tanh(x @ (w1 * masks[0]) + b1)
    logits = hidden @ (w2 * masks[1]) + b2
    shares = np.exp(logits - logits.max(1, keepdims=True))
    shares /= shares.sum(1, keepdims=True)
    d_logits = (shares - np.eye(3)[labels]) / len(x)
    d_hidden = (d_logits @ (w2 * masks[1]).T) * (1 - hidden**2)
    g1, g2 = x.T @ d_hidden, hidden.T @ d_logits
    return [g1 * masks[0], d_hidden.sum(0), g2 * masks[1], d_logits.sum(0), g1 * w1, g2 * w2]


def by_hand(values, x, labels, optimizer, schedule, first, warmup):
    """Masks of every forward pass and the values after the last step."""
    values = [value.astype(np.float64) for value in values]
    moments = [(np.zeros_like(value), np.zeros_like(value)) for value in values]
    used = []
    for step in range(STEPS * EPOCHS):
        masks = [top(values[place], kept_share(step, schedule, first)) for place in (4, 5)]
        used.append(masks)
        rows = slice(step % STEPS * BATCH, (step % STEPS + 1) * BATCH)
        found = gradients(values, masks, x[rows], labels[rows])
        norm = np.sqrt(sum(np.square(g).sum() for g in found))
        found = [g * min(1.0, CLIP / (norm + 1e-6)) for g in found]
        for place, gradient in enumerate(found):
            rate = warmed_up(step, warmup) * (SCORE_RATE if place > 3 else RATE)
            if place in (0, 2):
                # Before the step, as by PyTorch's AdamW; that of transformers did it after: a rate squared apart.
                values[place] -= rate * DECAY * values[place]
            if optimizer == "sgd":
                values[place] -= rate * gradient
            else:
                mean, square = moments[place]
                mean += 0.1 * (gradient - mean)
                square += 0.001 * (np.square(gradient) - square)
                scale = rate * np.sqrt(1 - 0.999 ** (step + 1)) / (1 - 0.9 ** (step + 1))
                values[place] -= scale * mean / (np.sqrt(square) + 1e-8)
    return used, values


class Recorder(keras.callbacks.Callback):
    def __init__(self, layers):
        super().__init__()
        self.layers, self.masks = layers, []

    def on_train_batch_begin(self, batch, logs=None):
        self.masks.append([array(layer.gates) for layer in self.layers])


# Not where scores would be ranked that are equal: a warm-up's first rate is 0, and Adam's first step the same for all.
@pytest.mark.parametrize(
    "name, schedule, first, warmup",
    [("sgd", "linear", 1, 0), nightly("sgd", "linear", 2, 3), ("sgd", "cubic", 1, 3), nightly("sgd", "cubic", 2, 0),
     ("adamw", "linear", 2, 3), nightly("adamw", "linear", 2, 0), nightly("adamw", "cubic", 1, 1),
     ("adamw", "cubic", 2, 3)],
)  # fmt: skip
@pytest.mark.parametrize("of_run", [True, False], ids=["run", "any model"])
@pytest.mark.daily_every(3)
def test_masks_are_those_of_the_published_algorithm_at_every_step(name, schedule, first, warmup, of_run):
    config = GatedBertConfig(
        pruning_method="movement", epochs=EPOCHS, pruning_start_epoch=first, pruning_end_epoch=EPOCHS,
        end_sparsity=FINAL, movement_schedule=schedule, movement_pruning_frequency_steps=1,
        movement_learning_rate=SCORE_RATE,
        learning_rate=RATE, warmup_ratio=warmup / (STEPS * EPOCHS), clip_norm=CLIP, weight_decay=DECAY, optimizer=name,
        momentum=0.0, min_kept=0.0,
    )  # fmt: skip
    model, (x, labels) = network(3), data(7)
    layers = gated_bert.gated_layers(model)
    variables = [v for layer in layers for v in (layer._kernel, layer.bias)] + [layer.scores for layer in layers]
    expected, values = by_hand([array(v) for v in variables], x, labels, name, schedule, first, warmup)
    callback = PruningCallback.from_config(config, model, None, None)
    if of_run:
        optimizer = build_optimizer(config, model, STEPS * EPOCHS, "gradient")
    else:
        rate = keras.optimizers.schedules.PiecewiseConstantDecay(
            list(range(STEPS * EPOCHS - 1)), [RATE * warmed_up(step, warmup) for step in range(STEPS * EPOCHS)]
        )
        options = {"learning_rate": rate, "global_clipnorm": CLIP, "weight_decay": DECAY}
        sgd, adamw = keras.optimizers.SGD(**options), keras.optimizers.AdamW(epsilon=1e-8, **options)
        optimizer = callback.optimizer({"sgd": sgd, "adamw": adamw}[name], SCORE_RATE / RATE)
        optimizer.exclude_from_weight_decay(var_list=[layer.bias for layer in layers])
    model.compile(optimizer, LOSS)
    recorder = Recorder(layers)
    model.fit(x, labels, batch_size=BATCH, epochs=EPOCHS, shuffle=False, callbacks=[callback, recorder], verbose=0)
    assert len(recorder.masks) == len(expected)
    for step, (found, wanted) in enumerate(zip(recorder.masks, expected, strict=True)):
        for place in (0, 1):
            np.testing.assert_array_equal(found[place], wanted[place], err_msg=f"layer {place} in step {step}")
    opened = [sum((new > old).sum() for old, new in zip(*pair, strict=True)) for pair in itertools.pairwise(expected)]
    assert any(opened) or name == "adamw", "nothing opened again, so this would show little"
    for variable, value in zip(variables, values, strict=True):
        np.testing.assert_allclose(array(variable), value, rtol=2e-3, atol=2e-5)
