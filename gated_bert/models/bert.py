"""BERT with a classification, regression or span head."""

from __future__ import annotations

from typing import Any

import keras

from gated_bert.models.architecture import BertConfig
from gated_bert.models.encoder import BertEncoder
from gated_bert.models.post_norm import PostNormClassifier


@keras.saving.register_keras_serializable(package="gated_bert")
class BertClassifier(PostNormClassifier):
    """BERT out of `GatedDense` layers, with a linear head on the pooled first token, or on every token for spans.

    Its weights exist as soon as it is made. A `.keras` file holds all of it: architecture, weights and gates.

    Args:
        bert_config: the architecture, a `BertConfig` or its dictionary.
        **kwargs: `name` and `dtype` of `keras.Model`.

    Example:

    ```python
    model = BertClassifier(BertConfig.uniform(2, 64, 4, 128, vocab_size=1000))
    batch = {"input_ids": [[2, 7, 3]], "token_type_ids": [[0, 0, 0]], "attention_mask": [[1, 1, 1]]}
    logits = model({name: np.array(values) for name, values in batch.items()})
    ```
    """

    STORED = "bert_config"
    ENCODER = BertEncoder

    architecture: BertConfig
    encoder: BertEncoder

    def __init__(self, bert_config: BertConfig | dict, name: str = "bert_classifier", **kwargs: Any):
        super().__init__(bert_config, name=name, **kwargs)
        self.bert_config = self.architecture
