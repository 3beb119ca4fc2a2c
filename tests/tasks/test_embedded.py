"""The embedded data: always the same, honest splits, and out of reach for a bag of words."""

from __future__ import annotations

import hashlib
import importlib.util
import subprocess
import sys
from collections import Counter

import numpy as np
import pandas as pd
import pytest

from gated_bert.config import ConfigError
from gated_bert.tasks.embedded import embedded_examples, embedded_vocabulary
from gated_bert.tasks.task import get_task
from gated_bert.tasks.wordpiece import Tokenizer
from tests.conftest import REPOSITORY

FULL_SCALE = True

TASK_NAMES = ("sst2", "cola", "mrpc", "stsb", "qnli", "rte", "wnli", "mnli", "ag_news")
HASHES = {
    "sst2": "4080a0030ed7b391",
    "cola": "12cd98082cca2a12",
    "mrpc": "7385f785b6d9a25b",
    "stsb": "a7392a331714c001",
    "qnli": "3108aa42f37564b4",
    "rte": "ecb89de9dc0ace84",
    "wnli": "dc426de93bea6eb7",
    "mnli": "73c85139e90a5394",
    "ag_news": "6f3c37dddb527a7e",
}
MEASURED = REPOSITORY / "results" / "benchmarks" / "embedded_hardness.csv"
BAG_OF_WORDS_CEILINGS = {"sst2": 65, "cola": 15, "mrpc": 75, "stsb": 50, "qnli": 60, "rte": 70, "wnli": 60, "mnli": 78,
                         "ag_news": 60}  # fmt: skip


def rows(examples):
    return list(zip(examples.texts, examples.pairs or [None] * len(examples), examples.labels.tolist(), strict=True))


def digest(task_name: str) -> str:
    train, dev = embedded_examples(task_name)
    return hashlib.sha256(repr([rows(train), {split: rows(part) for split, part in dev.items()}]).encode()).hexdigest()[
        :16
    ]


@pytest.fixture(scope="module")
def hardness():
    spec = importlib.util.spec_from_file_location(
        "embedded_hardness", REPOSITORY / "benchmarks" / "embedded_hardness.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", TASK_NAMES)
def test_the_data_never_change(name):
    assert digest(name) == HASHES[name]


def test_the_data_do_not_depend_on_the_process():
    code = (
        "import hashlib; from gated_bert.tasks.embedded import *; a, b = embedded_examples('mnli'); print(a.texts[-1])"
    )
    outputs = {
        subprocess.run([sys.executable, "-c", code], env={"PYTHONHASHSEED": seed, "PATH": ""}, cwd=REPOSITORY,
                       capture_output=True, text=True, check=True).stdout
        for seed in ("1", "2")
    }  # fmt: skip
    assert outputs == {embedded_examples("mnli")[0].texts[-1] + "\n"}


@pytest.mark.parametrize("name", TASK_NAMES)
def test_sizes_splits_and_types(name):
    task = get_task(name)
    train, dev = embedded_examples(name)
    assert 2000 <= len(train) <= 8000
    assert tuple(dev) == task.dev_splits
    for examples in (train, *dev.values()):
        assert len(examples) >= 500
        assert len(examples.texts) == len(examples.labels)
        assert (examples.pairs is not None) == task.pair
        assert examples.labels.dtype == (np.float32 if name == "stsb" else np.int32)


@pytest.mark.parametrize("name", TASK_NAMES)
def test_no_example_is_there_twice_nor_in_two_splits(name):
    train, dev = embedded_examples(name)
    seen = Counter(row[:2] for examples in (train, *dev.values()) for row in rows(examples))
    assert max(seen.values()) == 1


@pytest.mark.parametrize("name", [name for name in TASK_NAMES if name != "stsb"])
def test_labels_are_balanced(name):
    share = {"cola": (0.4, 0.6), "mrpc": (0.4, 0.6), "mnli": (1 / 3,) * 3, "ag_news": (0.25,) * 4}.get(name, (0.5, 0.5))
    train, dev = embedded_examples(name)
    for examples in (train, *dev.values()):
        np.testing.assert_allclose(np.bincount(examples.labels) / len(examples), share, atol=1e-3)


def test_similarity_covers_its_range():
    labels = embedded_examples("stsb")[0].labels
    assert labels.min() == 0 and labels.max() == 5
    assert len(np.unique(labels)) >= 6
    assert labels.std() > 1


def test_mismatched_mnli_is_another_genre():
    train, dev = embedded_examples("mnli")
    known = set(" ".join(train.texts).split())
    assert set(" ".join(dev["dev_matched"].texts).split()) <= known
    assert len(set(" ".join(dev["dev_mismatched"].texts).split()) - known) > 15


def test_the_vocabulary_holds_every_word():
    vocabulary = embedded_vocabulary()
    # One word more or in another place, and every embedded run there is has other weights for its words.
    assert hashlib.sha256(repr(vocabulary).encode()).hexdigest()[:16] == "27b6074cd6384a8b"
    assert vocabulary[:5] == ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    assert len(set(vocabulary)) == len(vocabulary) < 800
    tokenizer = Tokenizer.from_vocab(vocabulary)
    for name in TASK_NAMES:
        train, dev = embedded_examples(name)
        for examples in (train, *dev.values()):
            encoded = tokenizer.encode(examples.texts, examples.pairs, 128)
            assert encoded.input_ids.min() > 1
            assert encoded.lengths.max() <= 32


def test_other_plain_text_has_no_unknown_token():
    encoded = Tokenizer.from_vocab(embedded_vocabulary()).encode(
        ["Zebras, quietly jogging: 42% of 7-year-olds!"], None, 128
    )
    assert encoded.input_ids.min() > 1


def test_an_unknown_task_is_refused():
    with pytest.raises(ConfigError, match="'sst3' is refused.*did you mean sst2"):
        embedded_examples("sst3")


@pytest.mark.daily_every(3)
@pytest.mark.parametrize("name", TASK_NAMES)
def test_words_alone_do_not_decide(name, hardness):
    assert max(hardness.bag_of_words_scores(name).values()) < BAG_OF_WORDS_CEILINGS[name]


@pytest.mark.parametrize("name", TASK_NAMES)
def test_the_measured_dense_model_is_ten_points_above_the_ceiling(name):
    table = pd.read_csv(MEASURED)
    measured = table[table["task"] == name]
    assert measured["dense_final"].min() >= max(85, BAG_OF_WORDS_CEILINGS[name] + 10)
