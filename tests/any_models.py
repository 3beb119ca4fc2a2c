"""Small Keras models that know nothing of this package, and what is asked of every one of them."""

from __future__ import annotations

import keras
import numpy as np
from keras import layers, ops

from gated_bert import gated_layers

IMAGES = np.random.default_rng(0).normal(size=(32, 8, 8, 3)).astype("float32")
ROWS = np.random.default_rng(1).normal(size=(64, 12)).astype("float32")
LABELS = (ROWS[:, 0] + ROWS[:, 1] > 0).astype("int32")
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def array(tensor) -> np.ndarray:
    return keras.ops.convert_to_numpy(tensor)


def mlp(dtype=None):
    keras.utils.set_random_seed(1)
    hidden, head = layers.Dense(16, "relu", name="hidden", dtype=dtype), layers.Dense(2, name="head", dtype=dtype)
    return keras.Sequential([keras.Input((12,)), hidden, head])


def vit(blocks=2):
    """Patches of 4 × 4, blocks with attention, mean pooling."""
    keras.utils.set_random_seed(2)
    image = keras.Input((8, 8, 3))
    x = layers.Reshape((4, 16))(layers.Conv2D(16, 4, 4)(image))
    for block in range(blocks):
        normed = layers.LayerNormalization()(x)
        x = x + layers.MultiHeadAttention(4, 4, name=f"attention_{block}")(normed, normed)
        hidden = layers.Dense(32, "gelu", name=f"up_{block}")(layers.LayerNormalization()(x))
        x = x + layers.Dense(16, name=f"down_{block}")(hidden)
    return keras.Model(image, layers.Dense(2, name="head")(layers.GlobalAveragePooling1D()(x)))


class Subclassed(keras.Model):
    """Its layers stand in a list, and its attention inside another layer."""

    def __init__(self):
        super().__init__()
        self.steps = [layers.Dense(8, "tanh", name=f"step_{index}") for index in range(2)]
        self.attention = layers.TimeDistributed(layers.Dense(3, name="inside"))
        self.head = layers.Dense(2, name="head")

    def call(self, inputs):
        x = inputs
        for step in self.steps:
            x = step(x)
        return self.head(ops.mean(self.attention(ops.reshape(x, (-1, 2, 4))), axis=1))


def subclassed():
    keras.utils.set_random_seed(3)
    model = Subclassed()
    model(ROWS[:2])
    return model


class Block(layers.Layer):
    """An encoder's block as keras-hub has them: what is inside is made when it is built, and named as there."""

    def __init__(self, heads=4, neurons=24, dropout=0.0, activation="gelu", **kwargs):
        super().__init__(**kwargs)
        self.heads, self.neurons, self.dropout, self.activation = heads, neurons, dropout, activation

    def build(self, shape):
        width = shape[-1]
        self.attention = layers.MultiHeadAttention(
            self.heads, width // self.heads, dropout=self.dropout, dtype=self.dtype_policy, name="self_attention_layer"
        )
        self.attention.build(shape, shape)
        self.norms = [layers.LayerNormalization(dtype=self.dtype_policy, name=f"norm_{each}") for each in range(2)]
        self.up = layers.Dense(self.neurons, dtype=self.dtype_policy, name="feedforward_intermediate_dense")
        self.between = layers.Activation(self.activation, dtype=self.dtype_policy)
        self.down = layers.Dense(width, dtype=self.dtype_policy, name="feedforward_output_dense")
        for layer in (*self.norms, self.up):
            layer.build(shape)
        self.down.build((*shape[:-1], self.neurons))
        self.built = True

    def call(self, inputs, padding_mask=None, training=None):
        mask = None if padding_mask is None else ops.cast(ops.expand_dims(padding_mask, 1), "bool")
        x = self.norms[0](inputs + self.attention(inputs, inputs, attention_mask=mask, training=training))
        return self.norms[1](x + self.down(self.between(self.up(x))))

    def get_config(self):
        sizes = {name: getattr(self, name) for name in ("heads", "neurons", "dropout", "activation")}
        return {**super().get_config(), **sizes}


def encoder(blocks=2, dtype=None, **sizes):
    """Blocks over sequences of 16 features, with a padding mask, and a head."""
    keras.utils.set_random_seed(4)
    inputs = {"features": keras.Input((6, 16), name="features"), "padding_mask": keras.Input((6,), name="padding_mask")}
    x = inputs["features"]
    for block in range(blocks):
        x = Block(name=f"block_{block}", dtype=dtype, **sizes)(x, padding_mask=inputs["padding_mask"])
    model = keras.Model(inputs, layers.Dense(2, name="head", dtype=dtype)(layers.GlobalAveragePooling1D()(x)))
    randomize(model)
    return model


def randomize(model, seed=5):
    """Draws all variables that are trained, biases too."""
    rng = np.random.default_rng(seed)
    for variable in model.trainable_variables:
        variable.assign(array(variable) + rng.normal(0, 0.2, tuple(variable.shape)).astype("float32"))


PADDED = {
    "features": np.random.default_rng(6).normal(size=(32, 6, 16)).astype("float32"),
    "padding_mask": (np.arange(6) < np.random.default_rng(7).integers(2, 7, (32, 1))).astype("float32"),
}


def by_place(model):
    """(block, role) → gated layer."""
    return {(layer.layer_index, layer.role): layer for layer in gated_layers(model)
            if layer.layer_index is not None}  # fmt: skip


def open_columns(layer):
    return array(layer.gates).any(0)


def closed_units(model):
    """(block, head) and (block, neuron) of what is closed as a whole, told from gates."""
    heads, neurons = [], []
    for (block, role), layer in by_place(model).items():
        if role == "value":
            heads += [(block, head) for head in np.flatnonzero(~open_columns(layer).reshape(4, -1).any(1))]
        elif role == "ffn_intermediate":
            neurons += [(block, neuron) for neuron in np.flatnonzero(~open_columns(layer))]
    return heads, neurons
