"""Embedded sentences with names of persons, places and organisations, in the form of CoNLL-2003: words and tags."""

from __future__ import annotations

import functools

import numpy as np

from gated_bert.tasks.embedded_sentences import Draw
from gated_bert.tasks.examples import TaggedExamples
from gated_bert.tasks.task import OUTSIDE, TASKS

TRAIN, DEV = 3200, 800
NAMES = ("london", "paris", "rome", "berlin", "boston", "jack", "rose", "grace", "king", "baker", "banks", "mercer",
         "lincoln", "florence", "chelsea", "austin", "hudson", "jordan")  # fmt: skip
"""Words for names of any kind, and some for none: only what is around them tells. Half are in no vocabulary whole."""
MORE = {"PER": NAMES, "LOC": ("park", "river", "hall"), "ORG": ("bank", "company", "school")}
"""Second words of names; `river`, `bank` and others are words of their own elsewhere."""
SENTENCES = (
    "{PER} visited {LOC} {when}", "{PER} met {PER} near {LOC}", "{PER} works for {ORG} in {LOC}",
    "{ORG} bought shares of {ORG} {when}", "{PER} bought the house of {PER}", "{ORG} sent {PER} to {LOC}",
    "the mayor of {LOC} praised {PER}", "the lawyer of {ORG} blamed {PER}", "the driver of {PER} left {LOC} {when}",
    "{LOC} is far from {LOC}", "{PER} is tired of {LOC}", "{ORG} is tired of {PER}",
    "prices rose in {LOC} {when}", "profits of {ORG} rose {when}", "{PER} found grace in love",
    "the king and {PER} visited the baker in {LOC}", "not {PER} but {PER} works for {ORG}",
    "not {ORG} but {ORG} bought the bank", "in {LOC} {PER} sold the boat", "in {LOC} {ORG} sold shares",
    "{PER} , the king of {LOC} , met the boss of {ORG}", "{ORG} opened a school in {LOC}",
    "the river is near {LOC}", "a baker from {LOC} sold fruit to {PER}", "{PER} left {ORG} and joined {ORG}",
)  # fmt: skip
TIMES = ("yesterday", "today", "last week", "last year", "on monday", "on friday")


def _name(draw: Draw, kind: str) -> list[tuple[str, str]]:
    """A name of one word or two, each with its tag."""
    words = [draw.one(NAMES)]
    if draw.chance(0.4):
        words.append(draw.one(MORE[kind]))
    return [(word, f"{'I' if place else 'B'}-{kind}") for place, word in enumerate(words)]


def sentence(draw: Draw) -> list[tuple[str, str]]:
    """Words and their tags: one statement, or two of them."""
    found: list[tuple[str, str]] = []
    for _ in range(1 + draw.chance(0.3)):
        found += [("and", OUTSIDE)] if found else []
        for part in draw.one(SENTENCES).split():
            kind = part.strip("{}")
            if kind == "when":
                found += [(word, OUTSIDE) for word in draw.one(TIMES).split()]
            else:
                found += _name(draw, kind) if kind in MORE else [(part, OUTSIDE)]
    return [*found, (".", OUTSIDE)]


@functools.cache
def embedded_entities() -> tuple[TaggedExamples, dict[str, TaggedExamples]]:
    """The embedded sentences: always the same, and none of the development set among those trained on.

    Returns:
        The training examples, and the development examples under "dev".
    """
    seen: set[tuple] = set()
    return _draw("train", TRAIN, seen), {"dev": _draw("dev", DEV, seen)}


def _draw(split: str, size: int, seen: set[tuple]) -> TaggedExamples:
    draw = Draw(f"ner {split}")
    rows: list[list[tuple[str, str]]] = []
    while len(rows) < size:
        found = sentence(draw)
        words = tuple(word for word, _ in found)
        if words not in seen:
            seen.add(words)
            rows.append(found)
    numbers = {tag: index for index, tag in enumerate(TASKS["ner"].labels)}
    tags = np.array([numbers[tag] for row in rows for _, tag in row], np.int32)
    return TaggedExamples.of([[word for word, _ in row] for row in rows], tags)
