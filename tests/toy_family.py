"""A family of models made from the outside: BERT without segments, whose texts stand in another arrangement."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import keras
from tokenizers import processors

from gated_bert.models.architecture import Architecture, BertConfig
from gated_bert.models.bert import BertClassifier
from gated_bert.models.bert_family import BertFamily
from gated_bert.models.family import register_family
from gated_bert.tasks.encoded import Template
from gated_bert.tasks.wordpiece import Tokenizer


@dataclass(frozen=True)
class ToyConfig(BertConfig):
    model_type: ClassVar[str] = "toy"
    input_names: ClassVar[tuple[str, ...]] = Architecture.input_names

    type_vocab_size: int = 1

    def model_inputs(self, ids, real, second):
        return Architecture.model_inputs(self, ids, real, second)


@keras.saving.register_keras_serializable(package="tests")
class ToyClassifier(BertClassifier):
    def call(self, inputs, training=None):
        assert set(inputs) == {"input_ids", "attention_mask"}
        return super().call(inputs, training=training)


class ToyTokenizer(Tokenizer):
    input_names = ("input_ids",)

    @property
    def template(self):
        begin, separator = self.special_id("begin"), self.special_id("separator")
        return Template((begin, begin), (separator, separator), (separator,))

    def _post_processor(self):
        names = [self.special[token] for token in ("[CLS]", "[SEP]")]
        begin, end = (f"{name}:0" for name in names)
        return processors.TemplateProcessing(
            single=[begin, begin, "$A:0", end], pair=[begin, begin, "$A:0", end, end, "$B:0", end],
            special_tokens=[(name, self.backend.token_to_id(name)) for name in names],
        )  # fmt: skip


@register_family
class ToyFamily(BertFamily):
    model_type = "toy"
    architecture = ToyConfig
    tokenizer = ToyTokenizer
    title = "toy"
    prefix = "toy."
    class_prefix = "Toy"

    @classmethod
    def model(cls):
        return ToyClassifier
