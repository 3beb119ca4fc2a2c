"""Records read from files: one reader that trusts none of them, whoever wrote it."""

from __future__ import annotations

import json
import math
import os
import re
import stat
from pathlib import Path

from gated_bert.support.errors import UserError

MOST_BYTES = 2**28
"""Size of the largest record that is read; data sets have a bound of their own."""
MOST_LEVELS = 100
MOST_DIGITS = 40
REMEDY = "save or copy it again"

_WORDS = {"int": "a whole number", "float": "a number", "str": "a text", "bool": "true or false", "array": "a list",
          "object": "an object", "null": "null"}  # fmt: skip
_MISMATCH = re.compile(r"Expected `(?P<allowed>[^`]+)`(?P<bound>.*?)(?:, got `?(?P<found>[^`]+)`?)?"
                       r"(?: - at `\$\.?(?P<place>[^`]*)`)?")  # fmt: skip
_MISSING = re.compile(r"Object missing required field `(?P<name>[^`]+)`(?: - at `\$\.?(?P<place>[^`]*)`)?")
_ESCAPED = re.compile(r"\\u[dD][89a-fA-F]")
_SURROGATE = re.compile(
    r"(?<!\\)(?:\\\\)*(\\u[dD][89abAB][0-9a-fA-F]{2}(?!\\u[dD][c-fC-F])"
    r"|(?<!\\u[dD][89abAB][0-9a-fA-F]{2})\\u[dD][c-fC-F][0-9a-fA-F]{2})"
)
_OF_A_NAME = re.compile(r"\\u[dD][cC][89a-fA-F][0-9a-fA-F]")
"""Bytes of a file's name that is not UTF-8, as Python's `surrogateescape` spells them."""


def read_record(
    path: Path, schema: object = dict, *, where: str | None = None, remedy: str = REMEDY, nan: bool = False,
    tolerant: bool = False, file_names: bool = True, most_bytes: int = MOST_BYTES,
):  # fmt: skip
    """What a JSON file holds, once its types are those of a schema.

    Args:
        path: the file.
        schema: the type of the whole: a `TypedDict`, whose fields are checked and beside which others may stand, since
            foreign and newer files have them, or any other type that msgspec knows.
        where: what messages call the file; by default its path.
        remedy: what the reader of a message may do.
        nan: whether NaN and Infinity are taken, as measurements that came to nothing are written.
        tolerant: whether a file that is missing, broken or of other types is `None`: a run that goes on, or was killed,
            may have left half of one.
        file_names: whether the halves of characters are taken that Python spells a file's name by where it is not
            UTF-8, as a run's own records hold them; not in texts that a tokeniser gets.
        most_bytes: size of the largest file that is read.

    Returns:
        The values as JSON has them.

    Raises:
        UserError: one line with file, place and what is allowed.
    """
    where = where or str(path)
    try:
        text = read_bytes(path, where, remedy, most_bytes)
        return parse_record(text, schema, where=where, remedy=remedy, nan=nan, file_names=file_names)
    except UserError:
        if tolerant:
            return None
        raise


def parse_record(
    text: str | bytes, schema: object = dict, *, where: str, remedy: str = REMEDY, nan: bool = False,
    file_names: bool = True, lines: bool = True,
):  # fmt: skip
    """What JSON text holds; arguments, result and errors are those of `read_record`, and:

    Args:
        text: the text; bytes in UTF-8, with or without a byte-order mark.
        lines: whether messages name the line of the text.
    """
    if isinstance(text, bytes):
        try:
            text = text.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            line = text.count(b"\n", 0, error.start) + 1
            raise UserError(f"{where}{f', line {line}' * lines}: not UTF-8 text; {remedy}") from None
    if not text.strip():
        raise UserError(f"{where}: an empty file; {remedy}")
    try:
        values = _DECODERS[nan].decode(text)
        _check_levels(values)
    except json.JSONDecodeError as error:
        raise UserError(f"{where}{f', line {error.lineno}' * lines}: malformed JSON ({error.msg}); {remedy}") from None
    except (ValueError, RecursionError) as error:
        why = str(error) if isinstance(error, ValueError) else _TOO_DEEP
        raise UserError(f"{where}: refused JSON ({why}); {remedy}") from None
    if _ESCAPED.search(text) and not _is_text(values, file_names):
        found = _SURROGATE.finditer(text)
        lone = next((each for each in found if not (file_names and _OF_A_NAME.fullmatch(each[1]))), None)
        line = text.count("\n", 0, lone.start(1) if lone else 0) + 1
        raise UserError(f"{where}{f', line {line}' * lines}: {lone[1] if lone else 'an escape'} is half of a "
                        "character; write it whole, or leave it out")  # fmt: skip
    check_record(values, schema, where=where, remedy=remedy)
    return values


