"""Which names of classes are the same ones spelt otherwise, and which are not."""

import pytest

from gated_bert.tasks.labels import match_labels


@pytest.mark.parametrize(
    ("found", "wanted", "order"),
    [
        (("C", "C++"), ("C++", "C"), [1, 0]),
        (("c", "c++"), ("C++", "C"), [1, 0]),
        (("+", "-"), ("-", "+"), [1, 0]),
        (("１", "２"), ("2", "1"), [1, 0]),
        (("1.0", "0.0"), ("0", "1"), [1, 0]),
        (("Business", "SCI & TECH"), ("sci/tech", "business"), [1, 0]),
        (("__label__good", "__label__bad"), ("bad", "good"), [1, 0]),
        (("LABEL_Pos", "LABEL_Neg"), ("negative", "positive"), [1, 0]),
        (("नकारात्मक वाक्य", "सकारात्मक"), ("सकारात्मक", "नकारात्मक_वाक्य"), [1, 0]),
        (("cafe\u0301", "bar"), ("Bar", "caf\u00e9"), [1, 0]),
    ],
)
def test_spellings_of_the_same_classes(found, wanted, order):
    assert match_labels(found, wanted) == order


@pytest.mark.parametrize(
    ("found", "wanted"),
    [
        (("C++", "Java"), ("C#", "Java")),
        (("A-", "B"), ("A", "B")),
        (("<50K", "unknown"), (">50K", "unknown")),
        (("😀", "none"), ("😡", "none")),
        (("कि", "और"), ("का", "और")),
        (("1-2", "3"), ("12", "3")),
        (("v1.2", "v1"), ("v12", "v1")),
        (("label", "other"), ("class", "other")),
    ],
)
def test_other_classes_are_not_matched_by_what_their_letters_have_in_common(found, wanted):
    assert match_labels(found, wanted) is None
