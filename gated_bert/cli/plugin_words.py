"""Which plug-ins a command line names, before its flags are read: what they register is among those."""

from __future__ import annotations

from collections.abc import Iterator

from gated_bert.cli.common import prepare_environment
from gated_bert.config.plugins import has_installed, load_installed, load_plugins
from gated_bert.support.paths import user_path
from gated_bert.support.records import read_record


def load_named_plugins(words: list[str]) -> None:
    """Loads the plug-ins of installed packages, and those that a command line names by itself, in the record of its job
    or in its sweep file.

    Raises:
        UserError: one that is missing or cannot be loaded.
    """
    files = named(words)
    if files or has_installed():
        # They import the framework.
        prepare_environment()
        load_installed()
        load_plugins(files)


def named(words: list[str]) -> list[str]:
    """The files that a command line names."""
    return [file for word, value in _pairs(words) for file in _named(word, value)]


def without_plugins(words: list[str]) -> list[str]:
    """The words of a command that need not know the flag that a plug-in came by."""
    left, skip = [], False
    for word in words:
        if not skip and word != "--plugin" and not word.startswith("--plugin="):
            left.append(word)
        skip = word == "--plugin"
    return left


def _pairs(words: list[str]) -> Iterator[tuple[str, str]]:
    for word, following in zip(words, (*words[1:], ""), strict=False):
        option, equals, value = word.partition("=")
        yield option, value if equals else following


def _named(option: str, value: str) -> list[str]:
    if option == "--plugin":
        return [value] if value else []
    if option == "--config-file":
        # What is wrong with the record is told where it is read.
        found = (read_record(user_path(value), tolerant=True) or {}).get("plugins")
        return [file for file in found if isinstance(file, str)] if isinstance(found, list) else []
    if option == "--sweep-file":
        from gated_bert.cli.sweep_file import plugins_of

        return plugins_of(value)
    return []
