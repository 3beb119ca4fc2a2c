"""Files in the style of CoNLL: a word a line, in columns parted by blanks or tabs, and a blank line between texts."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from pathlib import Path

from gated_bert.support.errors import UserError
from gated_bert.tasks.task import OUTSIDE, are_entity_tags
from gated_bert.tasks.text_lines import read_lines, table_suffix

CONLL = (".conll", ".iob", ".bio")
"""Endings of such files. A .txt is one where its first lines are of words and tags of entities."""
WORDS, TAGS = "tokens", "tags"
"""What the first column is called beside its number, 1, and the last beside its own."""

_DOCUMENT = "-DOCSTART-"
_COMMENT = re.compile(r"#\s*[\w.]+( [\w.]+)? = ?|#\s+id\b")
"""Lines that tell of a text, as `# sent_id = 3`, before its first word: `#` alone, or `#id`, may be a word."""
_LOOKED_AT = 200


def is_conll(path: Path) -> bool:
    """Whether a file holds words and their tags, line by line."""
    suffix = table_suffix(path)
    if suffix != ".txt":
        return suffix in CONLL
    try:
        found = [_cells(line) for line in itertools.islice(read_lines(path), _LOOKED_AT) if not _COMMENT.match(line)]
    except UserError:
        return False
    lines = [cells for cells in found if cells and cells[0] != _DOCUMENT]
    # Of a few lines of text each may end like a tag, as `blood type O` does.
    tags = {cells[-1] for cells in lines}
    is_even = len(lines) > 1 and len({len(cells) for cells in lines}) == 1 and len(lines[0]) > 1
    return is_even and are_entity_tags(tags) and (tags != {OUTSIDE} or len(lines[0]) == 2)


def check_conll(path: Path) -> None:
    """Refuses a file that does not hold words and their tags.

    Raises:
        UserError: with the line, where another number of columns or what is no text is to blame.
    """
    if not is_conll(path):
        for _ in conll_records(path):
            pass
        raise UserError(f"{path}: no words and tags line by line, as the training file has; allowed tags: O, B-TYPE, "
                        "I-TYPE (E-TYPE, S-TYPE)")  # fmt: skip


def conll_records(path: Path) -> Iterator[tuple[int, dict[str, list[str]]]]:
    """The texts of a file, each with the line of its first word, when it is asked for.

    Args:
        path: the file. Lines of `-DOCSTART-`, and `# key = value` before the first word of a text, are passed over.

    Returns:
        Lists of equal lengths by column: `1` to the last by their numbers, `tokens`, the first, and, where there are
        several, `tags`, the last.

    Raises:
        UserError: an unreadable file, or a line with another number of columns than those before it.
    """
    count, first = 0, 0
    rows: list[list[str]] = []
    for number, line in enumerate(read_lines(path), 1):
        cells = _cells(line)
        if not cells or cells[0] == _DOCUMENT:
            if rows:
                yield first, _columns(rows)
            rows = []
            continue
        if not rows and _COMMENT.match(line):
            continue
        count = count or len(cells)
        if len(cells) != count:
            raise UserError(f"{path}, line {number}: {len(cells)} columns instead of {count}, as in the lines before; "
                            "correct the line, or leave a blank line between texts")  # fmt: skip
        first = first if rows else number
        rows.append(cells)
    if rows:
        yield first, _columns(rows)


def _cells(line: str) -> list[str]:
    # Other white space may be a part of a word.
    return [cell for cell in re.split(r"[ \t]+", line.strip(" \t\r\n")) if cell]


def _columns(rows: list[list[str]]) -> dict[str, list[str]]:
    columns = [list(column) for column in zip(*rows, strict=True)]
    named = {str(index): column for index, column in enumerate(columns, 1)}
    return named | {WORDS: columns[0]} | ({TAGS: columns[-1]} if len(columns) > 1 else {})
