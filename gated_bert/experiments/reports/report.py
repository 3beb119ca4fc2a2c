"""The report of a sweep: one HTML page that needs nothing beside it."""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

from gated_bert.config import ConfigError, GatedBertConfig
from gated_bert.config.flag_table import RUN_FLAGS
from gated_bert.experiments.reports.aggregate import LEVELS, group_runs, summary
from gated_bert.experiments.reports.drawing import png, tolerated
from gated_bert.experiments.reports.interactive import STYLE, comparison_charts, script
from gated_bert.experiments.reports.page import Html, element, folded, html_image, html_table, note, page
from gated_bert.experiments.reports.plots import COMPARISON_PNG, heading, plot_comparison, run_figures
from gated_bert.experiments.reports.results import PATTERN_SPARSITY, Failure, Run, metric_scale, metric_title
from gated_bert.support.files import write_bytes_atomic

_ALWAYS = ("model_size", "task", "data", "epochs", "batch_size", "learning_rate", "pruning_start_epoch",
           "pruning_end_epoch")  # fmt: skip
_COMPARED = ("task", "pruning_method", "seed")
MOST_BYTES = 2_000_000
"""Size of a report: what would make it larger, single plots first, is left in the folders of the runs."""


def write_report(folder: str | Path, runs: Sequence[Run], failures: Iterable[Failure] = (),
                 problems: Iterable[str] = ()) -> Path:  # fmt: skip
    """Writes `report.html`: tables, plots, configuration, environment, failures and the commands to repeat it.

    The comparison plot is written beside it, so that both show the same runs.

    Args:
        folder: where the page and the plot go.
        runs: the runs to report, may be empty when all jobs failed.
        failures: jobs that did not end well.
        problems: one line for each folder that could not be read.

    Returns:
        The path of the page, which loads nothing from anywhere.
    """
    folder, runs, failures = Path(folder), list(runs), list(failures)
    groups, notes = group_runs(runs)
    titles = dict.fromkeys(heading(run.task_title, run.data_label) for run in runs)
    parts = [element("h1", f"Pruning report: {'; '.join(titles) or 'no finished run'}"),
             note(f"{len(runs)} run(s), {len(failures)} failed job(s) · written "
                  f"{datetime.now().astimezone():%Y-%m-%d %H:%M %Z}")]  # fmt: skip
    parts += [element("div", line, kind="notice") for line in [*_data_notices(runs), *problems, *notes]]
    parts += _failures(failures)
    if runs:
        tables = _tables(runs)
        below = [element("h2", "Configuration"), *_configuration(runs), element("h2", "Commands"), *_commands(runs),
                 element("h2", "Environment"), _environment(runs), element("h2", "Single runs")]  # fmt: skip
        without = note(f"{len(runs)} runs; the plots of {len(runs)} are in their folders.")
        room = _Room(MOST_BYTES - len(page("Pruning report", [*parts, *tables, *below, without], STYLE, script())))
        curves = [part for title, made in comparison_charts(runs) for part in (element("h3", title), made)]
        pictures = _comparison(runs, folder / COMPARISON_PNG)
        parts += [element("h2", "Results"), *room.all_or_none(curves), *room.all_or_none(pictures), *tables, *below]
        singles = [_single(run) for group in groups for run in group.runs]
        shown = [part for part in singles if room.all_or_none([part])]
        parts += shown
        if len(shown) < len(singles):
            parts.append(note(f"{len(singles)} runs; the plots of {len(singles) - len(shown)} are in their folders."))
    return write_bytes_atomic(folder / "report.html", page("Pruning report", parts, STYLE, script()))


class _Room:
    """What is left of the size of a page, in bytes."""

    def __init__(self, left: int):
        self.left = left

    def all_or_none(self, parts: Sequence[Html]) -> Sequence[Html]:
        """The parts where there is room for them, which is taken then."""
        size = sum(len(part.encode("utf-8", "backslashreplace")) + 1 for part in parts)
        if size > self.left:
            return ()
        self.left -= size
        return parts


def _comparison(runs: Sequence[Run], path: Path) -> list[Html]:
    failed: list[str] = []
    with tolerated(path, failed):
        plot_comparison(runs, path)
        return [html_image(path.read_bytes(), "metric and loss against sparsity")]
    return [element("div", line, kind="notice") for line in failed]


def _data_notices(runs: Iterable[Run]) -> list[str]:
    kinds = {(run.metadata.get("data") or {}).get("kind") for run in runs}
    partial = sorted({run.data_label for run in runs if (run.metadata.get("data") or {}).get("partial")})
    lines = []
    if "embedded" in kinds:
        lines.append("Embedded data: made by this toolkit's own generator. The figures say how the methods compare "
                     "here; they are not figures on GLUE.")  # fmt: skip
    return lines + [f"{label}: only part of the official training set was there." for label in partial]


