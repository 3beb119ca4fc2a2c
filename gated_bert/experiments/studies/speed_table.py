"""Families of models of a study side by side: share of the dense metric against measured speed, over seeds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from gated_bert.experiments.reports.aggregate import statistics
from gated_bert.experiments.reports.csv_file import read_csv
from gated_bert.experiments.reports.drawing import label_text, png, tolerated
from gated_bert.experiments.studies.family_folder import RECORD
from gated_bert.experiments.studies.speedup_report import TABLE as FAMILY
from gated_bert.experiments.studies.speedup_report import show_points
from gated_bert.support.files import write_bytes_atomic, write_csv_atomic
from gated_bert.support.records import read_record
from gated_bert.support.speed_schemas import FamilyRecord

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

TABLE, SUMMARY, PLOT = "speed.csv", "speed_summary.csv", "speed.png"
_KEYS = ["task", "way", "target", "precision"]
_NUMBERS = ("speedup", "value", "share_of_dense", "size_bytes", "macs_per_token")
_MARKERS = "os^vDPX*<>pdh8"


def write_speed(output: Path, folders: Sequence[Path]) -> None:
    """Writes `speed.csv` (a row per model), `speed_summary.csv` (over seeds) and `speed.png` of a study's families.

    Args:
        output: the study's folder.
        folders: those of its families.
    """
    import pandas as pd

    tables = [_told(folder) for folder in folders if (folder / FAMILY).is_file()]
    if not tables:
        return
    rows = pd.concat(tables, ignore_index=True)
    summary = _summary(rows)
    write_csv_atomic(output / TABLE, rows)
    write_csv_atomic(output / SUMMARY, summary)
    with tolerated(output / PLOT):
        write_bytes_atomic(output / PLOT, png(speed_figure(summary)))


def _told(folder: Path) -> pd.DataFrame:
    record = read_record(folder / RECORD, FamilyRecord)
    effort, conditions = record["effort"], record["conditions"]
    rows = read_csv(folder / FAMILY, _NUMBERS, ("task", "precision"))
    way = f"{effort['order']}, {conditions['precision']}" + ("" if record["trained"] else ", without training")
    return rows.assign(way=way, seed=effort["seed"], family=folder.name)


def _summary(rows: pd.DataFrame) -> pd.DataFrame:
    """Over seeds, of what is served: means, and of the share of dense its 95 % t-interval."""
    import pandas as pd

    served = rows[[str(way).split(", ")[1] == each for way, each in zip(rows["way"], rows["precision"], strict=True)]]
    found = []
    for keys, seeds in served.groupby(_KEYS, sort=False):
        share = statistics(seeds["share_of_dense"])
        found.append({**dict(zip(_KEYS, keys, strict=True)), "seeds": int(share["n"]),
                      **{name: float(seeds[name].mean()) for name in _NUMBERS},
                      "share_low": share["low"], "share_high": share["high"]})  # fmt: skip
    return pd.DataFrame(found).sort_values(["task", "way", "target"], kind="stable", ignore_index=True)


def speed_figure(summary: pd.DataFrame) -> Figure:
    """A panel per task: share of the dense metric against measured speed, a line for each way."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, NullFormatter

    tasks, ways = list(dict.fromkeys(summary["task"])), list(dict.fromkeys(summary["way"]))
    figure = Figure(figsize=(6.2 * len(tasks), 4.8), layout="constrained")
    for axes, task in zip(figure.subplots(1, len(tasks), squeeze=False)[0], tasks, strict=True):
        for index, way in enumerate(ways):
            own = summary[(summary["task"] == task) & (summary["way"] == way)].sort_values("speedup")
            if own.empty:
                continue
            fewest, most = int(own["seeds"].min()), int(own["seeds"].max())
            seeds = f"{fewest} to {most} seeds" if fewest < most else f"{most} seeds" if most > 1 else ""
            name = label_text(way + f" ({seeds})" * bool(seeds))
            x, y = own["speedup"], 100 * own["share_of_dense"]
            axes.plot(x, y, color=f"C{index % 10}", marker=_MARKERS[index % len(_MARKERS)], label=name)
            own = own[own["seeds"] >= 3]
            y = 100 * own["share_of_dense"]
            axes.errorbar(own["speedup"], y, [y - 100 * own["share_low"], 100 * own["share_high"] - y],
                          color=f"C{index % 10}", linewidth=0, elinewidth=1, capsize=2)  # fmt: skip
        show_points(axes)
        axes.set_xscale("log")
        axes.set_xticks([1, 2, 4, 6, 8, 10, 12])
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}×"))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_title(label_text(task), fontsize="medium")
        axes.set_xlabel("measured speed over the dense model in fp32")
        axes.set_ylabel("% of the dense model's metric")
        axes.grid(alpha=0.3)
        axes.legend(fontsize="small")
    return figure
