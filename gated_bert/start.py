"""How every process of the toolkit starts: it imports nothing from the working folder, and its streams can be used.

`python …/gated_bert/start.py MODULE WORDS…` is `python -m MODULE WORDS…` without the working folder on the path. Python
puts that first by `-m`, and for an empty entry of PYTHONPATH; `-P` and `-I` are too new, or forget too much.
"""

import importlib
import io
import os
import sys

_PACKAGE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(_PACKAGE)
"""The folder that this package is imported from."""


def python_command(module: str, *words: str) -> tuple[str, ...]:
    """The words of a process that runs `module` of this package, from whatever folder."""
    return (sys.executable, os.path.join(_PACKAGE, "start.py"), module, *words)


def import_path() -> str:
    """PYTHONPATH with the folder that this package was imported from, and without the working folder."""
    paths = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if not _is_working_folder(path)]
    return os.pathsep.join(paths if ROOT in paths or _is_library(ROOT) else [ROOT, *paths])


def leave_working_folder() -> None:
    """Takes the working folder off the path, of this process and of those it starts, and from what libraries read."""
    if "PYTHONPATH" in os.environ:
        os.environ["PYTHONPATH"] = import_path()
    sys.path[:] = [path for path in sys.path if not _is_working_folder(path) and path != _PACKAGE]
    if ROOT not in sys.path:
        sys.path.insert(0, ROOT)
    from gated_bert.loading import load_from_elsewhere, load_without

    # It takes a `matplotlibrc` in the working folder for the user's own, before any other.
    load_from_elsewhere("matplotlib")
    # Nearly half of the time that Keras takes to import.
    load_without("keras", ("matplotlib", "pandas", "sklearn", *(["jax"] if keras_backend() == "tensorflow" else [])))


def keras_backend() -> str:
    """The backend that Keras is going to take: of the environment, else of its configuration file, else TensorFlow."""
    # Not above, where it could be a file of the working folder.
    import json

    named = os.environ.get("KERAS_BACKEND")
    if named:
        return named
    home = os.environ.get("KERAS_HOME") or os.path.join(os.path.expanduser("~"), ".keras")
    try:
        with open(os.path.join(home, "keras.json"), encoding="utf-8") as file:
            return str(json.load(file).get("backend"))
    except FileNotFoundError:
        return "tensorflow"
    except (OSError, ValueError, AttributeError, RecursionError):
        # Keras will say, or go by something else.
        return ""


def _is_working_folder(path: str) -> bool:
    if path in ("", os.curdir):
        return True
    try:
        return path != ROOT and not _is_library(path) and os.path.samefile(path, os.curdir)
    except OSError:
        return False


def _is_library(path: str) -> bool:
    """Whether Python's own modules, or installed ones, are in a folder, which may be the working folder by chance."""
    named = os.path.basename(path) in ("site-packages", "dist-packages", "lib-dynload")
    return named or path == os.path.dirname(os.__file__)


def open_streams() -> None:
    """Gives closed standard streams the null device, and lets the others write `?` for what their encoding lacks."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            # The lowest number that is free: else the next file that is opened would get what is printed.
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, "w" if number else "r", encoding="utf-8", closefd=False))
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def in_utf8() -> None:
    """Starts this process anew where the locale's encoding is another: files, names and libraries are all UTF-8.

    The terminal keeps its encoding.
    """
    if sys.getfilesystemencoding() != "utf-8" and not sys.flags.utf8_mode:
        shown = getattr(sys.stdout or sys.stderr, "encoding", None) or "ascii"
        settings = {"PYTHONUTF8": "1", "PYTHONIOENCODING": f"{shown}:replace"}
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], {**os.environ, **settings})


def main() -> int:
    """Where console scripts of earlier versions begin."""
    return importlib.import_module("gated_bert.__main__").main()


if __name__ == "__main__":
    leave_working_folder()
    import runpy

    del sys.argv[0]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
