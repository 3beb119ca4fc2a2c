"""What stands beside weights in several files, and in folders of sentence-transformers, as msgspec reads types."""

from __future__ import annotations

from typing import TypedDict


class WeightIndex(TypedDict):
    """`model.safetensors.index.json` of transformers."""

    weight_map: dict[str, str]


class SentenceModule(TypedDict):
    """A part in `modules.json` of sentence-transformers."""

    path: str
    type: str


class SentenceSettings(TypedDict, total=False):
    """`config_sentence_transformers.json`."""

    default_prompt_name: str | None
