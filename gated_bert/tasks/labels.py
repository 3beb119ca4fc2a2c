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


def match_labels(found: Sequence[str], wanted: Sequence[str]) -> list[int] | None:
    """The place in `found` of each class of `wanted`, None where these are not the same classes.

    Names are compared as they are, then without regard to case, spaces and punctuation, then by what else the tasks'
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
    if not all(found):
        return None
    numbers = [int(match[1]) for match in found]
    first = min(numbers, default=0)
    if first > 1 or sorted(numbers) != list(range(first, first + len(numbers))):
        return None
    return [number - first for number in numbers]


def _folded(name: str) -> str:
    text = unicodedata.normalize("NFKC", name).casefold().strip()
    return decimal_text(text) or "".join(letter for letter in text if letter.isalnum())


def _meant(name: str) -> str:
    folded = _folded(name)
    stars = _STARS.fullmatch(folded)
    return stars[1] if stars else _SAME.get(folded, folded)
