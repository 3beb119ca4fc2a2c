"""Predictions for the rows of a file, a part of it at a time."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from gated_bert.compression.model_statistics import random_inputs
from gated_bert.config import ConfigError
from gated_bert.config.input_options import InputOptions, checked_inputs
from gated_bert.config.presets import usual_max_len
from gated_bert.models.folder import LoadedModel
from gated_bert.support.errors import UserError
from gated_bert.tasks.columns import Columns
from gated_bert.tasks.evaluation import WindowedDataset, make_dataset, span_logits
from gated_bert.tasks.examples import Examples, SpanExamples, TaggedExamples
from gated_bert.tasks.pipeline import BucketedDataset, predicted_batches
from gated_bert.tasks.tables import Table
from gated_bert.tasks.tagging import TaggedDataset, tag_logits
from gated_bert.tasks.token_cache import CACHED_FROM
from gated_bert.tasks.windows import best_answers

CHUNK_ROWS = CACHED_FROM - CACHED_FROM % 32 - 32
"""Rows that are read, sorted by length and predicted at a time: too few for the tokens of a passing file to be kept."""

_FROM_RUN = ("max_len", "doc_stride", "n_best_size", "max_answer_length")


@dataclass(frozen=True)
class Predicted:
    """Predictions for a part of a file, in its order.

    Attributes:
        examples: the texts, and their labels where the file has some.
        outputs: logits [n, classes], values [n, 1], for spans nothing [n, 0], or for tags logits [words, tags], NaN of
            words that no token shows.
        answers: answers of spans, otherwise nothing.
        tokenize_seconds: what it took to tokenise the texts.
        model_seconds: what it took the model to predict.
    """

    examples: Examples
    outputs: np.ndarray
    answers: list[str]
    tokenize_seconds: float
    model_seconds: float


def evaluation_config(loaded: LoadedModel, batch_size: int, max_len: int | None = None) -> InputOptions:
    """How a model's inputs are made, as far as its training run recorded it.

    Args:
        loaded: the model.
        batch_size: examples in a batch.
        max_len: longest text in tokens; by default that of the run, or the usual one where it is not known.

    Raises:
        ConfigError: a refused `max_len` or `batch_size`.
        UserError: `max_len` is more than the model takes, or what is recorded is refused.
    """
    recorded = loaded.metadata.get("config") or {}
    longest = loaded.config.max_position
    values = {name: recorded[name] for name in _FROM_RUN if recorded.get(name) is not None}
    values["max_len"] = max_len or values.get("max_len") or min(usual_max_len(loaded.task.name), longest)
    if values["max_len"] > longest:
        raise UserError(f"-ml/--max-len: {values['max_len']} is refused; allowed: 8 to {longest}, the model's longest "
                        "input")  # fmt: skip
    try:
        return checked_inputs(task=loaded.task.name, batch_size=batch_size, **values)
    except ConfigError as error:
        if error.field not in recorded or (error.field == "max_len" and max_len):
            raise
        # No flag of the command that is typed, perhaps.
        raise UserError(f"config in the model's record: {error}; save or copy it again") from None


def predict_tables(
    loaded: LoadedModel, tables: Iterable[Table], columns: Columns, config: InputOptions
) -> Iterator[Predicted]:
    """Predictions for one table after the other, each when it is asked for.

    Args:
        loaded: the model, a Keras or an ONNX one.
        tables: parts of a file.
        columns: where texts and labels stand in them.
        config: of `evaluation_config`.

    Raises:
        UserError: a refused cell, or outputs that are not finite.
    """
    for table in tables:
        began = time.perf_counter()
        examples = columns.examples(table, loaded.task)
        dataset = make_dataset(loaded.task, loaded.tokenizer, examples, config)
        tokenized = time.perf_counter()
        outputs, answers = _predict(loaded, dataset, examples, config)
        faulty = ~np.isfinite(outputs).all(axis=1)
        if isinstance(examples, TaggedExamples) and isinstance(dataset, TaggedDataset):
            faulty &= dataset.pieces.first >= 0
        if faulty.any():
            place = int(np.argmax(faulty))
            row = place
            if isinstance(examples, TaggedExamples):
                row = int(np.searchsorted(examples.offsets, place, side="right")) - 1
            raise UserError(f"{table.where(row)}: the model's outputs {outputs[place].tolist()} are not finite "
                            "numbers; predict with the model of higher precision that this one was made "
                            "from")  # fmt: skip
        yield Predicted(examples, outputs, answers, tokenized - began, time.perf_counter() - tokenized)


def _predict(
    loaded: LoadedModel, dataset: BucketedDataset, examples: Examples, config: InputOptions
) -> tuple[np.ndarray, list[str]]:
    if isinstance(examples, SpanExamples) and isinstance(dataset, WindowedDataset):
        logits = span_logits(loaded.model, dataset)
        answers = best_answers(dataset.windows, logits, examples, config.n_best_size, config.max_answer_length)
        return np.empty((len(examples), 0), np.float32), list(answers.values())
    if isinstance(dataset, TaggedDataset):
        return tag_logits(loaded.model, dataset, loaded.task), []
    outputs = np.empty((dataset.examples, loaded.task.num_outputs), np.float32)
    for rows, found in predicted_batches(loaded.model, dataset):
        outputs[rows] = found
    return outputs, []


def warm_up(loaded: LoadedModel) -> None:
    """Predicts twice, so that what a model compiles at first, for one shape and then for any, is not timed later."""
    for size in (1, 2):
        loaded.model.predict_on_batch(random_inputs(loaded.config, size, min(8 * size, loaded.config.max_position)))
