"""DistilBERT: BERT without segments, whose head has a layer of its own in place of the pooler.

Paper: Sanh et al. 2019, DistilBERT, a distilled version of BERT (https://arxiv.org/abs/1910.01108).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from gated_bert.models.family import register_family
from gated_bert.models.family_sizes import DISTILBERT, DistilBertConfig
from gated_bert.models.heads import CHOICE, CLASSES, LANGUAGE, SPANS, TOKENS, HeadTensors
from gated_bert.models.post_norm_family import PostNormFamily
from gated_bert.tasks.file_tokenizers import PlainTokenizer

if TYPE_CHECKING:
    from gated_bert.models.distilbert import DistilBertClassifier

_PARTS = {
    "attention/self/query": "attention/q_lin",
    "attention/self/key": "attention/k_lin",
    "attention/self/value": "attention/v_lin",
    "attention/output/dense": "attention/out_lin",
    "attention/output/LayerNorm": "sa_layer_norm",
    "intermediate/dense": "ffn/lin1",
    "output/dense": "ffn/lin2",
    "output/LayerNorm": "output_layer_norm",
}
"""Our names inside a block → DistilBERT's."""


@register_family
class DistilBertFamily(PostNormFamily):
    """DistilBERT, as transformers writes it."""

    model_type = DISTILBERT
    architecture = DistilBertConfig
    tokenizer = PlainTokenizer
    title = "DistilBERT"
    prefix = "distilbert."
    class_prefix = "DistilBert"
    fields = {
        "num_layers": "n_layers",
        "d_model": "dim",
        "num_heads": "n_heads",
        "dff": "hidden_dim",
        "vocab_size": "vocab_size",
        "max_position": "max_position_embeddings",
        "hidden_act": "activation",
    }
    defaults = {"max_position_embeddings": 512, "activation": "gelu"}
    only = {}
    dropout_fields = ("dropout", "attention_dropout", "seq_classif_dropout", "qa_dropout")
    heads = HeadTensors("classifier.weight", "pre_classifier.weight", {
        SPANS: ("qa_outputs.weight",), CLASSES: ("classifier.weight", "pre_classifier.weight"),
        TOKENS: ("classifier.weight",), CHOICE: ("classifier.weight", "pre_classifier.weight"),
        LANGUAGE: ("vocab_transform.weight",),
    })  # fmt: skip
    head_layers = {"pooler/dense": "pre_classifier", "output": "classifier"}

    @classmethod
    def model(cls) -> type[DistilBertClassifier]:
        """See `Family`."""
        from gated_bert.models.distilbert import DistilBertClassifier

        return DistilBertClassifier

    @classmethod
    def in_transformers(cls, name: str) -> str:
        """See `PostNormFamily`."""
        found = re.fullmatch(r"encoder/layer_(\d+)/(.+)/(\w+)", name)
        return name if found is None else f"transformer/layer/{found[1]}/{_PARTS[found[2]]}/{found[3]}"
