"""ELECTRA: BERT whose embeddings may be narrower than its blocks, with a dense layer and a GELU in its head.

Paper: Clark et al. 2020, ELECTRA (https://arxiv.org/abs/2003.10555).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gated_bert.models.family import register_family
from gated_bert.models.family_sizes import ELECTRA, ElectraConfig
from gated_bert.models.heads import CHOICE, CLASSES, LANGUAGE, PRETRAINING, SPANS, TOKENS, HeadTensors
from gated_bert.models.post_norm_family import PostNormFamily
from gated_bert.tasks.wordpiece import Tokenizer

if TYPE_CHECKING:
    from gated_bert.models.electra import ElectraClassifier


@register_family
class ElectraFamily(PostNormFamily):
    """ELECTRA, as transformers writes it."""

    model_type = ELECTRA
    architecture = ElectraConfig
    tokenizer = Tokenizer
    title = "ELECTRA"
    prefix = "electra."
    class_prefix = "Electra"
    fields = {**PostNormFamily.fields, "embedding_size": "embedding_size"}
    defaults = {**PostNormFamily.defaults, "embedding_size": 128}
    heads = HeadTensors("classifier.out_proj.weight", "classifier.dense.weight", {
        SPANS: ("qa_outputs.weight",), CLASSES: ("classifier.out_proj.weight",),
        CHOICE: ("sequence_summary.summary.weight", "classifier.weight"), TOKENS: ("classifier.weight",),
        PRETRAINING: ("discriminator_predictions.dense.weight",), LANGUAGE: ("generator_predictions.dense.weight",),
    })  # fmt: skip
    head_layers = {"pooler/dense": "classifier/dense", "output": "classifier.out_proj"}

    @classmethod
    def model(cls) -> type[ElectraClassifier]:
        """See `Family`."""
        from gated_bert.models.electra import ElectraClassifier

        return ElectraClassifier
