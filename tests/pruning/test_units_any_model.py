"""Heads, their dimensions, neurons and QKV rows of models that know nothing of this package."""

import keras
import numpy as np
import pytest
from any_models import IMAGES, LABELS, LOSS, PADDED, array, by_place, closed_units, encoder, open_columns, vit
from hub_models import FAMILIES, classifier, close_by_hand, inputs_of

import gated_bert
from gated_bert import HEADS, NEURONS, PruningCallback
from gated_bert.models.gated_dense import output_hook
from gated_bert.pruning.criteria.calibrated import gated_kernel
from gated_bert.pruning.patterns import HeadDims
from gated_bert.pruning.structured import StructuredRemoval, sublayers_of
from gated_bert.tasks.kinds import TOKENS

PATTERNS = ("head", "head_dim", "neuron", "head_neuron", "qkv_row")


@pytest.mark.parametrize("pattern", PATTERNS)
def test_units_close_in_all_of_their_matrices(pattern):
    model = gated_bert.gate(encoder(), exclude="head")
    callback = PruningCallback.for_model(model, pattern=pattern, end_sparsity=0.5, pruning_end_epoch=1)
    callback.pruner.update(0.5)
    layers = by_place(model)
    assert callback.closed_share() > 0.2
    for block in range(2):
        query, key, value, output = (layers[block, role] for role in ("query", "key", "value", "attention_output"))
        up, down = layers[block, "ffn_intermediate"], layers[block, "ffn_output"]
        heads = [open_columns(layer).reshape(4, 4) for layer in (query, key, value)]
        heads.append(array(output.gates).any(1).reshape(4, 4))
        if pattern in ("head", "head_neuron"):
            assert all(np.array_equal(each, heads[0]) for each in heads) and (heads[0].sum(1) % 4 == 0).all()
        if pattern == "head_dim":
            assert np.array_equal(heads[0], heads[1]) and np.array_equal(heads[2], heads[3])
            assert (heads[0].sum(1) == 2).all() and (heads[2].sum(1) == 2).all()
        if pattern in ("neuron", "head_neuron"):
            assert np.array_equal(open_columns(up), array(down.gates).any(1))
        if pattern == "qkv_row":
            rows = [array(layer.gates).any(1) for layer in (query, key, value)]
            assert rows[0].sum() == 8 and all(np.array_equal(each, rows[0]) for each in rows)
            assert array(output.gates).all() and array(up.gates).all()


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.daily_every(3)
def test_a_pruned_model_of_keras_hub_is_the_one_with_zeros_put_in_by_hand(family):
    plain, model = classifier(family), classifier(family)
    inputs = inputs_of(model)
    gated_bert.gate(model, exclude="logits")
    for pattern in (HEADS, NEURONS):
        pruner = gated_bert.Pruner(gated_bert.gated_layers(model), gated_bert.Magnitude(), pattern, "global")
        pruner.update(0.4)
    heads, neurons = closed_units(model)
    assert 2 <= len(heads) < 8 and len(neurons) > 10
    whole = array(plain(inputs))
    close_by_hand(plain, heads, neurons)
    np.testing.assert_allclose(array(model(inputs)), array(plain(inputs)), atol=1e-6)
    assert np.abs(array(plain(inputs)) - whole).max() > 1e-2


def test_heads_and_neurons_go_during_fit():
    model = gated_bert.gate(vit(), exclude="head", roles={"ffn_intermediate": "up_*", "ffn_output": "down_*"})
    callback = PruningCallback.for_model(
        model, pattern="head_neuron", scope="global", end_sparsity=0.5, pruning_end_epoch=2
    )
    model.compile("sgd", LOSS, run_eagerly=True)
    history = model.fit(IMAGES, LABELS[:32], batch_size=16, epochs=2, callbacks=[callback], verbose=0).history
    assert history["sparsity"] == pytest.approx([0, 0.5], abs=0.03)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_two_models_that_were_gated_each_by_itself_have_blocks_of_one_number(pattern):
    towers = [gated_bert.gate(encoder(1), exclude="head") for _ in range(2)]
    inputs = {name: keras.Input(array.shape[1:], name=name) for name, array in PADDED.items()}
    model = keras.Model(inputs, keras.layers.Add()([tower(inputs) for tower in towers]))
    with pytest.raises(gated_bert.UserError, match="are both .* of block 0; allowed: one of each, gate the whole"):
        PruningCallback.for_model(model, pattern=pattern, pruning_end_epoch=1)
    with pytest.raises(gated_bert.UserError, match="are both .* of block 0"):
        sublayers_of(model)


