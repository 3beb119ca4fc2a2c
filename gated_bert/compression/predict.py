"""Predictions for the rows of a file, a part of it at a time, and what they are worth."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from scipy import special

from gated_bert.compression.model_statistics import random_inputs
from gated_bert.config import ConfigError
from gated_bert.config.input_options import InputOptions, checked_inputs
from gated_bert.config.presets import usual_max_len
from gated_bert.models.folder import LoadedModel
from gated_bert.support.errors import UserError
from gated_bert.tasks.columns import Columns
from gated_bert.tasks.evaluation import make_dataset, predicted_batches, span_logits
from gated_bert.tasks.examples import Examples
from gated_bert.tasks.metrics import METRICS, evaluate
from gated_bert.tasks.pipeline import BucketedDataset
from gated_bert.tasks.squad_metrics import squad_scores
from gated_bert.tasks.tables import Table
from gated_bert.tasks.task import Task
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
        outputs: logits [n, classes], values [n, 1], or for spans nothing.
        answers: answers of spans, otherwise nothing.
        tokenize_seconds: what it took to tokenise the texts.
        model_seconds: what it took the model to predict.
    """

    examples: Examples
    outputs: np.ndarray | None
    answers: list[str] | None
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
        if outputs is not None and not np.isfinite(outputs).all():
            row = int(np.argmin(np.isfinite(outputs).all(axis=1)))
            raise UserError(f"{table.where(row)}: the model's outputs {outputs[row].tolist()} are not finite numbers; "
                            "predict with the model of higher precision that this one was made from")  # fmt: skip
        yield Predicted(examples, outputs, answers, tokenized - began, time.perf_counter() - tokenized)


def _predict(loaded: LoadedModel, dataset: BucketedDataset, examples: Examples, config: InputOptions):
    if loaded.task.kind == "span":
        logits = span_logits(loaded.model, dataset)
        answers = best_answers(dataset.windows, logits, examples, config.n_best_size, config.max_answer_length)
        return None, list(answers.values())
    outputs = np.empty((dataset.examples, loaded.task.num_outputs), np.float32)
    for rows, found in predicted_batches(loaded.model, dataset):
        outputs[rows] = found
    return outputs, None


def warm_up(loaded: LoadedModel):
    """Predicts twice, so that what a model compiles at first, for one shape and then for any, is not timed later."""
    for size in (1, 2):
        loaded.model.predict_on_batch(random_inputs(loaded.config, size, min(8 * size, loaded.config.max_position)))


def column_names(task: Task, labelled: bool) -> list[str]:
    """The columns of `written_rows`."""
    names = {"classification": ["prediction", *(f"probability_{label}" for label in task.labels)], "span": ["answer"]}
    return ["row", *names.get(task.kind, ["prediction"]), *["label"] * labelled]


def written_rows(task: Task, part: Predicted, first: int) -> Iterator[list[object]]:
    """The rows of a table of predictions: class and probabilities, value, or answer, and the label where there is one.

    Args:
        task: what was predicted.
        part: predictions.
        first: number of its first row.
    """
    labels = _label_cells(task, part.examples)
    for index in range(len(part.examples)):
        row = [first + index]
        if part.answers is not None:
            row.append(part.answers[index])
        elif task.kind == "regression":
            row.append(f"{part.outputs[index, 0]:.6g}")
        else:
            row.append(task.labels[part.outputs[index].argmax()])
            row += [f"{share:.6f}" for share in special.softmax(part.outputs[index].astype(np.float64))]
        yield row + ([] if labels is None else [labels[index]])


def _label_cells(task: Task, examples: Examples) -> list[str] | None:
    if not is_labelled(task, examples):
        return None
    if task.kind == "span":
        return [answers[0] for answers in examples.answers]
    if task.kind == "regression":
        return [f"{label:.6g}" for label in examples.labels]
    return [task.labels[label] for label in examples.labels]


def is_labelled(task: Task, examples: Examples) -> bool:
    """Whether it is known what is right."""
    return bool(examples.answers[0]) if task.kind == "span" else examples.labels is not None


class Scores:
    """Metrics of predictions that come in parts.

    Of classes only the counts of (label, prediction) are kept, of a regression both values of every row, since ranks
    need them all.

    Args:
        task: what is predicted.
    """

    def __init__(self, task: Task):
        self.task, self.instances = task, 0
        self._loss = 0.0
        self._counts = np.zeros((len(task.labels),) * 2, np.int64)
        self._values: list[tuple[np.ndarray, np.ndarray]] = []
        self._spans = {"f1": 0.0, "exact_match": 0.0}

    def add(self, part: Predicted):
        """Counts a part whose labels are known."""
        rows, labels = len(part.examples), part.examples.labels
        self.instances += rows
        if self.task.kind == "span":
            names = part.examples.ids
            scores = squad_scores(dict(zip(names, part.answers, strict=True)), names, part.examples.answers)
            self._spans = {name: total + rows * scores[name] for name, total in self._spans.items()}
        elif self.task.kind == "regression":
            self._values.append((part.outputs, labels))
        else:
            np.add.at(self._counts, (labels, part.outputs.argmax(axis=1)), 1)
            shares = special.log_softmax(part.outputs.astype(np.float64), axis=1)
            self._loss -= shares[np.arange(rows), labels].sum()

    def result(self) -> dict[str, float]:
        """`instances`; `correct` of classes and (exact) answers, `accuracy` of classes; loss and the task's metrics."""
        found: dict[str, float] = {"instances": self.instances}
        if self.task.kind == "span":
            found |= {"correct": round(self._spans["exact_match"])}
            return found | {name: total / self.instances for name, total in self._spans.items()}
        if self.task.kind == "regression":
            outputs, labels = (np.concatenate(parts) for parts in zip(*self._values, strict=True))
            return found | evaluate(self.task, outputs, labels)
        correct = int(np.trace(self._counts))
        found |= {"correct": correct, "accuracy": correct / self.instances, "loss": self._loss / self.instances}
        labels, predicted = (places.ravel() for places in np.indices(self._counts.shape))
        counts = self._counts.ravel()
        return found | {
            name: float(METRICS[name](labels, predicted, sample_weight=counts)) for name in self.task.metrics
        }
