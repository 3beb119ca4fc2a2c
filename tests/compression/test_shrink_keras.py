"""Shrinking models that know nothing of this package: what they predict stays, and plain Keras layers are left."""

import subprocess
import sys

import keras
import numpy as np
import pytest
from any_models import (
    IMAGES,
    LABELS,
    LOSS,
    PADDED,
    ROWS,
    Block,
    array,
    by_place,
    closed_units,
    encoder,
    mlp,
    randomize,
    vit,
)
from hub_models import FAMILIES, backbone, classifier, close_by_hand, inputs_of
from keras import layers
from shrunk_keras import NETWORKS, between, prune, same, sizes, two_towers

import gated_bert
from gated_bert import HEADS, NEURONS, Magnitude, Pruner, UserError, shrink
from gated_bert import Block as Weights
from gated_bert.models.roles import walk
from gated_bert.pruning.patterns import HeadDims


@pytest.mark.parametrize("dropout, activation", [(0.0, "gelu"), (0.1, "sigmoid")])
def test_every_layer_gets_the_size_of_what_is_open(dropout, activation):
    model = gated_bert.gate(encoder(dropout=dropout, activation=activation), exclude="head")
    prune(model, (HEADS, 0.4), (NEURONS, 0.4), (Weights(), 0.5))
    before = [array(variable) for variable in model.variables]
    heads, neurons = closed_units(model)
    small = shrink(model)
    found = sizes(small)
    assert [count for count, _, _ in found[0]] == [4 - sum(each == block for each, _ in heads) for block in range(2)]
    assert found[1] == [24 - sum(each == block for each, _ in neurons) for block in range(2)]
    assert found[0][0] != found[0][1] and found[1][0] != found[1][1]
    same(model, small, PADDED)
    assert all(np.array_equal(array(one), other) for one, other in zip(model.variables, before, strict=True))
    assert len(gated_bert.gated_layers(model)) == 12 and not gated_bert.gated_layers(small)
    assert not small.compiled


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.daily_every(3)
def test_a_model_of_keras_hub_shrinks_to_what_the_one_with_zeros_by_hand_predicts(family):
    plain, model = classifier(family), gated_bert.gate(classifier(family), exclude="logits")
    inputs = inputs_of(model)
    prune(model, (HEADS, 0.4), (NEURONS, 0.4))
    heads, neurons = closed_units(model)
    small = shrink(model)
    close_by_hand(plain, heads, neurons)
    same(plain, small, inputs)
    assert small.count_params() < plain.count_params()
    assert [count for count, _, _ in sizes(small)[0]] == [4 - sum(e == block for e, _ in heads) for block in range(2)]
    # Without gates too, and once more of what is small.
    same(shrink(plain), small, inputs)
    same(shrink(small), small, inputs)
    assert shrink(small).count_params() == small.count_params()


@pytest.mark.parametrize("part", ["heads", "neurons", "both"])
@pytest.mark.parametrize("side", ["in", "out"])
@pytest.mark.parametrize("dropout", [0.0, 0.1])
@pytest.mark.daily_every(6)
def test_a_layer_of_which_nothing_is_open_keeps_its_constant(part, side, dropout):
    model = gated_bert.gate(encoder(dropout=dropout, activation="sigmoid"), exclude="head")
    closing = {"heads": ("value", "attention_output"), "neurons": ("ffn_intermediate", "ffn_output")}
    for name, roles in closing.items():
        if part in (name, "both"):
            layer = by_place(model)[0, roles[side == "out"]]
            layer.gates.assign(np.zeros(layer.gates.shape))
    small = shrink(model)
    same(model, small, PADDED)
    attention, neurons = sizes(small)
    assert attention == [(1, 1, 1) if part != "neurons" else (4, 4, 4), (4, 4, 4)]
    assert neurons == [1 if part != "heads" else 24, 24]
    if part == "both" and side == "in":
        small.compile("adam", LOSS, run_eagerly=True)
        assert np.isfinite(small.fit(PADDED, LABELS[:32], batch_size=16, verbose=0).history["loss"]).all()


def test_a_whole_model_of_closed_weights():
    model = gated_bert.gate(encoder())
    for layer in gated_bert.gated_layers(model):
        layer.gates.assign(np.zeros(layer.gates.shape))
    small = shrink(model)
    same(model, small, PADDED)
    assert sizes(small) == ([(1, 1, 1)] * 2, [1, 1])


def test_dimensions_of_heads_scale_the_scores_as_before():
    model = gated_bert.gate(encoder(dropout=0.1))
    Pruner(gated_bert.gated_layers(model), Magnitude(), HeadDims()).update(0.5)
    small = shrink(model)
    assert sizes(small)[0] == [(4, 2, 2)] * 2
    same(model, small, PADDED)


