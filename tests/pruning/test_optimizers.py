"""The optimisers: scores apart, gradients of embeddings whole, one update for all variables."""

import keras
import numpy as np
import pytest
from keras import ops

from gated_bert.config import GatedBertConfig
from gated_bert.models.build import build_model
from gated_bert.pruning.callbacks import PruningCallback
from gated_bert.pruning.learning_rates import WarmupLinearDecay, cycle_bounds, learning_rate
from gated_bert.pruning.optimizers import ScoreSGD, build_optimizer
from gated_bert.support.backend import has_fused_adam
from gated_bert.tasks.task import get_task
from tests.marks import nightly

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
@pytest.mark.daily_every(6)
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


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="elsewhere Adam is that of Keras")
@pytest.mark.parametrize("kind", ["adamw", nightly("adam")])
def test_adam_in_one_pass_takes_the_steps_of_keras(make_model, batches, monkeypatch, kind):
    assert has_fused_adam()
    config, weights = config_of("movement", optimizer=kind, weight_decay=0.1, clip_norm=0.5), []
    for fused in (True, False):
        model = make_model("straight_through", dropout_rate=0.0)
        monkeypatch.setattr("gated_bert.pruning.optimizers.has_fused_adam", lambda fused=fused: fused)
        # Building the graph of Keras' own takes most of the time.
        model.compile(build_optimizer(config, model, 20, "gradient"), LOSS, run_eagerly=not fused)
        for batch in batches.batches:
            model.train_on_batch(*batch)
        weights.append([*model.get_weights(), *(ops.convert_to_numpy(v) for v in model.optimizer.variables)])
    for ours, of_keras in zip(*weights, strict=True):
        np.testing.assert_allclose(ours, of_keras, rtol=1e-4, atol=1e-6)


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


def of_steps(config, total):
    schedule = learning_rate(config, total)
    again = type(schedule).from_config(schedule.get_config())
    found = [float(schedule(step)) for step in range(total + 1)]
    assert found == [float(again(step)) for step in range(total + 1)]
    return found


def test_a_constant_rate_stays_after_its_warm_up():
    found = of_steps(config_of("baseline", learning_rate=0.5, lr_schedule="constant", warmup_ratio=0.2), 10)
    assert found == pytest.approx([0, 0.25, *[0.5] * 9])
    assert of_steps(config_of("baseline", learning_rate=0.5, lr_schedule="constant"), 3) == [0.5] * 4


def test_a_cycle_of_the_rate_begins_with_every_pruning_event_and_ends_at_a_tenth():
    """oBERT: 2 epochs, six cycles of four while it prunes, and the last four epochs."""
    config = config_of(
        "magnitude", epochs=30, learning_rate=5e-5, lr_schedule="cyclic", schedule="cubic", start_sparsity=0.7,
        end_sparsity=0.9, pruning_warmup=2 / 30, pruning_cooldown=4 / 30, pruning_every=4,
    )  # fmt: skip
    starts = [0, 20, 60, 100, 140, 180, 220, 260]
    found = of_steps(config, 300)
    for step in range(300):
        began, ends = max(s for s in starts if s <= step), min(s for s in [*starts, 300] if s > step)
        expected = 5e-5 + (5e-6 - 5e-5) * (step - began) / (ends - began)
        assert found[step] == pytest.approx(expected, rel=1e-5), step


def test_a_cycle_may_be_given_and_the_warm_up_is_above_none():
    config = config_of("baseline", epochs=4, learning_rate=1.0, lr_schedule="cyclic", lr_cycle_epochs=1.5,
                       pruning_start_epoch=1, warmup_ratio=0.25)  # fmt: skip
    found = of_steps(config, 16)
    assert found[:4] == pytest.approx([0, 0.25, 0.5, 0.55])
    assert [found[6], found[12]] == pytest.approx([1, 1]) and found[11] == pytest.approx(1 - 0.9 * 5 / 6)


def test_cycles_of_a_dense_model_begin_with_the_run_and_none_is_shorter_than_a_step():
    def bounds(**options):
        return cycle_bounds(config_of("baseline", lr_schedule="cyclic", **options), 24)

    # Whatever the window says that nothing is pruned in.
    assert bounds(epochs=3, lr_cycle_epochs=1) == (0, 8, 16, 24)
    assert bounds(epochs=8, lr_cycle_epochs=4, pruning_start_epoch=4, pruning_end_epoch=8) == (0, 12, 24)
    assert bounds(epochs=8) == (0, 24)
    assert bounds(epochs=3, lr_cycle_epochs=1e-9) == tuple(range(25))


def test_what_is_frozen_is_neither_trained_nor_in_the_optimizer():
    config = config_of("movement", num_layers=1, d_model=16, num_heads=2, dff=32, freeze="embeddings")
    frozen, free = (build_model(each, get_task("sst2"), 30, "straight_through") for each in
                    (config, config.replace(freeze="none")))  # fmt: skip
    sizes = []
    for model in (frozen, free):
        before = [ops.convert_to_numpy(v) for v in model.encoder.embeddings.variables]
        model.compile(build_optimizer(config, model, 10, "gradient"), LOSS)
        ids = np.arange(40).reshape(4, 10) % 30
        model.train_on_batch({"input_ids": ids}, np.array([0, 1, 0, 1]))
        after = [ops.convert_to_numpy(v) for v in model.encoder.embeddings.variables]
        assert all(map(np.array_equal, before, after)) == (model is frozen)
        sizes.append(sum(int(np.prod(v.shape)) for v in model.optimizer.variables))
    # Two moments of 30 tokens, 512 places, 2 segments, and of the norm's two vectors.
    assert sizes[1] - sizes[0] == 2 * 16 * (30 + 512 + 2 + 2)
    # A saved model is trained on as any other.
    assert type(frozen).from_config(frozen.get_config()).encoder.embeddings.trainable
