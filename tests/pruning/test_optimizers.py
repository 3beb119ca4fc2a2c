"""The optimisers: scores apart, gradients of embeddings whole, one update for all variables."""

import keras
import numpy as np
import pytest
from keras import ops

from gated_bert.config import GatedBertConfig
from gated_bert.pruning.optimizers import ScoreSGD, WarmupLinearDecay, build_optimizer

LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def config_of(method, **options):
    return GatedBertConfig(pruning_method=method, **{"learning_rate": 1e-3, "warmup_ratio": 0.0, **options})


def test_scores_are_neither_decayed_nor_counted_in_the_clipping(make_model, batches):
    updates = []
    for rule in ("fixed", "straight_through"):
        model = make_model(rule)
        config = config_of("movement", clip_norm=0.1, weight_decay=0.5)
        model.compile(build_optimizer(config, model, 10, "gradient"), LOSS)
        model.train_on_batch(*batches[0])
        updates.append(ops.convert_to_numpy(model.gated_layers()[0].raw_kernel))
        if rule == "straight_through":
            assert np.abs(ops.convert_to_numpy(model.gated_layers()[0].scores)).max() > 0
    np.testing.assert_allclose(updates[0], updates[1], rtol=1e-5, atol=1e-7)


def test_biases_and_layer_norms_are_not_decayed(make_model):
    model = make_model()
    optimizer = build_optimizer(config_of("magnitude"), model, 10, "gradient")
    decayed = {variable.name for variable in model.trainable_variables if optimizer._use_weight_decay(variable)}
    assert decayed == {"kernel", "embeddings", "position_embedding"}


def test_the_learning_rate_rises_to_its_peak_and_falls_to_zero():
    schedule = WarmupLinearDecay(1.0, 2, 10)
    rates = [float(schedule(step)) for step in range(11)]
    np.testing.assert_allclose(rates[:3], [0.5, 1.0, 8 / 9], rtol=1e-6)
    assert rates[9] == pytest.approx(1 / 9) and rates[10] == 0.0


def test_the_gradient_of_a_token_is_clipped_by_the_norm_of_its_sum_over_the_batch():
    # TensorFlow has one piece of gradient for each of the 32 places of the token.
    model = keras.Sequential([keras.Input((8,)), keras.layers.Embedding(3, 4), keras.layers.Flatten()])
    model.compile(ScoreSGD(learning_rate=1.0, global_clipnorm=0.1), "mse")
    before = keras.ops.convert_to_numpy(model.layers[0].embeddings)
    model.train_on_batch(np.ones((4, 8), np.int32), np.full((4, 32), 50.0, np.float32))
    change = keras.ops.convert_to_numpy(model.layers[0].embeddings) - before
    assert np.linalg.norm(change) == pytest.approx(0.1, rel=1e-4)
    assert not change[[0, 2]].any()
