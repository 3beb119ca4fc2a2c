"""What the families that are made of BERT's blocks share: how their checkpoints are read and written.

Our names are those of Google's checkpoints without the leading `bert/`, e.g.
`encoder/layer_0/attention/self/query/kernel`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from gated_bert.models.architecture import PostNormConfig
from gated_bert.models.family import Family
from gated_bert.support.errors import UserError, one_line
from gated_bert.tasks.kinds import OF_SPAN, OF_TEXT, OF_TOKEN

if TYPE_CHECKING:
    import keras

    from gated_bert.models.post_norm import PostNormClassifier

HEAD = ("output_weights", "output_bias")
SPAN_HEAD = ("cls/squad/output_weights", "cls/squad/output_bias")
TOKEN_HEAD = ("cls/tokens/output_weights", "cls/tokens/output_bias")
POOLER = "pooler/"


class PostNormFamily(Family):
    """A family whose blocks are BERT's; a subclass says what its checkpoints call their parts.

    Attributes:
        fields: field of the architecture, or argument of `uniform` → field of `config.json`.
        defaults: fields of `config.json` that may be missing → what transformers takes then.
        only: fields of `config.json` that may have one value alone → that value.
        head_layers: our names of the head's parts → what transformers calls them.
    """

    architecture: ClassVar[type[PostNormConfig]]
    fields: ClassVar[Mapping[str, str]] = {
        "num_layers": "num_hidden_layers",
        "d_model": "hidden_size",
        "num_heads": "num_attention_heads",
        "dff": "intermediate_size",
        "vocab_size": "vocab_size",
        "max_position": "max_position_embeddings",
        "type_vocab_size": "type_vocab_size",
        "layer_norm_epsilon": "layer_norm_eps",
        "hidden_act": "hidden_act",
    }
    defaults: ClassVar[Mapping[str, Any]] = {
        "max_position_embeddings": 512, "type_vocab_size": 2, "layer_norm_eps": 1e-12, "hidden_act": "gelu",
    }  # fmt: skip
    only: ClassVar[Mapping[str, Any]] = {"position_embedding_type": "absolute", "is_decoder": False}
    head_layers: ClassVar[Mapping[str, str]]
    optional: ClassVar[tuple[str, ...]] = (POOLER, *HEAD, *SPAN_HEAD, *TOKEN_HEAD)
    # BERT alone has a pooler in its encoder.
    outside: ClassVar[tuple[str, ...]] = (POOLER, *Family.outside)
    pooled: ClassVar[str] = "first layer of a classifier"

    @classmethod
    def read_config(cls, values: dict, where: str) -> PostNormConfig:
        """See `Family`."""
        for name, known in cls.only.items():
            if values.get(name, known) != known:
                raise UserError(f"{where}: {name} is {values[name]!r}; only {known!r} is supported")
        try:
            given = {own: values[name] if name in values or name not in cls.defaults else cls.defaults[name]
                     for own, name in cls.fields.items()}  # fmt: skip
            return cls.architecture.uniform(**cls.from_published(given))
        except KeyError as error:
            raise UserError(f"{where}: no field {error}; a {cls.title} configuration is needed") from error
        except (UserError, TypeError) as error:
            raise UserError(f"{where}: {one_line(error)}") from error

    @classmethod
    def from_published(cls, given: dict[str, Any]) -> dict[str, Any]:
        """Arguments of `uniform` by what a `config.json` says, under our names."""
        return given

    @classmethod
    def published(cls, architecture: PostNormConfig) -> dict[str, Any]:
        """The inverse of `from_published`."""
        sizes = architecture.layers[0]
        own = {"num_layers": architecture.num_layers, "d_model": architecture.hidden_size,
               "num_heads": sizes.num_heads, "dff": sizes.intermediate_size}  # fmt: skip
        return {name: own[name] if name in own else getattr(architecture, name) for name in cls.fields}

    @classmethod
    def write_config(cls, architecture: PostNormConfig) -> dict:  # type: ignore[override]  # its own architectures alone
        """The inverse; see `Family`."""
        fields = {cls.fields[own]: value for own, value in cls.published(architecture).items()}
        dropped = dict.fromkeys(cls.dropout_fields, architecture.dropout_rate)
        return {"model_type": cls.model_type, **fields, **dropped, **cls.only}

    dropout_fields: ClassVar[tuple[str, ...]] = ("hidden_dropout_prob", "attention_probs_dropout_prob")
    """Fields of `config.json` that hold the share of what is dropped."""

    @classmethod
    def head_names(cls, head: str) -> tuple[str, str]:
        """See `Family`; a classifier of texts is no other head, whatever its shape."""
        return {OF_TEXT: HEAD, OF_SPAN: SPAN_HEAD, OF_TOKEN: TOKEN_HEAD}[head]

    @classmethod
    def variables(cls, model: PostNormClassifier) -> dict[str, keras.Variable]:  # type: ignore[override]
        """See `Family`."""
        encoder = model.encoder
        parts = encoder.embeddings
        named = {
            "embeddings/word_embeddings": parts.token.embeddings,
            **_norm("embeddings", parts.norm),
        }
        if parts.position is not None:
            named["embeddings/position_embeddings"] = parts.position
        if parts.token_type is not None:
            named["embeddings/token_type_embeddings"] = parts.token_type.embeddings
        if parts.projection is not None:
            named |= {"embeddings_project/kernel": parts.projection.kernel,
                      "embeddings_project/bias": parts.projection.bias}  # fmt: skip
        for index, block in enumerate(encoder.blocks):
            stem = f"encoder/layer_{index}"
            for role in ("query", "key", "value"):
                named |= _dense(f"{stem}/attention/self/{role}", getattr(block.attention, role))
            named |= _dense(f"{stem}/attention/output/dense", block.attention.output_dense)
            named |= _norm(f"{stem}/attention/output", block.attention_norm)
            named |= _dense(f"{stem}/intermediate/dense", block.ffn.intermediate)
            named |= _dense(f"{stem}/output/dense", block.ffn.output_dense)
            named |= _norm(f"{stem}/output", block.ffn_norm)
        if encoder.pooler is not None:
            named |= _dense("pooler/dense", encoder.pooler)
        head = (model.classifier.raw_kernel, model.classifier.bias)
        return named | dict(zip(cls.head_names(model.architecture.head), head, strict=True))

    @classmethod
    def transformers_names(cls, name: str) -> tuple[str, ...]:
        """See `Family`; layer norms have an older and a newer name."""
        if name in (*HEAD, *SPAN_HEAD, *TOKEN_HEAD):
            others = {**dict.fromkeys(SPAN_HEAD, "qa_outputs"), **dict.fromkeys(TOKEN_HEAD, "classifier")}
            stem = others.get(name, cls.head_layers["output"])
            return (f"{stem}.{'weight' if name.endswith('weights') else 'bias'}",)
        if name.startswith(POOLER):
            name = name.replace("pooler/dense", cls.head_layers["pooler/dense"])
        stem, _, leaf = cls.in_transformers(name).replace("/", ".").rpartition(".")
        if leaf.endswith("_embeddings"):
            return (f"{stem}.{leaf}.weight",)
        leaves = {"kernel": ("weight",), "gamma": ("weight", "gamma"), "beta": ("bias", "beta")}.get(leaf, (leaf,))
        return tuple(f"{stem}.{each}" for each in leaves)

    @classmethod
    def in_transformers(cls, name: str) -> str:
        """A name of ours with the parts of the encoder called as transformers calls them."""
        return name.replace("layer_", "layer.")


def _dense(stem: str, layer) -> dict:
    return {f"{stem}/kernel": layer.raw_kernel, f"{stem}/bias": layer.bias}


def _norm(stem: str, layer) -> dict:
    return {f"{stem}/LayerNorm/gamma": layer.gamma, f"{stem}/LayerNorm/beta": layer.beta}
