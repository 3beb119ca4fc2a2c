"""Penalties of soft movement and L0: their weight over matrices and steps, and that they close in short runs."""

import keras
import numpy as np
import pytest
from any_models import LABELS, LOSS, ROWS, array, mlp

import gated_bert
from gated_bert import ConfigError, GatedBertConfig, PruningCallback
from gated_bert.pruning import L0, Cubic, Linear, Movement, Pruner, SoftMovement


@pytest.mark.parametrize("kind, published", [(SoftMovement, 400.0), (L0, 125.0)])
def test_a_penalty_is_the_mean_over_matrices_or_over_weights(kind, published):
    for over, shares in (("matrices", (1 / 2, 1 / 2)), ("weights", (192 / 224, 32 / 224))):
        criterion = kind(penalty_over=over)
        layers = gated_bert.gated_layers(gated_bert.gate(mlp(), criterion))
        Pruner(layers, criterion, schedule=Linear(0.0, 0.9, 1, 2))
        criterion.set_progress(0.25)
        found = [float(array(layer.penalty_weight)) for layer in layers]
        np.testing.assert_allclose(found, [0.25 * published * share for share in shares], rtol=1e-6)
        assert criterion.report()["penalty_weight"] == pytest.approx(0.25 * published)


def test_threshold_and_penalty_follow_the_published_cubic_together():
    """τ = τ_f − τ_f (1 − p)³ and λ · τ/τ_f, between a warm-up and a cool-down."""
    criterion = SoftMovement()
    model = gated_bert.gate(mlp(), criterion)
    layers = gated_bert.gated_layers(model)
    callback = PruningCallback(Pruner(layers, criterion, schedule=Cubic(0.0, 0.9, 1.5, 3.5, window=0.0)), model=model)
    model.compile(callback.optimizer(keras.optimizers.SGD(0.0)), LOSS)
    history = model.fit(ROWS, LABELS, batch_size=16, epochs=4, callbacks=[callback], verbose=0).history
    # At the ends of the epochs: p = 1/4, 3/4, 1, 1.
    expected = [1 - (1 - p) ** 3 for p in (0.25, 0.75, 1, 1)]
    np.testing.assert_allclose(history["threshold"], 0.1 * np.array(expected), rtol=1e-5)
    np.testing.assert_allclose(history["penalty_weight"], 400 * np.array(expected), rtol=1e-5)


@pytest.mark.parametrize("method", ["soft_movement", "l0"])
@pytest.mark.daily_every(2)
@pytest.mark.nightly
def test_with_their_usual_values_a_run_of_some_hundred_steps_closes_most_weights(method):
    """At the rates and penalties of before, 1e-2 and 25, nothing was closed."""
    closed = []
    for options, multiplier in (({}, None), ({f"{method}_penalty": 25.0, "penalty_over": "weights"}, 10.0)):
        model = gated_bert.gate(mlp(), method)
        callback = PruningCallback.for_model(model, method, pruning_end_epoch=30, **options)
        model.compile(callback.optimizer(keras.optimizers.Adam(1e-3), multiplier), LOSS)
        model.fit(ROWS, LABELS, batch_size=16, epochs=40, callbacks=[callback], verbose=0)
        closed.append(np.mean([np.mean(array(layer.effective_gates()) == 0) for layer in callback.layers]))
    assert closed[0] > 0.6 and closed[1] < 0.1, closed


@pytest.mark.parametrize("kind", [Movement, SoftMovement, L0])
def test_the_rate_of_the_scores_is_called_the_same_of_all_that_train_them(kind):
    for name in ("learning_rate", "movement_learning_rate"):
        criterion = kind(**{name: 0.3})
        assert criterion.options.movement_learning_rate == 0.3 and criterion.score_multiplier is None
    with pytest.raises(ConfigError, match="learning_rat: 0.3 is refused; allowed: .*learning_rate"):
        kind(learning_rat=0.3)
    assert SoftMovement(threshold=0.2, pruning_frequency_steps=3).options.soft_movement_threshold == 0.2


def test_by_record_too_each_has_its_rate():
    rates = {name: GatedBertConfig(pruning_method=name).movement_learning_rate for name in
             ("movement", "soft_movement", "l0")}  # fmt: skip
    assert rates == {"movement": 1e-2, "soft_movement": 1e-1, "l0": 1e-1}
    assert GatedBertConfig(pruning_method="l0").replace(pruning_method="movement").movement_learning_rate == 1e-2
