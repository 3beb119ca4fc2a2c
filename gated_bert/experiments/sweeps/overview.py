"""What the launcher prints before and after: the configuration, the jobs, the results."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence

from gated_bert.config import GatedBertConfig
from gated_bert.config.distill_options import DISTILL_FIELDS
from gated_bert.config.flag_table import PRUNING_FIELDS
from gated_bert.config.parts import options_of_others
from gated_bert.config.presets import PRETRAINED_RATE
from gated_bert.config.recipes import decided_elsewhere
from gated_bert.experiments.runs.run_state import newest_metadata
from gated_bert.experiments.sweeps.jobs import Job, Plan
from gated_bert.support.environ import data_label
from gated_bert.support.machine import gpu_ids, has_bfloat16
from gated_bert.support.text_table import aligned

_ROWS = (
    ("recipe", "recipe"), ("methods", "methods"), ("tasks", "tasks"), ("data", "data"), ("model size", "model_size"),
    ("pretrained weights", "pretrained"), ("epochs", "epochs"), ("batch size", "batch_size"),
    ("learning rate", "learning_rate"), ("optimizer", "optimizer"), ("longest text", "max_len"), ("seeds", "seeds"),
    ("start sparsity", "start_sparsity"), ("end sparsity", "end_sparsity"), ("pruning epochs", "window"),
    ("schedule", "schedule"), ("pattern", "pattern"), ("scope", "scope"), ("precision", "precision"),
)  # fmt: skip


def configuration_rows(plan: Plan) -> list[tuple[str, str]]:
    """The configuration as (name, value), values that differ between methods side by side."""
    rows = []
    for title, name in _ROWS:
        value = _value(plan, name)
        if value is not None:
            rows.append((title, value))
    # What a recipe sets for a criterion that is not here says nothing.
    others = frozenset.intersection(*(options_of_others(job.config.criterion) for job in plan.jobs))
    shown = {name for _, name in _ROWS} | (others - plan.settings.typed)
    asked = plan.settings.typed | decided_elsewhere(plan.settings.values, ())
    for name in sorted(asked & plan.settings.values.keys() - shown):
        if name not in ("pruning_start_epoch", "pruning_end_epoch", "sparsity_steps"):
            rows.append((name.replace("_", " "), ", ".join(dict.fromkeys(map(_text, _values(plan, name))))))
    return [*rows, ("output", str(plan.output))]


def _value(plan: Plan, name: str) -> str | None:
    settings, first = plan.settings, plan.jobs[0].config
    pruned = [job.config for job in plan.jobs if job.config.enable_pruning]
    if name in ("methods", "tasks", "seeds"):
        return _text(getattr(settings, name))
    if name == "data":
        return data_label(os.environ, first.data)
    if name == "model_size" and first.pretrained is not None:
        return None
    if name in ("start_sparsity", "end_sparsity"):
        return ", ".join(dict.fromkeys(f"{_ends(config)[name]:g} %" for config in pruned)) or None
    if name == "window":
        windows = dict.fromkeys(f"{config.pruning_start_epoch} to {config.pruning_end_epoch}" for config in pruned)
        return ", ".join(windows) or None
    if name in ("schedule", "pattern", "scope"):
        return _per_method(list(dict.fromkeys((config.pruning_method, _schedule(config, name)) for config in pruned)))
    values = _values(plan, name)
    if name == "learning_rate" and "learning_rate" not in settings.typed and first.pretrained is None:
        return f"{_text(values)} (from scratch; {PRETRAINED_RATE:g} with pretrained weights)"
    if name == "precision":
        return precision_text(plan)
    return None if values == (None,) else _text(values if len(values) > 1 else values[0])


def precision_text(plan: Plan, flag: str = "--precision") -> str:
    """What the jobs compute in, and, where this processor has a faster precision, the `flag` that takes it."""
    values = _values(plan, "precision")
    if values == ("float32",) and _could_be_faster(plan):
        return f"float32 (this processor computes in bfloat16, too: {flag} auto is faster)"
    return ", ".join(values)


def _ends(config: GatedBertConfig) -> dict[str, float]:
    """First and last sparsity, per cent: those of the steps where these are given."""
    steps = config.sparsity_steps
    if isinstance(steps, tuple):
        return {"start_sparsity": steps[0], "end_sparsity": steps[-1]}
    return {name: 100 * getattr(config, name) for name in ("start_sparsity", "end_sparsity")}


def _could_be_faster(plan: Plan) -> bool:
    """Whether the jobs run on this machine's processor, which has a faster precision for what they compute."""
    launcher = plan.settings.launcher
    here = launcher.backend != "ray" and not launcher.slurm and os.environ.get("KERAS_BACKEND") != "jax"
    compiled = any(job.config.jit_compile for job in plan.jobs)
    return here and not compiled and not gpu_ids() and has_bfloat16()


