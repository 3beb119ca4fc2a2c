"""One declaration of a field of a record: its type, default, range, help and flag stand here and nowhere else."""

from __future__ import annotations

import dataclasses
import functools
import math
import typing
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from types import NoneType, UnionType
from typing import Annotated, Any, TypeVar

from gated_bert.support.checks import ConfigError, choose, number, whole

RUN, MODEL, DATA, TRAINING, PRUNING, OUTPUT = "run", "model", "data", "training", "pruning", "jobs and output"
"""Headings of `-h`."""

_Value = TypeVar("_Value")
FilledIn = Annotated[_Value, "filled in"]
"""Annotation of a field that may be left at None, which the whole record never holds: it is filled in.

It names the type of what is filled in.
"""


@dataclass(frozen=True)
class Option:
    """What is declared of a field beside its type and default.

    Attributes:
        help: what it sets, for `-h` and the tables of the documentation.
        flags: spellings on a command line, short one first; none where no flag sets it.
        group: heading in `-h`.
        metavar: what stands for the value in `-h`.
        choices: the texts that are allowed.
        names: what help lists after it, as it is when help is shown.
        low, high: the range of a number, or of each of several.
        open_low: `low` itself is refused.
        nothing: word of a command line that stands for None.
        any_model: whether `gate` and `PruningCallback.for_model` take it for models that are not BERT.
        fraction: a percentage is a likely slip.
        also: another spelling of the field, which makers of the record take too.
        alone: its flag stands without a value, for True.
    """

    help: str
    flags: tuple[str, ...] = ()
    group: str = RUN
    metavar: str | None = None
    choices: Collection[str] = ()
    names: Collection[str] = ()
    low: float | None = None
    high: float = math.inf
    open_low: bool = False
    nothing: str | None = None
    any_model: bool = False
    fraction: bool = False
    also: str | None = None
    alone: bool = False


def option(default: object, text: str, *flags: str, **declared: Any) -> Any:
    """A field of a record.

    Args:
        default: its default.
        text: the help.
        *flags: spellings on a command line.
        **declared: other attributes of `Option`.

    Returns:
        What `dataclasses.field` returns, whose type a type checker is to take from the annotation.
    """
    return dataclasses.field(default=default, metadata={"option": Option(text, flags, **declared)})


@dataclass(frozen=True)
class Declared:
    """A field as declared: its name, default, type and option.

    Attributes:
        kind: the type of its value, or of each of several: int, float, str or bool.
        several: it holds a tuple.
        optional: it may be None.
        texts: texts that it may be instead, as `auto`.
    """

    name: str
    default: object
    option: Option
    kind: type
    several: bool
    optional: bool
    texts: bool

    def check(self, value: object) -> None:
        """Refuses a value of another type, out of its range or not among its choices.

        Raises:
            ConfigError: names the field, the value and what is allowed.
        """
        if value is None and self.optional:
            return
        if self.texts and isinstance(value, str):
            return
        for each in value if self.several and isinstance(value, tuple | list) else (value,):
            self._check_one(each)

    def _check_one(self, value: object):
        declared = self.option
        if declared.choices:
            choose(self.name, value, tuple(declared.choices))
        elif self.kind is bool and not isinstance(value, bool):
            raise ConfigError(self.name, value, "true, false")
        elif declared.low is None:
            return
        elif self.kind is int:
            high = {} if math.isinf(declared.high) else {"high": int(declared.high)}
            whole(self.name, value, int(declared.low), **high)
        else:
            number(self.name, value, declared.low, declared.high, declared.open_low)


def value_types(record: type) -> dict[str, Any]:
    """Field → the type of the values that its record is made of."""
    hints = typing.get_type_hints(record, include_extras=True)
    return {name: typing.get_args(hint)[0] | None if typing.get_origin(hint) is Annotated else hint
            for name, hint in hints.items()}  # fmt: skip


def declared_fields(record: type) -> dict[str, Declared]:
    """The declared fields of a record, name → declaration, in their order."""
    return _declared_fields(record)


@functools.cache
def _declared_fields(record: type) -> dict[str, Declared]:
    hints = value_types(record)
    found = {}
    for field in dataclasses.fields(record):
        if "option" not in field.metadata:
            continue
        parts = _parts(hints[field.name])
        kinds = [part for part in parts if part is not NoneType]
        tuples = [part for part in kinds if typing.get_origin(part) is tuple]
        kind = typing.get_args(tuples[0])[0] if tuples else kinds[0]
        texts = str in kinds and kind is not str
        found[field.name] = Declared(field.name, field.default, field.metadata["option"], kind, bool(tuples),
                                     NoneType in parts, texts)  # fmt: skip
    return found


def plainly_spelt(record: type, values: Mapping[str, Any]) -> dict[str, Any]:
    """Values of a record's fields by the fields' names, whichever spelling they were given by.

    Raises:
        ConfigError: two values for one field.
    """
    names = {each.option.also: name for name, each in declared_fields(record).items() if each.option.also}
    found = {name: value for name, value in values.items() if name not in names}
    for spelling, name in names.items():
        if spelling in values and found.setdefault(name, values[spelling]) != values[spelling]:
            raise ConfigError(spelling, values[spelling], f"{name}={found[name]}, which is the same")
    return found


def takes_other_spellings(record: type[_Value]) -> type[_Value]:
    """A record whose constructor takes the other spellings of its fields too, and which keeps what it was given, by
    the fields' names, in `_given`; a decorator."""
    plain = record.__init__

    @functools.wraps(plain)
    def __init__(self, *args, **values):
        names = (field.name for field in dataclasses.fields(record))  # type: ignore[arg-type]  # as above
        given = dict(zip(names, args, strict=False)) | plainly_spelt(record, values)
        # No field: what a record was made from is neither compared nor written.
        object.__setattr__(self, "_given", given)
        plain(self, **given)

    record.__init__ = __init__  # type: ignore[method-assign]  # what it decorates for
    return record


def check_declared(record: object) -> None:
    """Refuses values of a record that its declarations do not allow.

    Raises:
        ConfigError: the first of them.
    """
    for name, declared in declared_fields(type(record)).items():
        declared.check(getattr(record, name))


def _parts(hint: object) -> tuple:
    return typing.get_args(hint) if isinstance(hint, UnionType) or typing.get_origin(hint) is typing.Union else (hint,)
