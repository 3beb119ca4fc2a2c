"""The sizes of a BERT, layer by layer."""

from __future__ import annotations

import dataclasses
import itertools
import json
from dataclasses import dataclass

from gated_bert.errors import UserError

ACTIVATIONS = {
    **dict.fromkeys(("gelu", "gelu_python"), "gelu"),
    **dict.fromkeys(("gelu_new", "gelu_pytorch_tanh", "gelu_fast", "gelu_accurate"), "gelu_tanh"),
    **dict.fromkeys(("silu", "swish"), "silu"),
    "quick_gelu": "quick_gelu",
    "relu": "relu",
}
"""What transformers calls an activation function → the function, see `gated_bert.models.layers`."""


@dataclass(frozen=True)
class LayerSizes:
    """Sizes of one encoder layer.

    A layer with `num_heads` 0 keeps its residual path and a constant in place of attention; one with
    `intermediate_size` 0 keeps them in place of the feed-forward network.

    Args:
        num_heads: attention heads.
        query_key_dim: size of one head's queries and keys.
        value_dim: size of one head's values.
        intermediate_size: neurons of the feed-forward network.
    """

    num_heads: int
    query_key_dim: int
    value_dim: int
    intermediate_size: int

    def describe(self) -> str:
        """The sizes in words: `12 heads of 64, 3,072 neurons`."""
        dims = f"{self.query_key_dim}"
        if self.query_key_dim != self.value_dim:
            dims = f"{self.query_key_dim} (query and key) and {self.value_dim} (value)"
        heads = f"{self.num_heads} head{'s' * (self.num_heads > 1)} of {dims}" if self.num_heads else "no heads"
        neurons = f"{self.intermediate_size:,} neuron{'s' * (self.intermediate_size > 1)}"
        return f"{heads}, {neurons if self.intermediate_size else 'no neurons'}"


