"""What cannot be shrunk is refused by name; made-up inputs refuse nothing that they cannot judge."""


import keras
import pytest
from any_models import (
    PADDED,
    ROWS,
    Block,
    array,
    encoder,
    subclassed,
)
from hub_models import backbone
from keras import layers
from shrunk_keras import between, prune, sizes, two_towers

import gated_bert
from gated_bert import HEADS, NEURONS, UserError, shrink


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
