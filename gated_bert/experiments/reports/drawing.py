"""From figures to files: no text of a user's is markup in a plot, and a plot that fails stops nothing."""

from __future__ import annotations

import io
import logging
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LOGGER = logging.getLogger("gated_bert")

DPI = 120
_LETTERS_PER_INCH, _LONGEST_LABEL = 13, 80
_QUIET = ("Glyph .* missing from", "constrained_layout not applied")
"""What the library says of characters that its font lacks, and of names that leave an axis no room."""


def png(figure: Figure) -> bytes:
    """The figure as the bytes of a PNG file with a palette, a third of the size: reports hold dozens of them.

    Its texts are drawn as they are, long ones shortened in the middle.
    """
    import numpy as np
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from PIL import Image

    canvas, content = FigureCanvasAgg(figure), io.BytesIO()
    figure.set_dpi(DPI)
    _make_literal(figure)
    with warnings.catch_warnings():
        for message in _QUIET:
            warnings.filterwarnings("ignore", message)
        canvas.draw()
    image = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
    image.quantize(128, dither=Image.Dither.NONE).save(content, "PNG", optimize=True, dpi=(DPI, DPI))
    return content.getvalue()


def label_text(name: object) -> str:
    """A name as the label of a line or a bar: one that begins with an underscore would be left out of the legend."""
    text = " ".join(str(name).splitlines())
    return f"\u2060{text}" if text.startswith("_") else text


@contextmanager
def tolerated(path: Path, failed: list[str] | None = None) -> Iterator[None]:
    """Draws `path` in its block; where that fails, one line says so, and what was computed before is kept.

    Args:
        path: the file; an older one of that name is removed then.
        failed: gets the line, for the record of a run.
    """
    try:
        yield
    except Exception as error:
        said = " ".join(str(error).split("\n", 1)[0].split())
        line = f"{path.name} could not be drawn ({type(error).__name__}: {said})"
        LOGGER.info("%s", line, exc_info=True)
        print(f"note: {path.parent}: {line}; all else is there", file=sys.stderr)
        if failed is not None:
            failed.append(line)
        path.unlink(missing_ok=True)


def files_there(folder: Path, *names: str) -> str:
    """Those of the files of a folder that there are, for the line that says what was written."""
    return ", ".join(name for name in names if (folder / name).exists())


def _make_literal(figure: Figure):
    """Turns off mathematics between dollar signs, except where the library itself writes numbers that way."""
    from matplotlib.text import Text
    from matplotlib.ticker import FuncFormatter, LogFormatter

    numbers, longest = set(), max(_LONGEST_LABEL, int(_LETTERS_PER_INCH * figure.get_figwidth()))
    for axis in (axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)):
        formatter = axis.get_major_formatter()
        if isinstance(formatter, LogFormatter):
            numbers |= set(map(id, axis.findobj(Text)))
        elif isinstance(formatter, FuncFormatter):
            # Names beside ticks are set once more when they are drawn.
            formatter.func = partial(_short_name, formatter.func)
    for text in figure.findobj(Text):
        if id(text) not in numbers:
            text.set_parse_math(False)
            text.set_usetex(False)
            text.set_text(_drawable(text.get_text(), longest))


def _short_name(names: Callable, value: float, place: int | None = None) -> str:
    return _drawable(names(value, place), _LONGEST_LABEL // 2)


def _drawable(text: str, longest: int) -> str:
    """The text without what no font holds, each line shortened in the middle to `longest` characters."""
    half, lines = longest // 2, text.encode("utf-8", "replace").decode().split("\n")
    return "\n".join(line if len(line) <= longest else f"{line[:half]} … {line[-half:]}" for line in lines)
