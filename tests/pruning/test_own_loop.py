"""`PruningCallback` in training loops that are not `fit`."""

import keras
import numpy as np
import pytest
from any_models import LABELS, LOSS, ROWS, array, mlp

import gated_bert
from gated_bert import PruningCallback, UserError
from gated_bert.pruning.pruner import sparsity

EPOCHS, STEPS = 3, 4
BATCHES = [(ROWS[16 * index :][:16], LABELS[16 * index :][:16]) for index in range(STEPS)]
METHODS = [
    {"method": "magnitude"}, {"method": "movement", "movement_pruning_frequency_steps": 1}, {"method": "spt"},
    {"method": "taylor", "pruning_start_epoch": 2}, {"method": "gradient_magnitude", "score_batches": 2},
    {"method": "soft_movement", "soft_movement_penalty": 50.0}, {"method": "spt", "spt_reward": "taylor"},
]  # fmt: skip


class Data(keras.utils.PyDataset):
    def __len__(self):
        return STEPS

    def __getitem__(self, index):
        return BATCHES[index]


def prepared(options, steps_per_epoch=None):
    options = dict(options)
    method = options.pop("method")
    model = gated_bert.gate(mlp(), method, **{name: options[name] for name in ("spt_reward",) if name in options})
    callback = PruningCallback.for_model(
        model, method, end_sparsity=0.75, pruning_end_epoch=EPOCHS, data=Data(), steps_per_epoch=steps_per_epoch,
        **options,
    )  # fmt: skip
    return model, callback


def compiled(options):
    model, callback = prepared(options, STEPS)
    model.compile(callback.optimizer(keras.optimizers.SGD(0.1)), LOSS, run_eagerly=True)
    return model, callback


def looped(callback, step):
    """The rows of a loop that calls the callback as `fit` does, in which `step(x, y)` trains."""
    rows = []
    callback.on_train_begin()
    for epoch in range(EPOCHS):
        callback.on_epoch_begin(epoch)
        for index, (x, y) in enumerate(BATCHES):
            callback.on_train_batch_begin(index)
            step(x, y)
            callback.on_train_batch_end(index)
        rows.append({})
        callback.on_epoch_end(epoch, rows[-1])
    callback.on_train_end()
    return rows


def fitted(options):
    model, callback = compiled(options)
    history = model.fit(Data(), epochs=EPOCHS, callbacks=[callback], shuffle=False, verbose=0).history
    return model, [{name: history[name][epoch] for name in history if name != "loss"} for epoch in range(EPOCHS)]


@pytest.mark.parametrize("options", METHODS, ids=lambda options: "-".join(map(str, options.values())))
@pytest.mark.daily_every(3)
def test_a_loop_of_train_on_batch_is_fit(options):
    expected, rows = fitted(options)
    model, callback = compiled(options)
    callback.set_model(model)
    found = looped(callback, model.train_on_batch)
    for one, other in zip(found, rows, strict=True):
        assert one.keys() == other.keys()
        np.testing.assert_allclose([one[name] for name in one], [other[name] for name in one], rtol=1e-5)
    for layer, wanted in zip(gated_bert.gated_layers(model), gated_bert.gated_layers(expected), strict=True):
        assert np.array_equal(array(layer.effective_gates()), array(wanted.effective_gates()))


@pytest.mark.parametrize("options", METHODS, ids=lambda options: "-".join(map(str, options.values())))
@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="the loop is TensorFlow's")
@pytest.mark.daily_every(3)
def test_a_loop_with_a_gradient_tape_is_fit(options):
    import tensorflow as tf

    expected, _ = fitted(options)
    model, callback = prepared(options, STEPS)
    # The optimiser is the loop's own; the loss is the model's where the method asks for it.
    optimizer = callback.optimizer(keras.optimizers.SGD(0.1))
    optimizer.build(model.trainable_variables)
    if callback.dataset is not None:
        model.compile(loss=LOSS)

    def step(x, y):
        with tf.GradientTape() as tape:
            loss = LOSS(y, model(x, training=True)) + sum(model.losses)
        optimizer.apply(tape.gradient(loss, model.trainable_variables), model.trainable_variables)

    looped(callback, step)
    for layer, wanted in zip(gated_bert.gated_layers(model), gated_bert.gated_layers(expected), strict=True):
        assert np.array_equal(array(layer.effective_gates()), array(wanted.effective_gates()))


def test_what_needs_no_steps_needs_no_call_but_that_of_the_epoch():
    model, callback = prepared({"method": "magnitude"})
    for epoch in range(EPOCHS):
        callback.on_epoch_begin(epoch)
    assert sparsity(gated_bert.gated_layers(model)) == pytest.approx(0.75, abs=0.01)


@pytest.mark.parametrize(
    "options, compile_with, message",
    [
        ({"method": "movement"}, None, "the optimiser of the loop does not know its scores"),
        ({"method": "taylor", "pruning_start_epoch": 2}, {"optimizer": "sgd"}, "does not know its scores"),
        ({"method": "movement"}, "own", "in a loop of your own that of the callback"),
        ({"method": "spt"}, None, r"looks at the loss, but the model has none; model.compile\(loss="),
        ({"method": "grad_cam"}, None, "looks at the loss"),
    ],
)
def test_what_is_missing_is_said(options, compile_with, message):
    model, callback = prepared(options)
    if compile_with == "own":
        model.compile(callback.optimizer(keras.optimizers.Adam()), LOSS)
    elif compile_with:
        model.compile(**compile_with)
    with pytest.raises(UserError, match=message):
        callback.on_train_begin()
