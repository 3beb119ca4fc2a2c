"""Which words of a command line belong to no flag."""

from __future__ import annotations

from gated_bert.config.flag_table import SWITCH, Flag
from gated_bert.support.checks import as_number


def split_words(words: list[str], flags: tuple[Flag, ...]) -> tuple[list[str], list[str]]:
    """The words of a command that belong to no flag (models, folders), wherever they stand, and the rest.

    A flag takes as many words as its kind can have; all that follow `--` belong to none.
    """
    known = {option: flag for flag in flags for option in flag.options}
    own: list[str] = []
    rest: list[str] = []
    index = 0
    while index < len(words):
        word, index = words[index], index + 1
        if word == "--":
            return own + words[index:], rest
        if not _is_option(word):
            own.append(word)
            continue
        rest.append(word)
        values: list[str] = []
        while index < len(words) and not _is_option(words[index]) and _takes(known.get(word), values, words[index]):
            values.append(words[index])
            index += 1
        rest += values
    return own, rest


def _is_option(word: str) -> bool:
    return word.startswith("-") and word != "-" and not isinstance(as_number(word, float), float)


def _takes(flag: Flag | None, before: list[str], word: str) -> bool:
    """Whether a word is a value of `flag`, which has those before it already."""
    if flag is None or flag.kind == "alone":
        return False
    if flag.kind == "switch":
        return not before and word.lower() in SWITCH
    if flag.kind != "list" or not before:
        return not before
    items = [item for item in before[0].replace(",", " ").split() if item]
    if items and all(isinstance(as_number(item, float), float) for item in items):
        return all(isinstance(as_number(item, float), float) for item in word.replace(",", " ").split())
    if flag.choices:
        return all(item in flag.choices for item in word.replace(",", " ").split())
    # Names are any words: those with a comma between them are all there are, except after a comma at the end.
    return "," not in before[0] or before[-1].endswith(",")
