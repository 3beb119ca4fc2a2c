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
    subclassed,
    vit,
)
from hub_models import FAMILIES, backbone, classifier, close_by_hand, inputs_of
from keras import layers

import gated_bert
from gated_bert import HEADS, NEURONS, Magnitude, Pruner, UserError, shrink
from gated_bert import Block as Weights
from gated_bert.models.roles import walk
from gated_bert.pruning.patterns import HeadDims

NETWORKS = {"ffn_intermediate": "up_*", "ffn_output": "down_*"}


def prune(model, *shares):
    """Closes units by magnitude: pairs of a pattern and a share."""
    for pattern, share in shares:
        Pruner(gated_bert.gated_layers(model), Magnitude(), pattern, "global").update(share)
    return model


def sizes(model):
    """(heads, dimensions of queries, of values) of attentions, and neurons of networks."""
    parts = [layer for layer in walk(model)]
    attention = [(part.num_heads, part.key_dim, part.value_dim) for part in parts
                 if isinstance(part, layers.MultiHeadAttention)]  # fmt: skip
    named = ("feedforward_intermediate_dense", "up_0", "up_1", "hidden")
    return attention, [part.units for part in parts if part.name in named]


def same(one, other, inputs, atol=1e-5):
    np.testing.assert_allclose(array(one(inputs)), array(other(inputs)), atol=atol)


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
@pytest.mark.daily_every(4)
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


def between(*steps, rank=2, **first):
    """A hidden layer of which half the neurons are closed and give their biases, what follows it, and a head."""
    keras.utils.set_random_seed(8)
    inputs = keras.Input((12,) if rank == 2 else (*range(2, rank), 12))
    x = layers.Dense(8, name="hidden", **first)(inputs)
    for step in steps:
        x = step(x)
    model = keras.Model(inputs, layers.Dense(2, name="head")(x))
    randomize(model)
    gated_bert.gate(model, roles={"ffn_intermediate": "hidden", "ffn_output": "head"})
    model.get_layer("hidden").gates.assign(np.repeat([[0.0] * 4 + [1.0] * 4], 12, 0))
    model.get_layer("hidden").bias.assign(np.linspace(-2, 2, 8))
    return model


def test_a_learnt_activation_between_gives_the_constants_that_it_has_learnt():
    model = between(layers.PReLU(shared_axes=[1], alpha_initializer="ones", name="learnt"))
    model.get_layer("learnt").alpha.assign([0.3])
    small = shrink(model)
    assert small.get_layer("hidden").units == 4
    same(model, small, ROWS)


def two_towers(make, **options):
    """Two models that were gated each by itself, joined."""
    towers = []
    for place, share in enumerate((0.25, 0.5)):
        tower = make()
        tower.name = f"tower_{place}"
        towers.append(prune(gated_bert.gate(tower, **options), (NEURONS, share)))
    inputs = keras.tree.map_structure(lambda each: keras.Input(each.shape[1:], name=each.name), towers[0].input)
    return keras.Model(inputs, layers.Concatenate()([tower(inputs) for tower in towers]))


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


class Undescribed(keras.Model):
    def __init__(self, inside):
        super().__init__()
        self.inside = inside

    def call(self, inputs):
        return self.inside(inputs)


def attending():
    model = subclassed()
    model._tracker.unlock()
    model.looks = layers.MultiHeadAttention(2, 4, name="looks")
    model.looks.build((None, 3, 8), (None, 3, 8))
    return prune(gated_bert.gate(model), (HEADS, 0.5))


def undescribed():
    model = Undescribed(encoder())
    model(PADDED)
    return prune(gated_bert.gate(model), (HEADS, 0.5))


def masked():
    inputs = keras.Input((6,))
    embedded = layers.Embedding(9, 16, mask_zero=True)(inputs)
    return prune(gated_bert.gate(keras.Model(inputs, Block(name="block")(embedded))), (HEADS, 0.5))


def normalised():
    inputs = keras.Input((12,))
    hidden = layers.LayerNormalization()(layers.Dense(8, name="hidden")(inputs))
    model = keras.Model(inputs, layers.Dense(2, name="head")(hidden))
    return prune(gated_bert.gate(model, roles={"ffn_intermediate": "hidden", "ffn_output": "head"}), (NEURONS, 0.5))


