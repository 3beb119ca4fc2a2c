"""Families of levels of an encoder's sublayers, and models put together of them, against NumPy."""

import keras
import numpy as np
import pytest

from gated_bert.compression.shrink import shrink
from gated_bert.models.architecture import BertConfig
from gated_bert.models.bert import BertClassifier
from gated_bert.models.gated_dense import output_hook
from gated_bert.models.widths import widths
from gated_bert.pruning.criteria.calibrated import gated_kernel
from gated_bert.pruning.structured import HEADS, StructuredRemoval, sublayers_of
from gated_bert.support.backend import view


def batches(count=3, size=8, length=12, seed=0):
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        real = (np.arange(length) < rng.integers(3, length + 1, (size, 1))).astype(np.int32)
        ids = rng.integers(1, 50, (size, length)).astype(np.int32) * real
        found.append(({"input_ids": ids, "attention_mask": real, "token_type_ids": np.zeros_like(ids)}, None))
    return found


@pytest.fixture
def model():
    keras.utils.set_random_seed(0)
    made = BertClassifier(BertConfig.uniform(2, 12, 3, 20, vocab_size=50, max_position=16))
    rng = np.random.default_rng(1)
    for layer in made.gated_layers():
        layer.set_kernel(rng.normal(0, 0.4, tuple(layer.mask_variable.shape)).astype(np.float32))
        layer.bias.assign(rng.normal(0, 0.2, tuple(layer.bias.shape)).astype(np.float32))
    return made


def rows_into(model, layer, data):
    """What comes into a layer at real positions."""
    found = []

    def hook(called, inputs, outputs):
        if called is layer:
            found.append(np.asarray(view(inputs)))
        return outputs

    for inputs, _ in data:
        with output_hook(hook):
            model(inputs, training=False)
    return np.concatenate([each[inputs["attention_mask"] != 0]
                           for each, (inputs, _) in zip(found, data, strict=True)]).astype(np.float64)  # fmt: skip


def outputs(model, data):
    return np.concatenate([np.asarray(view(model(inputs, training=False))) for inputs, _ in data])


def looked(model, data=None):
    removal = StructuredRemoval(model, "classification", data or batches())
    assert list(removal.look()) == [1, 2, 3, 4]
    return removal


def test_widths_fall_by_a_tenth_to_none():
    assert widths(1536)[:4] == [1536, 1382, 1244, 1120] and widths(1536)[-1] == 0
    assert widths(1) == [1, 0] and len(set(widths(20))) == len(widths(20))


def test_levels_go_from_all_to_none_and_cost_more_and_more(model):
    removal = looked(model)
    assert [sublayer.kind for sublayer in removal.sublayers] == ["heads", "neurons"] * 2
    for sublayer, errors in zip(removal.sublayers, removal.errors, strict=True):
        assert sublayer.left[0] == sublayer.units and sublayer.left[-1] == 0 and len(errors) == len(sublayer.left)
        assert errors[0] == 0 and errors[-1] == pytest.approx(1) and (np.diff(errors) >= 0).all()


def test_what_a_level_gives_is_as_far_off_as_its_error_says(model):
    data = batches()
    removal = looked(model, data)
    before = {sublayer.layer: (rows_into(model, sublayer.layer, data), gated_kernel(sublayer.layer).astype(np.float64),
                               np.array(view(sublayer.layer.bias))) for sublayer in removal.sublayers}  # fmt: skip
    for place, sublayer in enumerate(removal.sublayers):
        rows, kernel, bias = before[sublayer.layer]
        whole = rows @ kernel + bias
        damping = 0.01 * np.square(rows - rows.mean(0)).sum(0).mean()
        size = np.square(whole - whole.mean(0)).sum() + damping * np.square(kernel).sum()
        for level in range(1, len(sublayer.left)):
            removal.loss(tuple(level if each == place else 0 for each in range(4)))
            given = rows @ gated_kernel(sublayer.layer) + np.asarray(view(sublayer.layer.bias))
            # The bias takes up the mean.
            np.testing.assert_allclose(given.mean(0), whole.mean(0), atol=1e-4)
            moved = damping * np.square(gated_kernel(sublayer.layer) - kernel).sum()
            error = (np.square(given - whole).sum() + moved) / size
            assert error == pytest.approx(removal.errors[place][level], rel=1e-3)
            open_rows = np.any(gated_kernel(sublayer.layer) != 0, axis=1)
            assert open_rows.reshape(sublayer.units, -1).any(1).sum() == sublayer.left[level]


def test_the_loss_is_that_of_the_outputs_and_restoring_leaves_no_trace(model):
    data = batches()
    whole = outputs(model, data)
    removal = looked(model, data)
    assert removal.loss((0, 0, 0, 0)) == pytest.approx(0, abs=1e-7)
    found = removal.loss((2, 3, 1, 5))

    def log_softmax(x):
        x = x.astype(np.float64) - x.max(1, keepdims=True)
        return x - np.log(np.exp(x).sum(1, keepdims=True))

    wanted, given = log_softmax(whole), log_softmax(outputs(model, data))
    assert found == pytest.approx(np.mean(np.sum(np.exp(wanted) * (wanted - given), 1)), rel=1e-4) and found > 1e-4
    assert removal.loss((2, 3, 1, 5)) == pytest.approx(found, rel=1e-5)
    removal.restore()
    np.testing.assert_array_equal(outputs(model, data), whole)


