"""Whether two models compute the same."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from keras import ops

from gated_bert.compression.model_statistics import random_inputs
from gated_bert.models.architecture import Architecture
from gated_bert.models.backbone import EncoderClassifier
from gated_bert.models.folder import LoadedModel
from gated_bert.models.keras_file import faults_text
from gated_bert.support.errors import UserError
from gated_bert.tasks.embedded import RECIPES, embedded_examples
from gated_bert.tasks.encoded import REAL
from gated_bert.tasks.kinds import OF_TOKEN
from gated_bert.tasks.pipeline import BucketedDataset

TOLERANCE = 1e-4
"""Largest difference between logits of a model and what is written of it in another form."""

CHECKED = 32
"""Sequences of each kind that the difference is looked for on."""


class Predictor(Protocol):
    """A model that predicts batches: of Keras, or exported."""

    @property
    def architecture(self) -> Architecture: ...

    def predict_on_batch(self, inputs: dict[str, np.ndarray]) -> np.ndarray:
        """Logits of a batch: name → input of the model, int [batch, length]."""


def check_inputs(loaded: LoadedModel) -> list[dict[str, np.ndarray]]:
    """Two batches that a model's logits are compared on: random tokens with padding, and embedded texts."""
    config, rng = loaded.config, np.random.default_rng(0)
    length = min(128, config.max_position)
    ids = random_inputs(config, CHECKED, length)["input_ids"]
    ends = rng.integers(1, length + 1, (CHECKED, 1))
    real, second = (each.astype(np.int32) for each in (np.arange(length) < ends, np.arange(length) >= ends // 2))
    tokens = config.model_inputs(ids, real, second)
    task = loaded.task.name if loaded.task.name in RECIPES else "mnli" if loaded.task.pair else "sst2"
    texts, _ = embedded_examples(task)
    texts = texts.take(range(CHECKED))
    encoded = loaded.tokenizer.encode(texts.texts, texts.pairs, length)
    return [tokens, BucketedDataset(encoded, None, CHECKED, length, buckets=(length,))[0]]


def largest_difference(one: Predictor, other: Predictor, batches: Sequence[dict[str, np.ndarray]]) -> float:
    """The largest absolute difference between the logits of two models; what they say of padding is nothing."""

    def logits(model: Predictor, batch: dict[str, np.ndarray]) -> np.ndarray:
        found = model.predict_on_batch(batch)
        return found[batch[REAL] == 1] if one.architecture.head == OF_TOKEN else found

    return max(float(np.abs(logits(one, batch) - logits(other, batch)).max()) for batch in batches)


def refuse_not_finite(model: EncoderClassifier, folder: Path | None = None) -> None:
    """Refuses a model with weights that are no finite numbers, of which nothing else can be said.

    Args:
        model: the model.
        folder: where it is from, to be said.

    Raises:
        UserError: one line that names them.
    """
    faulty = [each.path for each in model.weights if not np.isfinite(ops.convert_to_numpy(each)).all()]
    if faulty:
        raise UserError(f"{folder}: " * (folder is not None) + f"{faults_text(faulty)}; nothing was written")


def in_float32(model: EncoderClassifier) -> EncoderClassifier:
    """The model, or its copy that computes in float32."""
    if model.compute_dtype == model.variable_dtype == "float32":
        return model
    copy = model.rebuilt(dtype="float32")
    for source, target in zip(model.weights, copy.weights, strict=True):
        target.assign(np.asarray(ops.convert_to_numpy(source), dtype=np.float32))
    return copy
