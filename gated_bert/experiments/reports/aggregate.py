"""Runs over their seeds: means with their counts, deviations and intervals."""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from gated_bert.config import NOT_COMPUTED
from gated_bert.config.later_fields import LATER, with_later_fields
from gated_bert.config.parts import CRITERIA, options_of_others
from gated_bert.experiments.reports.results import PATTERN_SPARSITY, Run, metric_columns
from gated_bert.support.files import write_csv_atomic

if TYPE_CHECKING:
    import pandas as pd

LEVELS = (50, 70, 80, 90, 95, 99)
"""Sparsities in per cent at which methods are compared."""

REACHED = 5e-4
"""A sparsity counts as reached this far (a fraction) below it: whole units seldom add up to it exactly."""

KEYS = ("task", "data", "model", "method", "settings")
_NOT_A_SETTING = {"seed", *NOT_COMPUTED}
_FOLDERS = {"pretrained", "ticket", "teacher"}


@dataclass(frozen=True)
class Group:
    """Runs that differ in nothing but the seed.

    Args:
        task, data, model, method: what was learnt, on what, by what, and how it was pruned.
        settings: the config fields in which this group differs from others of the same four names; "" if none.
        runs: one run per seed.
    """

    task: str
    data: str
    model: str
    method: str
    settings: str
    runs: tuple[Run, ...]

    @property
    def panel(self) -> tuple[str, str, str]:
        return self.task, self.data, self.model

    @property
    def name(self) -> str:
        return f"{self.method} [{self.settings}]" if self.settings else self.method

    @property
    def metric(self) -> str:
        return self.runs[0].metric

    @property
    def ended(self) -> tuple[Run, ...]:
        """The finished runs, or all of them while none is: an early epoch must not pass for a final result."""
        return tuple(run for run in self.runs if run.finished) or self.runs


def group_runs(runs: Iterable[Run]) -> tuple[list[Group], list[str]]:
    """Puts runs together that differ in nothing but the seed.

    Args:
        runs: runs of any folders, tasks and configurations.

    Returns:
        The groups in the order of the tables, and one line for each thing a reader must know: runs kept apart,
        runs left out for a newer one, runs that are not finished.
    """
    named: dict[tuple[str, str, str, str], dict[tuple, list[Run]]] = {}
    for run in runs:
        variants = named.setdefault((run.task, run.data_label, run.model, run.method), {})
        variants.setdefault(_identity(run), []).append(run)
    groups, notes = [], []
    for key, variants in named.items():
        differing = _differing([dict(identity) for identity in variants])
        if len(variants) > 1:
            notes.append(f"{key[3]} on {key[0]} ({key[1]}, {key[2]}): {len(variants)} configurations kept apart; "
                         f"they differ in {', '.join(differing)}")  # fmt: skip
        for identity, members in variants.items():
            values = dict(identity)
            settings = ", ".join(f"{name}={values.get(name)}" for name in differing)
            kept, left_out = _one_per_seed(members)
            groups.append(Group(*key, settings, tuple(kept)))
            notes += left_out
    notes += [f"{run.folder}: {run.status} after epoch {int(run.rows['epoch'].max())}"
              f"{' of ' + str(run.config['epochs']) if 'epochs' in run.config else ''}"
              for group in groups for run in group.runs if not run.finished]  # fmt: skip
    notes += [f"{run.folder}: {line}" for group in groups for run in group.runs
              for line in run.metadata.get("plots_failed") or ()]  # fmt: skip
    return sorted(groups, key=_order), notes


def _identity(run: Run) -> tuple:
    # A run of an earlier version says nothing of later fields, and of other criteria's options what was usual then.
    nothing = _NOT_A_SETTING | options_of_others(run.config.get("criterion"))
    values = {name: repr(value) for name, value in with_later_fields(run.config).items()
              if name not in nothing and value is not None and value != LATER.get(name)}  # fmt: skip
    for name in _FOLDERS & values.keys():
        # A run that starts from another one's model starts from that of its own seed.
        values[name] = re.sub(r"_seed\d+", "", values[name])
    for part, count in ((run.metadata.get("data") or {}).get("rows") or {}).items():
        values[f"{part} rows"] = repr(count)
    return tuple(sorted(values.items()))


