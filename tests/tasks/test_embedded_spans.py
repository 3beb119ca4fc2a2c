"""The embedded questions: always the same, honest, in the known vocabulary, and out of reach without an encoder."""

import hashlib
from collections import Counter

import numpy as np
import pytest

from gated_bert.tasks.embedded import embedded_vocabulary
from gated_bert.tasks.embedded_spans import embedded_questions
from gated_bert.tasks.squad_metrics import squad_scores

TRAIN, DEV = embedded_questions()[0], embedded_questions()[1]["dev"]


def test_the_data_never_change():
    rows = [(part.texts, part.pairs, part.labels.tolist(), part.ids, part.answers) for part in (TRAIN, DEV)]
    assert hashlib.sha256(repr(rows).encode()).hexdigest()[:16] == "54d631d90ebaabaf"


def test_every_answer_stands_once_where_its_label_says():
    assert len(TRAIN) == 4000 and len(DEV) == 800
    for part in (TRAIN, DEV):
        for passage, (start, end), answers in zip(part.pairs, part.labels, part.answers, strict=True):
            assert answers == (passage[start:end],) and passage.count(answers[0]) == 1
    names = [*TRAIN.ids, *DEV.ids]
    assert len(set(names)) == len(names)
    assert len(set(TRAIN.pairs) | set(DEV.pairs)) == len(names), "no passage is there twice"


def test_the_vocabulary_of_the_other_tasks_is_enough():
    known = set(embedded_vocabulary())
    assert {word for part in (TRAIN, DEV) for text in (*part.texts, *part.pairs) for word in text.split()} <= known


def sentence_of_most_shared_words(index: int, part) -> str:
    asked = set(part.texts[index].split())
    return max(part.pairs[index].split(" . "), key=lambda sentence: len(asked & set(sentence.split())))


def most_frequent_place(part, texts) -> dict[str, str]:
    """Each answer from where, in words, the answers of the training texts stand most often."""
    places = Counter()
    for text, (answer,) in zip(texts(TRAIN), TRAIN.answers, strict=True):
        before = f" {text} ".partition(f" {answer} ")[0].split()
        places[len(before), len(before) + len(answer.split())] += 1
    start, end = places.most_common(1)[0][0]
    return {name: " ".join(text.split()[start:end]) for name, text in zip(part.ids, texts(part), strict=True)}


def known_answers(part, last: bool) -> dict[str, str]:
    """The first or last stretch of the sentence nearest to the question that ever answered its question word."""
    known = {}
    for text, (answer,) in zip(TRAIN.texts, TRAIN.answers, strict=True):
        known.setdefault(text.partition(" did ")[0], set()).add(answer)
    found = {}
    for index, name in enumerate(part.ids):
        sentence = f" {sentence_of_most_shared_words(index, part)} "
        hits = sorted((sentence.find(f" {a} "), a) for a in known[part.texts[index].partition(" did ")[0]])
        hits = [answer for place, answer in hits if place >= 0]
        found[name] = hits[-1 if last else 0]
    return found


@pytest.mark.parametrize(
    ("answers", "ceiling"),
    [
        (lambda: most_frequent_place(DEV, lambda part: part.pairs), 10),
        (
            lambda: most_frequent_place(
                DEV, lambda part: [sentence_of_most_shared_words(index, part) for index in range(len(part))]
            ),
            20,
        ),
        (lambda: known_answers(DEV, last=False), 56),
        (lambda: known_answers(DEV, last=True), 56),
    ],
    ids=["place", "place in the nearest sentence", "first known answer", "last known answer"],
)
def test_places_and_shared_words_do_not_answer(answers, ceiling):
    scores = squad_scores(answers(), DEV.ids, DEV.answers)
    assert 100 * scores["f1"] < ceiling


def test_labels_are_characters_of_the_passage():
    assert TRAIN.labels.dtype == np.int32 and TRAIN.labels.shape == (4000, 2)
