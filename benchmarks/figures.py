"""What is measured, how it is shown, and the files it goes to. Imports no framework."""

from __future__ import annotations

import csv
import json
import operator
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

_COMPARE = {"≤": operator.le, "≥": operator.ge}


@dataclass(frozen=True)
class Figure:
    """One measured number.

    Args:
        name: what was measured.
        value: the number; NaN where the measurement failed.
        unit: what it counts, `×` for a ratio.
        goal: `≤ 1.10` or `≥ 3`, empty where there is none.
        details: spread, repeats, both sides of a ratio.
    """

    name: str
    value: float
    unit: str = "×"
    goal: str = ""
    details: str = ""

    @property
    def met(self) -> str:
        """`met`, `not met`, or `–` without a goal."""
        if not self.goal:
            return "–"
        sign, bound = self.goal.split()
        return "met" if _COMPARE[sign](self.value, float(bound)) else "not met"

    @property
    def shown(self) -> str:
        """Value and unit."""
        return f"{self.value:.3f}×" if self.unit == "×" else f"{self.value:.3g} {self.unit}"


def table(figures: Sequence[Figure]) -> str:
    """The figures as aligned lines of text."""
    rows = [("name", "measured", "goal", "", "details")]
    rows += [(figure.name, figure.shown, figure.goal or "–", figure.met, figure.details) for figure in figures]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    lines = ["  ".join([*map(str.ljust, row[:4], widths), row[4]]) for row in rows]
    lines.insert(1, "─" * (sum(widths) + 15))
    return "\n".join(line.rstrip() for line in lines)


def write_figures(folder: Path, name: str, figures: Sequence[Figure], environment: str):
    """Writes `{name}.json` and `{name}.csv`, one line per figure, into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [{**asdict(figure), "met": figure.met} for figure in figures]
    document = {"benchmark": name, "environment": environment, "figures": rows}
    (folder / f"{name}.json").write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    with open(folder / f"{name}.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["name", "value", "unit", "goal", "met", "details"])
        writer.writeheader()
        writer.writerows(rows)


def read_figures(path: Path) -> tuple[str, list[Figure]]:
    """The environment line and the figures of a file that `write_figures` wrote."""
    document = json.loads(path.read_text(encoding="utf-8"))
    figures = [Figure(**{key: value for key, value in row.items() if key != "met"}) for row in document["figures"]]
    return document["environment"], figures
