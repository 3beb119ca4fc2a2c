"""Graphemes against the `regex` library's, and words against Python's own where no mark is."""

import re
import unicodedata

import numpy as np
import pytest
from texts import many_texts

from gated_bert.tasks.graphemes import _begins, between_words, whole_places, words
from gated_bert.tasks.wordpiece import SPECIAL_TOKENS, Tokenizer

LETTERS = "abcdefghijklmnopqrstuvwxyz"
TOKENIZER = Tokenizer.from_vocab([*SPECIAL_TOKENS, *LETTERS, *(f"##{letter}" for letter in LETTERS), "cafe", "."])


def graphemes(text):
    starts = [*np.flatnonzero(_begins(text)), len(text)]
    return [text[start:end] for start, end in zip(starts, starts[1:], strict=False)]


@pytest.mark.parametrize(
    "expected",
    [
        ["c", "a", "f", "e\u0301"],
        ["e\u0323\u0301", "\u0915\u093f", "\u0924\u093e", "\u0915\u094d\u0937\u093f"],
        ["\U0001f469\u200d\U0001f469\u200d\U0001f467", "\U0001f44d\U0001f3fd", "\u2764\ufe0f", "1\ufe0f\u20e3"],
        ["\U0001f1e9\U0001f1ea", "\U0001f1eb\U0001f1f7", "\U0001f1ea"],
        ["\u1112\u1161\u11ab", "\u1100\u1173\u11af", "\ud55c", "\uac00\u11a8", "\uac01"],
        ["\u0e19\u0e49\u0e33", "\uff76\uff9e", "\u0645\u064e", "a", " ", "\u0301", "b"],
    ],
)
def test_graphemes_by_hand(expected):
    assert graphemes("".join(expected)) == expected


def test_no_grapheme_of_the_regex_library_is_cut():
    library = pytest.importorskip("regex")
    for text in many_texts(600, seed=4):
        begins = _begins(text)
        for found in library.finditer(r"\X", text):
            cluster = found[0]
            # Arabic number signs go before, and a space may carry a mark: no token holds either.
            if not any(each.isspace() or library.match(r"\p{GCB=Prepend}", each) for each in cluster):
                assert not begins[found.start() + 1 : found.end()].any(), (text, cluster)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("cafe\u0301 .", ["cafe\u0301", "."]),
        ("\u200bcafe\u200b \u0301b", ["\u200bcafe\u200b", "\u0301b"]),
        ("a\u0301b\u0308c", ["a\u0301", "b\u0308", "c"]),
        ("\x01a\x02.\ufeff ", ["\x01a\x02", ".\ufeff"]),
        ("caf\u00e9 a", ["caf\u00e9", "a"]),
        ("\u0301", []),
    ],
)
def test_what_normalisation_removes_belongs_to_the_token_beside_it(text, expected):
    _, places, _ = TOKENIZER.places([text])
    assert [text[start:end] for start, end in places] == expected


def test_places_of_marks_that_stay_are_those_of_their_letters():
    places = np.array([[0, 1], [1, 2], [2, 3]], np.int32)
    assert whole_places("\u0915\u093f\u0924", places).tolist() == [[0, 2], [0, 2], [2, 3]]
    assert whole_places("abc", places) is places


def test_words_are_pythons_where_no_mark_is_and_keep_their_marks_elsewhere():
    for text in many_texts(300, seed=2):
        found = list(words(text))
        assert all(text.startswith(word, start) for word, start in found)
        assert all(re.match(r"\w", word) for word, _ in found)
        bare = "".join(each for each in text if unicodedata.category(each)[0] != "M" and each not in "\u200c\u200d")
        assert [word for word, _ in words(bare)] == re.findall(r"\w+", bare)
    assert [word for word, _ in words("cafe\u0301s, \u0915\u093f\u0924\u093e\u092c! \u2764\ufe0f \u0301x")] == [
        "cafe\u0301s", "\u0915\u093f\u0924\u093e\u092c", "x",
    ]  # fmt: skip
    assert re.split(between_words(), "a \u0301b") == ["a", "b"]
