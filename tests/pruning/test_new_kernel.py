"""A criterion that changes weights beside masks: what stays of a column makes up for what goes."""

import keras
import numpy as np
import pytest
from any_models import LOSS, array

import gated_bert
from gated_bert.pruning import Magnitude, Pruner, PruningCallback


class Rescaled(Magnitude):
    updates_weights = True

    def __init__(self, **options):
        super().__init__(**options)
        self.asked = np.zeros(1)

    def new_kernel(self, layer, keep):
        self.asked += 1
        if layer.name == "head":
            return None
        kernel = np.abs(array(layer.raw_kernel))
        return array(layer.raw_kernel) * kernel.sum(0) / (kernel * keep).sum(0)

    def state(self):
        return {"asked": self.asked}

    def load_state(self, state):
        self.asked[:] = state["asked"]


def gated():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((4, 6))
    hidden = keras.layers.EinsumDense("abc,cde->abde", (4, 2, 4), name="einsum")(inputs)
    hidden = keras.layers.Dense(8, "relu", name="dense")(keras.layers.Flatten()(hidden))
    return gated_bert.gate(keras.Model(inputs, keras.layers.Dense(3, name="head")(hidden)), Rescaled())


@pytest.mark.parametrize("scope", ["global", "output"])
def test_weights_are_those_the_criterion_says_for_the_new_mask(scope):
    layers = gated_bert.gated_layers(gated())
    before = [array(layer.raw_kernel) for layer in layers]
    pruner = Pruner(layers, Rescaled(), scope=scope, min_kept=0.3)
    pruner.update(0.5)
    assert pruner.criterion.asked == 3
    for layer, kernel in zip(layers, before, strict=True):
        mask, now = array(layer.gates), array(layer.raw_kernel)
        if layer.name == "head":
            np.testing.assert_array_equal(now, kernel)
            continue
        assert 0 < (mask == 0).sum() < mask.size
        np.testing.assert_allclose(np.abs(now * mask).sum(0), np.abs(kernel).sum(0), rtol=1e-5)
        np.testing.assert_allclose(now / kernel, np.broadcast_to((now / kernel)[:1], now.shape), rtol=1e-4)
    # Where nothing is due nothing is changed.
    pruner.update(0.5)
    assert pruner.criterion.asked == 3


def test_training_goes_on_from_the_new_weights_and_from_saved_ones(tmp_path):
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((32, 4, 6)).astype("float32"), rng.integers(0, 3, 32)
    seen = {}

    class Watch(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            seen[epoch] = [array(layer.raw_kernel) for layer in gated_bert.gated_layers(self.model)]

    def fit(model, callback, first, last):
        epochs = {"initial_epoch": first, "epochs": last}
        model.fit(x, y, batch_size=16, shuffle=False, callbacks=[callback, Watch()], verbose=0, **epochs)

    def ready(model):
        criterion = Rescaled()
        callback = PruningCallback.for_model(model, criterion, end_sparsity=0.5, pruning_end_epoch=3, schedule="linear")
        model.compile(keras.optimizers.SGD(0.05), LOSS)
        return criterion, callback

    model = gated()
    whole, callback = ready(model)
    fit(model, callback, 0, 2)
    model.save_weights(tmp_path / "two.weights.h5")
    state = {name: values.copy() for name, values in whole.state().items()}
    fit(model, callback, 2, 4)
    expected = seen.copy()
    other = gated()
    resumed, callback = ready(other)
    other.load_weights(tmp_path / "two.weights.h5")
    resumed.load_state(state)
    fit(other, callback, 2, 4)
    assert whole.asked == resumed.asked == 6
    for epoch in (2, 3):
        for one, two in zip(expected[epoch], seen[epoch], strict=True):
            np.testing.assert_array_equal(one, two)
