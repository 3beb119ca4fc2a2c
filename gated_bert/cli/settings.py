"""What a command line, a script's defaults and the environment together ask for."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gated_bert.config.distill_options import SELF
from gated_bert.config.flag_table import DEFAULTS, LABELS, SWEEP_FLAGS, record_fields
from gated_bert.config.launcher_options import LauncherOptions
from gated_bert.config.methods import METHODS
from gated_bert.config.parts import CRITERIA, calibrated, options_of_others
from gated_bert.config.presets import PRETRAINED_RATE
from gated_bert.config.pruning_window import STEPS_INSTEAD, closes_at_once
from gated_bert.config.recipes import OF_PRETRAINED, RECIPES, decided_elsewhere, displaces, recipe_values
from gated_bert.experiments.sweeps.request import Settings
from gated_bert.support.checks import MOST, ConfigError, FlagError, as_number, did_you_mean
from gated_bert.support.environ import check_backend
from gated_bert.support.paths import user_path
from gated_bert.tasks.data_source import FILE_ENDINGS, find_data, folder_task
from gated_bert.tasks.task import EMBEDDED_ONLY, GLUE_TASKS, OWN_DATA_ONLY, TASKS, own_task_name


def read_settings(
    typed: dict[str, Any],
    defaults: Mapping[str, str],
    environ: Mapping[str, str],
    labels: Mapping[str, str] = LABELS,
) -> Settings:
    """Merges what was typed over a script's defaults over `DEFAULTS`, and checks what no single record can.

    Args:
        typed: what `parsing.read_flags` found.
        defaults: name → text, as `parsing.read_assignments` reads them.
        environ: the environment.
        labels: how messages call what was typed.

    Raises:
        FlagError: a refused value.
    """
    values = _from_texts({**DEFAULTS, **defaults}) | typed
    names = set(typed)
    if environ.get("BENCHMARK_EPOCHS"):
        values["epochs"] = _environment_epochs(environ["BENCHMARK_EPOCHS"])
        names.add("epochs")
    if "learning_rate" not in names and values["learning_rate"] == PRETRAINED_RATE:
        # The record knows whether there are pretrained weights; what a script's own default says else stays.
        values["learning_rate"] = None
    notes = _take_recipe(values, names, labels)
    values["sparsity_steps"] = _steps(values["sparsity_steps"], labels)
    _check_said_twice(values, names, labels)
    notes += _fit_pruning_window(values, names)
    if environ.get("BENCHMARK_EPOCHS"):
        notes = (f"BENCHMARK_EPOCHS sets the epochs to {values['epochs']}", *notes)
    _check_sources(values, environ, labels)
    notes += _take_task_of_folder(values, names, labels)
    methods, tasks, seeds = _methods(values, names, labels), _tasks(values, names, labels), _seeds(values)
    notes += _calibration_notes(values, methods, labels) + _unread_notes(values, names, methods, labels)
    fields = record_fields() - {"seed"}
    return Settings(
        values={name: value for name, value in values.items() if name in fields},
        typed=frozenset(names),
        methods=methods,
        tasks=tasks,
        seeds=seeds,
        output=user_path(values["output"]),
        launcher=_launcher(values, labels),
        notes=notes,
        labels=labels,
    )


def _take_recipe(values: dict, typed: set[str], labels: Mapping[str, str]) -> tuple[str, ...]:
    """Takes what a recipe sets and nobody typed, for what is read here; a note says what is not as published."""
    name = values.get("recipe")
    if name is None:
        return ()
    try:
        found = recipe_values({each: values[each] for each in typed}, values)
    except ConfigError as error:
        raise FlagError(error.describe(labels.get(error.field, error.field))) from None
    method = found.pop("pruning_method", None)
    if method is not None and not {"methods", "criterion"} & typed:
        values["methods"] = (method,)
    values |= found
    recipe = RECIPES[name]
    notes = [recipe.missing] if recipe.missing else []
    left_out = sorted(OF_PRETRAINED & recipe.values.keys() - typed)
    if left_out and values.get("pretrained") is None:
        notes.append(f"without -pt its {' and '.join(left_out).replace('_', ' ')}, of pretrained weights, are left out")
    return tuple(f"recipe {name}: {note}" for note in notes)


def _from_texts(texts: Mapping[str, str]) -> dict[str, Any]:
    flags = {flag.name: flag for flag in SWEEP_FLAGS}
    for name in texts:
        if name not in flags:
            raise FlagError(
                f"--defaults: {name!r} is refused; allowed: {', '.join(DEFAULTS)}{did_you_mean(name, flags)}"
            )
    return {name: flags[name].read([text]) for name, text in texts.items()}


def _environment_epochs(text: str) -> int:
    epochs = as_number(text, int)
    if not isinstance(epochs, int) or not 1 <= epochs <= MOST:
        raise FlagError.refused("BENCHMARK_EPOCHS", text, f"a whole number from 1 to {MOST}")
    return epochs


def _steps(words: tuple[str, ...], labels: Mapping[str, str]) -> tuple[float, ...] | str:
    if words == ("auto",):
        return "auto"
    try:
        return tuple(float(word) for word in words)
    except ValueError:
        allowed = "auto, or percentages from 0 to 100 that never fall, e.g. 10 25 50"
        raise FlagError.refused(labels["sparsity_steps"], " ".join(words), allowed) from None


def _check_said_twice(values: dict, typed: set[str], labels: Mapping[str, str]):
    """Refuses flags that another one would overrule, and that say otherwise."""
    steps, said = values["sparsity_steps"], []
    if "sparsity_steps" in typed and isinstance(steps, tuple):
        # They say both the schedule and how much is removed.
        ends = {"start_sparsity": steps[0] / 100, "end_sparsity": steps[-1] / 100, "schedule": "steps"}
        said += [(name, value, "sparsity_steps") for name, value in ends.items()]
    if "schedule" in typed:
        said.append(("movement_schedule", values["schedule"], "schedule"))
    for name, value, by in said:
        if name in typed and values[name] != value:
            raise FlagError.refused(labels[name], values[name], f"{value}, or without {labels[by]}, which says it")
    if {"seed", "seeds"} <= typed:
        raise FlagError(f"{labels['seed']}: not together with {labels['seeds']}, which says all seeds")


def _fit_pruning_window(values: dict, typed: set[str]) -> tuple[str, ...]:
    """Fits a pruning start and end that nobody typed to the epochs; what was typed stays, and may be refused later."""
    epochs, start, end = (values[name] for name in ("epochs", "pruning_start_epoch", "pruning_end_epoch"))
    if decided_elsewhere(values, typed) & {"pruning_start_epoch", "pruning_end_epoch"}:
        return ()
    if epochs == 0:
        # What nobody typed is what the record says of a run without training.
        for name in STEPS_INSTEAD.keys() - typed:
            del values[name]
        return ()
    if not all(isinstance(value, int) and value > 0 for value in (epochs, start, end)):
        return ()
    if "pruning_start_epoch" in typed and "pruning_end_epoch" not in typed:
        end = max(start, end)
    end = min(end, epochs)
    if "pruning_start_epoch" not in typed:
        first, steps = min(_first_epoch(values), end), values["sparsity_steps"]
        start = max(start, first) if start < end else first
        if isinstance(steps, tuple):
            start = min(start, max(first, epochs - len(steps) + 1))
    notes = []
    if end != values["pruning_end_epoch"]:
        notes.append(f"pruning ends at epoch {end} instead of {values['pruning_end_epoch']}, to fit -e {epochs}")
    if start != values["pruning_start_epoch"]:
        before = values["pruning_start_epoch"]
        notes.append(f"pruning starts at epoch {start} instead of {before}, to fit -e {epochs}")
    values["pruning_start_epoch"], values["pruning_end_epoch"] = start, end
    # Dense models have no window to be told of.
    return () if set(values["methods"]) <= {"baseline", "none"} else tuple(notes)


def _first_epoch(values: Mapping[str, Any]) -> int:
    """The first epoch in which all methods can close something."""
    names = [values.get("criterion"), *(METHODS[name].criterion for name in values["methods"] if name in METHODS)]
    options = [CRITERIA[name].options for name in names if name in CRITERIA]
    start = values.get("start_sparsity")
    start = start if isinstance(start, int | float) else 0.0
    schedule = "steps" if isinstance(values["sparsity_steps"], tuple) else values.get("schedule")
    at_once = closes_at_once(schedule, start)
    return max((each.first_epoch(at_once) for each in options), default=1)


def _check_sources(values: dict, environ: Mapping[str, str], labels: Mapping[str, str]):
    """Refuses files and folders that are not there; makes the others absolute, so that a run goes on from anywhere."""
    values["data"] = find_data(values["data"], labels["data"])
    place = values.get("checkpoint_dir")
    if place and "://" not in place:
        path = user_path(place)
        if path.exists() and not path.is_dir():
            allowed = "a folder, or the URL of a place that fsspec knows, e.g. s3://bucket/folder"
            raise FlagError.refused(labels["checkpoint_dir"], place, allowed)
        values["checkpoint_dir"] = str(path.resolve())
    if values.get("vocab") is not None:
        path = user_path(values["vocab"])
        if not path.is_file() and not any((path / name).is_file() for name in ("tokenizer.json", "vocab.txt")):
            allowed = "an existing vocab.txt or tokenizer.json, or a folder with one"
            raise FlagError.refused(labels["vocab"], values["vocab"], allowed)
        # Links stay: the file they lead to, as in the hub's cache, may lie apart from what belongs to it.
        values["vocab"] = os.path.abspath(path)
    if values.get("pretrained") is not None:
        values["pretrained"] = _pretrained(values["pretrained"], labels["pretrained"])
    if values.get("teacher") not in (None, SELF):
        path = user_path(values["teacher"])
        if not path.is_dir():
            allowed = "an existing folder of a trained model, or of its run; in a sweep also self"
            raise FlagError.refused(labels["teacher"], values["teacher"], allowed)
        values["teacher"] = str(path.resolve())
    folder = environ.get("GATED_BERT_DATA")
    if folder and not user_path(folder).is_dir():
        raise FlagError.refused("GATED_BERT_DATA", folder, "an existing folder")
    check_backend(environ)


def _calibration_notes(values: dict, methods: tuple[str, ...], labels: Mapping[str, str]) -> tuple[str, ...]:
    """Which methods do not look at a file of texts without labels; one that none looks at is refused."""
    if values.get("calibration_file") is None:
        return ()
    of = {method: values.get("criterion") or METHODS[method].criterion for method in methods}
    readers = calibrated()
    if not set(of.values()) & set(readers):
        allowed = f"with {', '.join(readers)}, which look at texts without labels; {', '.join(methods)} takes no file"
        raise FlagError.refused(labels["calibration_file"], values["calibration_file"], allowed)
    others = [method for method, criterion in of.items() if criterion not in (*readers, None)]
    return tuple(f"{labels['calibration_file']}: {method} does not look at it" for method in others)


def _unread_notes(
    values: dict, typed: set[str], methods: tuple[str, ...], labels: Mapping[str, str]
) -> tuple[str, ...]:
    """Which options of criteria were typed that no method has."""
    criteria = [values.get("criterion") or METHODS[method].criterion for method in methods]
    others = [options_of_others(criterion) for criterion in criteria if criterion is not None]
    unread = frozenset.intersection(*others) & typed if others else ()
    return tuple(f"{labels[name]} is no option of {', '.join(methods)}, and changes nothing" for name in sorted(unread)
                 if values.get("recipe") is None or not displaces(name))  # fmt: skip


def _launcher(values: dict, labels: Mapping[str, str]) -> LauncherOptions:
    try:
        return LauncherOptions.among(values)
    except ConfigError as error:
        raise FlagError(error.describe(labels.get(error.field, error.field))) from None


def _pretrained(name: str, label: str) -> str:
    path = user_path(name)
    if path.is_dir():
        return os.path.abspath(path)
    is_id = re.fullmatch(r"[A-Za-z0-9][\w.\-]*(/[\w.\-]+)?", name)
    if not is_id or path.is_file():
        raise FlagError.refused(label, name, "a Hugging Face id (owner/name) or an existing folder")
    return name


def _methods(values: dict, typed: set[str], labels: Mapping[str, str]) -> tuple[str, ...]:
    if values.get("criterion") is None:
        methods = ("baseline" if method == "none" else method for method in values["methods"])
        return tuple(dict.fromkeys(methods))
    label = labels["criterion"]
    if "methods" in typed:
        raise FlagError(f"{label}: names one point instead of {labels['methods']}; give one of the two flags")
    if values["criterion"] not in CRITERIA:
        allowed = ", ".join(CRITERIA) + did_you_mean(values["criterion"], CRITERIA)
        raise FlagError.refused(label, values["criterion"], allowed)
    return (values["criterion"] if values["criterion"] in METHODS else "magnitude",)


def _tasks(values: dict, typed: set[str], labels: Mapping[str, str]) -> tuple[str, ...]:
    known = tuple(TASKS)
    if _is_own_data(values, typed):
        names = values["tasks"] if "tasks" in typed else ()
        if len(names) > 1:
            raise FlagError.refused(labels["tasks"], " ".join(names), "one name: a file of your own holds one task")
        own = own_task_name(Path(values["data"]))
        return tuple(name if name not in (*known, "all") else own for name in names) or (own,)
    for name in ("text_column", "text_pair_column", "label_column", "task_type"):
        # Other sources are read before any job starts, and refused then.
        if values["data"] == "embedded" and values.get(name) is not None:
            raise FlagError.refused(labels[name], values[name], OWN_DATA_ONLY)
    tasks: list[str] = []
    for task in values["tasks"]:
        if task not in (*known, "all"):
            raise FlagError.refused(labels["tasks"], task, ", ".join(known) + ", all" + did_you_mean(task, known))
        tasks += GLUE_TASKS if task == "all" else (task,)
    return tuple(dict.fromkeys(tasks))


def _take_task_of_folder(values: dict, typed: set[str], labels: Mapping[str, str]) -> tuple[str, ...]:
    """Where the data is the official folder of one task, that task is meant; a note says so."""
    task = None if "text_column" in typed else folder_task(values["data"])
    if task is None or ("tasks" in typed and not set(values["tasks"]) & {*TASKS, "all"}):
        return ()
    if "tasks" in typed:
        others = [name for name in values["tasks"] if name != task]
        if others:
            allowed = f"{task}, whose official folder {values['data']} is; give the folder above it for other tasks"
            raise FlagError.refused(labels["tasks"], " ".join(values["tasks"]), allowed)
        return ()
    values["tasks"] = (task,)
    typed.add("tasks")
    return (f"{values['data']} is the official folder of {task}: that task is meant",)


def _is_own_data(values: dict, typed: set[str]) -> bool:
    path = Path(values["data"])
    if values["data"] in ("hub", "embedded"):
        return False
    has_train = any((path / f"train{ending}").is_file() for ending in FILE_ENDINGS)
    unnamed = "tasks" not in typed or values["tasks"][0] not in TASKS or values["tasks"][0] in EMBEDDED_ONLY
    return path.is_file() or "text_column" in typed or (has_train and unnamed)


def _seeds(values: dict) -> tuple[int, ...]:
    if "seeds" not in values:
        return (values["seed"],)
    seeds: tuple[Any, ...] = tuple(as_number(word, int) if word.isdecimal() else word for word in values["seeds"])
    return tuple(dict.fromkeys(seeds))


