"""What a command line, a script's defaults and the environment together ask for."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from gated_bert.checks import ConfigError, choose
from gated_bert.config import GatedBertConfig
from gated_bert.flags import JOB_FLAGS, SWEEP_FLAGS, FlagError, did_you_mean, hint, labels, record_fields
from gated_bert.methods import CRITERIA, METHODS
from gated_bert.presets import TASK_MAX_LEN
from gated_bert.tasks.task import GLUE_TASKS, TASKS

DEFAULTS = {
    "epochs": "25",
    "batch_size": "96",
    "learning_rate": "2e-5",
    "model_size": "base",
    "methods": "magnitude,movement,spt,baseline",
    "start_sparsity": "0.0",
    "end_sparsity": "0.99",
    "pruning_start_epoch": "4",
    "pruning_end_epoch": "23",
    "sparsity_steps": "auto",
    "spt_explore_per_layer": "false",
    "tasks": "sst2",
    "max_len": "128",
    "data": "hub",
    "output": "results",
    "seed": "42",
}
"""What holds where neither a flag nor a script says otherwise, as it would be typed."""

FILE_ENDINGS = (".tsv", ".csv", ".jsonl", ".tsv.gz", ".csv.gz", ".jsonl.gz")
LABELS = labels(SWEEP_FLAGS + JOB_FLAGS) | {
    "pruning_method": "-p/--pruning-methods",
    "task": "-t/--task",
    "rewind_step": "--rewind-step",
    "ticket_control": "--controls",
}


@dataclass(frozen=True)
class Settings:
    """A checked request for one or more runs.

    Attributes:
        values: fields of `GatedBertConfig` that are the same in every run.
        typed: names of the flags (and environment variables' fields) that a person set.
        methods: pruning methods, in order, without repeats.
        tasks: task names, in order, without repeats.
        seeds: seeds, in order, without repeats.
        output: folder of the results.
        launcher: what concerns the launcher alone (parallel, resume, output_mode, …).
        notes: sentences about values that were fitted to each other.
        labels: how messages call a field: by its flag, or by the file and the key that set it.
    """

    values: dict[str, object]
    typed: frozenset[str]
    methods: tuple[str, ...]
    tasks: tuple[str, ...]
    seeds: tuple[int, ...]
    output: Path
    launcher: dict[str, object] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=lambda: LABELS)

    def config(self, method: str, task: str, seed: int) -> GatedBertConfig:
        """The record of one run.

        Raises:
            FlagError: a value that the record refuses, named by its flag.
        """
        values = {**self.values, "pruning_method": method, "task": task, "seed": seed}
        if task in TASK_MAX_LEN and "max_len" not in self.typed:
            values.pop("max_len", None)
        ends = {name: values.pop(name) for name in ("start_sparsity", "end_sparsity") if name not in self.typed}
        try:
            # The method's own schedule holds until a person types -s or -f, whatever a script's defaults are.
            return GatedBertConfig(**values).replace(**ends)
        except ConfigError as error:
            name = "seeds" if error.field == "seed" and "seeds" in self.typed else error.field
            raise FlagError(error.describe(self.labels.get(name, name)) + hint(error.field, error.value)) from None


def read_settings(
    typed: dict[str, object],
    defaults: Mapping[str, str],
    environ: Mapping[str, str],
    labels: Mapping[str, str] = LABELS,
) -> Settings:
    """Merges what was typed over a script's defaults over `DEFAULTS`, and checks what no single record can.

    Args:
        typed: what `flags.read_flags` found.
        defaults: name → text, as `flags.read_assignments` reads them.
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
    values["sparsity_steps"] = _steps(values["sparsity_steps"], labels)
    notes = _fit_pruning_window(values, names)
    if environ.get("BENCHMARK_EPOCHS"):
        notes = (f"BENCHMARK_EPOCHS sets the epochs to {values['epochs']}", *notes)
    _check_sources(values, environ, labels)
    _check_parallel(values)
    methods, tasks, seeds = _methods(values, names, labels), _tasks(values, names, labels), _seeds(values)
    fields = record_fields() - {"seed"}
    return Settings(
        values={name: value for name, value in values.items() if name in fields},
        typed=frozenset(names),
        methods=methods,
        tasks=tasks,
        seeds=seeds,
        output=Path(values["output"]).expanduser(),
        launcher={name: value for name, value in values.items() if name not in fields},
        notes=notes,
        labels=labels,
    )


def verbosity(environ: Mapping[str, str]) -> int:
    """VERBOSE: 0 results only, 1 progress, 2 every mask update and the library's own logs."""
    value = environ.get("VERBOSE") or "1"
    if value not in ("0", "1", "2"):
        raise FlagError.refused("VERBOSE", value, "0 (results only), 1 (progress), 2 (everything)")
    return int(value)


def _from_texts(texts: Mapping[str, str]) -> dict[str, object]:
    flags = {flag.name: flag for flag in SWEEP_FLAGS}
    for name in texts:
        if name not in flags:
            raise FlagError(
                f"--defaults: {name!r} is refused; allowed: {', '.join(DEFAULTS)}{did_you_mean(name, flags)}"
            )
    return {name: flags[name].read([text]) for name, text in texts.items()}


def _environment_epochs(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise FlagError.refused("BENCHMARK_EPOCHS", text, "a whole number from 1 up")
    return int(text)


def _steps(words: tuple[str, ...], labels: Mapping[str, str]) -> tuple[float, ...] | str:
    if words == ("auto",):
        return "auto"
    try:
        return tuple(float(word) for word in words)
    except ValueError:
        allowed = "auto, or percentages from 0 to 100 that never fall, e.g. 10 25 50"
        raise FlagError.refused(labels["sparsity_steps"], " ".join(words), allowed) from None


def _fit_pruning_window(values: dict, typed: set[str]) -> tuple[str, ...]:
    """Fits a pruning start and end that nobody typed to the epochs; what was typed stays, and may be refused later."""
    epochs, start, end = (values[name] for name in ("epochs", "pruning_start_epoch", "pruning_end_epoch"))
    if not all(isinstance(value, int) and value > 0 for value in (epochs, start, end)):
        return ()
    if "pruning_start_epoch" in typed and "pruning_end_epoch" not in typed:
        end = max(start, end)
    end = min(end, epochs)
    if "pruning_start_epoch" not in typed:
        if start >= end:
            start = 1
        steps = values["sparsity_steps"]
        if isinstance(steps, tuple):
            start = min(start, max(1, epochs - len(steps) + 1))
    notes = []
    if end != values["pruning_end_epoch"]:
        notes.append(f"pruning ends at epoch {end} instead of {values['pruning_end_epoch']}, to fit -e {epochs}")
    if start != values["pruning_start_epoch"]:
        before = values["pruning_start_epoch"]
        notes.append(f"pruning starts at epoch {start} instead of {before}, to fit -e {epochs}")
    values["pruning_start_epoch"], values["pruning_end_epoch"] = start, end
    return tuple(notes)


def _check_sources(values: dict, environ: Mapping[str, str], labels: Mapping[str, str]):
    """Refuses files and folders that are not there; makes the others absolute, so that a run goes on from anywhere."""
    data = values["data"]
    if data not in ("hub", "embedded"):
        values["data"] = str(_data_path(data, labels["data"]))
    place = values.get("checkpoint_dir")
    if place and "://" not in place:
        path = Path(place).expanduser()
        if path.exists() and not path.is_dir():
            allowed = "a folder, or the URL of a place that fsspec knows, e.g. s3://bucket/folder"
            raise FlagError.refused(labels["checkpoint_dir"], place, allowed)
        values["checkpoint_dir"] = str(path.resolve())
    if values.get("vocab") is not None:
        path = Path(values["vocab"]).expanduser()
        if not path.is_file():
            raise FlagError.refused(labels["vocab"], values["vocab"], "an existing vocab.txt or tokenizer.json")
        values["vocab"] = str(path.resolve())
    if values.get("pretrained") is not None:
        values["pretrained"] = _pretrained(values["pretrained"], labels["pretrained"])
    folder = environ.get("GATED_BERT_DATA")
    if folder and not Path(folder).expanduser().is_dir():
        raise FlagError.refused("GATED_BERT_DATA", folder, "an existing folder")
    backend = environ.get("KERAS_BACKEND")
    if backend:
        try:
            choose("KERAS_BACKEND", backend, ("tensorflow", "jax"))
        except ConfigError as error:
            raise FlagError(str(error)) from None


def _check_parallel(values: dict):
    most = values.get("max_parallel_jobs", 1)
    if not isinstance(most, int) or most < 1:
        raise FlagError.refused(LABELS["max_parallel_jobs"], most, "a whole number from 1 up")


def _data_path(data: str, label: str) -> Path:
    path = Path(data).expanduser()
    if not path.exists() or not (path.is_dir() or path.name.lower().endswith(FILE_ENDINGS)):
        allowed = "hub, embedded, an existing folder, or a .tsv, .csv or .jsonl file"
        raise FlagError.refused(label, data, allowed + did_you_mean(data, ("hub", "embedded")))
    return path.resolve()


def _pretrained(name: str, label: str) -> str:
    path = Path(name).expanduser()
    if path.is_dir():
        return str(path.resolve())
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
        own = re.sub(r"[^a-z0-9]+", "_", Path(values["data"]).name.split(".")[0].lower()).strip("_") or "own"
        return tuple(name if name not in (*known, "all") else own for name in names) or (own,)
    tasks = []
    for task in values["tasks"]:
        if task not in (*known, "all"):
            raise FlagError.refused(labels["tasks"], task, ", ".join(known) + ", all" + did_you_mean(task, known))
        tasks += GLUE_TASKS if task == "all" else (task,)
    return tuple(dict.fromkeys(tasks))


def _is_own_data(values: dict, typed: set[str]) -> bool:
    path = Path(values["data"])
    if values["data"] in ("hub", "embedded"):
        return False
    has_train = any((path / f"train{ending}").is_file() for ending in FILE_ENDINGS)
    unnamed = "tasks" not in typed or values["tasks"][0] not in TASKS
    return path.is_file() or "text_column" in typed or (has_train and unnamed)


def _seeds(values: dict) -> tuple[int, ...]:
    if "seeds" not in values:
        return (values["seed"],)
    seeds = tuple(int(word) if word.isdecimal() else word for word in values["seeds"])
    return tuple(dict.fromkeys(seeds))


def data_label(environ: Mapping[str, str], data: str) -> str:
    """Where the data comes from, in the words of the configuration table."""
    folder = environ.get("GATED_BERT_DATA")
    return f"{data} (GATED_BERT_DATA={os.path.expanduser(folder)})" if folder and data == "hub" else data