def _values(plan: Plan, name: str) -> tuple:
    """The distinct values of a field; where some runs prune or have a teacher and some do not, those of the former."""
    has = "enable_pruning" if name in PRUNING_FIELDS else "teacher" if name in DISTILL_FIELDS else None
    some = [job for job in plan.jobs if has and getattr(job.config, has)]
    return tuple(dict.fromkeys(getattr(job.asked, name) for job in some or plan.jobs))


def _schedule(config, name: str) -> str:
    value = getattr(config, name)
    steps = config.sparsity_steps
    return " ".join(f"{step:g}" for step in steps) + " %" if value == "steps" and name == "schedule" else value


def _per_method(pairs: Sequence[tuple[str, str]]) -> str | None:
    values = dict.fromkeys(value for _, value in pairs)
    if len(values) <= 1:
        return next(iter(values), None)
    return ", ".join(f"{value} ({', '.join(method for method, other in pairs if other == value)})" for value in values)


def _text(value: object) -> str:
    return ", ".join(f"{item}" for item in value) if isinstance(value, tuple) else f"{value}"


def configuration_text(plan: Plan, extra: Iterable[tuple[str, str]] = ()) -> str:
    """The configuration as an aligned table, the notes below it.

    Args:
        plan: the jobs.
        extra: further rows (name, value); one of a name that is there replaces it, and an empty one leaves it out.
    """
    rows = {name: value for name, value in (dict(configuration_rows(plan)) | dict(extra)).items() if value}
    width = max(map(len, rows))
    lines = ["Configuration", *(f"  {name:<{width}}  {value}" for name, value in rows.items())]
    return "\n".join(lines + [f"note: {note}" for note in plan.settings.notes])


def result_table(rows: Sequence[tuple[Job, str, float | None]]) -> str:
    """One line per job: its metric at the end and at its best, the sparsity reached, the time it took.

    Args:
        rows: job, how it ended, seconds it ran in this sweep (`None` for one that did not).
    """
    head = ("job", "state", "metric", "final", "best", "sparsity", "time")
    lines = [head, *(_result(job, state, seconds) for job, state, seconds in rows)]
    return aligned(lines, left=len(head))


def _result(job: Job, state: str, seconds: float | None) -> tuple[str, ...]:
    metadata = newest_metadata(job.folder)
    final, best = (found if isinstance(found := metadata.get(name), dict) else {} for name in ("final", "best"))
    name = next((key for key in final if key.startswith("val_") and key != "val_loss"), None)
    cells = [f"{row[name]:.4f}" if name and isinstance(row.get(name), float) else "–" for row in (final, best)]
    closed = [f"{100 * final[key]:.1f} %" for key in ("sparsity", "pattern_sparsity") if final.get(key) is not None]
    # One number where the pattern is made of all prunable matrices.
    sparsity = " of all, ".join(dict.fromkeys(closed)) + " of the pattern's" * (len(set(closed)) > 1)
    took = metadata.get("seconds") if seconds is None else seconds
    return (job.name, state, (name or "–").removeprefix("val_"), *cells,
            sparsity or "–", "–" if took is None else clock(took))  # fmt: skip


def clock(seconds: float) -> str:
    """Seconds as h:mm:ss."""
    minutes, rest = divmod(max(0, round(seconds)), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"
