"""The sizes of models of other families than BERT."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from gated_bert.models.architecture import ACTIVATIONS, BertConfig, PostNormConfig, SizeError

ROBERTA, XLM_ROBERTA, DISTILBERT, ELECTRA = "roberta", "xlm-roberta", "distilbert", "electra"
MODERNBERT = "modernbert"


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


@dataclass(frozen=True)
class ModernBertConfig(PostNormConfig):
    """Architecture of a ModernBERT with gates; its matrices have no biases, and a neuron is a gated unit.

    Args:
        global_layers: indices of the layers whose tokens attend to all others, not to those nearby alone.
        local_attention: tokens of the window of the other layers, half of them on each side.
        global_theta: base of the wavelengths of the rotation in the former.
        local_theta: the same in the latter.
        head_act: activation function of the head's first layer, one of `ACTIVATIONS`.
        pooling: what the head reads: `cls`, the first token, or `mean`, the mean over all.
        **others: those of `PostNormConfig`.
    """

    model_type: ClassVar[str] = MODERNBERT
    use_bias: ClassVar[bool] = False
    columns_per_neuron: ClassVar[int] = 2
    own_sizes: ClassVar[Mapping[str, int]] = {"local_attention": 2}

    layer_norm_epsilon: float = 1e-5
    global_layers: tuple[int, ...] = ()
    local_attention: int = 128
    global_theta: float = 160_000.0
    local_theta: float = 10_000.0
    head_act: str = "gelu"
    pooling: str = "cls"

    def __post_init__(self):
        if self.span_head:
            raise SizeError("architecture: a ModernBERT with a head for spans is not supported")
        if self.head_act not in ACTIVATIONS:
            raise SizeError(f"architecture: head_act is {self.head_act!r}; allowed: {', '.join(ACTIVATIONS)}")
        if self.pooling not in ("cls", "mean"):
            raise SizeError(f"architecture: pooling is {self.pooling!r}; allowed: cls, mean")
        if self.original_head_dim % 2:
            raise SizeError(f"architecture: heads of {self.original_head_dim}; rotated ones have an even size")
        for name in ("global_theta", "local_theta"):
            if not 1 <= getattr(self, name) <= 1e12:
                raise SizeError(f"architecture: {name} is {getattr(self, name)!r}; it must be a number from 1 to 1e12")
        super().__post_init__()

    @property
    def position_rows(self) -> int:
        return 0

    @property
    def has_pooler(self) -> bool:
        # Where tokens are classified, too.
        return True

    @property
    def num_parameters(self) -> int:
        hidden = self.hidden_size
        # Scales of norms: of the embeddings, the head and behind the blocks, two of each block but one of the first.
        norms = hidden * (3 + 2 * self.num_layers - (self.num_layers > 0))
        # A sub-layer that has lost all is a constant.
        constants = sum(hidden * ((not sizes.num_heads) + (not sizes.intermediate_size)) for sizes in self.layers)
        return self.vocab_size * hidden + norms + constants + self.num_outputs + sum(self.weight_counts().values())
