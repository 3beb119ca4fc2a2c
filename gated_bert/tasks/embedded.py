"""Embedded data: small tasks in the form of GLUE and AG News from seeded grammars, for where there is no network."""

from __future__ import annotations

import functools
import string
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from gated_bert.support.checks import choose
from gated_bert.tasks.embedded_inference import mnli, rte, wnli
from gated_bert.tasks.embedded_pairs import mrpc, qnli, stsb
from gated_bert.tasks.embedded_sentences import Draw, cola, sst2
from gated_bert.tasks.embedded_topics import ag_news, topics
from gated_bert.tasks.examples import Examples
from gated_bert.tasks.task import GLUE_TASKS
from gated_bert.tasks.wordpiece import SPECIAL_TOKENS

WORD_ENDINGS = ("##s", "##es", "##ed", "##er", "##est", "##ing", "##ly", "##ness", "##less", "##ful", "##able")


@dataclass(frozen=True)
class Recipe:
    """How one task is drawn.

    Attributes:
        grammar: a function of a `Draw` that returns text, pair or `None`, and label.
        train: number of training examples.
        dev: number of examples in each development set.
        shares: share of each label; empty for a regression and for several labels at once.
        dev_options: keyword arguments of the grammar for each development set.
    """

    grammar: Callable
    train: int
    dev: int
    shares: tuple[float, ...] = (0.5, 0.5)
    dev_options: tuple[tuple[str, dict], ...] = (("dev", {}),)


RECIPES = {
    "sst2": Recipe(sst2, 3200, 800),
    "cola": Recipe(cola, 4000, 800, (0.4, 0.6)),
    "mrpc": Recipe(mrpc, 4000, 800, (0.4, 0.6)),
    "stsb": Recipe(stsb, 4000, 800, ()),
    "qnli": Recipe(qnli, 3200, 800),
    "rte": Recipe(rte, 4000, 800),
    "wnli": Recipe(wnli, 3200, 800),
    "mnli": Recipe(
        mnli, 4800, 900, (1 / 3, 1 / 3, 1 / 3), (("dev_matched", {}), ("dev_mismatched", {"genre": "space"}))
    ),
    "ag_news": Recipe(ag_news, 4000, 800, (0.25,) * 4, (("validation", {}), ("test", {}))),
    "topics": Recipe(topics, 4000, 800, ()),
}


def embedded_examples(task_name: str) -> tuple[Examples, dict[str, Examples]]:
    """The examples of one task: always the same, and no development example among the training examples.

    Args:
        task_name: one of the eight GLUE tasks, "sst2" to "mnli", "ag_news", or "topics".

    Returns:
        The training examples, and the development examples by split. All texts are lower case, single words are
        separated by spaces; labels are int32 in the official order, float32 from 0 to 5 for STS-B, and for topics
        [n, 4].

    Raises:
        ConfigError: there is no embedded data for `task_name`.
    """
    choose("task", task_name, tuple(RECIPES))
    train, dev = _all_examples(task_name)
    return train, dict(dev)


@functools.cache
def _all_examples(task_name: str) -> tuple[Examples, dict[str, Examples]]:
    recipe = RECIPES[task_name]
    seen: set[tuple[str, str | None]] = set()
    train = _draw_examples(task_name, "train", recipe.train, {}, seen)
    dev = {split: _draw_examples(task_name, split, recipe.dev, options, seen) for split, options in recipe.dev_options}
    return train, dev


def _draw_examples(task_name: str, split: str, size: int, options: dict, seen: set) -> Examples:
    recipe = RECIPES[task_name]
    draw = Draw(f"{task_name} {split}")
    room = {label: round(share * size) for label, share in enumerate(recipe.shares)}
    rows: list[tuple] = []
    while len(rows) < size:
        text, pair, label = recipe.grammar(draw, **options)
        if (text, pair) in seen or room.get(label) == 0:
            continue
        seen.add((text, pair))
        rows.append((text, pair, label))
        if room:
            room[label] -= 1
    texts, pairs, labels = (list(column) for column in zip(*rows, strict=True))
    dtype = np.float32 if isinstance(labels[0], float) else np.int32
    return Examples(texts, None if pairs[0] is None else pairs, np.array(labels, dtype))


@functools.cache
def _words() -> tuple[str, ...]:
    counts: Counter[str] = Counter()
    # AG News and topics have no words of their own.
    for name in GLUE_TASKS:
        train, dev = embedded_examples(name)
        for examples in (train, *dev.values()):
            for text in (*examples.texts, *(examples.pairs or ())):
                counts.update(text.split())
    return tuple(sorted(counts, key=lambda word: (-counts[word], word)))


def embedded_vocabulary() -> list[str]:
    """The WordPiece vocabulary of the embedded data, for all tasks together.

    Returns:
        The five special tokens, every whole word and mark of the embedded texts (the most frequent first), and the
        letters, digits, ASCII marks and word endings that let any other plain English text be split without [UNK].
    """
    characters = string.ascii_lowercase + string.digits
    pieces = [*string.punctuation, *characters, *("##" + character for character in characters), *WORD_ENDINGS]
    return list(dict.fromkeys((*SPECIAL_TOKENS, *_words(), *pieces)))
