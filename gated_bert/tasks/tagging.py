"""Words as the pieces that a model reads, and the way back from what it says of pieces to tags of words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from scipy import special

from gated_bert.support.errors import UserError
from gated_bert.tasks.encoded import Column, Encoded
from gated_bert.tasks.examples import TaggedExamples
from gated_bert.tasks.kinds import TOKENS
from gated_bert.tasks.pipeline import BucketedDataset, predicted_batches
from gated_bert.tasks.task import ENTITY_METRICS, OUTSIDE, Task
from gated_bert.tasks.tokenizer_protocol import TokenizerProtocol

IGNORED = -1
"""Label of tokens that are no first piece of a word: special tokens, further pieces and padding."""
NO_SEQEVAL = "seqeval, which scores entities, is not installed; pip install 'gated_bert[ner]'"


@dataclass(frozen=True)
class Pieces:
    """Texts of words as token ids.

    Attributes:
        encoded: the token ids.
        first: [words] where among all tokens the first piece of each word stands; -1 where a word has none, because it
            is behind the longest text or holds nothing that the tokeniser keeps.
    """

    encoded: Encoded
    first: np.ndarray


def encode_words(tokenizer: TokenizerProtocol, examples: TaggedExamples, max_len: int) -> Pieces:
    """Cuts words into pieces, and texts after `max_len` of these, special tokens included."""
    ids, of_words, starts = tokenizer.words(examples.words)
    template = tokenizer.template
    kept = np.minimum(np.diff(starts), max_len - template.around(1))
    encoded = tokenizer.join(Column(ids, starts[:-1], kept))
    text = np.repeat(np.arange(len(examples)), np.diff(starts))
    within = np.arange(len(ids)) - starts[text]
    words = examples.offsets[text] + of_words
    begins = np.ones(len(ids), bool)
    begins[1:] = words[1:] != words[:-1]
    begins &= within < kept[text]
    first = np.full(examples.offsets[-1], -1, np.int64)
    first[words[begins]] = encoded.offsets[text[begins]] + len(template.begin) + within[begins]
    return Pieces(encoded, first)


class TaggedDataset(BucketedDataset):
    """Batches whose labels are those of tokens: a word's tag at its first piece, elsewhere `IGNORED`.

    Args:
        pieces: what the batches are made of.
        tags: [words] of all words; None yields inputs only.
        **options: those of `BucketedDataset`.
    """

    def __init__(self, pieces: Pieces, tags: np.ndarray | None, **options: Any):
        self.pieces = pieces
        labels = None
        if tags is not None:
            there = pieces.first >= 0
            labels = np.full(len(pieces.encoded.input_ids), IGNORED, np.int32)
            labels[pieces.first[there]] = tags[there]
        super().__init__(pieces.encoded, labels, **options)

    def _labels_of(self, labels: np.ndarray, rows: np.ndarray, length: int) -> np.ndarray:
        places, real = self.token_places(rows, length)
        return np.where(real, labels[places], np.int32(IGNORED))


def tag_logits(model: keras.Model, dataset: TaggedDataset, task: Task) -> np.ndarray:
    """Logits [words, tags] of all words; NaN of a word without a piece."""
    of_tokens = np.empty((len(dataset.encoded.input_ids), task.num_outputs), np.float32)
    for rows, found in predicted_batches(model, dataset):
        places, real = dataset.token_places(rows, found.shape[1])
        of_tokens[places[real]] = found[real]
    first = dataset.pieces.first
    # A text may have no token at all where the tokeniser puts none around it.
    logits = np.full((len(first), task.num_outputs), np.nan, np.float32)
    logits[first >= 0] = of_tokens[first[first >= 0]]
    return logits


def predicted_tags(task: Task, logits: np.ndarray) -> np.ndarray:
    """The likeliest tag of each word, [words]; of one without a piece `O`, or where there is none the first tag."""
    known = np.isfinite(logits).all(axis=1)
    outside = task.labels.index(OUTSIDE) if OUTSIDE in task.labels else 0
    return np.where(known, np.where(known[:, None], logits, 0).argmax(axis=1), outside)


def tag_scores(task: Task, examples: TaggedExamples, logits: np.ndarray, first: np.ndarray) -> dict[str, float]:
    """Loss and metrics of tags.

    Args:
        task: what is judged.
        examples: words and their tags.
        logits: of `tag_logits`.
        first: of `Pieces`.

    Returns:
        "loss" (mean cross-entropy in nats over words that have a piece) and each of the task's metrics over all words,
        as fractions; NaN everywhere where a logit of a piece is not finite.
    """
    read = first >= 0
    if not np.isfinite(logits[read]).all():
        return dict.fromkeys(("loss", *task.metrics), float("nan"))
    labels = examples.known_labels
    shares = special.log_softmax(logits[read].astype(np.float64), axis=1)
    loss = -shares[np.arange(len(shares)), labels[read]].mean() if read.any() else 0.0
    metrics = tag_metrics(task, labels, predicted_tags(task, logits), examples.offsets)
    return {"loss": float(loss), **metrics}


def tag_metrics(task: Task, labels: np.ndarray, predicted: np.ndarray, offsets: np.ndarray) -> dict[str, float]:
    """The task's metrics of tags [words], whose texts are at `offsets`; entities are counted by seqeval, as conlleval.

    Paper: Tjong Kim Sang & De Meulder 2003, Introduction to the CoNLL-2003 Shared Task
    (https://arxiv.org/abs/cs/0306050).
    """
    found = {"accuracy": float((labels == predicted).mean())}
    if _of_entities(task):
        seqeval = check_seqeval()
        names = np.array(task.labels, dtype=object)
        wanted, given = ([part.tolist() for part in np.split(names[each], offsets[1:-1])]
                         for each in (labels, predicted))  # fmt: skip
        scores = {"f1": seqeval.f1_score, "precision": seqeval.precision_score, "recall": seqeval.recall_score}
        found |= {name: float(score(wanted, given, zero_division=0)) for name, score in scores.items()}
    return {name: found[name] for name in task.metrics}


def check_metrics(task: Task) -> None:
    """Refuses a task whose metrics need what is not installed.

    Raises:
        UserError: names the package.
    """
    if task.kind == TOKENS and _of_entities(task):
        check_seqeval()


def _of_entities(task: Task) -> bool:
    return bool(set(task.metrics) & set(ENTITY_METRICS[:3]))


def check_seqeval() -> Any:
    """The module that scores entities.

    Raises:
        UserError: it is not installed.
    """
    try:
        from seqeval import metrics
    except ImportError as error:
        raise UserError(NO_SEQEVAL) from error
    return metrics


def unread(count: int, where: str) -> str:
    """A sentence about words that no token shows."""
    return (f"{count:,} words of {where} are behind the longest text (-ml), or hold nothing that the tokeniser keeps; "
            f"they are taken for {OUTSIDE}, or the first tag where there is none")  # fmt: skip


def unread_words(datasets: Mapping[str, Any]) -> list[str]:
    """A sentence for each data set some of whose words are in no token, which cannot be learnt and are taken for O."""
    notes = []
    for name, dataset in datasets.items():
        if isinstance(dataset, TaggedDataset):
            lost = int((dataset.pieces.first < 0).sum())
            if lost:
                notes.append(unread(lost, name))
    return notes
