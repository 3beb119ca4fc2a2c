"""LIME for texts: the library's samples and regressions, the model's predictions in batches over documents."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from lime.lime_text import IndexedString, LimeTextExplainer
from scipy import sparse, special
from sklearn.metrics import pairwise_distances

from gated_bert.compression.onnx_model import OnnxModel
from gated_bert.compression.predict import evaluation_config
from gated_bert.models.folder import LoadedModel
from gated_bert.support.errors import UserError
from gated_bert.tasks.encoded import Encoded
from gated_bert.tasks.graphemes import between_words
from gated_bert.tasks.graphemes import words as words_of
from gated_bert.tasks.kinds import CLASSES
from gated_bert.tasks.pipeline import BUCKET_LENGTHS, BucketedDataset, predicted_batches
from gated_bert.tasks.task import Task

BATCH_SIZE = 32
SAMPLES_TOGETHER = 2000
"""Perturbed texts that are sorted by length and predicted together: enough for full batches of every length."""

_BASE = LimeTextExplainer(random_state=0).base
"""The library's regression with its own kernel; the seed is never drawn from."""


@dataclass(frozen=True)
class Explanation:
    """What one document's probability of one class rests on.

    Attributes:
        document: number of the document.
        label: index of the class.
        words: the chosen words, the largest absolute weight first; a word stands for all its occurrences.
        positions: where each word begins in the text, in characters.
        weights: [words] float64, what each word adds to the probability in the local linear model.
        intercept: the local model's value where none of the words is there.
        fidelity: R² of the local model on the weighted samples; NaN of a text without words.
    """

    document: int
    label: int
    words: tuple[str, ...]
    positions: tuple[tuple[int, ...], ...]
    weights: np.ndarray
    intercept: float
    fidelity: float


@dataclass(frozen=True)
class Perturbed:
    """A text with words left out at random.

    Attributes:
        indexed: the text and its words, as the library splits them.
        kept: [samples, words] float64, 1 where a word is there; the first sample is the text itself.
        texts: the samples.
    """

    indexed: IndexedString
    kept: np.ndarray
    texts: list[str]

    def distances(self) -> np.ndarray:
        """Cosine distance of each sample's words to the text's, times 100, as the library has it."""
        rows = sparse.csr_matrix(self.kept)
        return pairwise_distances(rows, rows[0], metric="cosine").ravel() * 100


def check_explainable(task: Task) -> None:
    """Refuses tasks whose predictions are no probabilities of classes of a single text.

    Raises:
        UserError: a regression, spans, tags of words, several classes at once, or pairs of texts.
    """
    if task.kind != CLASSES or task.pair:
        what = "pairs of texts" if task.kind == CLASSES else f"a {task.kind.replace('_', ' ')} task"
        raise UserError(f"{task.title} has {what}; explanations are of classes of single texts, so give a model of "
                        "such a task")  # fmt: skip


def document_seed(seed: int, document: int) -> int:
    """The seed of a document's samples: the first word that `numpy.random.SeedSequence((seed, document))` generates."""
    return int(np.random.SeedSequence((seed, document)).generate_state(1)[0])


def perturb(text: str, num_samples: int, random_state: int) -> Perturbed:
    """The samples that `lime.lime_text.LimeTextExplainer(random_state=random_state)` draws for a text.

    Its words keep their marks, which the library's own expression would take for gaps between words.

    Args:
        text: the text.
        num_samples: samples, the text itself included.
        random_state: seed.

    Returns:
        The samples; of a text without words, only the text.
    """
    indexed = IndexedString(text, split_expression=between_words())
    words = indexed.num_words()
    if not words:
        return Perturbed(indexed, np.ones((1, 0)), [text])
    random = np.random.RandomState(random_state)
    kept, texts = np.ones((num_samples, words)), [text]
    for row, removed in enumerate(random.randint(1, words + 1, num_samples - 1), start=1):
        # What `choice` without replacement gives, at a tenth of its time.
        left_out = random.permutation(words)[:removed]
        kept[row, left_out] = 0
        texts.append(indexed.inverse_removing(left_out))
    return Perturbed(indexed, kept, texts)


