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
        raise ConfigError(name, value, ", ".join(allowed) + did_you_mean(str(value), allowed))


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
        if not math.isfinite(high):
            raise ConfigError(name, value, f"a finite number {'above' if open_low else 'not below'} {low:g}")
        raise ConfigError(name, value, f"a number {'above' if open_low else 'from'} {low:g} to {high:g}")


class FlagError(UserError):
    """A refused command line: names the flag, the value and what is allowed."""

    @classmethod
    def refused(cls, label: str, value: object, allowed: str) -> FlagError:
        """The error for a `value` of the flag (or environment variable) `label`."""
        return cls(ConfigError("", value, allowed).describe(label))


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """` (did you mean …?)` for the closest of `known`, or nothing."""
    names = list(known)
    meant = [name for name in ELSEWHERE.get(word[:MOST_SHOWN].lower(), ()) if name in names] or closest(word, names)
    return f" (did you mean {meant[0]}?)" if meant else ""


def closest(word: str, names: Iterable[str]) -> list[str]:
    """The name that is most like a word, capitals and punctuation apart; nothing where none is."""
    plain = {_letters(name): name for name in names}
    word = _letters(word[:MOST_SHOWN])
    return [plain[word]] if word in plain else [plain[each] for each in difflib.get_close_matches(word, list(plain), 1)]


def _letters(name: str) -> str:
    return "".join(filter(str.isalnum, name.lower())) or name


ELSEWHERE = {
    "mvp": ("movement",), "l1": ("magnitude",), "imp": ("magnitude",), "gmp": ("magnitude",), "mag": ("magnitude",),
    "none": ("baseline",), "dense": ("baseline",), "unstructured": ("element",), "weight": ("element",),
    "structured": ("head_neuron",), "filter": ("neuron",), "ffn": ("neuron",), "attention": ("head",),
    "n:m": ("vector",), "2:4": ("vector",), "local": ("layer",), "layerwise": ("layer",), "uniform": ("layer",),
    "bert-base": ("base",), "bert-large": ("large",), "fp16": ("mixed_float16",), "float16": ("mixed_float16",),
    "half": ("mixed_float16",), "amp": ("mixed_float16",), "bf16": ("mixed_bfloat16",), "fp32": ("float32",),
    "tb": ("tensorboard",), "w&b": ("wandb",), "weights and biases": ("wandb",), "cos": ("cubic",),
    "polynomial": ("cubic",), "gradual": ("cubic",), "agp": ("cubic",), "oneshot": ("one_shot",),
    "sts": ("stsb",), "sst": ("sst2",), "agnews": ("ag_news",), "huggingface": ("hub",), "hf": ("hub",),
    "datasets": ("hub",), "glue": ("hub", "sst2"), "synthetic": ("embedded",), "builtin": ("embedded",),
    "tf": ("tensorflow",),
}  # fmt: skip
"""What other tools, and people, call some of the names that are known here; the first that is allowed is meant."""


def as_number(word: str, kind: Callable[[str], _Number]) -> _Number | str:
    """The number that a word is, or the word."""
    try:
        return kind(word)
    except ValueError:
        return word