class Over(layers.Layer):
    """An operation on what stands along one axis."""

    def __init__(self, operation, **kwargs):
        super().__init__(**kwargs)
        self.operation = operation

    def call(self, inputs):
        return self.operation(inputs)

    def get_config(self):
        return {**super().get_config(), "operation": self.operation}


def places_summed():
    return between(Over(lambda x: keras.ops.sum(x, axis=1)), rank=3)


def places_mixed():
    return between(Over(lambda x: keras.ops.softmax(x, axis=1)), rank=3)


def second_places_mixed():
    return between(Over(lambda x: keras.ops.cumsum(x, axis=2)), rank=4)


def examples_mixed():
    return between(Over(lambda x: x - keras.ops.mean(x, axis=0, keepdims=True)))


class Tempered(layers.MultiHeadAttention):
    """Has a temperature of its own, and norms its queries."""

    def build(self, query_shape, value_shape, key_shape=None):
        super().build(query_shape, value_shape, key_shape)
        self.temperature = self.add_weight(shape=(), initializer="ones", name="temperature")


class Normed(layers.MultiHeadAttention):
    def build(self, query_shape, value_shape, key_shape=None):
        super().build(query_shape, value_shape, key_shape)
        self.norm = layers.LayerNormalization(name="query_norm")
        self.norm.build((None, None, self.num_heads, self.key_dim))


class Shifted(layers.Dense):
    def build(self, shape):
        super().build(shape)
        self.shift = self.add_weight(shape=(), name="shift")


def attention_of(kind):
    inputs = keras.Input((6, 16))
    return prune(gated_bert.gate(keras.Model(inputs, kind(4, 4, name="looks")(inputs, inputs))), (HEADS, 0.5))


def shifted(place):
    def make():
        inputs = keras.Input((12,))
        kinds = [Shifted if each == place else layers.Dense for each in range(2)]
        names = [f"feedforward_{name}_dense" for name in ("intermediate", "output")]
        model = keras.Model(inputs, kinds[1](2, name=names[1])(kinds[0](8, name=names[0])(inputs)))
        layer = model.get_layer(names[1 - place])
        kernel = array(layer.kernel).copy()
        kernel[(slice(4), slice(None)) if place == 0 else (slice(None), slice(4))] = 0
        layer.kernel.assign(kernel)
        return model

    return make


def learnt_inside():
    model = between(activation=layers.PReLU())
    model(ROWS)  # Keras makes the activation's own variable now.
    return model


class Scaled(Block):
    """A block with a scale of its own, as LayerScale."""

    def build(self, shape):
        super().build(shape)
        self.gamma = self.add_weight(shape=(shape[-1],), initializer="ones", name="gamma")

    def call(self, inputs, **kwargs):
        return self.gamma * super().call(inputs, **kwargs)


def scaled():
    inputs = keras.Input((6, 16))
    return prune(gated_bert.gate(keras.Model(inputs, Scaled(name="block")(inputs))), (HEADS, 0.5))


def scores_read():
    inputs = keras.Input((6, 16))
    x, scores = layers.MultiHeadAttention(4, 4, name="looks")(inputs, inputs, return_attention_scores=True)
    return prune(gated_bert.gate(keras.Model(inputs, [x, keras.ops.max(scores, axis=1)])), (HEADS, 0.5))


class Scoring(layers.Layer):
    def build(self, shape):
        self.attention = layers.MultiHeadAttention(4, 4, name="looks")
        self.attention.build(shape, shape)

    def call(self, inputs):
        x, scores = self.attention(inputs, inputs, return_attention_scores=True)
        return x + keras.ops.mean(scores)


def scores_read_inside():
    inputs = keras.Input((6, 16))
    return prune(gated_bert.gate(keras.Model(inputs, Scoring(name="block")(inputs))), (HEADS, 0.5))


class Reading(Block):
    """Its call reads a weight of a layer inside it, which no copy of that layer's calls has."""

    def build(self, shape):
        super().build(shape)
        self.shift = layers.Dense(shape[-1], name="shift")
        self.shift.build(shape)

    def call(self, inputs, **kwargs):
        return super().call(inputs, **kwargs) + keras.ops.sum(self.shift.kernel, axis=0)


