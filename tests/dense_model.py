"""A small model that families of models by speed are made of."""

from pathlib import Path

import keras

from gated_bert.models.architecture import BertConfig
from gated_bert.models.bert import BertClassifier
from gated_bert.models.folder import save_model
from gated_bert.tasks.embedded import embedded_vocabulary
from gated_bert.tasks.task import TASKS
from gated_bert.tasks.wordpiece import Tokenizer


def dense_model(folder: Path) -> Path:
    """Writes a model of SST-2 that nothing was taught, of texts of up to 64 tokens, to a folder."""
    tokenizer = Tokenizer.from_vocab(embedded_vocabulary())
    keras.utils.set_random_seed(0)
    model = BertClassifier(BertConfig.uniform(2, 24, 4, 40, vocab_size=tokenizer.vocab_size, max_position=64))
    for layer in model.gated_layers():
        layer.set_kernel(10 * keras.ops.convert_to_numpy(layer.raw_kernel))
    save_model(folder, model, tokenizer, TASKS["sst2"], {"config": {"max_len": 24}})
    return folder