def _differing(configs: Sequence[dict]) -> list[str]:
    names = sorted({name for config in configs for name in config})
    return [name for name in names if len({config.get(name) for config in configs}) > 1]


def _one_per_seed(runs: Sequence[Run]) -> tuple[list[Run], list[str]]:
    newest: dict[object, Run] = {}
    notes = []
    for run in sorted(runs, key=lambda run: (run.finished, run.order, run.timestamp)):
        if run.seed in newest:
            notes.append(f"{newest[run.seed].folder}: left out: same configuration and seed as {run.folder}")
        newest[run.seed] = run
    return sorted(newest.values(), key=lambda run: (run.seed is None, run.seed)), notes


def method_rank(method: str) -> tuple[float, str]:
    """Sorts methods as tables and legends list them: the dense baseline first, points without a name last."""
    place = CRITERIA[method].options.PLACE if method in CRITERIA else 0 if method == "baseline" else None
    return math.inf if place is None else place, method


def _order(group: Group) -> tuple:
    return group.task, group.data, group.model, *method_rank(group.method), group.settings


def statistics(values: Iterable[float]) -> dict[str, float]:
    """Count, mean, standard deviation (n − 1) and 95 % t-interval of the finite values.

    Returns:
        `n`, `mean`, `std`, `low`, `high`; std and interval are NaN for a single value, all but n for none.
    """
    values = [float(value) for value in values if math.isfinite(value)]
    count, nan = len(values), math.nan
    mean = math.fsum(values) / count if count else nan
    if count < 2:
        return {"n": count, "mean": mean, "std": nan, "low": nan, "high": nan}
    std = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (count - 1))
    half = _t_quantile(count - 1) * std / math.sqrt(count)
    return {"n": count, "mean": mean, "std": std, "low": mean - half, "high": mean + half}


@functools.cache
def _t_quantile(degrees: int) -> float:
    """The two-sided 95 % quantile, kept: a comparison asks for the same few tens of thousands of times."""
    from scipy.stats import t

    return float(t.ppf(0.975, degrees))


def _columns(name: str, values: Iterable[float]) -> dict[str, float]:
    return {f"{name}_{part}": value for part, value in statistics(values).items()}


def _head(group: Group, runs: Sequence[Run]) -> dict:
    head = {name: getattr(group, name) for name in KEYS}
    return head | {"metric": group.metric, "n": len(runs), "seeds": " ".join(str(run.seed) for run in runs)}


def comparison(runs: Iterable[Run]) -> pd.DataFrame:
    """Every epoch over the seeds of task × data × model × method × settings.

    Args:
        runs: any runs; those that differ in more than the seed are not averaged.

    Returns:
        One row per group and epoch: `n` runs that wrote it, their `seeds`, `target_sparsity`, and for both sparsities,
        losses and metrics `_n`, `_mean`, `_std` (n − 1), `_low`, `_high` (95 % t-interval; empty for one seed).
        Fractions. `sparsity` is that of all prunable weights, `pattern_sparsity` that of the matrices that the pattern
        is made of, which is what `target_sparsity` asks for; it is empty for runs of versions that did not record it.
    """
    return _frame([record for group in group_runs(runs)[0] for record in _epochs(group)])


def _frame(records: list[dict]) -> pd.DataFrame:
    import pandas as pd

    frame = pd.DataFrame(records)
    return frame.astype({name: "Int64" for name in frame.columns if name.endswith("_n")})


def _epochs(group: Group) -> list[dict]:
    # Dictionaries: a row of a data frame is slow to read, and a comparison reads all of them.
    tables = [(run, {row["epoch"]: row for row in run.rows.to_dict("records")}) for run in group.runs]
    losses = ["train_loss", f"train_{group.metric}", "val_loss"]
    names = ["sparsity", PATTERN_SPARSITY, *losses, *metric_columns(group.runs[0].rows)]
    records = []
    for epoch in sorted({epoch for _, table in tables for epoch in table}):
        here = [(run, table[epoch]) for run, table in tables if epoch in table]
        record = _head(group, [run for run, _ in here]) | {"epoch": int(epoch)}
        record["target_sparsity"] = here[0][1].get("target_sparsity", math.nan)
        for name in names:
            record |= _columns(name, [row.get(name, math.nan) for _, row in here])
        records.append(record)
    return records


