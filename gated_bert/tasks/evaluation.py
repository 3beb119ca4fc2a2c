"""Batches of any task's examples, and any task's metrics of a model on them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
from scipy import special

from gated_bert.config.input_options import InputOptions
from gated_bert.config.presets import usual_doc_stride
from gated_bert.support.errors import UserError
from gated_bert.tasks.examples import Examples, SpanExamples, TaggedExamples
from gated_bert.tasks.kinds import MULTI_LABEL, SPANS, TARGET, TOKENS
from gated_bert.tasks.metrics import by_split, evaluate
from gated_bert.tasks.pipeline import BucketedDataset, predicted_batches
from gated_bert.tasks.squad_metrics import squad_scores
from gated_bert.tasks.tagging import IGNORED, TaggedDataset, encode_words, tag_logits, tag_scores
from gated_bert.tasks.task import Task
from gated_bert.tasks.taught import PADDED
from gated_bert.tasks.tokenizer_protocol import TokenizerProtocol
from gated_bert.tasks.windows import Windows, best_answers, encode_windows


class WindowedDataset(BucketedDataset):
    """Batches of windows instead of whole examples.

    Args:
        windows: what the batches are made of.
        **options: those of `BucketedDataset`.
    """

    def __init__(self, windows: Windows, **options: Any):
        super().__init__(windows.encoded, windows.labels, **options)
        self.windows = windows


def task_loss(task: Task) -> keras.losses.Loss:
    """The loss that a task is learnt by: of classes, of several at once, of tokens or a target."""
    if task.kind == TARGET:
        return keras.losses.MeanSquaredError()
    if task.kind == MULTI_LABEL:
        return keras.losses.BinaryCrossentropy(from_logits=True)
    ignored = IGNORED if task.kind == TOKENS else None
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=ignored)


def make_dataset(
    task: Task,
    tokenizer: TokenizerProtocol,
    examples: Examples,
    config: InputOptions,
    seed: int | None = None,
    multiple: int = 1,
) -> BucketedDataset:
    """The examples as batches: of examples, for spans of windows, for tags with labels of tokens.

    Args:
        task: what is learnt.
        tokenizer: the run's tokeniser.
        examples: the examples.
        config: its `max_len`, `batch_size` and `doc_stride` are read.
        seed: seed of the order; None for evaluation.
        multiple: what the size of every batch is a multiple of; see `BucketedDataset`.

    Raises:
        UserError: no examples.
    """
    if not len(examples):
        raise UserError(f"{task.name}: no texts were given; give at least one")
    options: dict[str, Any] = {"batch_size": config.batch_size, "max_len": config.max_len, "seed": seed,
                               "multiple": multiple}  # fmt: skip
    if isinstance(examples, SpanExamples):
        stride = config.doc_stride or usual_doc_stride(config.max_len)
        return WindowedDataset(encode_windows(tokenizer, examples, config.max_len, stride), **options)
    if isinstance(examples, TaggedExamples):
        return TaggedDataset(encode_words(tokenizer, examples, config.max_len), examples.labels, **options)
    return BucketedDataset(tokenizer.encode(examples.texts, examples.pairs, config.max_len), examples.labels, **options)


def evaluate_model(
    model: keras.Model,
    task: Task,
    datasets: Mapping[str, BucketedDataset],
    examples: Mapping[str, Examples],
    config: InputOptions,
) -> tuple[dict[str, float], dict[str, str]]:
    """Loss and metrics of a model.

    Args:
        model: the model.
        task: what is judged.
        datasets: batches by split, made by `make_dataset` without a seed.
        examples: what they were made of.
        config: its `n_best_size` and `max_answer_length` are read.

    Returns:
        Values by name, see `metrics.by_split`, `tagging.tag_scores` and `squad_metrics.squad_scores`; and for spans the
        answers by the question's name, otherwise nothing.
    """
    if task.kind == SPANS:
        split = task.dev_splits[0]
        return _evaluate_spans(model, datasets[split], examples[split], config)
    scores = {}
    for name, dataset in datasets.items():
        judged = examples[name]
        if isinstance(dataset, TaggedDataset) and isinstance(judged, TaggedExamples):
            scores[name] = tag_scores(task, judged, tag_logits(model, dataset, task), dataset.pieces.first)
            continue
        predicted = np.empty((dataset.examples, task.num_outputs), np.float32)
        predicted[dataset.row_order()] = model.predict(dataset, verbose=0)
        scores[name] = evaluate(task, predicted, judged.known_labels)
    return by_split(task, scores), {}


def span_logits(model: keras.Model, dataset: WindowedDataset) -> np.ndarray:
    """Start and end logits [windows, 2, longest batch], in the order of the windows; `PADDED` beyond a batch."""
    logits = np.full((dataset.examples, 2, dataset.buckets[-1]), PADDED, np.float32)
    # Batch by batch: `predict` joins the outputs of all batches, and these differ in length.
    for rows, found in predicted_batches(model, dataset):
        logits[rows, :, : found.shape[2]] = found
    return logits


def _evaluate_spans(model, dataset: WindowedDataset, examples, config) -> tuple[dict[str, float], dict[str, str]]:
    logits = span_logits(model, dataset)
    if not np.isfinite(logits).all():
        return dict.fromkeys(("loss", "f1", "exact_match"), float("nan")), dict.fromkeys(examples.ids, "")
    labels = dataset.windows.labels[:, :, None]
    loss = -np.take_along_axis(special.log_softmax(logits.astype(np.float64), axis=-1), labels, axis=-1).mean()
    answers = best_answers(dataset.windows, logits, examples, config.n_best_size, config.max_answer_length)
    return {"loss": float(loss), **squad_scores(answers, examples.ids, examples.answers)}, answers
