"""Sub-commands that a user's own files add to `gated-bert`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from gated_bert.config.parts import claim
from gated_bert.support.errors import UserError


@dataclass(frozen=True)
class Command:
    """A sub-command: its line in the overview, and the function that takes its words and returns the exit status."""

    summary: str
    run: Callable[[list[str]], int]


OWN_COMMANDS: dict[str, Command] = {}
"""What was registered, by name."""


def register_command(name: str, summary: str, run: Callable[[list[str]], int]) -> None:
    """Makes a sub-command of a user's own: `gated-bert NAME --plugin FILE …`.

    Args:
        name: letters, digits and _; one of the toolkit's own stays what it is.
        summary: its line in the overview.
        run: takes the words behind the name, `-h` too, without `--plugin FILE`, and returns the exit status. What a
            user can mend it raises as `UserError`, which becomes one line and the status 2.

    Raises:
        UserError: a name that is taken or no name, or a function that cannot be called.
    """
    if not callable(run):
        raise UserError(f"register_command: {run!r} is refused; allowed: a function of a list of words")
    claim("command", name, OWN_COMMANDS)
    OWN_COMMANDS[name] = Command(summary, run)