def summary(runs: Iterable[Run]) -> pd.DataFrame:
    """One row per group: what a table of results shows.

    Args:
        runs: any runs; only finished ones count where a group has any. `status` says which those `n` are,
            `unfinished` how many of the group are not finished.

    Returns:
        For the primary metric `dense_best` (the baseline of the same task, data and model), `best`, `final`, and
        `best_at_50` … `best_at_99` (best epoch at that sparsity of all prunable weights or above), each with `_n`,
        `_mean`, `_std`, `_low`, `_high`; as fractions `final_sparsity_mean`, `final_pattern_sparsity_mean` and the
        multiply-accumulates saved with closed weights left out (`mac_reduction_mean`) and after shrinking
        (`mac_reduction_shrunk_mean`); `seconds_mean` (sum over epochs), `examples_per_second_mean`.
    """
    groups = group_runs(runs)[0]
    return _frame([_summary(group, dense_baseline(group, groups)) for group in groups])


def _summary(group: Group, baseline: Group | None) -> dict:
    runs, column = group.ended, f"val_{group.metric}"
    record = _head(group, runs) | {"status": "finished" if runs[0].finished else "unfinished"}
    record["unfinished"] = sum(not run.finished for run in group.runs)
    record |= _columns("dense_best", [run.rows[column].max() for run in baseline.ended] if baseline else [])
    record |= _columns("best", [run.rows[column].max() for run in runs])
    record |= _columns("final", [run.rows[column].iloc[-1] for run in runs])
    for name in ("sparsity", PATTERN_SPARSITY):
        record[f"final_{name}_mean"] = statistics(run.rows[name].iloc[-1] for run in runs)["mean"]
    for name, part in (("mac_reduction", "open"), ("mac_reduction_shrunk", "shrunk")):
        record[f"{name}_mean"] = statistics(mac_reduction(run.metadata, part) for run in runs)["mean"]
    for level in LEVELS:
        record |= _columns(f"best_at_{level}", [best_at(run, level / 100) for run in runs])
    for name, total in (("seconds", True), ("examples_per_second", False)):
        values = [run.rows[name].sum() if total else run.rows[name].mean() for run in runs if name in run.rows]
        record[f"{name}_mean"] = statistics(values)["mean"]
    return record


def mac_reduction(metadata: dict, part: str, layer: int | None = None) -> float:
    """Multiply-accumulates saved against the dense model, as a fraction; NaN for runs that did not record them.

    Args:
        metadata: a run's metadata.
        part: `open` or `shrunk`, see `gated_bert.compression.model_statistics.mac_record`.
        layer: number of an encoder layer; None for the whole model.
    """
    record = metadata.get("macs_per_token")
    if not record:
        return math.nan
    left, dense = (
        each["total"] if layer is None else each["per_layer"][layer] for each in (record[part], record["dense"])
    )
    return 1 - left / dense


def best_at(run: Run, sparsity: float) -> float:
    """The best primary metric of the epochs that reached `sparsity` (a fraction); NaN if none did."""
    return float(run.rows.loc[run.rows["sparsity"] >= sparsity - REACHED, f"val_{run.metric}"].max())


def dense_baseline(group: Group, groups: Sequence[Group]) -> Group | None:
    """The baseline `group` is measured against: of its task, data and model; None where that is not one group.

    Of several it is the one that `group` agrees with in what tells them apart.
    """
    found = [other for other in groups if other.panel == group.panel and other.method == "baseline"]
    if len(found) > 1:
        own, others = dict(_identity(group.runs[0])), [dict(_identity(other.runs[0])) for other in found]
        names = _differing(others)
        found = [other for other, values in zip(found, others, strict=True)
                 if all(values.get(name) == own.get(name) for name in names)]  # fmt: skip
    return found[0] if len(found) == 1 else None


def write_comparison(folder: str | Path, runs: Sequence[Run]) -> list[Path]:
    """Writes `comparison.csv` (every epoch) and `comparison_summary.csv` (one row per method) into `folder`."""
    folder = Path(folder)
    return [
        write_csv_atomic(folder / "comparison.csv", comparison(runs)),
        write_csv_atomic(folder / "comparison_summary.csv", summary(runs)),
    ]
