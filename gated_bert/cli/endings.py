"""How the command line ends where a command raised: one line on the standard error output, and an exit status."""

from __future__ import annotations

import errno
import os
import platform
import shlex
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from pathlib import Path

from gated_bert.config import ConfigError
from gated_bert.config.flag_table import LABELS
from gated_bert.config.tracker_names import TRACKERS
from gated_bert.support.errors import UserError, printable

REFUSED, UNEXPECTED, INTERRUPTED = 2, 70, 130
"""Exit statuses: something a user can mend, a fault of the toolkit (EX_SOFTWARE), and Ctrl-C as shells give it."""
RESUMED = frozenset((
    "train", "sweep", "stages", "oneshot", "lottery", "compress", "activation-change", "explain", "sp-lime",
    "compare-explanations", "pos", "student", "pipeline",
))  # fmt: skip
"""Commands that go on where they stopped, by `--resume`."""
_TRACKER = "the project's issue tracker"
_OUTPUTS = ("-o", "--output-dir", "--output", "--run-dir")
_EXTRAS = {
    **dict.fromkeys(("onnx", "onnxruntime", "tf2onnx", "sympy"), "export"),
    **dict.fromkeys(("lime", "nltk"), "explain"),
    **dict.fromkeys(("jax", "jaxlib"), "jax"),
    "ray": "cluster",
    **{name: name for name in TRACKERS},
}
"""Modules that do not come with the extra `tensorflow`, and the extra that they come with."""


def end(error: BaseException, words: Sequence[str]) -> int:
    """Tells in one line why a command ended.

    Args:
        error: what it raised.
        words: its command line.

    Returns:
        The exit status.
    """
    if os.environ.get("VERBOSE") == "2":
        say("".join(traceback.format_exception(error)).rstrip())
    if isinstance(error, KeyboardInterrupt):
        with_resume = " with --resume" * (words[:1] != ["study"])
        again = f"; the same command{with_resume} goes on" * bool({"study", *RESUMED} & set(words[:1]))
        say(str(error) or f"stopped{again}")
        return INTERRUPTED
    if isinstance(error, OSError) and not error.filename and _is_of_the_output():
        _forget_the_output()
        # Whoever read the output has gone (`| head`): that is no error.
        return 1 if error.errno == errno.EPIPE else _refuse(f"the standard output cannot be written ({error.strerror})")
    message = _by_hand(error, words)
    return _refuse(message) if message else _unexpected(error, words)


def say(text: str) -> None:
    """Prints to the standard error output, where that can be written."""
    try:
        print(text, file=sys.stderr, flush=True)
    except UnicodeEncodeError:
        print(text.encode("ascii", "backslashreplace").decode(), file=sys.stderr, flush=True)
    except OSError:
        pass


def _refuse(message: str) -> int:
    say("error: " + printable(" ".join(message.split())))
    return REFUSED


def _by_hand(error: BaseException, words: Sequence[str]) -> str | None:
    """What a user can mend, and how; None for any other error."""
    if isinstance(error, ConfigError):
        return error.describe(LABELS.get(error.field, error.field))
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, ModuleNotFoundError) and error.name and error.name.partition(".")[0] != "gated_bert":
        extra = _EXTRAS.get(error.name.partition(".")[0], "tensorflow")
        return f"{error.name} is not installed; pip install 'gated_bert[{extra}]'"
    if isinstance(error, MemoryError) or type(error).__name__ == "ResourceExhaustedError":
        return "memory is used up; free some, or choose a smaller model, batch or length"
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        full = "no space is left on the device" if error.errno == errno.ENOSPC else "the disk quota is used up"
        again = "go on with --resume" if words[:1] and words[0] in RESUMED else "run the same command again"
        return f"{os.fsdecode(error.filename or 'output')}: {full}; free some, then {again}"
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return f"{os.fsdecode(error.filename)}: {error.strerror[0].lower()}{error.strerror[1:]}{_remedy(error)}"
    return None


def _remedy(error: OSError) -> str:
    place = Path(os.fsdecode(error.filename))
    if error.errno == errno.EROFS:
        return "; choose another folder with -o"
    if error.errno not in (errno.EACCES, errno.EPERM):
        return ""
    if os.path.exists(place):
        return "; choose another folder with -o" if os.access(place, os.R_OK) else "; let this user read it"
    writable = os.access(place.parent, os.W_OK)
    return "; choose another folder with -o" if os.path.isdir(place.parent) and not writable else ""


def _is_of_the_output() -> bool:
    """Whether an error without a file is one of the standard output, which cannot be written now either."""
    try:
        number = sys.stdout.fileno()
    except (OSError, ValueError):
        return False
    try:
        sys.stdout.flush()
        # What is not buffered leaves nothing to flush.
        return bool(os.environ.get("PYTHONUNBUFFERED")) and not os.write(number, b"\n")
    except OSError:
        return True


def _forget_the_output():
    """Sends what is still buffered to the null device: Python must not complain once more at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _unexpected(error: BaseException, words: Sequence[str]) -> int:
    reason = " ".join(str(error).split())
    said = f"{type(error).__name__}: {reason[:200]}{'…' * (len(reason) > 200)}" if reason else type(error).__name__
    try:
        where = f"attach {_write_report(error, words)}"
    except OSError as failed:
        where = f"with VERBOSE=2 it shows the traceback to attach, which could not be written ({failed.strerror})"
    say(f"error: unexpected {printable(said)}; this is a fault of gated_bert; please report it on {_TRACKER}: {where}")
    return UNEXPECTED


def _write_report(error: BaseException, words: Sequence[str]) -> Path:
    text = (f"command: {shlex.join(['gated-bert', *words])}\nPython: {platform.python_version()}, "
            f"{platform.platform()}\nKERAS_BACKEND: {os.environ.get('KERAS_BACKEND')}\n\n"
            + "".join(traceback.format_exception(error)))  # fmt: skip
    name = f"error-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.txt"
    for folder in (_output_of(words), Path(tempfile.gettempdir())):
        try:
            if folder is not None and folder.is_dir():
                # A folder of all users' may hold a link of that name.
                with open(folder / name, "x", encoding="utf-8", errors="backslashreplace") as file:
                    file.write(text)
                return folder / name
        except OSError:
            if folder != _output_of(words):
                raise
    raise FileNotFoundError(errno.ENOENT, "no folder to write to")


def _output_of(words: Sequence[str]) -> Path | None:
    """The folder that a command line says it writes to; that of the run where it names two."""
    found = {}
    for word, following in zip(words, (*words[1:], ""), strict=True):
        option, equals, value = word.partition("=")
        if option in _OUTPUTS:
            found[option] = value if equals else following
    place = found.get("--run-dir") or next(iter(found.values()), None)
    return Path(os.path.expanduser(place)) if place else None