@pytest.mark.parametrize("pattern", [HEADS, HeadDims()])
def test_heads_that_no_kernel_shows_are_asked_for(pattern):
    model = gated_bert.BertClassifier(gated_bert.BertConfig.uniform(1, 16, 2, 32, vocab_size=20))
    with pytest.raises(gated_bert.ConfigError, match="num_heads"):
        gated_bert.Pruner(model.gated_layers(), gated_bert.Magnitude(), pattern)
    assert gated_bert.Pruner(model.gated_layers(), gated_bert.Magnitude(), pattern, num_heads=[2]).groups


def test_tags_of_a_model_with_a_padding_mask_are_judged_where_tokens_are_real(batches):
    model = encoder(1)
    tags = keras.layers.Dense(3, name="tags")(model.get_layer("block_0").output)
    model = gated_bert.gate(keras.Model(model.input, tags), exclude="tags")
    removal = StructuredRemoval(model, TOKENS, batches)
    list(removal.look())
    found = removal.loss((2, 4))
    changed = [({**inputs, "features": np.where(inputs["padding_mask"][..., None] != 0, inputs["features"], 9)}, None)
               for inputs, _ in batches]  # fmt: skip
    removal._judged = [inputs for inputs, _ in changed]
    assert found > 1e-4 and removal.loss((2, 4)) == pytest.approx(found, rel=1e-4)


def test_a_record_does_so_too():
    model = gated_bert.gate(encoder(), exclude="head")
    config = gated_bert.GatedBertConfig(pruning_method="magnitude", pattern="head", end_sparsity=0.5)
    callback = PruningCallback.from_config(config, model)
    assert [group.num_units for group in callback.pruner.groups] == [4, 4]


@pytest.fixture
def batches():
    return [({name: array[rows] for name, array in PADDED.items()}, LABELS[:32][rows])
            for rows in (slice(0, 16), slice(16, 32))]  # fmt: skip


def rows_into(model, layer, batches):
    """What comes into a layer at real positions, float64 [rows, in]."""
    found = []

    def hook(called, inputs, outputs):
        if called is layer:
            found.append(array(inputs).reshape(*inputs.shape[:2], -1))
        return outputs

    for inputs, _ in batches:
        with output_hook(hook):
            model(inputs, training=False)
    real = [inputs["padding_mask"] != 0 for inputs, _ in batches]
    return np.concatenate([rows[mask] for rows, mask in zip(found, real, strict=True)]).astype(np.float64)


def test_structured_removal_goes_by_role(batches):
    model = gated_bert.gate(encoder(), exclude="head")
    before = array(model(PADDED))
    removal = StructuredRemoval(model, "classification", batches)
    assert [(each.block, each.kind, each.units) for each in removal.sublayers] == [
        (0, "heads", 4), (0, "neurons", 24), (1, "heads", 4), (1, "neurons", 24)
    ]  # fmt: skip
    assert list(removal.look()) == [1, 2, 3, 4]
    assert all(errors[0] == 0 and errors[-1] == pytest.approx(1) and (np.diff(errors) >= 0).all()
               for errors in removal.errors)  # fmt: skip
    assert removal.loss((0, 0, 0, 0)) == pytest.approx(0, abs=1e-6)
    levels = (2, 5, 1, 6)
    at_once = removal.loss(levels)
    removal.restore()
    np.testing.assert_array_equal(array(model(PADDED)), before)
    assert list(removal.prune(levels)) == [1, 2, 3, 4]
    left = [sublayer.left[level] for sublayer, level in zip(removal.sublayers, levels, strict=True)]
    heads, neurons = closed_units(model)
    assert [4 - sum(block == each for block, _ in heads) for each in range(2)] == left[::2]
    assert [24 - sum(block == each for block, _ in neurons) for each in range(2)] == left[1::2]
    # Each sublayer also makes up for those before it.
    wanted, given = (np.log(np.exp(logits) / np.exp(logits).sum(1, keepdims=True))
                     for logits in (before, array(model(PADDED))))  # fmt: skip
    assert np.mean(np.sum(np.exp(wanted) * (wanted - given), 1)) < 1.5 * at_once
    names = [layer.label for layer in gated_bert.gated_layers(model) if array(layer.gates).all()]
    assert names == []


