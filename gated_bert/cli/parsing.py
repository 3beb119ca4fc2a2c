"""Reading a command line by a table of flags, with the standard library alone."""

from __future__ import annotations

import argparse
import textwrap
from typing import Any

from gated_bert.cli import outputs
from gated_bert.cli.example_lines import example_of
from gated_bert.config.flag_table import Flag
from gated_bert.support.checks import FlagError, as_number, did_you_mean

_MINUS = "\N{MINUS SIGN}"


class _Parser(argparse.ArgumentParser):
    """An argparse parser whose refusals are `FlagError`s of one line."""

    def _print_message(self, message: str, file=None):
        # argparse itself says nothing of a full or closed output.
        print(message, end="", file=file)

    def format_help(self) -> str:
        example = example_of(self.prog)
        return super().format_help() + (f"\nexample:\n  {example}\n" if example else "")

    def error(self, message: str):
        label, _, what = message.removeprefix("argument ").partition(": ")
        meaning = next(
            (f" ({action.help})" for action in self._actions if "/".join(action.option_strings) == label), ""
        )
        raise FlagError(f"{label}: a value is missing{meaning}" if what.startswith("expected") else f"{label}: {what}")


class _Formatter(argparse.HelpFormatter):
    """Help with each flag's value named once: `-e, --epochs N`, and the lines of the description kept apart."""

    def __init__(self, prog: str, **options):
        super().__init__(prog, max_help_position=32, **options)

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        lines = ((line.lstrip(), " " * (len(line) - len(line.lstrip()))) for line in text.splitlines())
        return "\n".join(textwrap.fill(line, width, initial_indent=indent + begin, break_on_hyphens=False,
                                       subsequent_indent=indent + 2 * begin) for line, begin in lines)  # fmt: skip

    def _format_action_invocation(self, action: argparse.Action) -> str:
        value = "" if action.nargs == 0 else f" {action.metavar}{' …' * (action.nargs == '+')}"
        return ", ".join(action.option_strings) + value


def make_parser(
    prog: str, description: str, flags: tuple[Flag, ...], defaults: dict[str, str]
) -> argparse.ArgumentParser:
    """The parser of `flags`.

    Args:
        prog: how the command is called.
        description: the first lines of its help.
        flags: the flags, grouped by their group in the order of its first one.
        defaults: name → what help shows as the default.
    """
    parser = _Parser(
        prog=prog,
        description=description,
        usage=f"{prog} [flags]",
        formatter_class=_Formatter,
        allow_abbrev=False,
        add_help=False,
    )
    groups = {}
    for flag in flags:
        if flag.group not in groups:
            groups[flag.group] = parser.add_argument_group(flag.group)
        default = f" (default {defaults[flag.name]})" if flag.name in defaults else ""
        values: dict[str, dict[str, Any]] = {
            "alone": {"action": "store_true"}, "list": {"nargs": "+"}, "files": {"action": "append"},
            "switch": {"nargs": "?", "const": None},
        }  # fmt: skip
        options = values.get(flag.kind, {"nargs": 1})
        if flag.kind != "alone":
            options["metavar"] = flag.metavar
        groups[flag.group].add_argument(
            *flag.options,
            dest=flag.name,
            default=argparse.SUPPRESS,
            help=(flag.text + default).replace("%", "%%"),
            **options,
        )
    parser.add_argument_group("help").add_argument("-h", "--help", action="help", help="show this and stop")
    return parser


def read_flags(parser: argparse.ArgumentParser, flags: tuple[Flag, ...], words: list[str]) -> dict[str, Any]:
    """What was typed: name → value, nothing for flags that were not.

    Raises:
        FlagError: an unknown flag, a missing or refused value, a stray word.
    """
    known = {option for flag in flags for option in flag.options} | {"-h", "--help"}
    words = [_shield(word, known) for word in words]
    found, rest = parser.parse_known_args(words)
    if rest:
        raise FlagError(f"{rest[0]!r} belongs to no flag; -h lists what is allowed")
    outputs.check_working_folder()
    typed: dict[str, Any] = {}
    for flag in flags:
        if hasattr(found, flag.name):
            value = getattr(found, flag.name)
            values = [] if value is None or value is True else value if isinstance(value, list) else [value]
            values = [word.replace(_MINUS, "-") for word in values]
            typed[flag.name] = True if flag.kind == "alone" else flag.read(values)
            if typed[flag.name] in ((), ""):
                raise FlagError.refused(flag.label, " ".join(values), f"a value: {flag.text}")
            if flag.name in outputs.NAMES:
                outputs.check_writable(flag.label, typed[flag.name], flag.metavar == "FOLDER")
    return typed


def _shield(word: str, known: set[str]) -> str:
    """Makes the minus of a negative number unlike that of a flag, and refuses a word that looks like a flag."""
    if not word.startswith("-") or word == "-":
        return word
    if isinstance(as_number(word, float), float):
        return _MINUS + word[1:]
    option = word.split("=", 1)[0]
    if option not in known:
        raise FlagError(f"{option}: unknown flag{did_you_mean(option, known)}; -h lists what is allowed")
    return word


def read_assignments(text: str) -> dict[str, str]:
    """The defaults a launcher script hands over: `epochs=25 batch_size=96 …` as name → text."""
    pairs = [word.partition("=") for word in text.split()]
    return {name: value for name, _, value in pairs}
