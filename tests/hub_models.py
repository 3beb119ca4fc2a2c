"""Small models of keras-hub of random weights, without presets or preprocessors, and what to ask of them."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from any_models import array, randomize

SIZES = {"num_layers": 2, "num_heads": 4, "hidden_dim": 16, "intermediate_dim": 24, "max_sequence_length": 10}
FAMILIES = ("Bert", "Roberta", "XLMRoberta", "DistilBert", "Electra")
"""What the names of keras-hub's classes begin with."""


def keras_hub():
    return pytest.importorskip("keras_hub", reason="keras-hub is not installed")


def backbone(family, **sizes):
    made = getattr(keras_hub().models, f"{family}Backbone")
    keras.utils.set_random_seed(8)
    # Electra's calls it so, and has another width of embeddings.
    names = {"vocab_size": 50, "embedding_dim": 12} if family == "Electra" else {"vocabulary_size": 50}
    if family == "Albert":
        names["embedding_dim"] = 12
    return made(**names, **{**SIZES, **sizes})


def classifier(family, **sizes):
    """The family's classifier, of two classes; Electra has none in keras-hub, so one on its pooled output."""
    encoder = backbone(family, **sizes)
    if family == "Electra":
        logits = keras.layers.Dense(2, name="logits")(encoder.output["pooled_output"])
        model = keras.Model(encoder.input, logits)
    else:
        made = getattr(keras_hub().models, f"{family}TextClassifier")
        model = made(backbone=encoder, num_classes=2, preprocessor=None)
    randomize(model)
    return model


def inputs_of(model, rows=12, length=8, seed=0):
    """Ids with padding, as the model takes them."""
    rng = np.random.default_rng(seed)
    ids = rng.integers(1, 50, (rows, length)).astype("int32")
    real = (np.arange(length) < rng.integers(2, length + 1, (rows, 1))).astype("int32")
    given = {"token_ids": ids * real, "padding_mask": real, "segment_ids": (np.arange(length) > 3) * real}
    return {name: given[name].astype("int32") for name in model.input}


def blocks_of(model):
    """keras-hub's encoder layers, from input to output."""
    found = [layer for layer in model._flatten_layers() if hasattr(layer, "_feedforward_intermediate_dense")]
    return sorted(found, key=lambda layer: layer.name)


def close_by_hand(model, heads=(), neurons=()):
    """Zeros, with NumPy, for what heads and neurons multiply by.

    Args:
        model: a model of keras-hub.
        heads: pairs (block, head).
        neurons: pairs (block, neuron).
    """
    for block, head in heads:
        attention = blocks_of(model)[block]._self_attention_layer
        for layer in (attention._query_dense, attention._key_dense, attention._value_dense):
            kernel = array(layer.kernel).copy()
            kernel[:, head] = 0
            layer.kernel.assign(kernel)
        kernel = array(attention._output_dense.kernel).copy()
        kernel[head] = 0
        attention._output_dense.kernel.assign(kernel)
    for block, neuron in neurons:
        layer = blocks_of(model)[block]
        up, down = layer._feedforward_intermediate_dense, layer._feedforward_output_dense
        kernel = array(up.kernel).copy()
        kernel[:, neuron] = 0
        up.kernel.assign(kernel)
        kernel = array(down.kernel).copy()
        kernel[neuron] = 0
        down.kernel.assign(kernel)