def test_what_stays_is_the_least_squares_of_what_the_sublayer_gave(batches):
    model = gated_bert.gate(encoder(), exclude="head")
    last = sublayers_of(model)[-1].layer
    first, bias = gated_kernel(last).astype(np.float64), array(last.bias)
    whole = rows_into(model, last, batches) @ first
    removal = StructuredRemoval(model, "classification", batches)
    list(removal.look())
    list(removal.prune((1, 4, 2, 9)))
    closed = array(by_place(model)[1, "ffn_intermediate"].gates)
    by_place(model)[1, "ffn_intermediate"].gates.assign(np.ones_like(closed))
    # As they came in when it was this sublayer's turn.
    rows = rows_into(model, last, batches)
    centred = rows - rows.mean(0)
    damping = 0.01 * np.square(centred).sum(0).mean()
    is_open = array(last.gates).any(1)
    hessian = centred.T @ centred + damping * np.eye(24)
    right = centred.T @ (whole - whole.mean(0)) + damping * first
    expected = np.linalg.solve(hessian[np.ix_(is_open, is_open)], right[is_open])
    np.testing.assert_allclose(gated_kernel(last)[is_open], expected, rtol=1e-3, atol=1e-4)
    given = rows @ gated_kernel(last) + array(last.bias)
    np.testing.assert_allclose(given.mean(0), whole.mean(0) + bias, atol=1e-4)


def test_mask_tuning_scales_what_stays(batches):
    model = gated_bert.gate(encoder(), "mask_tuning", exclude="head")
    model.compile("sgd", LOSS)
    before = {place: gated_kernel(layer) for place, layer in by_place(model).items()}
    callback = PruningCallback.for_model(
        model, "mask_tuning", schedule="one_shot", end_sparsity=0.4, pruning_end_epoch=1, data=(PADDED, LABELS[:32]),
        mask_tuning_batch_size=8,
    )  # fmt: skip
    callback.on_train_begin()
    callback.on_epoch_begin(0)
    assert callback.closed_share() == pytest.approx(0.4, abs=0.05)
    scaled = 0
    for place, layer in by_place(model).items():
        is_open = array(layer.gates) != 0
        ratio = gated_kernel(layer)[is_open] / before[place][is_open]
        if place[1] in ("attention_output", "ffn_output"):
            rows = np.where(is_open, gated_kernel(layer) / before[place], 0)
            np.testing.assert_allclose(rows, np.broadcast_to(rows[:, :1], rows.shape), rtol=1e-4)
            scaled += not np.allclose(ratio, 1)
        else:
            np.testing.assert_array_equal(ratio, 1)
    assert scaled >= 3


def test_padding_of_keras_hub_is_left_out_of_means():
    found = []
    for name in ("padding_mask", "attention_mask"):
        model = encoder(1)
        inputs = {"features": model.input["features"], name: keras.Input((6,), name=name)}
        model = keras.Model(inputs, model({"features": inputs["features"], "padding_mask": inputs[name]}))
        gated_bert.gate(model, exclude="head")
        model.compile("sgd", LOSS)
        data = {"features": PADDED["features"], name: PADDED["padding_mask"]}
        callback = PruningCallback.for_model(
            model, "activation_magnitude", pruning_end_epoch=1, data=(data, LABELS[:32]), batch_size=32
        )
        callback.criterion.prepare(model, callback.dataset)
        query = next(layer for layer in callback.layers if layer.role == "query")
        found.append(callback.criterion.scores(query))
        real = PADDED["features"][PADDED["padding_mask"] != 0]
        np.testing.assert_allclose(found[-1], np.abs(gated_kernel(query)) * np.abs(real).mean(0)[:, None], rtol=1e-4)
    np.testing.assert_array_equal(*found)
