"""The error a user can act on, and what other libraries' errors say, for a line of it."""

import re

_LONGEST = 300
_LINE_BREAKS = re.compile(r"[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]")
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_LONGEST_MESSAGE = 1500


class UserError(Exception):
    """Something the user can mend: one line that says what was wrong, where, and what to do.

    Args:
        message: the line; where it quotes what a file holds, line breaks are written as their escapes, and of a very
            long one the middle is left out.
    """

    def __init__(self, message: object = ""):
        line = _LINE_BREAKS.sub(lambda found: found[0].encode("unicode_escape").decode(), str(message).strip())
        super().__init__(_shortened(line, _LONGEST_MESSAGE))


class NanScoreError(UserError, ValueError):
    """A score that is NaN, by which nothing can be ranked: of a diverged model, or of such data."""


def _shortened(text: str, longest: int) -> str:
    return text if len(text) <= longest else f"{text[: longest // 2]} … {text[-longest // 2 :]}"


def printable(text: str) -> str:
    """The text with its control characters, which a terminal would obey, as their escapes; tabs and lines stay."""
    return _CONTROLS.sub(lambda found: f"\\x{ord(found[0]):02x}", text)


def one_line(error: BaseException) -> str:
    """What an exception says in one line, or its name where it says nothing.

    Of several lines it is the first one; where that only announces what follows ("Example error message for …:"), what
    follows too.
    """
    lines = [" ".join(line.split()) for line in str(error).splitlines() if line.strip()]
    end = next((number for number, line in enumerate(lines, start=1) if not line.endswith(":")), len(lines))
    said = " ".join(lines[:end]) or type(error).__name__
    return _shortened(said, _LONGEST)
