"""Embedded names and topics: always the same, honest splits, and out of reach for words alone."""

import hashlib
from collections import Counter, defaultdict

import numpy as np
import pytest
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier

from gated_bert.tasks.embedded import embedded_examples, embedded_vocabulary
from gated_bert.tasks.embedded_entities import embedded_entities
from gated_bert.tasks.metrics import evaluate
from gated_bert.tasks.tagging import tag_metrics
from gated_bert.tasks.task import TASKS
from gated_bert.tasks.wordpiece import Tokenizer

pytest.importorskip("seqeval")

FULL_SCALE = True
TRAIN, DEV = embedded_entities()[0], embedded_entities()[1]["dev"]


def digest(*parts):
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]


def test_the_data_never_change():
    assert digest(*((part.words, part.labels.tolist()) for part in (TRAIN, DEV))) == "9535b5b6b8a05e17"
    train, dev = embedded_examples("topics")
    assert digest(*((part.texts, part.labels.tolist()) for part in (train, dev["dev"]))) == "789ec4f84c5167cd"


def test_sizes_and_splits():
    assert (len(TRAIN), len(DEV)) == (3200, 800)
    assert len({*TRAIN.words, *DEV.words}) == 4000
    for part in (TRAIN, DEV):
        assert len(part.labels) == part.offsets[-1] and set(np.unique(part.labels)) == set(range(7))
    encoded = Tokenizer.from_vocab(embedded_vocabulary()).words(TRAIN.words)
    assert encoded[0].min() > 1, "no unknown piece"
    # Some names are of several pieces.
    assert len(encoded[0]) > 1.1 * len(TRAIN.labels)


def around(words, place, before, after):
    """A word and those around it."""
    return tuple(words[at] if 0 <= at < len(words) else "" for at in range(place - before, place + after + 1))


@pytest.mark.parametrize(("before", "after", "ceiling"), [(0, 0, 20), (1, 0, 68), (0, 1, 60), (1, 1, 73)])
def test_words_and_their_neighbours_do_not_tell_names(before, after, ceiling):
    counts, labels = defaultdict(Counter), iter(TRAIN.labels.tolist())
    for words in TRAIN.words:
        for place in range(len(words)):
            counts[around(words, place, before, after)][next(labels)] += 1
    known = {key: tags.most_common(1)[0][0] for key, tags in counts.items()}
    predicted = np.array([known.get(around(words, place, before, after), 0)
                          for words in DEV.words for place in range(len(words))])  # fmt: skip
    assert 100 * tag_metrics(TASKS["ner"], DEV.labels, predicted, DEV.offsets)["f1"] < ceiling


def test_words_alone_do_not_tell_topics():
    train, dev = embedded_examples("topics")
    vectorizer = CountVectorizer(token_pattern=r"\S+", ngram_range=(1, 2))
    model = OneVsRestClassifier(LogisticRegression(max_iter=1000))
    model.fit(vectorizer.fit_transform(train.texts), train.labels)
    logits = model.decision_function(vectorizer.transform(dev["dev"].texts))
    scores = evaluate(TASKS["topics"], logits, dev["dev"].labels)
    assert 100 * scores["micro_f1"] < 80 and 100 * scores["subset_accuracy"] < 58
    assert set(map(int, dev["dev"].labels.sum(axis=1))) == {0, 1, 2, 3}
    assert train.labels.dtype == np.int32 and 0.25 < train.labels.mean() < 0.35