def explain_texts(
    loaded: LoadedModel,
    texts: Sequence[str],
    labels: Sequence[Sequence[int]],
    *,
    documents: Sequence[int] | None = None,
    num_features: int | None = 10,
    num_samples: int = 500,
    seed: int = 0,
    batch_size: int = BATCH_SIZE,
    max_len: int | None = None,
    progress: Callable[[str, int], None] | None = None,
) -> Iterator[tuple[int, list[Explanation]]]:
    """Explains texts by LIME, several at a time.

    Words and weights are those of
    `LimeTextExplainer(random_state=document_seed(seed, document)).explain_instance(text, probabilities, labels, …)`
    up to what a sequence's logits differ by in batches of other lengths, about 1e-7. The samples depend on seed,
    document and text alone, so that models explained with one seed have seen the same samples. Samples that are the
    same tokens are predicted once.

    A model of 8 bits that finds its scales from each batch is given one document at a time: what it says of a text
    depends on the others in the batch, and must not depend on which documents were explained before a stop.

    Args:
        loaded: a Keras or an ONNX model of a classification of single texts.
        texts: the documents.
        labels: of each text, the indices of the classes to explain.
        documents: numbers of the texts, which the samples depend on; by default 0, 1, ….
        num_features: most words of an explanation, chosen as the library chooses them; None for all words.
        num_samples: samples of each text, itself included.
        seed: see `document_seed`.
        batch_size: samples in a batch.
        max_len: longest text in tokens; by default that of the model's training.
        progress: called with "" and a number of samples that are done, in all `num_samples` of each text.

    Yields:
        Number of a document, and its explanations in the order of its labels; in the order of the texts.

    Raises:
        UserError: another kind of task, or a model whose outputs are no finite numbers.

    Paper: Ribeiro, Singh and Guestrin 2016, "Why Should I Trust You?" (https://arxiv.org/abs/1602.04938).
    """
    check_explainable(loaded.task)
    length = evaluation_config(loaded, batch_size, max_len).max_len
    together = 1 if _depends_on_batch(loaded) else max(1, SAMPLES_TOGETHER // num_samples)
    numbers = range(len(texts)) if documents is None else documents
    for start in range(0, len(texts), together):
        part = slice(start, start + together)
        found = [perturb(text, num_samples, document_seed(seed, number))
                 for number, text in zip(numbers[part], texts[part], strict=True)]  # fmt: skip
        samples = [text for each in found for text in each.texts]
        probabilities = predict_samples(loaded, samples, batch_size, length, progress)
        if progress:
            progress("", len(found) * num_samples - len(samples))
        ends = np.cumsum([len(each.texts) for each in found])[:-1]
        shares = np.split(probabilities, ends)
        for number, each, outputs, wanted in zip(numbers[part], found, shares, labels[part], strict=True):
            yield number, _explain(number, each, outputs, wanted, num_features)


def predict_samples(
    loaded: LoadedModel,
    texts: Sequence[str],
    batch_size: int,
    max_len: int,
    progress: Callable[[str, int], None] | None = None,
) -> np.ndarray:
    """Probabilities [texts, classes], float64; texts of the same tokens are predicted once.

    Args:
        loaded: a model of a classification of single texts.
        texts: the texts, in any number.
        batch_size: texts in a batch.
        max_len: longest text in tokens.
        progress: called with "" and the number of texts whose probabilities are known.

    Raises:
        UserError: no texts, or outputs that are no finite numbers.
    """
    if not len(texts):
        raise UserError("explain: no texts were given; give at least one")
    encoded = loaded.tokenizer.encode(texts, None, max_len, cached=False)
    places: dict[bytes, int] = {}
    which = np.array([places.setdefault(encoded.row(row).tobytes(), len(places)) for row in range(len(encoded))])
    _, firsts, counts = np.unique(which, return_index=True, return_counts=True)
    logits = np.empty((len(firsts), loaded.task.num_outputs), np.float32)
    for rows, outputs in predicted_batches(loaded.model, _batches(loaded, encoded.take(firsts), batch_size)):
        real = rows < len(firsts)
        logits[rows[real]] = outputs[real]
        if progress:
            progress("", int(counts[rows[real]].sum()))
    if not np.isfinite(logits).all():
        row = int(np.argmin(np.isfinite(logits).all(axis=1)))
        raise UserError(f"the model's outputs {logits[row].tolist()} for {texts[firsts[row]]!r} are not finite "
                        "numbers; explain the model of higher precision that this one was made from")  # fmt: skip
    return special.softmax(logits.astype(np.float64), axis=1)[which]


def _batches(loaded: LoadedModel, encoded: Encoded, batch_size: int) -> BucketedDataset:
    """The texts sorted into batches by length, for Keras of few shapes, since it may compile each of them."""
    lengths = encoded.lengths
    longest = int(lengths.max())
    if isinstance(loaded.model, OnnxModel):
        return BucketedDataset(encoded, None, batch_size, longest, buckets=np.unique(lengths).tolist())
    # Repeating the longest text fills the last batch.
    filled = np.append(np.arange(len(encoded)), np.full(-len(encoded) % batch_size, lengths.argmax()))
    usual = [length for length in BUCKET_LENGTHS if length < longest]
    last = min((length for length in BUCKET_LENGTHS if length >= longest), default=longest)
    buckets = (*usual, min(last, loaded.config.max_position))
    return BucketedDataset(encoded.take(filled), None, batch_size, longest, buckets=buckets)


def _depends_on_batch(loaded: LoadedModel) -> bool:
    return isinstance(loaded.model, OnnxModel) and loaded.model.record["precision"] == "int8"


def _explain(
    document: int, perturbed: Perturbed, shares: np.ndarray, labels: Sequence[int], num_features: int | None
) -> list[Explanation]:
    """The explanations of one document from the probabilities [samples, classes] of its samples."""
    indexed = perturbed.indexed
    if not indexed.num_words():
        return [Explanation(document, each, (), (), np.zeros(0), float(shares[0, each]), np.nan) for each in labels]
    distances, found = perturbed.distances(), []
    # The library's own places are wrong behind a character of code 0.
    places: dict[str, list[int]] = {}
    for word, start in words_of(perturbed.texts[0]):
        places.setdefault(word, []).append(start)
    for label in labels:
        intercept, weighted, fidelity, _ = _BASE.explain_instance_with_data(
            perturbed.kept, shares, distances, label, num_features,
            feature_selection="none" if num_features is None else "auto",
        )  # fmt: skip
        words = tuple(str(indexed.word(word)) for word, _ in weighted)
        positions = tuple(tuple(places[word]) for word in words)
        weights = np.array([weight for _, weight in weighted])
        found.append(Explanation(document, label, words, positions, weights, float(intercept), float(fidelity)))
    return found
