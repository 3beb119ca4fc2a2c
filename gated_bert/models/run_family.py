"""The family of a run's model, and with it the tokeniser."""

from __future__ import annotations

from gated_bert.config import GatedBertConfig
from gated_bert.models.checkpoints import pretrained_family
from gated_bert.models.family import BERT, Family, get_family
from gated_bert.tasks.tokenizer import load_tokenizer
from gated_bert.tasks.tokenizer_protocol import TokenizerProtocol


def run_family(config: GatedBertConfig) -> type[Family]:
    """The family of a run's model: of its pretrained weights, or BERT.

    Raises:
        UserError: pretrained weights that cannot be read, or of a family that is not known.
    """
    return get_family(BERT) if config.pretrained is None else pretrained_family(config.pretrained)


def run_tokenizer(config: GatedBertConfig) -> TokenizerProtocol:
    """The tokeniser of a run, of its model's family; errors are those of `run_family` and `load_tokenizer`."""
    return load_tokenizer(config, run_family(config).tokenizer)