@dataclass(frozen=True)
class BertConfig:
    """Architecture of a BERT with gates; writes and reads JSON.

    Args:
        vocab_size: rows of the token embedding.
        hidden_size: width of the residual path.
        layers: sizes of every encoder layer.
        original_head_dim: head size whose inverse square root scales the attention scores; it stays when a head
            loses dimensions.
        max_position: rows of the position embedding, the longest input in tokens.
        type_vocab_size: rows of the segment embedding.
        dropout_rate: share dropped after the embeddings, in the attention and after every sub-layer.
        layer_norm_epsilon: added to the variance in layer normalisation.
        hidden_act: activation function of the feed-forward networks, one of `ACTIVATIONS`.
        num_outputs: logits of the head.
        span_head: whether the head reads every token, for start and end logits, instead of the pooled first one; such
            a model has no pooler.
        gate_init_value: initial value of all gates.
        gate_trainable: whether gates are trained.
        gate_rule: rule that gives the gates, see `gated_bert.models.gate_rules`.

    Raises:
        UserError: a size that makes no model, or an unknown activation function.
    """

    vocab_size: int
    hidden_size: int
    layers: tuple[LayerSizes, ...]
    original_head_dim: int
    max_position: int = 512
    type_vocab_size: int = 2
    dropout_rate: float = 0.0
    layer_norm_epsilon: float = 1e-12
    hidden_act: str = "gelu"
    num_outputs: int = 2
    span_head: bool = False
    gate_init_value: float = 1.0
    gate_trainable: bool = False
    gate_rule: str = "fixed"

    def __post_init__(self):
        if not isinstance(self.hidden_act, str) or self.hidden_act not in ACTIVATIONS:
            known = ", ".join(ACTIVATIONS)
            raise UserError(f"architecture: hidden_act is {self.hidden_act!r}; allowed: {known}")
        for name in (
            "vocab_size",
            "hidden_size",
            "original_head_dim",
            "max_position",
            "type_vocab_size",
            "num_outputs",
        ):
            _at_least(name, getattr(self, name), 1)
        for index, sizes in enumerate(self.layers):
            smallest = 1 if sizes.num_heads else 0
            for name, low in (
                ("num_heads", 0),
                ("query_key_dim", smallest),
                ("value_dim", smallest),
                ("intermediate_size", 0),
            ):
                _at_least(f"layers[{index}].{name}", getattr(sizes, name), low)

    @classmethod
    def uniform(cls, num_layers: int, d_model: int, num_heads: int, dff: int, vocab_size: int, **others) -> BertConfig:
        """An architecture whose layers are all alike, as every published BERT is.

        Args:
            num_layers: encoder layers.
            d_model: hidden size.
            num_heads: heads a layer; divides `d_model`.
            dff: neurons of the feed-forward network.
            vocab_size: rows of the token embedding.
            **others: further fields.

        Raises:
            UserError: `num_heads` does not divide `d_model`, or a size below 1.
        """
        _at_least("num_heads", num_heads, 1)
        if d_model % num_heads:
            raise UserError(f"num_heads: {num_heads} does not divide the hidden size {d_model}")
        head_dim = d_model // num_heads
        sizes = LayerSizes(num_heads, head_dim, head_dim, dff)
        return cls(vocab_size, d_model, (sizes,) * num_layers, original_head_dim=head_dim, **others)

    @property
    def num_layers(self) -> int:
        """Number of encoder layers."""
        return len(self.layers)

    @property
    def activation(self) -> str:
        """The activation function of the feed-forward networks; several names of `hidden_act` mean the same."""
        return ACTIVATIONS[self.hidden_act]

    def weight_counts(self) -> dict[str, int]:
        """Weights of each role's matrices over all layers, without biases."""
        hidden = self.hidden_size
        counts = dict.fromkeys(("query", "key", "value", "attention_output", "ffn_intermediate", "ffn_output"), 0)
        for sizes in self.layers:
            queries, values = sizes.num_heads * sizes.query_key_dim, sizes.num_heads * sizes.value_dim
            widths = (queries, queries, values, values, sizes.intermediate_size, sizes.intermediate_size)
            for role, width in zip(counts, widths, strict=True):
                counts[role] += hidden * width
        pooler = 0 if self.span_head else hidden**2
        return counts | {"pooler": pooler, "classifier": hidden * self.num_outputs}

    @property
    def num_parameters(self) -> int:
        """Trainable parameters of the model, gates and scores left out."""
        hidden = self.hidden_size
        embeddings = (self.vocab_size + self.max_position + self.type_vocab_size + 2) * hidden
        biases = (0 if self.span_head else hidden) + self.num_outputs
        for sizes in self.layers:
            biases += sizes.num_heads * (2 * sizes.query_key_dim + sizes.value_dim) + sizes.intermediate_size
            biases += 6 * hidden  # Of the two outputs, and scale and shift of two layer norms.
        return embeddings + biases + sum(self.weight_counts().values())

    def describe_layers(self) -> str:
        """The encoder layers in words, a line for each run of equal ones: `layers 0–2: 12 heads of 64, …`."""
        lines = []
        for sizes, group in itertools.groupby(enumerate(self.layers), key=lambda pair: pair[1]):
            indices = [index for index, _ in group]
            which = f"layers {indices[0]}–{indices[-1]}" if len(indices) > 1 else f"layer {indices[0]}"
            lines.append(f"{which}: {sizes.describe()}")
        return "\n".join(lines)

    def replace(self, **changes) -> BertConfig:
        """A copy with `changes`."""
        return dataclasses.replace(self, **changes)

    def to_dict(self) -> dict:
        """The fields as plain values that JSON can hold."""
        return {**dataclasses.asdict(self), "layers": [dataclasses.asdict(sizes) for sizes in self.layers]}

    @classmethod
    def from_dict(cls, values: dict) -> BertConfig:
        """The inverse of `to_dict`.

        Raises:
            UserError: a field is missing or unknown, or a size makes no model.
        """
        try:
            return cls(**{**values, "layers": tuple(LayerSizes(**sizes) for sizes in values["layers"])})
        except KeyError as error:
            raise UserError(f"the architecture has no field {error}") from error
        except TypeError as error:
            raise UserError(f"the architecture's fields do not fit: {error}") from error

    def to_json(self) -> str:
        """The architecture as JSON text."""
        return json.dumps(self.to_dict(), indent=2)

    @classmethod
    def from_json(cls, text: str) -> BertConfig:
        """The inverse of `to_json`."""
        return cls.from_dict(json.loads(text))


def _at_least(name: str, value: object, low: int):
    if not isinstance(value, int) or isinstance(value, bool) or value < low:
        raise UserError(f"architecture: {name} is {value!r}; it must be a whole number from {low} up")
