"""A table of what the parts of an encoder cost in time on a machine, and what a model of any sizes costs by it.

Paper: Kurtic et al. 2023, ZipLM (https://arxiv.org/abs/2302.04089).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gated_bert.compression.onnx_fused import EMBEDDINGS
from gated_bert.compression.preconditions import RUNTIMES, SERVED_GRAPHS, SERVED_PRECISIONS
from gated_bert.models.architecture import Architecture, LayerSizes
from gated_bert.support.checks import ConfigError, choose, whole
from gated_bert.support.errors import UserError
from gated_bert.support.files import write_json_atomic
from gated_bert.support.records import read_record
from gated_bert.support.speed_schemas import LatencyRecord


@dataclass(frozen=True)
class Conditions:
    """What times of a table are of.

    Args:
        batch: sequences.
        length: tokens of each, without padding.
        threads: threads of a product.
        runtime: `onnx` (ONNX Runtime) or `keras`.
        precision: `fp32`, or `int8` by dynamic quantisation, in ONNX Runtime only.
        graph: kind of the ONNX graph, `standard` or `fused`.
    """

    batch: int = 1
    length: int = 128
    threads: int = 1
    runtime: str = "onnx"
    precision: str = "fp32"
    graph: str = "fused"

    def __post_init__(self) -> None:
        for name in ("batch", "length", "threads"):
            whole(name, getattr(self, name), 1)
        for name, allowed in (("runtime", RUNTIMES), ("precision", SERVED_PRECISIONS),
                              ("graph", SERVED_GRAPHS)):  # fmt: skip
            choose(name, getattr(self, name), allowed)
        if self.runtime == "keras" and self.precision != "fp32":
            raise ConfigError("precision", self.precision, "fp32 with runtime=keras")

    def __str__(self) -> str:
        which = f"ONNX Runtime, {self.graph} graph, {self.precision}" if self.runtime == "onnx" else "Keras, fp32"
        return f"{self.batch} × {self.length} tokens, {self.threads} thread{'s' * (self.threads > 1)}, {which}"


def usual_conditions(architecture: Architecture, **said: Any) -> Conditions:
    """Conditions of which some are said; the others are usual ones under which a model of that kind can be served.

    Args:
        architecture: of the model.
        **said: fields of `Conditions`.

    Raises:
        UserError: a fused graph of a family that has none.
    """
    fused = architecture.model_type in EMBEDDINGS
    if said.get("graph") == "fused" and not fused:
        raise UserError("--graph: 'fused' is refused; allowed: standard, as no fused graph of "
                        f"{architecture.model_type} is known")  # fmt: skip
    usual = {"graph": "fused" if fused else "standard", "length": min(Conditions.length, architecture.max_position)}
    return Conditions(**{**usual, **said})


@dataclass(frozen=True)
class LatencyTable:
    """Milliseconds of the parts of an encoder.

    Attributes:
        conditions: of what prediction.
        hidden_size: of the model that was measured.
        head_dim: dimensions of one of its heads; a model with fewer in a head counts as one with fewer heads.
        layers: its encoder layers.
        outside: embeddings, residual paths, norms and head.
        attention: heads → milliseconds of one layer's attention, rising.
        ffn: neurons → milliseconds of one layer's feed-forward network, rising.
        dense: of the whole model, as measured.
        noise: distance of the quartiles of a time, as a share of its median, in the middle over all that was measured.
        machine: where that was.
        versions: of the libraries that it was measured with.
    """

    conditions: Conditions
    hidden_size: int
    head_dim: int
    layers: int
    outside: float
    attention: Mapping[int, float]
    ffn: Mapping[int, float]
    dense: float
    noise: float
    machine: str
    versions: Mapping[str, str]

    def attention_ms(self, heads: float) -> float:
        """Of one layer's attention, between measured numbers of heads by interpolation; less than one costs as one."""
        return _interpolated(self.attention, heads)

    def ffn_ms(self, neurons: float) -> float:
        """Of one layer's feed-forward network, between measured widths by interpolation; a narrower one than any costs
        as the narrowest: its calls and passing over the sequence take the most of that, however few its neurons.
        """
        return _interpolated(self.ffn, neurons)

    def layer_ms(self, sizes: LayerSizes) -> float:
        """Of one layer without its norms."""
        width = sizes.num_heads * (sizes.query_key_dim + sizes.value_dim) / 2
        heads = width / self.head_dim if sizes.num_heads and self.head_dim else sizes.num_heads
        return self.attention_ms(heads) + self.ffn_ms(sizes.intermediate_size)

    def is_of(self, architecture: Architecture) -> bool:
        """Whether it was measured with a model of these sizes."""
        whole = architecture.layers[0]
        sizes = architecture.hidden_size, architecture.num_layers, whole.value_dim, whole.num_heads
        own = self.hidden_size, self.layers, self.head_dim, max(self.attention)
        return (*sizes, whole.intermediate_size) == (*own, max(self.ffn))

    def predict(self, architecture: Architecture) -> float:
        """Milliseconds of a prediction of a model.

        Raises:
            UserError: a model of another hidden size or of more layers, heads or neurons than the one measured.
        """
        if (architecture.hidden_size, architecture.num_layers) != (self.hidden_size, self.layers):
            raise UserError(f"the latency table is of {self.layers} layers of {self.hidden_size}, and the model of "
                            f"{architecture.num_layers} of {architecture.hidden_size}; measure its own")  # fmt: skip
        return self.outside + sum(map(self.layer_ms, architecture.layers))

    def save(self, path: Path) -> None:
        """Writes the table."""
        values = dataclasses.asdict(self)
        values["attention"] = [{"heads": heads, "ms": ms} for heads, ms in self.attention.items()]
        values["ffn"] = [{"neurons": neurons, "ms": ms} for neurons, ms in self.ffn.items()]
        write_json_atomic(path, values)

    @classmethod
    def load(cls, path: Path) -> LatencyTable:
        """Reads a table.

        Raises:
            UserError: a file that is missing or is no table.
        """
        values: dict[str, Any] = read_record(path, LatencyRecord, remedy="measure it again")
        try:
            values["conditions"] = Conditions(**_known(Conditions, values["conditions"]))
        except ConfigError as error:
            raise UserError(f"{path}: conditions: {error}") from error
        values["attention"] = {row["heads"]: row["ms"] for row in values["attention"]}
        values["ffn"] = {row["neurons"]: row["ms"] for row in values["ffn"]}
        for name in ("attention", "ffn"):
            sizes = sorted(values[name])
            times = [values[name][size] for size in sizes]
            if not times or times != sorted(times) or sizes[0] or times[0]:
                raise UserError(f"{path}: {name}: milliseconds that do not rise with the size, from none of none on; "
                                "measure it again")  # fmt: skip
        if values["dense"] <= 0 or values["outside"] <= 0:
            raise UserError(f"{path}: times that are none; measure it again")
        return cls(**_known(cls, values))


def _known(kind: type, values: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a dataclass among values, beside which a newer version may have written others."""
    return {field.name: values[field.name] for field in dataclasses.fields(kind)}


def _interpolated(times: Mapping[int, float], size: float) -> float:
    sizes = sorted(times)
    if not sizes[0] <= size <= sizes[-1]:
        raise UserError(f"the latency table goes from {sizes[0]} to {sizes[-1]}, and the model has {size:g}; measure "
                        "its own")  # fmt: skip
    there = max(size, sizes[1]) if size else size
    return float(np.interp(there, sizes, [times[each] for each in sizes]))
