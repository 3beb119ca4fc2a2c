"""Weights and data by which nothing can be ranked are one sentence, whatever ranks."""

import keras
import numpy as np
import pytest
from any_models import IMAGES, LABELS, LOSS, ROWS, array, mlp, vit

import gated_bert
from gated_bert import PruningCallback, UserError
from gated_bert.config.methods import OF_TRAINED_MODELS

RANKED = [name for name in OF_TRAINED_MODELS if name not in ("mask_tuning", "random", "RandomPruning")]
LOOKS = ["wanda", "sparsegpt", "obert", "activation_magnitude"]


def closed_at_once(method, data, model=None, **options):
    """The share that is closed before the first step of a fit; eagerly."""
    model = gated_bert.gate(mlp() if model is None else model, method)
    callback = PruningCallback.for_model(
        model, method, pruning_end_epoch=1, schedule="one_shot", end_sparsity=0.5, data=data, batch_size=16, **options
    )
    model.compile(callback.optimizer(keras.optimizers.SGD(1e-3)), LOSS, run_eagerly=True)
    model.fit(ROWS, LABELS, batch_size=16, epochs=1, steps_per_epoch=1, callbacks=[callback], verbose=0)
    return [1 - array(layer.gates).mean() for layer in callback.layers]


@pytest.mark.parametrize("pattern", [{}, {"pattern": "vector", "vector_size": 4}], ids=["element", "n:m"])
@pytest.mark.parametrize("method", RANKED)
@pytest.mark.daily_every(3)
def test_a_weight_that_is_nan_is_said_in_one_sentence(method, pattern):
    model = mlp()
    first = model.layers[0].get_weights()
    first[0][1, 2] = np.nan
    model.layers[0].set_weights(first)
    with pytest.raises(UserError, match="NaN"):
        closed_at_once(method, (ROWS, LABELS), model, **pattern)


def test_units_with_a_weight_that_is_nan_are_not_split_between_heads_and_neurons():
    network = {"ffn_intermediate": "up_*", "ffn_output": "down_*"}
    model = gated_bert.gate(vit(), "mask_tuning", exclude="head", roles=network)
    kernel = model.get_layer("up_0")
    values = kernel.get_weights()
    values[0][1, 2] = np.nan
    kernel.set_weights(values)
    callback = PruningCallback.for_model(
        model, "mask_tuning", pruning_end_epoch=1, end_sparsity=0.5, schedule="one_shot", data=(IMAGES, LABELS[:32])
    )
    model.compile("sgd", LOSS, run_eagerly=True)
    with pytest.raises(UserError, match="a score is NaN"):
        model.fit(IMAGES, LABELS[:32], batch_size=16, callbacks=[callback], verbose=0)


@pytest.mark.parametrize("method", ["wanda", "sparsegpt"])
def test_data_need_no_labels_where_the_criterion_looks_at_none(method):
    closed = closed_at_once(method, (ROWS, None))
    np.testing.assert_allclose(closed, closed_at_once(method, (ROWS, LABELS)))
    assert np.mean(closed) == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize("method", ["obert", "gradient_magnitude"])
def test_where_a_loss_is_looked_at_data_without_labels_are_one_sentence(method):
    with pytest.raises(UserError, match=f"{method}: data without labels"):
        closed_at_once(method, (ROWS, None))


@pytest.mark.parametrize("method", LOOKS)
def test_data_without_rows_and_bare_arrays_are_refused_before_anything_is_ranked(method):
    class Nothing(keras.utils.PyDataset):
        def __len__(self):
            return 0

    for data in ((ROWS[:0], LABELS[:0]), Nothing(), []):
        with pytest.raises(UserError, match=f"{method}: the data are empty"):
            closed_at_once(method, data)
    with pytest.raises(UserError, match=rf"{method}: data of class ndarray was given.*data=\(x, y\)"):
        closed_at_once(method, ROWS)
