"""Checks of single values, and the error they raise."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Iterable
from typing import TypeVar

from gated_bert.support.errors import UserError

_Number = TypeVar("_Number", int, float)

MOST_SHOWN = 200
"""Characters of a value that a message shows; names longer than that are like none."""


def shown(value: object) -> str:
    """A value as a message shows it."""
    text = repr(value)
    return text if len(text) <= MOST_SHOWN else f"{text[:MOST_SHOWN]}…"


class ConfigError(ValueError):
    """A refused value: names the field, the value and what is allowed.

    Attributes:
        field: name of the field of `GatedBertConfig`, so that a command line can name its flag.
        value: the refused value.
        allowed: a phrase that says what is allowed.
    """

    def __init__(self, field: str, value: object, allowed: str):
        self.field, self.value, self.allowed = field, value, allowed
        super().__init__(self.describe(field))

    def describe(self, label: str) -> str:
        """The message with `label` (a field or a flag) as the thing that was set."""
        return f"{label}: {shown(self.value)} is refused; allowed: {self.allowed}"


def choose(name: str, value: object, allowed: tuple[str, ...]) -> None:
    """Raises ConfigError unless `value` is one of `allowed`."""
    if value not in allowed:
        close = difflib.get_close_matches(str(value)[:MOST_SHOWN], allowed, 1)
        raise ConfigError(name, value, ", ".join(allowed) + (f" (did you mean {close[0]}?)" if close else ""))


MOST = 2**31 - 1
"""The largest count where nothing narrower is known: that of the libraries' integers."""


def whole(name: str, value: object, low: int, high: int = MOST) -> None:
    """Raises ConfigError unless `value` is an int in [low, high]."""
    given = value if isinstance(value, int) and not isinstance(value, bool) else None
    if given is None or not low <= given <= high:
        # Digits that are still text are more than Python reads as a number.
        is_huge = isinstance(value, str) and value.isdecimal() if given is None else given > high
        bounded = high != MOST or is_huge
        raise ConfigError(name, value, f"a whole number from {low}" + (f" to {high}" if bounded else " up"))


def number(name: str, value: object, low: float, high: float, open_low: bool = False) -> None:
    """Raises ConfigError unless `value` is a finite number in [low, high], or (low, high] with `open_low`."""
    given = value if isinstance(value, int | float) and not isinstance(value, bool) else math.nan
    if not math.isfinite(given) or given > high or given < low or (open_low and given == low):
        raise ConfigError(name, value, f"a number {'above' if open_low else 'from'} {low:g} to {high:g}")


class FlagError(UserError):
    """A refused command line: names the flag, the value and what is allowed."""

    @classmethod
    def refused(cls, label: str, value: object, allowed: str) -> FlagError:
        """The error for a `value` of the flag (or environment variable) `label`."""
        return cls(ConfigError("", value, allowed).describe(label))


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """` (did you mean …?)` for the closest of `known`, or nothing."""
    folded = {name.lower(): name for name in known}
    close = difflib.get_close_matches(word[:MOST_SHOWN].lower(), list(folded), 1)
    return f" (did you mean {folded[close[0]]}?)" if close else ""


def as_number(word: str, kind: Callable[[str], _Number]) -> _Number | str:
    """The number that a word is, or the word."""
    try:
        return kind(word)
    except ValueError:
        return word
