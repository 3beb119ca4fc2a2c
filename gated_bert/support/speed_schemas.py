"""What the files about the speed of models hold, as msgspec reads types."""

from __future__ import annotations

from typing import TypedDict

from gated_bert.support.schemas import Object


class LatencyConditions(TypedDict):
    """What the times of a latency table are of."""

    batch: int
    length: int
    threads: int
    runtime: str
    precision: str
    graph: str


class LatencyOfHeads(TypedDict):
    """Time of an attention."""

    heads: int
    ms: float


class LatencyOfNeurons(TypedDict):
    """Time of a feed-forward network."""

    neurons: int
    ms: float


class LatencyRecord(TypedDict):
    """A latency table."""

    conditions: LatencyConditions
    hidden_size: int
    head_dim: int
    layers: int
    outside: float
    attention: list[LatencyOfHeads]
    ffn: list[LatencyOfNeurons]
    dense: float
    noise: float
    machine: str
    versions: dict[str, str]


class FamilyRecord(TypedDict):
    """What a family of models is made of."""

    model: str
    conditions: LatencyConditions
    effort: Object
    trained: bool
    data: str


class SpeedRecord(TypedDict):
    """What a model that was pruned to a speed has come to."""

    speedup: float
    predicted: float
    layers: list[Object]
    loss: float
    tried: int
    note: str
