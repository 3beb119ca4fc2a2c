"""The sizes of a model, layer by layer."""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

import numpy as np

from gated_bert.config.presets import MOST_LAYERS, MOST_ROWS, MOST_WIDTH
from gated_bert.models.layer_sizes import LayerSizes
from gated_bert.support.errors import UserError
from gated_bert.support.records import check_record, parse_record
from gated_bert.tasks.kinds import OF_SPAN, OF_TEXT, OF_TOKEN
from gated_bert.tasks.task import Task

MOST_PARAMETERS = 10**11
BERT = "bert"
"""The family of an architecture that names none, as the first records did, and of models without pretrained weights."""
ACTIVATIONS = {
    **dict.fromkeys(("gelu", "gelu_python"), "gelu"),
    **dict.fromkeys(("gelu_new", "gelu_pytorch_tanh", "gelu_fast", "gelu_accurate"), "gelu_tanh"),
    **dict.fromkeys(("silu", "swish"), "silu"),
    "quick_gelu": "quick_gelu",
    "relu": "relu",
}
"""What transformers calls an activation function → the function, see `gated_bert.models.layers`."""


_Own = TypeVar("_Own", bound="Architecture")


class SizeError(UserError):
    """A size, or the name of a function, that makes no model."""


class Architecture:
    """What the records of sizes of all families share; each is a frozen dataclass that names at least these fields.

    Attributes:
        model_type: the family, as in `config.json` of transformers; written down but for BERT's.
        input_names: the inputs of its models, in the order that exported ones have them.
        vocab_size, hidden_size, layers, original_head_dim, max_position, dropout_rate, hidden_act, num_outputs,
            span_head, token_head, gate_init_value, gate_trainable, gate_rule: see `PostNormConfig`.
    """

    __dataclass_fields__: ClassVar[dict[str, dataclasses.Field]]
    model_type: ClassVar[str]
    input_names: ClassVar[tuple[str, ...]] = ("input_ids", "attention_mask")
    columns_per_neuron: ClassVar[int] = 1
    """Columns of the first feed-forward matrix that make one neuron, side by side: 2 where one gates the other."""

    vocab_size: int
    hidden_size: int
    layers: tuple[LayerSizes, ...]
    original_head_dim: int
    max_position: int
    dropout_rate: float
    hidden_act: str
    num_outputs: int
    span_head: bool
    token_head: bool
    gate_init_value: float
    gate_trainable: bool
    gate_rule: str

    @classmethod
    def uniform(
        cls, num_layers: int, d_model: int, num_heads: int, dff: int, vocab_size: int, **others: Any
    ) -> Architecture:
        """An architecture whose layers are all alike; see `PostNormConfig.uniform`."""
        raise NotImplementedError(f"{cls.__name__} does not say how it is made of layers alike")

    def model_inputs(self, ids: np.ndarray, real: np.ndarray, second: np.ndarray) -> dict[str, np.ndarray]:
        """A batch as the model reads it, all int32 [batch, length].

        Args:
            ids: token ids.
            real: 1 where a token is none of the padding.
            second: 1 in the second text of a pair.
        """
        return {"input_ids": ids, "attention_mask": real}

    def matrix_shapes(self) -> dict[tuple[int | None, str], tuple[int, int]]:
        """(encoder layer, role) → [in, out] of its matrix; of pooler and classifier the layer is None."""
        raise NotImplementedError(f"{type(self).__name__} does not say the shapes of its matrices")

    def weight_counts(self) -> dict[str, int]:
        """Weights of each role's matrices over all layers, without biases."""
        raise NotImplementedError(f"{type(self).__name__} does not say how many weights its roles have")

    @property
    def num_parameters(self) -> int:
        """Trainable parameters of the model, gates and scores left out."""
        raise NotImplementedError(f"{type(self).__name__} does not say how many parameters it has")

    @property
    def head(self) -> str:
        """What the outputs are of, one of those in `gated_bert.tasks.kinds`."""
        return OF_SPAN if self.span_head else OF_TOKEN if self.token_head else OF_TEXT

    @property
    def has_pooler(self) -> bool:
        """Whether a layer comes between encoder and classifier."""
        return self.head == OF_TEXT

    def output_shape(self, batch: Any, length: Any) -> list:
        """The shape of the outputs for a batch of so many texts of so many tokens, numbers or names."""
        units = self.num_outputs
        return {OF_TEXT: [batch, units], OF_SPAN: [batch, units, length], OF_TOKEN: [batch, length, units]}[self.head]

    def for_task(self: _Own, task: Task, **changes: Any) -> _Own:
        """A copy with the head that a task needs, and further `changes`."""
        head = task.traits.head
        return self.replace(num_outputs=task.num_outputs, span_head=head == OF_SPAN, token_head=head == OF_TOKEN,
                            **changes)  # fmt: skip

    @property
    def num_layers(self) -> int:
        """Number of encoder layers."""
        return len(self.layers)

    @property
    def num_heads(self) -> list[int]:
        """Attention heads of each encoder layer."""
        return [sizes.num_heads for sizes in self.layers]

    @property
    def activation(self) -> str:
        """The activation function of the feed-forward networks; several names of `hidden_act` mean the same."""
        return ACTIVATIONS[self.hidden_act]

    def describe_layers(self) -> str:
        """The encoder layers in words, a line for each run of equal ones: `layers 0–2: 12 heads of 64, …`."""
        lines = []
        for sizes, group in itertools.groupby(enumerate(self.layers), key=lambda pair: pair[1]):
            indices = [index for index, _ in group]
            which = f"layers {indices[0]}–{indices[-1]}" if len(indices) > 1 else f"layer {indices[0]}"
            lines.append(f"{which}: {sizes.describe()}")
        return "\n".join(lines)

    def replace(self: _Own, **changes: Any) -> _Own:
        """A copy with `changes`."""
        return dataclasses.replace(self, **changes)

    def to_dict(self) -> dict:
        """The fields as plain values that JSON can hold."""
        named = {} if self.model_type == BERT else {"model_type": self.model_type}
        return {**named, **dataclasses.asdict(self), "layers": [dataclasses.asdict(sizes) for sizes in self.layers]}

    @classmethod
    def from_dict(cls: type[_Own], values: Any, where: str = "the architecture") -> _Own:
        """The inverse of `to_dict`, of this family; `models.family.read_architecture_of` reads any.

        Args:
            values: the fields.
            where: the file they stand in, for messages.

        Raises:
            UserError: a field is missing, unknown or of another type, or a size makes no model.
        """
        named = values.get("model_type", BERT) if isinstance(values, dict) else BERT
        if named != cls.model_type:
            raise UserError(f"{where}: model_type is {str(named)[:60]!r}; allowed: {cls.model_type}")
        try:
            config = check_record(values, cls, where=where)
        except SizeError as error:
            raise UserError(f"{where}: {error}") from None
        # A field that is not known would change what the model computes.
        fields = {name: value for name, value in values.items() if name != "model_type"}
        parts: list[tuple[type[Any], dict]] = [(cls, fields), *((LayerSizes, sizes) for sizes in values["layers"])]
        for known, given in parts:
            unknown = given.keys() - {field.name for field in dataclasses.fields(known)}
            if unknown:
                raise UserError(f"{where}: the architecture's field {min(unknown)!r} is unknown; a newer version may "
                                "read it")  # fmt: skip
        return config

    def to_json(self) -> str:
        """The architecture as JSON text."""
        return json.dumps(self.to_dict(), indent=2)

    @classmethod
    def from_json(cls: type[_Own], text: str) -> _Own:
        """The inverse of `to_json`."""
        return cls.from_dict(parse_record(text, where="the architecture"))


