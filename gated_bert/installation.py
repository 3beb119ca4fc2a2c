"""What this Python lacks to run the package; told with the standard library alone.

`python -m gated_bert.installation tensorflow dev` prints the missing requirements of these extras.
"""

from __future__ import annotations

import configparser
import importlib.metadata
import re
import sys
from pathlib import Path

_OTHER_NAMES = {"tensorflow": ("tensorflow-cpu",)}


def requirements(setup_file: Path, extras: list[str]) -> list[str]:
    """The requirement lines of the package and of `extras` in a `setup.cfg`."""
    setup = configparser.ConfigParser()
    setup.read(setup_file, encoding="utf-8")
    lines = setup["options"]["install_requires"].splitlines()
    for extra in extras:
        lines += setup["options.extras_require"][extra].splitlines()
    return [line.strip() for line in lines if line.strip()]


def missing(lines: list[str]) -> list[str]:
    """Those of the requirements `name>=version` that are not installed, or too old."""
    return [line for line in lines if not _is_met(*line.split(">="))]


def _is_met(name: str, lowest: str) -> bool:
    for known in (name, *_OTHER_NAMES.get(name, ())):
        try:
            if _release(importlib.metadata.version(known)) >= _release(lowest):
                return True
        except importlib.metadata.PackageNotFoundError:
            continue
    return False


def _release(version: str) -> tuple[int, ...]:
    """The numbers of a version; 2.1.0 is 2.1."""
    number = re.match(r"\d+(\.\d+)*", version)
    return tuple(int(part) for part in re.sub(r"(\.0+)+$", "", number[0]).split(".")) if number else ()


if __name__ == "__main__":
    lacking = missing(requirements(Path(__file__).resolve().parents[1] / "setup.cfg", sys.argv[1:]))
    print("\n".join(lacking))
    sys.exit(1 if lacking else 0)
