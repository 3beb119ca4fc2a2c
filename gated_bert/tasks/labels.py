"""Names of classes: which of one tool's are which of another's."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

from gated_bert.tasks.tables import decimal_text

_SAME = {
    **dict.fromkeys(("neg", "labelnegative"), "negative"),
    **dict.fromkeys(("pos", "labelpositive"), "positive"),
    **dict.fromkeys(("entail", "entails", "entailed"), "entailment"),
    **dict.fromkeys(("nonentailment", "noentailment", "notentail", "notentailed"), "notentailment"),
    **dict.fromkeys(("contradict", "contradicts", "contradictory"), "contradiction"),
    **dict.fromkeys(("paraphrase", "isparaphrase"), "equivalent"),
    **dict.fromkeys(("nonequivalent", "notparaphrase", "nonparaphrase"), "notequivalent"),
    "grammatical": "acceptable",
    "ungrammatical": "unacceptable",
    "sport": "sports",
    **dict.fromkeys(("sciencetechnology", "sciencetech", "scienceandtechnology"), "scitech"),
}
"""Other words for classes of the tasks; without what `_folded` drops."""
_STARS = re.compile(r"([0-9]+)stars?")
_GENERIC = re.compile(r"(?:label|class)?([0-9]+)")
_PREFIX = re.compile(r"(?:__)?(?:label|class)[\s_:=-]+(?=[^\W\d_])", re.IGNORECASE)
"""What fastText and others put before the name of a class."""
_QUOTED = re.compile(r"[\"'(\[](.+)[\"')\]]")
_SEPARATORS = re.compile(r"(?<=.)[\s_/&.,:;'’‐‑–-]+(?=.)")
"""Not all that is no letter: `C#` is not `C++`, `A-` not `A`, `1-2` not `12`, nor are vowel signs and emoji nothing."""


def match_labels(found: Sequence[str], wanted: Sequence[str]) -> list[int] | None:
    """The place in `found` of each class of `wanted`, None where these are not the same classes.

    Names are compared as they are, then without regard to case and to what parts words, then by what else the tasks'
    classes are called; the first that tells all classes apart and finds all of them.
    """
    for spelt in (str, _folded, _meant):
        theirs, ours = [spelt(name) for name in found], [spelt(name) for name in wanted]
        if len(set(theirs)) == len(theirs) and sorted(theirs) == sorted(ours):
            return [theirs.index(name) for name in ours]
    return None


def label_numbers(labels: Sequence[str]) -> list[int] | None:
    """The number of each class, from 0, where the names are nothing but numbers from 0 or 1 up (`LABEL_0`, `1`)."""
    found = [_GENERIC.fullmatch(_folded(label)) for label in labels]
    numbers = [int(match[1]) for match in found if match]
    if len(numbers) < len(found):
        return None
    first = min(numbers, default=0)
    if first > 1 or sorted(numbers) != list(range(first, first + len(numbers))):
        return None
    return [number - first for number in numbers]


def _folded(name: str) -> str:
    text = unicodedata.normalize("NFKC", name).casefold().strip(" _")
    return decimal_text(text) or _SEPARATORS.sub(_joined, _QUOTED.sub(r"\1", text).rstrip("."))


def _joined(separators: re.Match) -> str:
    """Nothing, where they stand between words."""
    around = separators.string[separators.start() - 1] + separators.string[separators.end()]
    words = all(letter.isalnum() or not letter.isascii() for letter in around)
    return "" if words and not around.isdigit() else separators[0]


def _meant(name: str) -> str:
    folded = _folded(_PREFIX.sub("", name.strip()))
    stars = _STARS.fullmatch(folded)
    return stars[1] if stars else _SAME.get(folded, folded)
