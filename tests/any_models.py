"""Small Keras models that know nothing of this package, and what is asked of every one of them."""

from __future__ import annotations

import keras
import numpy as np
from keras import layers, ops

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
