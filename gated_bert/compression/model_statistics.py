"""What a model costs: parameters, multiply-accumulates (MACs), file size, latency."""

from __future__ import annotations

import re
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from keras import ops

from gated_bert.compression.kept import effective_kernel
from gated_bert.compression.shrink import shrunk_config
from gated_bert.models.architecture import Architecture, LayerSizes
from gated_bert.models.backbone import EncoderClassifier
from gated_bert.support.errors import UserError
from gated_bert.support.text_table import aligned
from gated_bert.tasks.kinds import OF_TEXT

EMBEDDINGS = ("token_embedding", "position_embedding", "token_type_embedding")
VECTORS = "biases and norms"
"""Names of the weights that are no matrices with gates."""

_GZIP = 16 + zlib.MAX_WBITS
_BLOCK = 2**20


@dataclass(frozen=True)
class Macs:
    """Multiply-accumulates of the matrix products of a model, per token.

    Attributes:
        length: tokens of a sequence.
        layers: per encoder layer, product → MACs: the roles of its matrices, `attention_scores` and
            `attention_context`.
        head: of pooler and classifier, which see one token of a sequence, spread over all of them; a span head has no
            pooler and sees every token.
    """

    length: int
    layers: tuple[dict[str, int], ...]
    head: float

    @property
    def per_layer(self) -> tuple[int, ...]:
        """The sum of each encoder layer."""
        return tuple(sum(products.values()) for products in self.layers)

    @property
    def total(self) -> float:
        """The sum of all layers and the head."""
        return sum(self.per_layer) + self.head


def layer_macs(sizes: LayerSizes, hidden_size: int, length: int, columns_per_neuron: int = 1) -> dict[str, int]:
    """Product → MACs per token of one encoder layer, at `length` tokens a sequence.

    Attention scores count between all tokens, also where a layer looks at those nearby alone.
    """
    query_key, value = sizes.num_heads * sizes.query_key_dim, sizes.num_heads * sizes.value_dim
    return {
        "query": hidden_size * query_key,
        "key": hidden_size * query_key,
        "value": hidden_size * value,
        "attention_scores": length * query_key,
        "attention_context": length * value,
        "attention_output": value * hidden_size,
        "ffn_intermediate": hidden_size * sizes.intermediate_size * columns_per_neuron,
        "ffn_output": sizes.intermediate_size * hidden_size,
    }


def macs(config: Architecture, length: int) -> Macs:
    """The MACs of an architecture: every weight counts, closed or not.

    Args:
        config: the architecture.
        length: tokens of a sequence.
    """
    columns = config.columns_per_neuron
    layers = tuple(layer_macs(sizes, config.hidden_size, length, columns) for sizes in config.layers)
    head = config.hidden_size * (config.hidden_size * config.has_pooler + config.num_outputs)
    return Macs(length, layers, head / length if config.head == OF_TEXT else head)


def open_macs(model: EncoderClassifier, length: int) -> Macs:
    """The MACs of a model if weights that are closed or zero cost nothing.

    Of attention scores and context those dimensions count that `shrink` keeps.

    Args:
        model: the model.
        length: tokens of a sequence.
    """
    shrunk = macs(shrunk_config(model), length)
    layers = []
    for block, products in zip(model.encoder.blocks, shrunk.layers, strict=True):
        counted = {role: _nonzero(effective_kernel(matrix)) for role, matrix in block.matrices().items()}
        layers.append({name: counted.get(name, least) for name, least in products.items()})
    head = sum(_nonzero(effective_kernel(layer)) for layer in model.gated_layers(("pooler", "classifier")))
    return Macs(length, tuple(layers), head / length if model.architecture.head == OF_TEXT else head)


def mac_record(model: EncoderClassifier, length: int) -> dict[str, Any]:
    """What a run's record says of MACs per token.

    Args:
        model: the model.
        length: tokens of a sequence.

    Returns:
        `length`, and for `dense` (all weights), `open` (closed weights cost nothing) and `shrunk` (of the smaller dense
        matrices that `shrink` makes) the `total` and the list `per_layer`.
    """
    found = {
        "dense": macs(model.architecture, length),
        "open": open_macs(model, length),
        "shrunk": macs(shrunk_config(model), length),
    }
    return {"length": length} | {
        name: {"total": round(each.total), "per_layer": list(each.per_layer)} for name, each in found.items()
    }


def weight_arrays(model: EncoderClassifier) -> Iterator[tuple[int | None, str, np.ndarray]]:
    """A model's weights as inference sees them: closed ones are zero, and there are no gates.

    Yields:
        Encoder block (from 0; None outside), what it is (the role of a matrix, `token_embedding`, `position_embedding`,
        `token_type_embedding`, or `biases and norms`) and the array. Matrices come first, from input to output.
    """
    beside = set()
    for layer in model.gated_layers():
        yield layer.layer_index, layer.role, effective_kernel(layer)
        beside |= {id(variable) for variable in layer.weights if variable is not layer.bias}
    for variable in model.weights:
        if id(variable) not in beside:
            name = next((part for part in variable.path.split("/") if part in EMBEDDINGS), VECTORS)
            block = re.search(r"/encoder_(\d+)[/_]", variable.path)
            yield int(block[1]) if block else None, name, ops.convert_to_numpy(variable)


