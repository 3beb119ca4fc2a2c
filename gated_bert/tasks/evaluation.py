"""Batches of any task's examples, and any task's metrics of a model on them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import keras
import numpy as np
from scipy import special

from gated_bert.config.input_options import InputOptions
from gated_bert.config.presets import usual_doc_stride
from gated_bert.support.errors import UserError
from gated_bert.tasks.examples import Examples, SpanExamples
from gated_bert.tasks.metrics import evaluate_all
from gated_bert.tasks.pipeline import BucketedDataset
from gated_bert.tasks.squad_metrics import squad_scores
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
    """The loss that a task is learnt by: of classes, tokens or a target."""
    if task.kind == "regression":
        return keras.losses.MeanSquaredError()
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def make_dataset(
    task: Task,
    tokenizer: TokenizerProtocol,
    examples: Examples,
    config: InputOptions,
    seed: int | None = None,
    multiple: int = 1,
) -> BucketedDataset:
    """The examples as batches: of examples, or for spans of windows.

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
        Values by name, see `metrics.evaluate_all` and `squad_metrics.squad_scores`; and for spans the answers by the
        question's name, otherwise nothing.
    """
    if task.kind == "span":
        split = task.dev_splits[0]
        return _evaluate_spans(model, datasets[split], examples[split], config)
    outputs = {}
    for name, dataset in datasets.items():
        predicted = np.empty((dataset.examples, task.num_outputs), np.float32)
        predicted[dataset.row_order()] = model.predict(dataset, verbose=0)
        outputs[name] = (predicted, examples[name].known_labels)
    return evaluate_all(task, outputs), {}


def predicted_batches(model: keras.Model, dataset: BucketedDataset) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Indices of the examples in each batch of a data set, and the model's outputs for them."""
    ends = np.cumsum([size for size, _ in dataset.shapes])[:-1]
    for index, rows in enumerate(np.split(dataset.row_order(), ends)):
        batch = dataset[index]
        # Of several devices each predicts such a batch whole under TensorFlow, and Keras joins what they find.
        yield rows, model.predict_on_batch(batch[0] if isinstance(batch, tuple) else batch)[: len(rows)]


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
