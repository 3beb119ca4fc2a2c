"""The optimisers: scores apart, gradients of embeddings whole, one update for all variables."""

import keras
import numpy as np
import pytest
from keras import ops

from gated_bert.config import GatedBertConfig
from gated_bert.pruning.callbacks import PruningCallback
from gated_bert.pruning.optimizers import ScoreSGD, WarmupLinearDecay, build_optimizer

LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def config_of(method, **options):
    return GatedBertConfig(pruning_method=method, **{"learning_rate": 1e-3, "warmup_ratio": 0.0, **options})


def scores_apart(model):
    scores = [v for v in model.trainable_variables if v.name == "scores"]
    return scores, [v for v in model.trainable_variables if v.name != "scores"]


@pytest.mark.parametrize("make", [build_optimizer, None], ids=["of a run", "of a callback"])
@pytest.mark.parametrize(
    "method, rule", [("movement", "gradient"), ("taylor", "squared"), ("platon", "absolute"), ("spt", "reward")]
)
def test_trained_scores_are_clipped_with_the_weights_and_collected_ones_have_no_part(
    make_model, batches, method, rule, make
):
    """Plain SGD moves by the clipped gradient, so the norm of what has moved is that of what was clipped."""
    options = {"spt_reward": "taylor"} if method == "spt" else {}
    config = config_of(method, clip_norm=0.01, optimizer="sgd", momentum=0.0, weight_decay=0.0, learning_rate=1.0,
                       movement_learning_rate=1.0, pruning_start_epoch=2, **options)  # fmt: skip
    model = make_model("straight_through")
    if make is None:
        callback = PruningCallback.from_config(config, model, batches, len(batches))
        optimizer = callback.optimizer(keras.optimizers.SGD(1.0, global_clipnorm=0.01), 1.0)
    else:
        optimizer = make(config, model, 10, rule)
    scores, weights = scores_apart(model)
    before = [ops.convert_to_numpy(v) for v in (*scores, *weights)]
    model.compile(optimizer, LOSS)
    model.train_on_batch(*batches[0])
    moved = [ops.convert_to_numpy(v) - old for v, old in zip((*scores, *weights), before, strict=True)]
    of_scores, of_weights = (
        np.sqrt(sum(np.square(m, dtype=np.float64).sum() for m in part))
        for part in (moved[: len(scores)], moved[len(scores) :])
    )
    assert of_scores > 0 and of_weights > 0
    if rule == "gradient":
        assert np.hypot(of_scores, of_weights) == pytest.approx(0.01, rel=1e-3)
    else:
        assert of_weights == pytest.approx(0.01, rel=1e-3)


def test_scores_are_not_decayed(make_model):
    model = make_model("straight_through")
    optimizer = build_optimizer(config_of("movement", weight_decay=0.5), model, 10, "gradient")
    assert not any(optimizer._use_weight_decay(variable) for variable in scores_apart(model)[0])


def test_biases_and_layer_norms_are_not_decayed(make_model):
    model = make_model()
    optimizer = build_optimizer(config_of("magnitude"), model, 10, "gradient")
    decayed = {variable.name for variable in model.trainable_variables if optimizer._use_weight_decay(variable)}
    assert decayed == {"kernel", "embeddings", "position_embedding"}


@pytest.mark.parametrize("warmup, total", [(2, 10), (0, 3), (1, 1), (5, 5), (3, 7)])
def test_the_learning_rate_rises_to_its_peak_and_falls_to_zero(warmup, total):
    """As `get_linear_schedule_with_warmup` of transformers: t/w, then (T − t)/(T − w), t counted from 0."""
    schedule = WarmupLinearDecay(2.0, warmup, total)
    for step in range(total + 2):
        share = step / warmup if step < warmup else max(0.0, (total - step) / max(1, total - warmup))
        assert float(schedule(step)) == pytest.approx(2.0 * share, rel=1e-6)


def test_the_gradient_of_a_token_is_clipped_by_the_norm_of_its_sum_over_the_batch():
    # TensorFlow has one piece of gradient for each of the 32 places of the token.
    model = keras.Sequential([keras.Input((8,)), keras.layers.Embedding(3, 4), keras.layers.Flatten()])
    model.compile(ScoreSGD(learning_rate=1.0, global_clipnorm=0.1), "mse")
    before = keras.ops.convert_to_numpy(model.layers[0].embeddings)
    model.train_on_batch(np.ones((4, 8), np.int32), np.full((4, 32), 50.0, np.float32))
    change = keras.ops.convert_to_numpy(model.layers[0].embeddings) - before
    assert np.linalg.norm(change) == pytest.approx(0.1, rel=1e-4)
    assert not change[[0, 2]].any()
