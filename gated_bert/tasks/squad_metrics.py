"""Exact match and F1 of answers, as the official script of SQuAD v1.1 counts them."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Mapping, Sequence

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalize(answer: str) -> str:
    """The answer in small letters, without ASCII punctuation and articles, words parted by single spaces."""
    return " ".join(_ARTICLES.sub(" ", answer.lower().translate(_PUNCTUATION)).split())


def exact_match(prediction: str, answer: str) -> float:
    """1 where the two are equal once normalised, else 0."""
    return float(normalize(prediction) == normalize(answer))


def f1(prediction: str, answer: str) -> float:
    """Harmonic mean of precision and recall over the normalised words; 0 where no word is shared."""
    predicted, wanted = normalize(prediction).split(), normalize(answer).split()
    shared = sum((Counter(predicted) & Counter(wanted)).values())
    return 2 * shared / (len(predicted) + len(wanted)) if shared else 0.0


def squad_scores(
    predictions: Mapping[str, str], ids: Sequence[str], answers: Sequence[Sequence[str]]
) -> dict[str, float]:
    """Mean F1 and exact match over the questions, of each the best over its accepted answers.

    Args:
        predictions: answers by the name of the question; one that is missing counts as wrong.
        ids: names of the questions.
        answers: accepted answers of each question.

    Returns:
        "f1" and "exact_match", as fractions.

    Paper: Rajpurkar et al. 2016, SQuAD (https://arxiv.org/abs/1606.05250), evaluation script v1.1.
    """
    totals = {"f1": 0.0, "exact_match": 0.0}
    for name, accepted in zip(ids, answers, strict=True):
        if name in predictions:
            for metric, score in (("f1", f1), ("exact_match", exact_match)):
                totals[metric] += max(score(predictions[name], answer) for answer in accepted)
    return {metric: total / len(ids) for metric, total in totals.items()}
