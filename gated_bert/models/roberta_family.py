"""RoBERTa and XLM-R: BERT without segments, whose positions are counted from behind the padding's id.

Papers: Liu et al. 2019, RoBERTa (https://arxiv.org/abs/1907.11692); Conneau et al. 2020, Unsupervised Cross-lingual
Representation Learning at Scale (https://arxiv.org/abs/1911.02116).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gated_bert.models.architecture import PostNormConfig
from gated_bert.models.family import register_family
from gated_bert.models.family_sizes import ROBERTA, XLM_ROBERTA, RobertaConfig, XlmRobertaConfig
from gated_bert.models.heads import CHOICE, CLASSES, LANGUAGE, SPANS, TOKENS, HeadTensors
from gated_bert.models.post_norm_family import PostNormFamily
from gated_bert.tasks.file_tokenizers import RobertaTokenizer

if TYPE_CHECKING:
    from gated_bert.models.roberta import RobertaClassifier


@register_family
class RobertaFamily(PostNormFamily):
    """RoBERTa, as transformers writes it."""

    model_type = ROBERTA
    architecture = RobertaConfig
    tokenizer = RobertaTokenizer
    title = "RoBERTa"
    prefix = "roberta."
    class_prefix = "Roberta"
    fields = {**PostNormFamily.fields, "padding_index": "pad_token_id"}
    defaults = {**PostNormFamily.defaults, "pad_token_id": 1}
    heads = HeadTensors("classifier.out_proj.weight", "classifier.dense.weight", {
        SPANS: ("qa_outputs.weight",), CLASSES: ("classifier.out_proj.weight",), TOKENS: ("classifier.weight",),
        CHOICE: ("classifier.weight",), LANGUAGE: ("lm_head.dense.weight",),
    })  # fmt: skip
    head_layers = {"pooler/dense": "classifier/dense", "output": "classifier.out_proj"}

    @classmethod
    def model(cls) -> type[RobertaClassifier]:
        """See `Family`."""
        from gated_bert.models.roberta import RobertaClassifier

        return RobertaClassifier

    @classmethod
    def from_published(cls, given: dict[str, Any]) -> dict[str, Any]:
        """See `PostNormFamily`; the format counts the rows of the position embedding."""
        return given | {"max_position": given["max_position"] - given["padding_index"] - 1}

    @classmethod
    def published(cls, architecture: PostNormConfig) -> dict[str, Any]:
        """See `PostNormFamily`."""
        return super().published(architecture) | {"max_position": architecture.position_rows}


@register_family
class XlmRobertaFamily(RobertaFamily):
    """XLM-R, which is RoBERTa's architecture by another name."""

    model_type = XLM_ROBERTA
    architecture = XlmRobertaConfig
    title = "XLM-R"
    class_prefix = "XLMRoberta"

    @classmethod
    def model(cls) -> type[RobertaClassifier]:
        """See `Family`."""
        from gated_bert.models.roberta import XlmRobertaClassifier

        return XlmRobertaClassifier
