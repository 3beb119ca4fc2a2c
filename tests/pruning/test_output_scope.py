"""Every output column alone: against brute force, with ties, floors and closed weights; and Wanda, which ranks so."""

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops

import gated_bert
from gated_bert.config import GatedBertConfig
from gated_bert.models.gated_dense import GatedDense
from gated_bert.pruning import Magnitude, Movement, Pruner, PruningCallback, Saliency, Taylor, Wanda
from gated_bert.pruning.output_scope import choose_in_columns
from gated_bert.support.errors import UserError


def closed_of(scores, *args):
    bits = choose_in_columns(scores, *args)
    return np.unpackbits(bits, count=scores.size).reshape(scores.shape).astype(bool)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 9), st.integers(1, 7), st.floats(0, 1), st.floats(0, 1), st.booleans())
def test_each_column_loses_its_smallest_scores(seed, rows, columns, sparsity, min_kept, ties):
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, 3, (rows, columns)) if ties else rng.standard_normal((rows, columns))
    closed = closed_of(scores.astype(np.float32), sparsity, min_kept, rng)
    count = min(round(sparsity * rows), rows - max(1, int(np.ceil(min_kept * rows))))
    for column, chosen in zip(scores.T, closed.T, strict=True):
        assert chosen.sum() == count
        assert not count or column[chosen].max() <= np.delete(column, np.flatnonzero(chosen)).min()


