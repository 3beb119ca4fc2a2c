"""Tables as aligned lines of text."""

from __future__ import annotations

from collections.abc import Sequence

from gated_bert.support.errors import printable


def aligned(lines: Sequence[Sequence[str]], left: int = 1) -> str:
    """Lines of cells, all of one length, as columns.

    Args:
        lines: the cells, line by line; control characters in them are shown as their escapes.
        left: how many columns are aligned to the left; the others hold numbers.
    """
    lines = [[printable(cell) for cell in line] for line in lines]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    cells = [
        [*map(str.ljust, line[:left], widths[:left]), *map(str.rjust, line[left:], widths[left:])] for line in lines
    ]
    return "\n".join("  ".join(line).rstrip() for line in cells)
