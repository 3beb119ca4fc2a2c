import keras
import numpy as np
import pytest

from gated_bert.models.architecture import BertConfig
from gated_bert.models.bert import BertClassifier

BATCH, LENGTH, VOCAB = 8, 6, 40


@pytest.fixture
def make_model():
    """A BERT with hidden size 32, 4 heads and 64 neurons, its weights drawn from a seed."""

    def make(gate_rule="fixed", num_layers=2, **options):
        keras.utils.set_random_seed(0)
        config = BertConfig.uniform(
            num_layers, 32, 4, 64, vocab_size=VOCAB, num_outputs=2, gate_rule=gate_rule, **options
        )
        model = BertClassifier(config)
        # The usual initial deviation of 0.02 leaves losses that hardly differ.
        for layer in model.gated_layers():
            layer.raw_kernel.assign(8 * keras.ops.convert_to_numpy(layer.raw_kernel))
        return model

    return make


class Batches(keras.utils.PyDataset):
    """A few fixed batches in the input format of BERT."""

    def __init__(self, count=4):
        super().__init__()
        rng = np.random.default_rng(0)
        self.batches = []
        for index in range(count):
            ids = rng.integers(5, VOCAB, (BATCH, LENGTH + index % 2)).astype("int32")
            inputs = {"input_ids": ids, "token_type_ids": np.zeros_like(ids), "attention_mask": np.ones_like(ids)}
            self.batches.append((inputs, (ids[:, 1] % 2).astype("int32")))

    def __len__(self):
        return len(self.batches)

    def __getitem__(self, index):
        return self.batches[index]


@pytest.fixture
def batches():
    return Batches()