def test_ties_fall_at_random_and_by_the_seed_alone():
    ones = np.ones((40, 200), np.float32)
    first, again, other = (closed_of(ones, 0.5, 0.0, np.random.default_rng(seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    # Of 200 columns each row is closed in about a half.
    assert 60 < first.sum(1).min() and first.sum(1).max() < 140


def test_a_score_that_is_nan_is_refused():
    with pytest.raises(ValueError, match="query: a score is NaN"):
        choose_in_columns(np.array([[1.0, np.nan]]), 0.5, 0.0, np.random.default_rng(0), "query")


@pytest.mark.parametrize("shape", [(1, 5), (7, 3), (64, 48)])
def test_the_pruner_ranks_columns(shape):
    layer = GatedDense(shape[1], name="dense")
    layer.build((None, shape[0]))
    pruner = Pruner([layer], Magnitude(), scope="output", min_kept=0.1)
    assert pruner.due(0.5) == (shape[0] > 1)
    pruner.update(0.5)
    kernel, mask = (np.abs(ops.convert_to_numpy(each)) for each in (layer.raw_kernel, layer.gates))
    count = min(round(0.5 * shape[0]), shape[0] - max(1, int(np.ceil(0.1 * shape[0]))))
    np.testing.assert_array_equal((mask == 0).sum(0), count)
    order = np.argsort(np.argsort(kernel, axis=0), axis=0)
    np.testing.assert_array_equal(mask == 0, order < count)
    assert not pruner.due(0.5)


def test_a_criterion_that_opens_weights_again_ranks_all_of_a_column():
    layer = GatedDense(6, name="dense", gate_rule="straight_through")
    layer.build((None, 10))
    scores = np.random.default_rng(0).standard_normal((10, 6)).astype(np.float32)
    pruner = Pruner([layer], Movement(), scope="output")
    for sign in (1, -1):
        layer.scores.assign(sign * scores)
        pruner.update(0.3)
        ranks = np.argsort(np.argsort(sign * scores, axis=0), axis=0)
        np.testing.assert_array_equal(ops.convert_to_numpy(layer.gates) == 0, ranks < 3)


def test_the_usual_scope_of_wanda_is_the_output_but_for_larger_units():
    assert GatedBertConfig(pruning_method="wanda").scope == "output"
    assert GatedBertConfig(pruning_method="wanda", pattern="row").scope == "layer"
    assert GatedBertConfig(criterion="wanda").scope == "output"


class Masked(keras.Model):
    """A gated layer over positions, averaged over the real ones, and one over rows."""

    def __init__(self):
        super().__init__()
        self.first, self.second = keras.layers.Dense(4, "tanh", name="first"), keras.layers.Dense(3, name="second")
        self.first.build((None, None, 5))
        self.second.build((None, 4))
        self.built = True

    def call(self, inputs, training=None):
        real = ops.cast(inputs["attention_mask"], "float32")[..., None]
        return self.second(ops.sum(self.first(inputs["x"]) * real, axis=1) / ops.sum(real, axis=1))


class Data(keras.utils.PyDataset):
    def __init__(self):
        super().__init__()
        rng = np.random.default_rng(3)
        self.batches = []
        for lengths in ([6, 2, 4, 1], [3, 5], [2, 2, 2]):
            x = rng.standard_normal((len(lengths), max(lengths), 5)).astype("float32")
            mask = (np.arange(max(lengths)) < np.array(lengths)[:, None]).astype("int32")
            x[mask == 0] = 50.0
            labels = rng.integers(0, 3, len(lengths)).astype("int32")
            self.batches.append(({"x": x, "attention_mask": mask}, labels))

    def __len__(self):
        return len(self.batches)

    def __getitem__(self, index):
        return self.batches[index]


def masked():
    keras.utils.set_random_seed(0)
    model = gated_bert.gate(Masked())
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model


def arrays(layer):
    return [ops.convert_to_numpy(each).astype(np.float64) for each in (layer.raw_kernel, layer.bias)]


def norms_by_hand(model, batches):
    """L2 norms of the inputs of both layers over all real positions, and over all rows, of all batches."""
    kernel, bias = arrays(model.first)
    first = np.concatenate([inputs["x"][inputs["attention_mask"] == 1] for inputs, _ in batches]).astype(np.float64)
    means = []
    for inputs, _ in batches:
        hidden, real = np.tanh(inputs["x"] @ kernel + bias), inputs["attention_mask"][..., None]
        means.append((hidden * real).sum(1) / real.sum(1))
    return np.linalg.norm(first, axis=0), np.linalg.norm(np.concatenate(means), axis=0)


@pytest.mark.parametrize("count, texts", [(1, 3), (3, 9)])
def test_wanda_is_the_weight_times_the_norm_of_its_input(count, texts):
    model, data = masked(), Data()
    pruner = Pruner(gated_bert.gated_layers(model), Wanda(calibration_texts=texts), scope="output")
    pruner.criterion.prepare(model, data)
    for layer, norm in zip((model.first, model.second), norms_by_hand(model, data.batches[:count]), strict=True):
        expected = np.abs(arrays(layer)[0]) * norm[:, None]
        np.testing.assert_allclose(pruner.criterion.scores(layer), expected, rtol=1e-5)
    pruner.update(0.4)
    closed = ops.convert_to_numpy(model.first.gates) == 0
    ranks = np.argsort(np.argsort(pruner.criterion.scores(model.first), axis=0), axis=0)
    np.testing.assert_array_equal(closed, ranks < 2)


class Means(Saliency):
    """What is observed is handed over in the order it is named."""

    observes = ("outputs", "sizes", "input_norms", "gradients")

    def combine(self, kernel, outputs, sizes, input_norms, gradients):
        self.seen = getattr(self, "seen", []) + [(kernel, outputs, sizes, input_norms, gradients)]
        return np.abs(kernel)


def test_a_saliency_of_ones_own_gets_means_over_batches():
    model, data = masked(), Data()
    pruner = Pruner(gated_bert.gated_layers(model), Means(score_batches=3))
    pruner.criterion.prepare(model, data)
    kernel, outputs, sizes, norms, gradients = pruner.criterion.seen[0]
    weights, bias = arrays(model.first)
    of_batches = [inputs["x"][inputs["attention_mask"] == 1].astype(np.float64) for inputs, _ in data.batches]
    np.testing.assert_allclose(kernel, weights, rtol=1e-6)
    np.testing.assert_allclose(outputs, np.mean([(x @ weights + bias).mean(0) for x in of_batches], 0), rtol=1e-4)
    np.testing.assert_allclose(sizes, np.mean([np.abs(x).mean(0) for x in of_batches], 0), rtol=1e-5)
    np.testing.assert_allclose(norms, np.linalg.norm(np.concatenate(of_batches), axis=0), rtol=1e-5)
    assert gradients.shape == weights.shape and np.abs(gradients).max() > 0


def test_a_loss_that_is_handed_in_is_what_is_probed():
    model, data = masked(), Data()
    layers = gated_bert.gated_layers(model)

    def scores(loss):
        pruner = Pruner(layers, gated_bert.pruning.GradientMagnitude(score_batches=2), loss=loss)
        pruner.criterion.prepare(model, data)
        return pruner.criterion.scores(model.first)

    def task(model, inputs, labels, training=False):
        return ops.mean(keras.losses.sparse_categorical_crossentropy(labels, model(inputs, training=training), True))

    np.testing.assert_allclose(scores(task), scores(None), rtol=1e-5)
    doubled = scores(lambda *args, **kwargs: 2 * task(*args, **kwargs))
    np.testing.assert_allclose(doubled, 2 * scores(None), rtol=1e-5)


def test_spt_probes_the_loss_that_is_handed_in():
    model, data = masked(), Data()

    def none(model, inputs, labels, training=False):
        return 0.0 * ops.sum(model(inputs, training=training))

    rewards = []
    for loss in (None, none):
        callback = PruningCallback.for_model(
            model, "spt", end_sparsity=0.5, pruning_end_epoch=1, data=data, pattern="row", loss=loss, steps_per_epoch=3
        )
        callback.on_train_begin()
        callback.epoch = 0
        callback.on_train_batch_end(0)
        rewards.append(np.nanmax(np.abs(np.concatenate(callback.criterion.q))))
    assert rewards[0] > 0 and rewards[1] == 0


def test_parts_that_do_not_go_together_are_refused():
    layers = gated_bert.gated_layers(masked())
    with pytest.raises(UserError, match=r"criterion: .*Magnitude.* an object of the class Criterion, as Magnitude\(\)"):
        Pruner(layers, Magnitude)
    with pytest.raises(ValueError, match="pooling: 'l2' is refused; allowed: mean: a norm would keep what Movement"):
        Pruner(layers, Movement(), pooling="l2")
    with pytest.raises(ValueError, match="scope: 'columns' is refused"):
        Pruner(layers, Magnitude(), scope="columns")
    with pytest.raises(ValueError, match="learning_rate: 0 is refused; allowed: a number above 0 to 1000"):
        Movement(learning_rate=0)
    with pytest.raises(ValueError, match="rate: 0.1 is refused; allowed: .*learning_rate"):
        Movement(rate=0.1)
    with pytest.raises(UserError, match="Movement: the layers have gates of the rule fixed, it needs straight_through"):
        PruningCallback(Pruner(layers, Movement()), gated_bert.Cubic(0, 0.5, 1, 2))
    with pytest.raises(UserError, match="no schedule"):
        PruningCallback(Pruner(layers, Magnitude()))
    with pytest.raises(UserError, match=r"a record is refused; allowed: a Pruner, or PruningCallback.from_config"):
        PruningCallback(GatedBertConfig(), masked())


def test_a_criterion_that_adds_up_gradients_first_starts_later_by_name_and_as_an_object():
    for method, field in (("taylor", "pruning_start_epoch: 1"), (Taylor(), "schedule: 'first=1'")):
        model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)])
        gated_bert.gate(model, method)
        with pytest.raises(ValueError, match=f"{field} is refused; allowed: .*2 up: .aylor adds up gradients"):
            PruningCallback.for_model(model, method, pruning_end_epoch=3)
        PruningCallback.for_model(model, method, pruning_end_epoch=3, pruning_start_epoch=2)
