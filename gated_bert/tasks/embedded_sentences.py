"""Grammars of the embedded single-sentence tasks: sentiment (SST-2) and acceptability (CoLA)."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any


class Draw:
    """Choices from a seed, the same under every Python: only `random()` is used, whose sequence Python guarantees.

    Args:
        seed: text; equal texts give equal choices.
    """

    def __init__(self, seed: str):
        self._random = random.Random(seed).random

    def one(self, options: Sequence) -> Any:
        """One of `options`, each as likely as the others."""
        return options[int(self._random() * len(options))]

    def chance(self, probability: float) -> bool:
        """True with `probability`."""
        return self._random() < probability


GOOD = ("good", "great", "funny", "charming", "clever", "moving", "fresh", "brilliant", "warm", "honest", "lovely",
        "sharp", "gripping", "smart", "superb", "witty", "touching", "thrilling", "elegant", "original")  # fmt: skip
BAD = ("bad", "dull", "boring", "silly", "weak", "stale", "awful", "flat", "clumsy", "tedious", "messy", "lifeless",
       "ugly", "shallow", "poor", "lame", "bland", "pointless", "sloppy", "predictable")  # fmt: skip
FILM_PARTS = ("film", "movie", "story", "plot", "acting", "script", "cast", "ending", "music", "dialogue", "humor",
              "pace", "camera work", "direction", "romance", "opening")  # fmt: skip
NEGATORS = ("not", "never", "hardly", "far from")
DEGREES = ("", "", "very ", "really ", "quite ", "truly ")


def _opinion(draw: Draw, good: bool, negated: float) -> str:
    negate = draw.chance(negated)
    adjective, part = draw.one(GOOD if good != negate else BAD), draw.one(FILM_PARTS)
    if draw.chance(0.3):
        return f"i {'do not find' if negate else draw.one(('find', 'found'))} the {part} {adjective}"
    if negate:
        return f"the {part} is {draw.one(NEGATORS)} {adjective}"
    return f"the {part} is {draw.one(DEGREES)}{adjective}"


def sst2(draw: Draw) -> tuple[str, None, int]:
    """Opinions of a film: a negation turns its own clause round, and of two clauses the one not conceded decides."""
    good = draw.chance(0.5)
    form = draw.one(("single", "single", "single", "and", "but", "although first", "although last"))
    main = _opinion(draw, good, 0.35)
    conceded = _opinion(draw, not good, 0.25)
    text = {
        "single": main,
        "and": f"{main} and {_opinion(draw, good, 0.25)}",
        "but": f"{conceded} but {main}",
        "although first": f"although {conceded} , {main}",
        "although last": f"{main} although {conceded}",
    }[form]
    return f"{text} .", None, int(good)


NOUNS = ("dog", "cat", "bird", "horse", "child", "teacher", "doctor", "king", "singer", "farmer", "sailor", "guest")
PLURALS = {"child": "children"}
VERBS = ("sleep", "sing", "run", "smile", "swim", "dance", "work", "wait", "talk", "play")
PARTICIPLES = {
    "sleep": "slept", "sing": "sung", "run": "run", "smile": "smiled", "swim": "swum",
    "dance": "danced", "work": "worked", "wait": "waited", "talk": "talked", "play": "played",
}  # fmt: skip
ADJECTIVES = ("old", "young", "small", "happy", "tired", "quiet")
PREPOSITIONS = ("near", "behind", "beside", "with")
ADVERBS = ("here", "often", "today", "outside", "again", "every day", "at night")
REFLEXIVES = {"king": "himself", "queen": "herself", "boy": "himself", "girl": "herself", "prince": "himself",
              "princess": "herself", "kings": "themselves", "queens": "themselves", "boys": "themselves",
              "girls": "themselves"}  # fmt: skip
REFLEXIVE_VERBS = ("saw", "praised", "hurt", "helped", "liked", "trusted")


def _noun(draw: Draw, plural: bool) -> str:
    noun = draw.one(NOUNS)
    return PLURALS.get(noun, noun + "s") if plural else noun


def _agreement(draw: Draw, good: bool) -> str:
    plural = draw.chance(0.5)
    subject = f"the {_noun(draw, plural)}"
    if draw.chance(0.5):
        subject += f" {draw.one(PREPOSITIONS)} the {_noun(draw, draw.chance(0.5))}"
    verb = draw.one(VERBS)
    return f"{subject} {verb if plural == good else verb + 's'} {draw.one(ADVERBS)}"


def _reflexive(draw: Draw, good: bool) -> str:
    noun = draw.one(tuple(REFLEXIVES))
    right = REFLEXIVES[noun]
    wrong = [form for form in ("himself", "herself", "themselves") if form != right]
    adjective = draw.one(ADJECTIVES) + " " if draw.chance(0.5) else ""
    return f"the {adjective}{noun} {draw.one(REFLEXIVE_VERBS)} {right if good else draw.one(wrong)} {draw.one(ADVERBS)}"


def _noun_phrase_order(draw: Draw, good: bool) -> str:
    noun, adjective = _noun(draw, draw.chance(0.5)), draw.one(ADJECTIVES)
    order = f"the {adjective} {noun}" if good else draw.one((f"the {noun} {adjective}", f"{adjective} the {noun}"))
    return f"{order} will {draw.one(VERBS)} {draw.one(ADVERBS)}"


def _auxiliary(draw: Draw, good: bool) -> str:
    verb = draw.one([verb for verb in VERBS if PARTICIPLES[verb] != verb])
    perfect = draw.chance(0.5)
    form = PARTICIPLES[verb] if perfect == good else verb
    return f"the {_noun(draw, False)} {'has' if perfect else draw.one(('will', 'can'))} {form} {draw.one(ADVERBS)}"


def cola(draw: Draw) -> tuple[str, None, int]:
    """Sentences with one possible fault: agreement across a distractor, a reflexive, word order or a verb form."""
    good = draw.chance(0.5)
    fault = draw.one((_agreement, _agreement, _reflexive, _noun_phrase_order, _auxiliary))
    return f"{fault(draw, good)} .", None, int(good)
