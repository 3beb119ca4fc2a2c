"""Batches and metrics of any task: spans over several windows and lengths, and their running F1."""

import math

import keras
import numpy as np
import pytest
from scipy import special

from gated_bert.config import GatedBertConfig
from gated_bert.tasks.evaluation import evaluate_model, make_dataset
from gated_bert.tasks.examples import SpanExamples
from gated_bert.tasks.metrics import streaming_metric
from gated_bert.tasks.task import TASKS
from gated_bert.tasks.wordpiece import SPECIAL_TOKENS, Tokenizer

TOKENIZER = Tokenizer.from_vocab([*SPECIAL_TOKENS, "who", *"abcdefgh"])
FIRST, LAST = TOKENIZER.backend.token_to_id("c"), TOKENIZER.backend.token_to_id("d")


class Oracle:
    """Says that answers start at c and end at d, wherever these are."""

    def predict_on_batch(self, inputs):
        ids = inputs["input_ids"]
        return np.stack([np.where(ids == FIRST, 4.0, 0.0), np.where(ids == LAST, 4.0, 0.0)], axis=1)


def make(count):
    # Contexts of different lengths, c and d at different places, shuffled by length into the buckets.
    contexts = [" ".join([*"ab" * (3 * index % 7), *"cd", *"ef" * (5 * index % 11)]) for index in range(count)]
    starts = np.array([context.index("c") for context in contexts])
    labels = np.stack([starts, starts + 3], axis=1).astype(np.int32)
    return SpanExamples(["who"] * count, contexts, labels, [f"q{n}" for n in range(count)], [("c d",)] * count)


def test_answers_come_back_in_order_from_windows_of_all_lengths():
    config = GatedBertConfig(task="squad", max_len=24, doc_stride=7, batch_size=4)
    examples = make(30)
    dataset = make_dataset(TASKS["squad"], TOKENIZER, examples, config)
    assert dataset.examples > 30 and len(dataset.buckets) > 1
    scores, answers = evaluate_model(Oracle(), TASKS["squad"], {"dev": dataset}, {"dev": examples}, config)
    assert answers == dict.fromkeys(examples.ids, "c d")
    assert (scores["f1"], scores["exact_match"]) == (1.0, 1.0)
    chosen = []
    for inputs, labels in (dataset[index] for index in range(len(dataset))):
        scores_of = special.log_softmax(Oracle().predict_on_batch(inputs), axis=-1)
        chosen.append(np.take_along_axis(scores_of, labels[:, :, None], axis=-1).ravel())
    assert scores["loss"] == pytest.approx(-np.concatenate(chosen).mean(), abs=1e-5)


def test_a_lost_model_gives_nan_and_empty_answers():
    class Lost(Oracle):
        def predict_on_batch(self, inputs):
            return super().predict_on_batch(inputs) * np.nan

    config = GatedBertConfig(task="squad", max_len=24, batch_size=4)
    examples = make(5)
    dataset = make_dataset(TASKS["squad"], TOKENIZER, examples, config)
    scores, answers = evaluate_model(Lost(), TASKS["squad"], {"dev": dataset}, {"dev": examples}, config)
    assert list(scores) == ["loss", "f1", "exact_match"] and all(math.isnan(value) for value in scores.values())
    assert answers == dict.fromkeys(examples.ids, "")


def test_running_f1_of_tokens_by_hand():
    spans = [((3, 5), (3, 5)), ((3, 5), (5, 8)), ((3, 5), (6, 7)), ((3, 5), (5, 4)), ((0, 0), (0, 0))]
    labels = np.array([wanted for wanted, _ in spans], np.int32)
    logits = np.array([[np.eye(9)[start], np.eye(9)[end]] for _, (start, end) in spans], np.float32)
    metric = streaming_metric(TASKS["squad"])
    metric.update_state(labels[:2], logits[:2])
    metric.update_state(labels[2:], logits[2:])
    assert metric.name == "f1"
    assert float(metric.result()) == pytest.approx((1 + 2 * 1 / (3 + 4) + 0 + 0 + 1) / 5)
    assert float(keras.metrics.deserialize(keras.metrics.serialize(metric)).result()) == 0.0
