"""TensorFlow's own lines that say nothing of a run, and which no setting of it silences, kept from the user."""

from __future__ import annotations

import io
import logging
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

from gated_bert.loading import Load, load_by
from gated_bert.support.errors import printable
from gated_bert.support.inside import open_inside

LOGGER = logging.getLogger("gated_bert")
LIBRARY_LINE = re.compile(
    rb"WARNING: All log messages before absl|[IWEF]\d{4} \d\d:\d\d:\d\d|To enable the following instructions:|"
    rb"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d+: [IWEF] (tensorflow|external)/"
)
"""The beginning of a line that TensorFlow's native library writes."""
_TAIL_BYTES = 2**17
"""Of a log's end, so that lines of the library do not push out what a run itself said."""


class Logged(io.TextIOBase):
    """A file of text whose lines are logged."""

    def __init__(self):
        self._begun = ""

    def write(self, text: str) -> int:
        """See `io.TextIOBase`."""
        *lines, self._begun = f"{self._begun}{text}".split("\n")
        for line in filter(None, lines):
            LOGGER.info("%s", line)
        return len(text)

    def close(self) -> None:
        """Logs what no end of a line has come for."""
        if self._begun:
            self.write("\n")
        super().close()


def quieten() -> None:
    """Holds back what TensorFlow's library writes while it is imported and looks for GPUs, whenever that will be."""
    load_by("tensorflow", _quietly)


def without_library_lines(text: str) -> str:
    """The lines of a log that are not TensorFlow's own."""
    return "\n".join(line for line in text.split("\n") if not LIBRARY_LINE.match(line.encode("utf-8", "replace")))


def log_tail(path: str | os.PathLike, lines: int = 15) -> str:
    """The last lines of a log, without TensorFlow's own unless VERBOSE=2 asks for them; "" where there is none, or one
    that is a link out of its folder.
    """
    try:
        with open_inside(Path(path), Path(path).parent) as file:
            file.seek(0, os.SEEK_END)
            start = max(0, file.tell() - _TAIL_BYTES)
            file.seek(start)
            text = file.read().decode("utf-8", "replace")
    except OSError:
        return ""
    return last_lines(text, lines, bool(start))


def last_lines(text: str, lines: int, cut: bool) -> str:
    """The last lines of a log's text, as `log_tail` has them; `cut`: whether the first one lacks its start."""
    if cut:
        text = text.partition("\n")[2] or text
    own = text if os.environ.get("VERBOSE") == "2" else without_library_lines(text)
    return printable("\n".join(own.splitlines()[-lines:]))


def _quietly(load: Load, module: ModuleType):
    with _held_back():
        load(module)
        # It looks for GPUs when it is first asked, and says so.
        module.config.list_physical_devices()
    logging.getLogger("tensorflow").addFilter(_not_of_retracing)


def _not_of_retracing(record: logging.LogRecord) -> bool:
    """Whether a warning of TensorFlow is of anything but functions traced anew: it counts those of one model after
    another as one, so that each command which looks at some models would get it.
    """
    return "triggered tf.function retracing" not in record.getMessage()


@contextmanager
def _held_back() -> Iterator[None]:
    """Keeps what is written to the standard error output's number, and writes all but the library's lines after it."""
    try:
        sys.stderr.flush()
        real = os.dup(2)
    except (OSError, AttributeError):
        yield
        return
    with tempfile.TemporaryFile() as kept:
        os.dup2(kept.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(real, 2)
            os.close(real)
            kept.seek(0)
            said = b"".join(line for line in kept if not LIBRARY_LINE.match(line))
            if said:
                with open(2, "wb", closefd=False) as error_output:
                    error_output.write(said)
