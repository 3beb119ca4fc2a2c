import keras
import numpy as np
import pytest

from gated_bert.models.architecture import BertConfig
from gated_bert.models.bert import BertClassifier

VOCAB = 40
INPUTS = {
    "input_ids": np.random.default_rng(0).integers(0, VOCAB, (4, 7), dtype=np.int32),
    "token_type_ids": np.repeat([[0, 0, 0, 0, 1, 1, 1]], 4, axis=0).astype(np.int32),
    "attention_mask": (np.arange(7) < np.array([[7], [5], [2], [6]])).astype(np.int32),
}


@pytest.fixture
def inputs():
    """Four sequences of two segments, three of them padded."""
    return INPUTS


@pytest.fixture
def make_model():
    """A BERT with hidden size 16, 4 heads of 4 and 12 neurons, biases and all else drawn from a seed."""

    def make(seed=0, num_layers=2, dtype="float32", vocab_size=VOCAB, **options):
        config = BertConfig.uniform(num_layers, 16, 4, 12, vocab_size=vocab_size, max_position=16, **options)
        model = BertClassifier(config, dtype=dtype)
        randomize(model, seed)
        return model

    return make


def randomize(model, seed):
    """Weights large enough that everything in the model changes its logits, and biases like them."""
    rng = np.random.default_rng(seed)
    for layer in model.gated_layers():
        layer.raw_kernel.assign(rng.normal(0, 0.5, layer.raw_kernel.shape))
        layer.bias.assign(rng.normal(0, 0.7, layer.bias.shape))
    for variable in model.weights:
        if variable.name in ("embeddings", "position_embedding"):
            variable.assign(rng.normal(0, 1, variable.shape))
        if variable.name in ("gamma", "beta"):
            variable.assign(keras.ops.convert_to_numpy(variable) + rng.normal(0, 0.2, variable.shape))
