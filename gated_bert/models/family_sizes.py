"""The sizes of models of other families than BERT, whose blocks are BERT's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from gated_bert.models.architecture import BertConfig, PostNormConfig

ROBERTA, XLM_ROBERTA, DISTILBERT, ELECTRA = "roberta", "xlm-roberta", "distilbert", "electra"


@dataclass(frozen=True)
class RobertaConfig(PostNormConfig):
    """Architecture of a RoBERTa with gates.

    Args:
        padding_index: token id of the padding; the first position is the one after it.
        type_vocab_size: rows of the segment embedding, of which the first is added to all tokens.
        **others: those of `PostNormConfig`.
    """

    model_type: ClassVar[str] = ROBERTA
    own_sizes: ClassVar[Mapping[str, int]] = {"padding_index": 0, "type_vocab_size": 1}

    padding_index: int = 1
    type_vocab_size: int = 1

    @property
    def position_rows(self) -> int:
        return self.max_position + self.padding_index + 1

    @property
    def segment_rows(self) -> int:
        return self.type_vocab_size


@dataclass(frozen=True)
class XlmRobertaConfig(RobertaConfig):
    """Architecture of an XLM-R with gates; arguments as of `RobertaConfig`."""

    model_type: ClassVar[str] = XLM_ROBERTA


@dataclass(frozen=True)
class DistilBertConfig(PostNormConfig):
    """Architecture of a DistilBERT with gates; arguments as of `PostNormConfig`."""

    model_type: ClassVar[str] = DISTILBERT


@dataclass(frozen=True)
class ElectraConfig(BertConfig):
    """Architecture of an ELECTRA with gates.

    Args:
        embedding_size: columns of the embeddings.
        **others: those of `BertConfig`.
    """

    model_type: ClassVar[str] = ELECTRA
    own_sizes: ClassVar[Mapping[str, int]] = {"type_vocab_size": 1, "embedding_size": 1}

    embedding_size: int = 128
