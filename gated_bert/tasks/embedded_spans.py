"""Embedded questions on short passages, in the form of SQuAD: the answer is a stretch of the passage."""

from __future__ import annotations

import functools

import numpy as np

from gated_bert.tasks.embedded_pairs import NAMES
from gated_bert.tasks.embedded_sentences import Draw
from gated_bert.tasks.examples import SpanExamples

TRAIN, DEV = 4000, 800
VERBS = (("buy", "bought"), ("sell", "sold"), ("find", "found"), ("paint", "painted"), ("see", "saw"),
         ("wash", "washed"))  # fmt: skip
PLANS = ("wanted", "hoped", "planned")
OBJECTS = ("car", "boat", "house", "book", "guitar", "lamp", "box", "cup")
DETAILS = {
    "where": (("in", "london"), ("in", "paris"), ("in", "rome"), ("in", "berlin"), ("at", "home"), ("at", "school"),
              ("by", "the river")),
    "when": (("on", "monday"), ("on", "friday"), ("on", "tuesday"), ("in", "june"), ("", "yesterday"),
             ("", "last week")),
    "why": (("because of", "the money"), ("because of", "the rain"), ("out of", "love"), ("out of", "fear"),
            ("for", "fun")),
    "with whom": (("with", "a friend"), ("with", "a sister"), ("with", "two students"), ("with", "an uncle"),
                  ("with", "a guide")),
}  # fmt: skip
"""The kinds of detail by the word that asks for them: what leads to the answer, and the answer."""


def _other(draw: Draw, options: tuple, *taken: object):
    return draw.one([option for option in options if option not in taken])


def _sentence(draw: Draw, name: str, deed: tuple[str, str, str], kind: str, true: tuple, false: tuple) -> str:
    """What `name` did, with a true and a false detail of one kind and a true one of another."""
    plain, past, what = deed
    right, wrong, more = (
        " ".join(detail).strip() for detail in (true, false, draw.one(DETAILS[_other(draw, tuple(DETAILS), kind)]))
    )
    told = draw.one(
        (
            f"{past} the {what} not {wrong} but {right}",
            f"{past} the {what} {right} and not {wrong}",
            f"{draw.one(PLANS)} to {plain} the {what} {wrong} but {past} it {right}",
            f"{past} the {what} {right} but {draw.one(PLANS)} to {plain} it {wrong}",
        )
    )
    return f"{name} {told} {more} ." if draw.chance(0.5) else f"{more} {name} {told} ."


def question(draw: Draw) -> tuple[str, str, str]:
    """A question, a passage and the answer.

    The sentence that answers also holds a detail of the same kind that is denied or was only planned; in half of the
    passages another person's sentence holds two more.
    """
    name, asked, (plain, past), what = (draw.one(options) for options in (NAMES, tuple(DETAILS), VERBS, OBJECTS))
    true = draw.one(DETAILS[asked])
    false = _other(draw, DETAILS[asked], true)
    answering = _sentence(draw, name, (plain, past, what), asked, true, false)
    kind = asked if draw.chance(0.5) else _other(draw, tuple(DETAILS), asked)
    one = _other(draw, DETAILS[kind], true, false)
    rival = (*_other(draw, VERBS, (plain, past)), _other(draw, OBJECTS, what))
    beside = _sentence(draw, _other(draw, NAMES, name), rival, kind, one, _other(draw, DETAILS[kind], true, false, one))
    sentences = (answering, beside) if draw.chance(0.5) else (beside, answering)
    return f"{asked} did {name} {plain} the {what} ?", " ".join(sentences), true[1]


@functools.cache
def embedded_questions() -> tuple[SpanExamples, dict[str, SpanExamples]]:
    """The embedded questions: always the same, and no passage of the development set among those trained on.

    Returns:
        The training examples, and the development examples under "dev".
    """
    seen: set[str] = set()
    return _draw("train", TRAIN, seen), {"dev": _draw("dev", DEV, seen)}


def _draw(split: str, size: int, seen: set[str]) -> SpanExamples:
    draw = Draw(f"squad {split}")
    rows: list[tuple[str, str, str, str]] = []
    while len(rows) < size:
        text, passage, answer = question(draw)
        if passage not in seen and passage.count(answer) == 1:
            seen.add(passage)
            rows.append((text, passage, answer, f"{split}-{len(rows)}"))
    texts, passages, answers, names = (list(column) for column in zip(*rows, strict=True))
    starts = np.array([passage.index(answer) for passage, answer in zip(passages, answers, strict=True)])
    labels = np.stack([starts, starts + [len(answer) for answer in answers]], axis=1).astype(np.int32)
    return SpanExamples(texts, passages, labels, names, [(answer,) for answer in answers])
