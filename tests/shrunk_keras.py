"""Keras models whose units are closed, and what is compared of them and of what they shrink to."""

import keras
import numpy as np
from any_models import (
    array,
    randomize,
)
from keras import layers

import gated_bert
from gated_bert import NEURONS, Magnitude, Pruner
from gated_bert.models.roles import walk

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


def two_towers(make, **options):
    """Two models that were gated each by itself, joined."""
    towers = []
    for place, share in enumerate((0.25, 0.5)):
        tower = make()
        tower.name = f"tower_{place}"
        towers.append(prune(gated_bert.gate(tower, **options), (NEURONS, share)))
    inputs = keras.tree.map_structure(lambda each: keras.Input(each.shape[1:], name=each.name), towers[0].input)
    return keras.Model(inputs, layers.Concatenate()([tower(inputs) for tower in towers]))
