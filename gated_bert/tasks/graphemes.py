"""What a reader takes for one character: letters with their marks, syllables, emoji sequences."""

from __future__ import annotations

import functools
import re
import sys
import unicodedata
from collections.abc import Iterator

import numpy as np

ZERO_WIDTH_JOINERS = "\u200c\u200d"
_PLAIN = re.compile(r"[\t\n\r -~]*")
_FIRST_MARK = 0x300
_FLAGS = "".join(map(chr, range(0x1F1E6, 0x1F200)))
"""Regional indicators, of which two make a flag."""
_INDIC_VIRAMA = 9
"""Canonical combining class of the signs that join two consonants."""

_JAMO = (("L", 0x1100, 0x115F), ("L", 0xA960, 0xA97C), ("V", 0x1160, 0x11A7), ("V", 0xD7B0, 0xD7C6),
         ("T", 0x11A8, 0x11FF), ("T", 0xD7CB, 0xD7FB))  # fmt: skip
_AFTER = {"L": ("L", "V", "LV", "LVT"), "V": ("V", "T"), "LV": ("V", "T"), "T": ("T",), "LVT": ("T",)}
"""Kinds of Hangul → those that go on with the same syllable."""


def whole_places(text: str, places: np.ndarray) -> np.ndarray:
    """Widens the places of tokens to what a reader sees as theirs.

    A tokeniser's normalisation removes characters, such as the accents of decomposed text, and its pieces may end
    between a letter and its mark. Here a removed character belongs to the token before it, at the start of a word to
    the one behind it, and no token ends within a grapheme; places may overlap then.

    Args:
        text: the text.
        places: [tokens, 2] characters of each token, in order: first, and one after the last.

    Returns:
        The same where there is nothing to widen.

    Paper: Unicode Standard Annex 29, Unicode Text Segmentation (https://www.unicode.org/reports/tr29/).
    """
    if _PLAIN.fullmatch(text) or not len(places):
        return places
    starts, ends = places.T
    count = len(text)
    space = np.array([each.isspace() for each in text])
    index = np.arange(count)
    word_start = np.maximum.accumulate(np.where(space, index + 1, 0))
    word_end = np.minimum.accumulate(np.where(space, index, count)[::-1])[::-1]
    inside = np.minimum(starts, count - 1), np.maximum(ends - 1, 0)
    before, behind = np.append(0, ends[:-1]), np.append(starts[1:], count)
    starts = np.where(before <= word_start[inside[0]], np.minimum(starts, word_start[inside[0]]), starts)
    ends = np.maximum(ends, np.minimum(behind, word_end[inside[1]]))
    first = np.maximum.accumulate(np.where(_begins(text), index, 0))
    last = np.searchsorted(first, first[np.maximum(ends - 1, 0)], side="right")
    return np.stack([first[np.minimum(starts, count - 1)], np.maximum(ends, last)], axis=1).astype(places.dtype)


def _begins(text: str) -> np.ndarray:
    """Whether a grapheme begins at each character; none goes across a space."""
    begins = np.ones(len(text), bool)
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
    # Chinese characters, of which there are many, never belong to the one before.
    for index in np.flatnonzero((codes >= _FIRST_MARK) & ((codes < 0x3400) | (codes >= 0xA000))):
        if index and not text[index - 1].isspace() and not text[index].isspace():
            begins[index] = not _goes_on(text, int(index))
    return begins


def _goes_on(text: str, index: int) -> bool:
    before, here = text[index - 1], text[index]
    if is_mark(here) or before == "\u200d" and unicodedata.category(here) in ("So", "Sk"):
        return True
    if here in _FLAGS:
        return (index - len(text[:index].rstrip(_FLAGS))) % 2 == 1
    if unicodedata.combining(before) == _INDIC_VIRAMA:
        return unicodedata.category(here) == "Lo"
    return _hangul(here) in _AFTER.get(_hangul(before) or "", ())


@functools.lru_cache(maxsize=4096)
def is_mark(character: str) -> bool:
    """Whether a character belongs to the one before it: marks, joiners, skin tones, tags, and vowels written apart."""
    apart = "\u0e33\u0eb3\uff9e\uff9f"
    tags = "\U000e0020" <= character <= "\U000e007f" or "\U0001f3fb" <= character <= "\U0001f3ff"
    return unicodedata.category(character)[0] == "M" or tags or character in ZERO_WIDTH_JOINERS + apart


def _hangul(character: str) -> str | None:
    code = ord(character)
    if 0xAC00 <= code <= 0xD7A3:
        return "LVT" if (code - 0xAC00) % 28 else "LV"
    return next((kind for kind, first, last in _JAMO if first <= code <= last), None)


@functools.cache
def between_words() -> str:
    """Regular expression of what stands between words: no letters, digits and underscores, nor marks of these."""
    marks = [code for code in range(_FIRST_MARK, sys.maxunicode + 1) if unicodedata.category(chr(code))[0] == "M"]
    ranges = np.split(np.array(marks), np.flatnonzero(np.diff(marks) != 1) + 1)
    kind = ZERO_WIDTH_JOINERS + "".join(f"{chr(each[0])}-{chr(each[-1])}" for each in ranges)
    return rf"(?:[^\w{kind}]|(?<![\w{kind}])[{kind}]+)+"


def words(text: str) -> Iterator[tuple[str, int]]:
    """The words of a text, and where each begins: letters, digits and underscores with the marks they carry."""
    start = 0
    for gap in re.finditer(rf"{between_words()}|$", text):
        if gap.start() > start:
            yield text[start : gap.start()], start
        start = gap.end()