def weights_read():
    inputs = keras.Input((6, 16))
    return prune(gated_bert.gate(keras.Model(inputs, Reading(name="block")(inputs)), exclude="*/shift"), (HEADS, 0.5))


def two_networks():
    def make():
        inputs = keras.Input((12,))
        return keras.Model(inputs, layers.Dense(2, name="head")(layers.Dense(8, name="hidden")(inputs)))

    return two_towers(make, roles={"ffn_intermediate": "hidden", "ffn_output": "head"})


def read_twice():
    inputs = keras.Input((12,))
    hidden = layers.Dense(8, name="hidden")(inputs)
    model = keras.Model(inputs, [layers.Dense(2, name="head")(hidden), hidden])
    return prune(gated_bert.gate(model, roles={"ffn_intermediate": "hidden", "ffn_output": "head"}), (NEURONS, 0.5))


def language_model():
    from hub_models import keras_hub

    model = keras_hub().models.BertMaskedLM(backbone("Bert"), preprocessor=None)
    return prune(gated_bert.gate(model), (HEADS, 0.5))


@pytest.mark.parametrize(
    "make, message",
    [
        (attending, "a subclassed Subclassed, is refused, since its call cannot be made with a smaller .*looks"),
        (undescribed, "undescribed.*, a Undescribed, cannot be copied"),
        (masked, "block is refused, since what it reads comes with a mask of its own"),
        (normalised, "head does not read the neurons of hidden one by one; allowed: these two layers with dropout and"),
        *((make, "head does not read the neurons of hidden one by one")
          for make in (places_summed, places_mixed, second_places_mixed, examples_mixed)),
        (lambda: attention_of(Tempered), "looks, a Tempered, is refused, since it has weights of its own, temperature"),
        (lambda: attention_of(Normed), "looks, a Normed, is refused, since it has weights of its own, gamma, beta"),
        (shifted(0), "intermediate_dense, a Shifted, is refused, since it has weights of its own, shift"),
        (shifted(1), "output_dense, a Shifted, is refused, since it has weights of its own, shift"),
        (learnt_inside, "hidden, a .*Dense, is refused, since it has .* own, alpha"),
        (scaled, "block, a Scaled, is refused, since it holds weights of its own, gamma, beside what"),
        (scores_read, "looks is refused, since the scores of its heads are read"),
        (scores_read_inside, "looks is refused, since the scores of its heads are read"),
        (weights_read, "is refused, since what is made of it gives other outputs, .* of the largest away"),
        (two_networks, "gate: .*hidden and .*hidden are both ffn_intermediate of block 0; allowed: one of"),
        (read_twice, "head does not read the neurons of hidden one by one"),
        (language_model, "since mlm_head and token_embedding share token_embedding; allowed: the backbone alone"),
    ],
)
def test_refusals(make, message):
    with pytest.raises(UserError, match=message):
        shrink(make())


class Noise(layers.Layer):
    """Random in inference too."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.seeds = keras.random.SeedGenerator(1)

    def call(self, inputs):
        return inputs + keras.random.normal(keras.ops.shape(inputs), seed=self.seeds)


def words(length, *steps):
    inputs = keras.Input(length, dtype="int32")
    x = layers.Embedding(5, 16)(inputs)
    return keras.Model(inputs, layers.Dense(2, name="head")(Block(name="block")(x + sum(step(x) for step in steps))))


@pytest.mark.parametrize(
    "make",
    [
        lambda: words((None,)),
        lambda: words((6,), Noise()),
        lambda: words((None,), lambda x: keras.ops.reshape(keras.ops.reshape(x, (-1, 7, 16)), (-1, 7, 16))),
        lambda: words((6,), lambda x: keras.ops.log(x - 9)),
    ],
    ids=["any length", "random", "another length alone", "not finite"],
)
def test_inputs_that_are_made_up_refuse_nothing_that_they_cannot_judge(make):
    assert sizes(shrink(prune(gated_bert.gate(make(), exclude="head"), (HEADS, 0.5))))[0] == [(2, 4, 4)]


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