@dataclass(frozen=True)
class PostNormConfig(Architecture):
    """Architecture of BERT's blocks with gates, whatever embeddings are before them; writes and reads JSON.

    Args:
        vocab_size: rows of the token embedding.
        hidden_size: width of the residual path.
        layers: sizes of every encoder layer.
        original_head_dim: head size whose inverse square root scales the attention scores; it stays when a head
            loses dimensions.
        max_position: the longest input in tokens.
        dropout_rate: share dropped after the embeddings, in the attention and after every sub-layer.
        layer_norm_epsilon: added to the variance in layer normalisation.
        hidden_act: activation function of the feed-forward networks, one of `ACTIVATIONS`.
        num_outputs: logits of the head.
        span_head: whether the head reads every token, for start and end logits, instead of the pooled first one; such
            a model has no pooler.
        token_head: whether it reads every token to classify that; such a model has none either.
        gate_init_value: initial value of all gates.
        gate_trainable: whether gates are trained.
        gate_rule: rule that gives the gates, see `gated_bert.models.gate_rules`.

    Raises:
        UserError: a size that makes no model, or an unknown activation function.
    """

    use_bias: ClassVar[bool] = True
    """Whether the matrices of blocks and pooler have biases, and norms shifts; the classifier has one."""
    own_sizes: ClassVar[Mapping[str, int]] = {}
    """Fields of a family's own that count rows or columns → the lowest value."""

    vocab_size: int
    hidden_size: int
    layers: tuple[LayerSizes, ...]
    original_head_dim: int
    max_position: int = 512
    dropout_rate: float = 0.0
    layer_norm_epsilon: float = 1e-12
    hidden_act: str = "gelu"
    num_outputs: int = 2
    span_head: bool = False
    gate_init_value: float = 1.0
    gate_trainable: bool = False
    gate_rule: str = "fixed"
    token_head: bool = False

    def __post_init__(self):
        if self.span_head and self.token_head:
            raise SizeError("architecture: span_head and token_head are both true; allowed: one of them")
        if self.hidden_act not in ACTIVATIONS:
            known = ", ".join(ACTIVATIONS)
            raise SizeError(f"architecture: hidden_act is {self.hidden_act!r}; allowed: {known}")
        for name, low, high in (
            ("vocab_size", 1, MOST_ROWS),
            ("hidden_size", 1, MOST_WIDTH),
            ("original_head_dim", 1, MOST_WIDTH),
            ("max_position", 1, MOST_ROWS),
            *((name, low, MOST_ROWS) for name, low in self.own_sizes.items()),
            ("num_outputs", 1, MOST_ROWS),
        ):
            _check_size(name, getattr(self, name), low, high)
        _check_size("number of layers", len(self.layers), 0, MOST_LAYERS)
        for index, sizes in enumerate(self.layers):
            smallest = 1 if sizes.num_heads else 0
            for name, low in (
                ("num_heads", 0),
                ("query_key_dim", smallest),
                ("value_dim", smallest),
                ("intermediate_size", 0),
            ):
                _check_size(f"layers[{index}].{name}", getattr(sizes, name), low, MOST_WIDTH)
        for name, high in (("dropout_rate", 0.99), ("layer_norm_epsilon", 1.0), ("gate_init_value", 10.0)):
            value = getattr(self, name)
            if not 0 <= value <= high:
                raise SizeError(f"architecture: {name} is {value!r}; it must be a number from 0 to {high:g}")
        if self.num_parameters > MOST_PARAMETERS:
            raise SizeError(f"architecture: {self.num_parameters:,} parameters; at most {MOST_PARAMETERS:,} are built")

    @classmethod
    def uniform(
        cls, num_layers: int, d_model: int, num_heads: int, dff: int, vocab_size: int, **others: Any
    ) -> PostNormConfig:
        """An architecture whose layers are all alike, as every published one's are.

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
        for name, value, low, high in (
            ("num_layers", num_layers, 0, MOST_LAYERS),
            ("d_model", d_model, 1, MOST_WIDTH),
            ("num_heads", num_heads, 1, MOST_WIDTH),
        ):
            _check_size(name, value, low, high)
        if d_model % num_heads:
            raise SizeError(f"num_heads: {num_heads} does not divide the hidden size {d_model}")
        head_dim = d_model // num_heads
        sizes = LayerSizes(num_heads, head_dim, head_dim, dff)
        return cls(vocab_size, d_model, (sizes,) * num_layers, original_head_dim=head_dim, **others)

    @property
    def embedding_size(self) -> int:
        """Columns of the embeddings; where they are not `hidden_size`, a projection follows."""
        return self.hidden_size

    @property
    def position_rows(self) -> int:
        """Rows of the position embedding."""
        return self.max_position

    @property
    def segment_rows(self) -> int:
        """Rows of the segment embedding; 0 where there is none."""
        return 0

    def matrix_shapes(self) -> dict[tuple[int | None, str], tuple[int, int]]:
        """(encoder layer, role) → [in, out] of its matrix; of pooler and classifier the layer is None."""
        hidden = self.hidden_size
        shapes: dict[tuple[int | None, str], tuple[int, int]] = {
            (None, "pooler"): (hidden, hidden), (None, "classifier"): (hidden, self.num_outputs),
        }  # fmt: skip
        for index, sizes in enumerate(self.layers):
            queries, values = sizes.num_heads * sizes.query_key_dim, sizes.num_heads * sizes.value_dim
            inner = sizes.intermediate_size * self.columns_per_neuron
            shapes |= {(index, role): (hidden, width) for role, width in (
                ("query", queries), ("key", queries), ("value", values), ("ffn_intermediate", inner)
            )}  # fmt: skip
            shapes[index, "attention_output"] = (values, hidden)
            shapes[index, "ffn_output"] = (sizes.intermediate_size, hidden)
        return shapes

    def weight_counts(self) -> dict[str, int]:
        """Weights of each role's matrices over all layers, without biases."""
        hidden = self.hidden_size
        counts = dict.fromkeys(("query", "key", "value", "attention_output", "ffn_intermediate", "ffn_output"), 0)
        for sizes in self.layers:
            queries, values = sizes.num_heads * sizes.query_key_dim, sizes.num_heads * sizes.value_dim
            inner = sizes.intermediate_size
            widths = (queries, queries, values, values, inner * self.columns_per_neuron, inner)
            for role, width in zip(counts, widths, strict=True):
                counts[role] += hidden * width
        pooler = hidden**2 * self.has_pooler
        return counts | {"pooler": pooler, "classifier": hidden * self.num_outputs}

    @property
    def num_parameters(self) -> int:
        """Trainable parameters of the model, gates and scores left out."""
        hidden = self.hidden_size
        width = self.embedding_size
        embeddings = (self.vocab_size + self.position_rows + self.segment_rows + 2) * width
        embeddings += (width + 1) * hidden * (width != hidden)
        biases = hidden * self.has_pooler + self.num_outputs
        for sizes in self.layers:
            biases += sizes.num_heads * (2 * sizes.query_key_dim + sizes.value_dim) + sizes.intermediate_size
            biases += 6 * hidden  # Of the two outputs, and scale and shift of two layer norms.
        return embeddings + biases + sum(self.weight_counts().values())


@dataclass(frozen=True)
class BertConfig(PostNormConfig):
    """Architecture of a BERT with gates; writes and reads JSON.

    Args:
        type_vocab_size: rows of the segment embedding.
        **others: those of `PostNormConfig`.
    """

    model_type: ClassVar[str] = BERT
    input_names: ClassVar[tuple[str, ...]] = (*Architecture.input_names, "token_type_ids")
    own_sizes: ClassVar[Mapping[str, int]] = {"type_vocab_size": 1}

    type_vocab_size: int = 2

    @property
    def segment_rows(self) -> int:
        return self.type_vocab_size

    def model_inputs(self, ids: np.ndarray, real: np.ndarray, second: np.ndarray) -> dict[str, np.ndarray]:
        segments = (second * (self.type_vocab_size > 1)).astype(np.int32)
        return super().model_inputs(ids, real, second) | {"token_type_ids": segments}


def _check_size(name: str, value: object, low: int, high: int):
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise SizeError(f"architecture: {name} is {value!r}; it must be a whole number from {low} to {high:,}")