def parameter_counts(model: EncoderClassifier) -> tuple[int, int]:
    """Parameters of a model, and how many of them are not zero; a closed weight counts as zero, gates do not count."""
    counts = [(array.size, _nonzero(array)) for _, _, array in weight_arrays(model)]
    return sum(size for size, _ in counts), sum(nonzero for _, nonzero in counts)


def _nonzero(array: np.ndarray) -> int:
    return int(np.count_nonzero(array))


def gzipped_size(path: Path) -> int:
    """Bytes of a file packed by gzip at its usual level, without writing it."""
    packer, size = zlib.compressobj(6, wbits=_GZIP), 0
    with open(path, "rb") as file:
        while block := file.read(_BLOCK):
            size += len(packer.compress(block))
    return size + len(packer.flush())


def random_inputs(config: Architecture, batch: int, length: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Random tokens without padding, int32 [batch, length].

    Raises:
        UserError: no sequence, or no token.
    """
    if batch < 1 or length < 1:
        raise UserError(f"batch size {batch} and length {length} are refused; allowed: 1 or more of both")
    ids = np.random.default_rng(seed).integers(0, config.vocab_size, (batch, length), dtype=np.int32)
    return config.model_inputs(ids, np.ones_like(ids), np.zeros_like(ids))


def measure_latency(
    models: Mapping[str, EncoderClassifier], batch: int, length: int, repeats: int = 15
) -> dict[str, np.ndarray]:
    """Seconds of a prediction, the models taking turns so that what else the machine does falls on all of them.

    Args:
        models: name → model.
        batch: sequences.
        length: tokens of each, without padding.
        repeats: timed predictions of every model, after two that are not timed.

    Returns:
        Name → seconds [repeats].
    """
    inputs = {name: random_inputs(model.architecture, batch, length) for name, model in models.items()}
    return take_turns({name: partial(model.predict_on_batch, inputs[name]) for name, model in models.items()}, repeats)


def take_turns(calls: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, np.ndarray]:
    """Seconds of calls that take turns.

    Args:
        calls: name → what is timed.
        repeats: timed calls of each, after two that are not timed.

    Returns:
        Name → seconds [repeats].
    """
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for repeat in range(-2, repeats):
        for name in list(calls)[:: -1 if repeat % 2 else 1]:
            began = time.perf_counter()
            calls[name]()
            if repeat >= 0:
                seconds[name].append(time.perf_counter() - began)
    return {name: np.array(taken) for name, taken in seconds.items()}


@dataclass(frozen=True)
class ModelStatistics:
    """The costs of one model.

    Attributes:
        parameters: weights and biases, gates apart.
        nonzero_parameters: those that are neither closed nor zero.
        macs: multiply-accumulates.
        open_macs: the same if closed weights cost nothing.
        latency: median seconds of a prediction.
    """

    parameters: int
    nonzero_parameters: int
    macs: Macs
    open_macs: Macs
    latency: float

    def to_dict(self) -> dict:
        """The figures as values that JSON can hold."""
        return {
            "parameters": self.parameters,
            "nonzero_parameters": self.nonzero_parameters,
            "length": self.macs.length,
            "macs_per_token": self.macs.total,
            "macs_per_token_and_layer": list(self.macs.per_layer),
            "open_macs_per_token": self.open_macs.total,
            "open_macs_per_token_and_layer": list(self.open_macs.per_layer),
            "latency_seconds": self.latency,
        }


def model_statistics(model: EncoderClassifier, length: int, latency: np.ndarray) -> ModelStatistics:
    """The costs of a model at `length` tokens a sequence; `latency` holds the seconds of its predictions."""
    counts = parameter_counts(model)
    return ModelStatistics(
        *counts, macs(model.architecture, length), open_macs(model, length), float(np.median(latency))
    )


def comparison_table(before: ModelStatistics, after: ModelStatistics, file_bytes: tuple[int, int], batch: int) -> str:
    """Two models' costs side by side.

    Args:
        before: costs of the first model.
        after: costs of the second.
        file_bytes: sizes of the two `model.keras`.
        batch: sequences in the predictions whose latency was measured.

    Returns:
        Aligned lines of text.
    """
    length = before.macs.length
    rows: list[tuple[str, float, float, str]] = [
        ("parameters", before.parameters, after.parameters, "{:,}"),
        ("non-zero parameters", before.nonzero_parameters, after.nonzero_parameters, "{:,}"),
        (f"MACs per token (length {length})", before.macs.total, after.macs.total, "{:,.0f}"),
        ("… of open weights only", before.open_macs.total, after.open_macs.total, "{:,.0f}"),
        ("model.keras, MB (with gates)", file_bytes[0] / 1e6, file_bytes[1] / 1e6, "{:,.2f}"),
        (f"latency, ms (batch {batch} × {length})", 1e3 * before.latency, 1e3 * after.latency, "{:,.1f}"),
    ]
    lines = [("", "before", "after", "after / before")]
    lines += [
        (name, form.format(old), form.format(new), f"{new / old:.3f}" if old else "–") for name, old, new, form in rows
    ]
    return aligned(lines)