def _failures(failures: Iterable[Failure]) -> list[Html]:
    parts = []
    for failure in failures:
        log = [element("pre", failure.log_tail)] if failure.log_tail else []
        parts.append(element("div", element("b", failure.job), f": {failure.message}", *log, kind="failed"))
    return [element("h2", "Failed jobs"), *parts] if parts else []


def _tables(runs: Sequence[Run]) -> list[Html]:
    table = summary(runs)
    titles = {(run.task, run.data_label): heading(run.task_title, run.data_label) for run in runs}
    parts = []
    for (task, data, model), part in table.groupby(["task", "data", "model"], sort=False):
        metric = part["metric"].iloc[0]
        levels = [level for level in LEVELS if (part[f"best_at_{level}_n"] > 0).any()]
        heads = ["method", "seeds", "best", "final", "sparsity", "of the pattern's",
                 *(f"≥ {level} %" for level in levels), "minutes"]
        body = [[_name(row), _seeds(row), _value(row, "best", metric), _value(row, "final", metric),
                 *(_share(row[f"final_{name}_mean"]) for name in ("sparsity", PATTERN_SPARSITY)),
                 *(_value(row, f"best_at_{level}", metric) for level in levels),
                 f"{row['seconds_mean'] / 60:.1f}"] for _, row in part.iterrows()]  # fmt: skip
        parts.append(element("h3", f"{titles[task, data]} · {model}: {metric_title(metric)}"))
        parts.append(html_table(heads, body, "sortable"))
    parts.append(note("Mean ± standard deviation over seeds on the development set; a value of one seed "
                 "has no deviation. [n] stands where fewer seeds reached a value than ran. “best” is the best epoch of "
                 "all, “≥ 50 %” the best one with at least that sparsity, both picked on the same development set. "
                 "“sparsity” is that of all prunable weights after the last epoch, as plots and “≥ 50 %” have it, "
                 "and “of the pattern’s” that of the matrices which the pattern is made of, of which -f speaks. "
                 "comparison.csv and comparison_summary.csv hold the 95 % t-intervals."))  # fmt: skip
    return parts


def _share(value: float) -> str:
    return "–" if math.isnan(value) else f"{100 * value:.2f} %"


def _name(row: Mapping) -> str:
    return f"{row['method']} [{row['settings']}]" if row["settings"] else row["method"]


def _seeds(row: Mapping) -> str:
    if row["status"] == "unfinished":
        return f"{row['n']}, unfinished"
    return f"{row['n']}" + (f" (+{row['unfinished']} unfinished)" if row["unfinished"] else "")


def _value(row: Mapping, name: str, metric: str) -> str:
    mean, std, count = (row[f"{name}_{part}"] for part in ("mean", "std", "n"))
    if not count:
        return "–"
    scale = metric_scale(metric)
    digits = 2 if scale == 100 else 4
    text = f"{scale * mean:.{digits}f}" + ("" if math.isnan(std) else f" ± {scale * std:.{digits}f}")
    return text if count == row["n"] else f"{text} [n = {count}]"


def _configuration(runs: Sequence[Run]) -> list[Html]:
    """What the runs share, and what differs, each value with the runs that have it."""
    names = [name for name in dict.fromkeys(name for run in runs for name in run.config) if name not in _COMPARED]
    shared, differing = [], []
    for name in names:
        values: dict[str, None] = {}
        for run in runs:
            values.setdefault(_show(run.config.get(name)), None)
        if len(values) == 1:
            shared.append((name, next(iter(values))))
        else:
            differing += [(name if value == next(iter(values)) else "", value, _where(name, value, runs))
                          for value in values]  # fmt: skip
    parts = []
    if differing:
        parts += [element("h3", "Differs between runs"), html_table(["field", "value", "in"], differing, "text")]
    return [*parts, folded("The same in all runs", html_table(["field", "value"], shared, "text"))]


def _where(name: str, value: str, runs: Sequence[Run]) -> str:
    shown = [_show(run.config.get(name)) == value for run in runs]
    holders = [run for run, holds in zip(runs, shown, strict=True) if holds]
    others = [run for run, holds in zip(runs, shown, strict=True) if not holds]
    for part in ("method", "task_title", "model", "data_label"):
        kinds = {getattr(run, part) for run in holders}
        if not kinds & {getattr(run, part) for run in others}:
            return ", ".join(sorted(kinds))
    return f"{len(holders)} run(s)" if len(holders) > 6 else ", ".join(run.folder.name for run in holders)


def _show(value: object) -> str:
    return value if isinstance(value, str) else "none" if value is None else json.dumps(value)