def test_the_pruned_model_shrinks_to_the_sizes_and_computes_the_same(model):
    data = batches()
    removal = looked(model, data)
    levels = (1, 4, 3, len(removal.sublayers[3].left) - 1)
    assert list(removal.prune(levels)) == [1, 2, 3, 4]
    small = shrink(model)
    sizes = [(layer.num_heads, layer.intermediate_size) for layer in small.architecture.layers]
    assert sizes == [(2, removal.sublayers[1].left[4]), (0, 0)]
    np.testing.assert_allclose(outputs(small, data), outputs(model, data), atol=1e-5)


def test_a_sublayer_makes_up_for_those_before_it(model):
    """The last one is the damped least squares of what it and the residual path gave, by the inputs that come now."""
    data = batches()
    last = model.encoder.blocks[1]
    whole = rows_of_sum(model, last, data)
    kernel = gated_kernel(last.ffn.output_dense).astype(np.float64)
    removal = looked(model, data)
    level = 3
    for _ in removal.prune((1, 2, 2, level)):
        pass
    layer, left = last.ffn.output_dense, removal.sublayers[3].left[level]
    new = gated_kernel(layer)
    kept = np.flatnonzero(np.any(new != 0, axis=1))
    assert len(kept) == left
    # Before its own neurons went, which is when they were looked at.
    last.ffn.intermediate.mask_variable.assign(np.ones((12, 20), np.float32))
    rows, residual = rows_into(model, layer, data), rows_of_sum(model, last, data, alone=True)
    target = whole - residual
    x, y = rows - rows.mean(0), target - target.mean(0)
    hessian = x.T @ x
    damping = 0.01 * np.diag(hessian).mean()
    everything = np.linalg.solve(hessian + damping * np.eye(len(hessian)), x.T @ y + damping * kernel)
    system = hessian + damping * np.eye(len(hessian))
    expected = np.linalg.solve(system[np.ix_(kept, kept)], (system @ everything)[kept])
    np.testing.assert_allclose(new[kept], expected, atol=2e-3)
    given = residual + rows @ new + np.asarray(view(layer.bias))
    np.testing.assert_allclose(given.mean(0), whole.mean(0), atol=1e-4)


def rows_of_sum(model, block, data, alone=False):
    """The residual path at a block's feed-forward network, with what that gives (without where `alone`)."""
    found = []
    for inputs, _ in data:
        seen = {}

        def hook(called, given, outputs, seen=seen):
            seen[called] = np.asarray(view(given)), np.asarray(view(outputs))
            return outputs

        with output_hook(hook):
            model(inputs, training=False)
        residual = seen[block.ffn.intermediate][0]
        added = 0 if alone else seen[block.ffn.output_dense][1]
        found.append((residual + added)[inputs["attention_mask"] != 0])
    return np.concatenate(found).astype(np.float64)


def test_layers_without_a_part_have_no_level_of_it():
    from gated_bert.models.architecture import LayerSizes

    sizes = BertConfig.uniform(2, 12, 3, 20, vocab_size=50, max_position=16)
    model = BertClassifier(sizes.replace(layers=(LayerSizes(0, 0, 0, 20), LayerSizes(3, 4, 4, 0))))
    assert [(each.block, each.kind) for each in sublayers_of(model)] == [(0, "neurons"), (1, HEADS)]


def test_what_was_closed_before_stays_without_effect(model):
    """Masks of weights, and gates between 0 and 1, count in every matrix that no unit leaves."""
    rng = np.random.default_rng(5)
    for layer in model.gated_layers():
        shape = tuple(layer.mask_variable.shape)
        layer.mask_variable.assign((rng.random(shape) < 0.6) * rng.choice([1.0, 0.5], shape).astype(np.float32))
    data = batches()
    whole = outputs(model, data)
    removal = looked(model, data)
    np.testing.assert_allclose(outputs(model, data), whole, atol=1e-6)
    assert removal.loss((0, 0, 0, 0)) == pytest.approx(0, abs=1e-6)
    removal.loss((1, 3, 1, 3))
    removal.restore()
    np.testing.assert_allclose(outputs(model, data), whole, atol=1e-5)
    before = [gated_kernel(layer) for layer in model.encoder.blocks[0].attention.projections()]
    for _ in removal.prune((1, 3, 1, 3)):
        pass
    for was, layer in zip(before, model.encoder.blocks[0].attention.projections(), strict=True):
        now = gated_kernel(layer)
        kept = np.any(now != 0, axis=0)
        assert 8 >= kept.sum() and np.array_equal(now[:, kept], was[:, kept])
