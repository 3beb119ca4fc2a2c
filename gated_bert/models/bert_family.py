"""BERT's own: its classes, and the names and fields of its checkpoints.

Our names are those of Google's checkpoints without the leading `bert/`, e.g.
`encoder/layer_0/attention/self/query/kernel`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gated_bert.models.architecture import BertConfig
from gated_bert.models.family import BERT, Family, register_family
from gated_bert.support.errors import UserError, one_line
from gated_bert.tasks.wordpiece import Tokenizer

if TYPE_CHECKING:
    import keras

    from gated_bert.models.bert import BertClassifier

HEAD = {"output_weights": "classifier.weight", "output_bias": "classifier.bias"}
SPAN_HEAD = {"cls/squad/output_weights": "qa_outputs.weight", "cls/squad/output_bias": "qa_outputs.bias"}


@register_family
class BertFamily(Family):
    """BERT, as transformers and Google write it."""

    model_type = BERT
    architecture = BertConfig
    tokenizer = Tokenizer
    title = "BERT"
    prefix = "bert."
    class_prefix = "Bert"
    optional = ("pooler/", *HEAD, *SPAN_HEAD)

    @classmethod
    def model(cls) -> type[BertClassifier]:
        """See `Family`."""
        from gated_bert.models.bert import BertClassifier

        return BertClassifier

    @classmethod
    def read_config(cls, values: dict, where: str) -> BertConfig:
        """The architecture in a `config.json` of transformers or a `bert_config.json` of Google; see `Family`."""
        for name, known in {"position_embedding_type": "absolute", "is_decoder": False}.items():
            if values.get(name, known) != known:
                raise UserError(f"{where}: {name} is {values[name]!r}; only {known!r} is supported")
        try:
            return cls.architecture.uniform(
                values["num_hidden_layers"],
                values["hidden_size"],
                values["num_attention_heads"],
                values["intermediate_size"],
                vocab_size=values["vocab_size"],
                max_position=values.get("max_position_embeddings", 512),
                type_vocab_size=values.get("type_vocab_size", 2),
                layer_norm_epsilon=values.get("layer_norm_eps", 1e-12),
                hidden_act=values.get("hidden_act", "gelu"),
            )
        except KeyError as error:
            raise UserError(f"{where}: no field {error}; a {cls.title} configuration is needed") from error
        except (UserError, TypeError) as error:
            raise UserError(f"{where}: {one_line(error)}") from error

    @classmethod
    def write_config(cls, architecture: BertConfig) -> dict:
        """The inverse; see `Family`."""
        sizes = architecture.layers[0]
        return {
            "model_type": cls.model_type,
            "vocab_size": architecture.vocab_size,
            "hidden_size": architecture.hidden_size,
            "num_hidden_layers": architecture.num_layers,
            "num_attention_heads": sizes.num_heads,
            "intermediate_size": sizes.intermediate_size,
            "hidden_act": architecture.hidden_act,
            "hidden_dropout_prob": architecture.dropout_rate,
            "attention_probs_dropout_prob": architecture.dropout_rate,
            "max_position_embeddings": architecture.max_position,
            "type_vocab_size": architecture.type_vocab_size,
            "layer_norm_eps": architecture.layer_norm_epsilon,
            "position_embedding_type": "absolute",
        }

    @classmethod
    def head_names(cls, span: bool) -> tuple[str, str]:
        """See `Family`; a classifier is no span head, whatever its shape."""
        kernel, bias = SPAN_HEAD if span else HEAD
        return kernel, bias

    @classmethod
    def variables(cls, model: BertClassifier) -> dict[str, keras.Variable]:
        """See `Family`."""
        bert = model.encoder
        named = {
            "embeddings/word_embeddings": bert.embeddings.token.embeddings,
            "embeddings/position_embeddings": bert.embeddings.position,
            "embeddings/token_type_embeddings": bert.embeddings.token_type.embeddings,
            **_norm("embeddings", bert.embeddings.norm),
        }
        for index, block in enumerate(bert.blocks):
            stem = f"encoder/layer_{index}"
            for role in ("query", "key", "value"):
                named |= _dense(f"{stem}/attention/self/{role}", getattr(block.attention, role))
            named |= _dense(f"{stem}/attention/output/dense", block.attention.output_dense)
            named |= _norm(f"{stem}/attention/output", block.attention_norm)
            named |= _dense(f"{stem}/intermediate/dense", block.ffn.intermediate)
            named |= _dense(f"{stem}/output/dense", block.ffn.output_dense)
            named |= _norm(f"{stem}/output", block.ffn_norm)
        if bert.pooler is not None:
            named |= _dense("pooler/dense", bert.pooler)
        head = (model.classifier.raw_kernel, model.classifier.bias)
        return named | dict(zip(cls.head_names(model.architecture.span_head), head, strict=True))

    @classmethod
    def transformers_names(cls, name: str) -> tuple[str, ...]:
        """See `Family`; layer norms have an older and a newer name."""
        if name in HEAD | SPAN_HEAD:
            return ((HEAD | SPAN_HEAD)[name],)
        stem, _, leaf = name.replace("layer_", "layer.").replace("/", ".").rpartition(".")
        if leaf.endswith("_embeddings"):
            return (f"{stem}.{leaf}.weight",)
        leaves = {"kernel": ("weight",), "gamma": ("weight", "gamma"), "beta": ("bias", "beta")}.get(leaf, (leaf,))
        return tuple(f"{stem}.{each}" for each in leaves)


def _dense(stem: str, layer) -> dict:
    return {f"{stem}/kernel": layer.raw_kernel, f"{stem}/bias": layer.bias}


def _norm(stem: str, layer) -> dict:
    return {f"{stem}/LayerNorm/gamma": layer.gamma, f"{stem}/LayerNorm/beta": layer.beta}