def _commands(runs: Sequence[Run]) -> list[Html]:
    """Launcher lines where its main flags give exactly the config of the runs; the whole config where they do not."""
    lines: dict[tuple, dict[str, list]] = {}
    rest = []
    for run in runs:
        flags = launcher_flags(run.config)
        if flags is None:
            rest.append(run)
            continue
        line = lines.setdefault(flags, {"-p": [], "--seeds": []})
        for flag, value in (("-p", run.config["pruning_method"]), ("--seeds", str(run.seed))):
            if value not in line[flag]:
                line[flag].append(value)
    text = "\n".join(shlex.join(["./run_experiments.sh", *flags, *(part for flag, values in line.items()
                                                                 for part in (flag, ",".join(values)))])
                     for flags, line in lines.items())  # fmt: skip
    parts = [element("pre", text)] if text else []
    if rest:
        command = element("code", "gated-bert train --config-file run.json --run-dir FOLDER")
        parts.append(note("A configuration that takes more than the launcher’s main flags: save it as run.json, then ",
                          command, "."))  # fmt: skip
    return parts + [folded(run.folder.name, element("pre", json.dumps(run.config, indent=1))) for run in rest]


def launcher_flags(config: Mapping) -> tuple[str, ...] | None:
    """The flags of `run_experiments.sh` (method and seed apart) that give `config`, None where none do."""
    if "pruning_method" not in config:
        return None
    try:
        wanted = GatedBertConfig.from_dict(dict(config))
        always = (*_ALWAYS, *["pretrained"] * bool(wanted.pretrained))
        shown: dict[str, Any] = {name: getattr(wanted, name) for name in always}
        fixed: dict[str, Any] = {"pruning_method": wanted.pruning_method, "seed": wanted.seed}
        usual = GatedBertConfig(**shown, **fixed)
        more = {name: value for name, value in asdict(wanted).items() if value != getattr(usual, name)}
        # -s, -f and -ss imply a schedule: name it only where they do not.
        for left_out in ("schedule", None):
            chosen = shown | {name: value for name, value in more.items() if name != left_out}
            if GatedBertConfig(**chosen, **fixed) == wanted:
                return _flags(chosen)
    except (ConfigError, TypeError, ValueError, ArithmeticError, AttributeError, LookupError):
        return None
    return None


def _flags(fields: Mapping[str, Any]) -> tuple[str, ...] | None:
    known = {{"tasks": "task"}.get(flag.name, flag.name): flag for flag in RUN_FLAGS}
    words: list[str] = []
    for name, value in fields.items():
        flag = known.get(name)
        if flag is None or name == "criterion":
            return None
        text = flag.nothing if value is None else (
            ",".join(f"{item:g}" if isinstance(item, float) else item for item in value) if isinstance(value, tuple)
            else ",".join(f"{key}={item}" for key, item in value.items()) if isinstance(value, dict)
            else str(value).lower() if isinstance(value, bool) else str(value))  # fmt: skip
        if text is None:
            return None
        words += [word for item in (value if flag.kind == "files" else (text,)) for word in (flag.options[0], item)]
    return tuple(words)


def _environment(runs: Sequence[Run]) -> Html:
    found: dict[str, dict[str, None]] = {}
    for run in runs:
        for part in ("versions", "hardware"):
            for name, value in (run.metadata.get(part) or {}).items():
                found.setdefault(name, {})[_show(value)] = None
    return html_table(["what", "value"], [(name, "; ".join(values)) for name, values in found.items()], "text")


def _single(run: Run) -> Html:
    seed = "" if run.seed is None else f" · seed {run.seed}"
    title = f"{run.method} · {heading(run.task_title, run.data_label)} · {run.model}{seed} · {run.status}"
    parameters = ", ".join(f"{name} {value:,}" for name, value in (run.metadata.get("parameters") or {}).items())
    below = note(run.folder.name + (f" · parameters: {parameters}" if parameters else ""))
    return folded(title, below, *(html_image(content, name) for name, content in _plots(run).items()))


def _plots(run: Run) -> dict[str, bytes]:
    """The plots the run wrote; drawn here where it was stopped before it wrote them, or has gone on since."""
    suffix = f"_sparsity_{run.csv.stem.removeprefix('results_')}.png"
    found = {kind + suffix: run.folder / (kind + suffix) for kind in ("accuracy", "loss", "reward")}
    written = {name: path for name, path in found.items() if path.exists()}
    if written and min(path.stat().st_mtime for path in written.values()) >= run.csv.stat().st_mtime:
        return {name: path.read_bytes() for name, path in written.items()}
    with tolerated(run.folder / f"plots{suffix}"):
        return {name: png(figure) for name, figure in run_figures(run).items()}
    return {}