def check_record(values: object, schema: object, *, where: str, remedy: str = REMEDY):
    """The values as the types of a schema, which is taken strictly: nothing is turned into a number or a text.

    Raises:
        UserError: one line with place, what is there and what is allowed.
    """
    import msgspec

    try:
        try:
            return msgspec.convert(values, schema, strict=True)
        except UnicodeEncodeError:
            # Of keys, and of texts in place of numbers, msgspec reads the UTF-8, which a file's name may not have.
            return msgspec.convert(_escaped(values), schema, strict=True)
    except msgspec.ValidationError as error:
        raise UserError(f"{where}: {_sentence(str(error))}; {remedy}") from None


def _escaped(values: object) -> object:
    if isinstance(values, dict):
        return {_escaped(key): _escaped(each) for key, each in values.items()}
    if isinstance(values, list):
        return [_escaped(each) for each in values]
    return values.encode("utf-8", "backslashreplace").decode() if isinstance(values, str) else values


def type_fault(value: object, schema: object) -> str | None:
    """What is allowed in place of a value that is not of a type; `None` where it is."""
    import msgspec

    try:
        msgspec.convert(value, schema, strict=True)
    except msgspec.ValidationError as error:
        match = _MISMATCH.fullmatch(str(error))
        if match is None or match["place"]:
            return _type_words(schema)
        return _allowed(match["allowed"], match["bound"])
    return None


def _type_words(schema: object) -> str:
    names = re.findall(r"tuple|list|[a-z]+", str(schema).lower())
    inner = next((_WORDS[name] for name in names if name in _WORDS), "other values")
    return f"a list, each {inner}"


def read_bytes(path: Path, where: str, remedy: str = REMEDY, most_bytes: int = MOST_BYTES) -> bytes:
    """What a file holds; arguments and errors are those of `read_record`."""
    try:
        about = os.stat(path)
        if not stat.S_ISREG(about.st_mode):
            raise UserError(f"{where}: no file that can be read; {remedy}")
        if about.st_size > most_bytes:
            raise UserError(f"{where}: {about.st_size:,} bytes; allowed: at most {most_bytes:,}")
        return Path(path).read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"{where}: no such file; {remedy}") from None
    except OSError as error:
        raise UserError(f"{where}: cannot be read ({error.strerror}); check its name and its rights") from None
    except ValueError:
        raise UserError(f"{where}: no name that a file can have") from None


_TOO_DEEP = f"nested more than {MOST_LEVELS} levels deep"


def _once(pairs: list) -> dict:
    values = dict(pairs)
    if len(values) != len(pairs):
        seen = set()
        name = next(name for name, _ in pairs if name in seen or seen.add(name))
        raise ValueError(f"{name[:60]!r} is there twice in one object")
    return values


def _whole(digits: str) -> int:
    if len(digits) > MOST_DIGITS:
        raise ValueError(f"a number of {len(digits):,} digits; allowed: at most {MOST_DIGITS}")
    return int(digits)


def _finite(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise ValueError(f"{digits[:20]} is beyond the largest number")
    return value


def _no_number(name: str):
    raise ValueError(f"{name} is no number of JSON")


_DECODERS = {
    nan: json.JSONDecoder(object_pairs_hook=_once, parse_int=_whole, parse_float=_finite, parse_constant=constant)
    for nan, constant in ((True, float), (False, _no_number))
}


def _check_levels(values: object):
    level = [values] if isinstance(values, dict | list) else []
    for _ in range(MOST_LEVELS):
        if not level:
            return
        level = [part for each in level for part in (each.values() if isinstance(each, dict) else each)
                 if isinstance(part, dict | list)]  # fmt: skip
    raise ValueError(_TOO_DEEP)


def _is_text(values: object, file_names: bool) -> bool:
    try:
        json.dumps(values, ensure_ascii=False).encode("utf-8", "surrogateescape" if file_names else "strict")
    except UnicodeEncodeError:
        return False
    return True


def _sentence(fault: str) -> str:
    match = _MISSING.fullmatch(fault)
    if match:
        return f"no field {match['name']!r}{' in ' + match['place'] if match['place'] else ''}"
    match = _MISMATCH.fullmatch(fault)
    if match is None:
        return fault.replace("`", "").replace("$.", "")
    place = (match["place"] or "").replace("...", "…")
    found = _WORDS.get(match["found"], match["found"] or "another value")
    return f"{f'{place} is' if place else 'holds'} {found}; allowed: {_allowed(match['allowed'], match['bound'])}"


def _allowed(types: str, bound: str) -> str:
    return " or ".join(_WORDS.get(name, name) for name in types.split(" | ")) + bound
