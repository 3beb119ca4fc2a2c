"""BERT's own: its classes, and what its checkpoints call their parts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gated_bert.models.architecture import BertConfig
from gated_bert.models.family import BERT, Family, register_family
from gated_bert.models.heads import BERT_HEADS
from gated_bert.models.post_norm_family import PostNormFamily
from gated_bert.tasks.wordpiece import Tokenizer

if TYPE_CHECKING:
    from gated_bert.models.bert import BertClassifier


@register_family
class BertFamily(PostNormFamily):
    """BERT, as transformers and Google write it."""

    model_type = BERT
    architecture = BertConfig
    tokenizer = Tokenizer
    title = "BERT"
    prefix = "bert."
    class_prefix = "Bert"
    outside = Family.outside
    pooled = Family.pooled
    heads = BERT_HEADS
    head_layers = {"pooler/dense": "pooler/dense", "output": "classifier"}

    @classmethod
    def model(cls) -> type[BertClassifier]:
        """See `Family`."""
        from gated_bert.models.bert import BertClassifier

        return BertClassifier