def test_dimensions_of_queries_alone():
    for dropout, found in ((0.1, (4, 3, 4)), (0.0, (4, 4, 4))):
        model = gated_bert.gate(encoder(1, dropout=dropout))
        key = by_place(model)[0, "key"]
        gates = np.ones(key.gates.shape)
        gates[:, [0, 5, 10, 15]] = 0
        key.gates.assign(gates)
        small = shrink(model)
        # Keras' fused attention, which it calls without dropout, takes one number of dimensions alone.
        assert sizes(small)[0] == [found]
        same(model, small, PADDED)


def test_sizes_are_rounded_up():
    model = prune(gated_bert.gate(encoder(), exclude="head"), (NEURONS, 0.4))
    assert all(count % 8 == 0 for count in sizes(shrink(model, round_to=8))[1])
    same(model, shrink(model, round_to=8), PADDED)
    with pytest.raises(UserError, match="round_to: 0 is refused"):
        shrink(model, round_to=0)


def test_networks_and_attentions_that_stand_beside_each_other():
    model = gated_bert.gate(vit(), roles=NETWORKS, exclude="head")
    randomize(model)
    prune(model, (HEADS, 0.4), (NEURONS, 0.5))
    small = shrink(model)
    same(model, small, IMAGES)
    assert sum(sizes(small)[1]) == 32 and sum(count for count, _, _ in sizes(small)[0]) == 5
    assert [layer.name for layer in small.layers] == [layer.name for layer in model.layers]


def test_a_sequential_model():
    roles = {"ffn_intermediate": "hidden", "ffn_output": "head"}
    model = prune(gated_bert.gate(mlp(), roles=roles), (NEURONS, 0.5))
    small = shrink(model)
    assert isinstance(small, keras.Sequential) and sizes(small)[1] == [8]
    same(model, small, ROWS)
    model = keras.Sequential([keras.Input((6, 16)), Block(name="block"), layers.Dense(2, name="head")])
    prune(gated_bert.gate(model), (HEADS, 0.5))
    same(model, shrink(model), PADDED["features"])


def test_an_output_without_bias_gets_one_for_what_closed_neurons_give():
    inputs = keras.Input((12,))
    hidden = layers.Dense(8, "sigmoid", name="hidden")(inputs)
    model = keras.Model(inputs, layers.Dense(2, use_bias=False, name="head")(layers.Dropout(0.5)(hidden)))
    gated_bert.gate(model, roles={"ffn_intermediate": "hidden", "ffn_output": "head"})
    hidden = model.get_layer("hidden")
    hidden.gates.assign(np.repeat([[0.0] * 4 + [1.0] * 4], 12, 0))
    small = shrink(model)
    assert small.get_layer("hidden").units == 4
    same(model, small, ROWS)


def test_a_learnt_activation_between_gives_the_constants_that_it_has_learnt():
    model = between(layers.PReLU(shared_axes=[1], alpha_initializer="ones", name="learnt"))
    model.get_layer("learnt").alpha.assign([0.3])
    small = shrink(model)
    assert small.get_layer("hidden").units == 4
    same(model, small, ROWS)


def test_towers_that_were_gated_each_by_itself():
    model = two_towers(lambda: encoder(1), exclude="head")
    small = shrink(model)
    assert sizes(small)[1] == [18, 12]
    same(model, small, PADDED)


def test_what_blocks_share_stays_shared():
    model = gated_bert.gate(backbone("Albert"), include="group_0_*")
    randomize(model)
    inputs = inputs_of(model)
    prune(model, (HEADS, 0.5), (NEURONS, 0.5))
    small = shrink(model)
    for name in ("sequence_output", "pooled_output"):
        np.testing.assert_allclose(array(model(inputs)[name]), array(small(inputs)[name]), atol=1e-5)
    assert sizes(small) == ([(2, 4, 4)], [12])


@pytest.mark.nightly
def test_what_comes_back_is_saved_loaded_trained_and_pruned_again(tmp_path):
    model = prune(gated_bert.gate(encoder(), exclude="head"), (HEADS, 0.4), (NEURONS, 0.4))
    model.compile("adam", LOSS)
    small = shrink(model)
    small.save(tmp_path / "small.keras")
    # Nothing of it is of this package, nor of the class that was taken apart.
    assert "gated" not in small.to_json() and "Block" not in small.to_json()
    loaded = keras.saving.load_model(tmp_path / "small.keras")
    np.testing.assert_array_equal(array(loaded(PADDED)), array(small(PADDED)))
    before = sizes(small)
    small.compile(keras.optimizers.Adam(1e-2), LOSS, run_eagerly=True)
    losses = small.fit(PADDED, LABELS[:32], epochs=4, batch_size=16, verbose=0).history["loss"]
    assert losses[-1] < losses[0]
    gated_bert.gate(small, exclude="head")
    assert [layer.layer_index for layer in gated_bert.gated_layers(small) if layer.role == "query"] == [0, 1]
    prune(small, (NEURONS, 0.5))
    smaller = shrink(small)
    same(small, smaller, PADDED)
    assert sum(sizes(smaller)[1]) < sum(before[1])


def test_half_precision():
    model = prune(gated_bert.gate(encoder(dtype="mixed_bfloat16"), exclude="head"), (HEADS, 0.4), (NEURONS, 0.4))
    small = shrink(model)
    same(model, small, PADDED, atol=0.05)
    assert {layer.compute_dtype for layer in small.layers if "block" in layer.name} <= {"bfloat16", "float32"}
    assert all(part.compute_dtype == "bfloat16" for part in walk(small)
               if isinstance(part, layers.MultiHeadAttention))  # fmt: skip


@keras.saving.register_keras_serializable(package="tests")
class Around(keras.Model):
    """A class with a call of its own around a functional model."""

    def __init__(self, inside, **kwargs):
        super().__init__(**kwargs)
        self.inside, self.last = inside, layers.Dense(2, name="last")

    def call(self, inputs):
        return self.last(self.inside(inputs))

    def get_config(self):
        return {**super().get_config(), "inside": keras.saving.serialize_keras_object(self.inside)}

    @classmethod
    def from_config(cls, config):
        return cls(**{**config, "inside": keras.saving.deserialize_keras_object(config["inside"])})


@keras.saving.register_keras_serializable(package="tests")
class AroundAndScaled(Around):
    """The same with a weight of its own."""

    def build(self, shape):
        self.last.build((None, 2))
        self.scale = self.add_weight(shape=(), initializer="ones", name="scale")

    def call(self, inputs):
        return self.scale * super().call(inputs)


def test_weights_of_the_class_itself_are_copied():
    with keras.saving.custom_object_scope({"Block": Block}):
        model = AroundAndScaled(encoder(1))
        model(PADDED)
        model.scale.assign(3.0)
        small = shrink(prune(gated_bert.gate(model, exclude=["head", "last"]), (NEURONS, 0.4)))
    assert small.count_params() < model.count_params()
    same(model, small, PADDED)


def test_scores_that_nobody_reads_do_no_harm():
    inputs = keras.Input((6, 16))
    x, _ = layers.MultiHeadAttention(4, 4)(inputs, inputs, return_attention_scores=True)
    model = prune(gated_bert.gate(keras.Model(inputs, x)), (HEADS, 0.5))
    small = shrink(model)
    assert sizes(small)[0] == [(2, 4, 4)]
    same(model, small, PADDED["features"])


def test_a_class_of_ones_own_is_made_again_around_the_smaller_model(tmp_path):
    with keras.saving.custom_object_scope({"Block": Block}):
        model = Around(encoder())
        model(PADDED)
        prune(gated_bert.gate(model, exclude=["head", "last"]), (HEADS, 0.4), (NEURONS, 0.4))
        small = shrink(model)
    assert type(small) is Around and small.count_params() < model.count_params()
    same(model, small, PADDED)
    small.save(tmp_path / "around.keras")
    same(keras.saving.load_model(tmp_path / "around.keras"), small, PADDED, atol=1e-7)


LOADS = """
import sys
import keras, keras_hub
import numpy as np
for name in sys.argv[2:]:
    model = keras.saving.load_model(f"{sys.argv[1]}/{name}.keras")
    inputs = dict(np.load(f"{sys.argv[1]}/{name}.npz"))
    np.save(f"{sys.argv[1]}/{name}.npy", keras.ops.convert_to_numpy(model(inputs)))
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    assert np.isfinite(model.fit(inputs, np.arange(12) % 2, verbose=0).history["loss"]).all()
assert "gated_bert" not in sys.modules
"""


@pytest.mark.nightly
def test_keras_and_keras_hub_alone_load_and_export_what_comes_back(tmp_path):
    runtime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    wanted = {}
    for family in FAMILIES:
        model = gated_bert.gate(classifier(family), exclude="logits")
        inputs = inputs_of(model)
        prune(model, (HEADS, 0.4), (NEURONS, 0.4))
        small = shrink(model)
        small.save(tmp_path / f"{family}.keras")
        np.savez(tmp_path / f"{family}.npz", **inputs)
        wanted[family] = array(model(inputs))
        if keras.backend.backend() == "tensorflow":
            small.export(tmp_path / f"{family}.onnx", format="onnx", verbose=False)
            (given,) = runtime.InferenceSession(tmp_path / f"{family}.onnx").run(None, inputs)
            np.testing.assert_allclose(given, wanted[family], atol=1e-5)
    subprocess.run([sys.executable, "-c", LOADS, tmp_path, *FAMILIES], check=True, cwd=tmp_path)
    for family, expected in wanted.items():
        np.testing.assert_allclose(np.load(tmp_path / f"{family}.npy"), expected, atol=1e-5)
