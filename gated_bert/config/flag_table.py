"""The flags of a run: one table, read with the standard library alone so that an answer never waits for a framework."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from gated_bert.config import GatedBertConfig
from gated_bert.config.criterion_options import CRITERION_SECTIONS
from gated_bert.config.launcher_options import LauncherOptions
from gated_bert.config.methods import METHOD_WORDS, METHODS
from gated_bert.config.option import DATA, MODEL, OUTPUT, PRUNING, RUN, TRAINING, Declared, declared_fields
from gated_bert.config.presets import END_SPARSITY, PRETRAINED_RATE, START_SPARSITY, usual_max_len
from gated_bert.config.pruning_options import PruningOptions
from gated_bert.support.checks import MOST, ConfigError, FlagError, as_number, did_you_mean, whole
from gated_bert.support.paths import user_path

SWITCH = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
"""Words of a flag that is true or false."""


@dataclass(frozen=True)
class Flag:
    """One flag.

    Attributes:
        options: its spellings, short one first.
        name: the field of `GatedBertConfig` or of the launcher that it sets.
        kind: "int", "float", "text", "list" (commas or spaces), "files" (the flag again for each), "assignments"
            (name=value), "size" (32x16, or 32 for 32x32), "switch" (true or false, alone: true) or "alone".
        help: what it sets; shown by `-h`.
        names: what `-h` lists after that.
        group: the heading in `-h`.
        metavar: what stands for the value in `-h`.
        choices: all that is allowed, where that is a fixed list no record checks.
        nothing: the word that stands for None, e.g. "none".
        low, high: the range of a whole number that no record checks.
    """

    options: tuple[str, ...]
    name: str
    kind: str
    help: str
    group: str
    metavar: str = "N"
    choices: Collection[str] = ()
    nothing: str | None = None
    low: int | None = None
    high: int = MOST
    names: Collection[str] = ()

    @property
    def text(self) -> str:
        """The help with the names as they are now: plug-ins add to them."""
        return ": ".join(part for part in (self.help, ", ".join(self.names)) if part)

    @property
    def label(self) -> str:
        """The spellings as messages show them: `-e/--epochs`."""
        return "/".join(self.options)

    def read(self, words: list[str]) -> Any:
        """The value of `words`; what is no number stays text, for the record to refuse and say what is allowed.

        Raises:
            FlagError: a value that the flag itself refuses, by its choices or its range.
        """
        value: Any
        if self.kind == "list":
            value = tuple(item for word in words for item in word.replace(",", " ").split())
        elif self.kind == "files":
            value = tuple(str(user_path(word).resolve()) for word in words if word)
        elif self.kind == "int":
            value = as_number(words[0], int)
        elif self.kind == "size":
            sides = [as_number(side, int) for side in words[0].lower().split("x")]
            value = tuple(sides * 2 if len(sides) == 1 else sides)
        elif self.kind == "float":
            value = None if words[0] == self.nothing else as_number(words[0], float)
        elif self.kind == "assignments":
            value = dict(_assignment(self, item) for word in words for item in word.replace(",", " ").split())
        elif self.kind == "switch":
            value = _switch(self, words[0] if words else "true")
        else:
            value = None if words[0] == self.nothing else words[0]
        for item in value if self.choices and self.kind == "list" else ():
            _choose(self, item)
        if self.choices and self.kind == "text":
            _choose(self, value)
        self.check(value)
        return value

    def check(self, value: object) -> None:
        """Refuses a value, typed or by default, that is no whole number in the flag's range, where it has one.

        Raises:
            FlagError: names the flag, the value and what is allowed.
        """
        if self.low is None:
            return
        try:
            whole(self.label, value, self.low, self.high)
        except ConfigError as error:
            raise FlagError(str(error)) from None


def _switch(flag: Flag, word: str) -> bool:
    if word.lower() not in SWITCH:
        raise FlagError.refused(flag.label, word, "true, false")
    return SWITCH[word.lower()]


def _assignment(flag: Flag, word: str) -> tuple[str, str]:
    name, equals, value = word.partition("=")
    if not (name and equals and value):
        raise FlagError.refused(flag.label, word, "name=value, e.g. strength=0.5")
    # What kind of value it is, the criterion says whose option it is.
    return name, value


def read_as(kind: type, value: object) -> object:
    """What a text, or a 0 or 1 of a file, stands for where a value of `kind` is wanted; others stay as they are."""
    if kind is bool and (isinstance(value, str) or value in (0, 1)):
        return SWITCH.get(str(value).lower(), value) if not isinstance(value, bool) else value
    if not isinstance(value, str) or kind not in (int, float):
        return value
    whole = as_number(value, int)
    return as_number(value, kind) if isinstance(whole, str) else whole


def _choose(flag: Flag, word: str):
    if word not in flag.choices:
        raise FlagError.refused(flag.label, word, ", ".join(flag.choices) + did_you_mean(word, flag.choices))


_KINDS = {int: "int", float: "float", bool: "switch", str: "text"}
_METAVARS = {"switch": "true|false", "text": "NAME"}
_GROUPS = (RUN, DATA, MODEL, TRAINING, PRUNING, OUTPUT)


def flag_of(declared: Declared, checks: bool = False) -> Flag:
    """The flag of a declared field.

    Args:
        declared: the field.
        checks: whether the flag refuses what the declaration does; else that is left to the record.
    """
    kind = _KINDS.get(declared.kind, "assignments")
    if declared.several:
        kind = "size" if declared.kind is int else "files" if declared.option.metavar == "FILE" else "list"
    about = declared.option
    kind = "alone" if about.alone else kind
    own: dict[str, Any] = {"choices": about.choices, "low": about.low} if checks else {}
    return Flag(about.flags, declared.name, kind, about.help, about.group,
                about.metavar or _METAVARS.get(kind, "N"), nothing=about.nothing, names=about.names, **own)  # fmt: skip


def flags_of(*records: type) -> tuple[Flag, ...]:
    """The flags of the declared fields of records, in the order of the headings."""
    declared = [each for record in records for each in declared_fields(record).values() if each.option.flags]
    return tuple(flag_of(each) for group in _GROUPS for each in declared if each.option.group == group)


_CHOSEN = (
    Flag(("-p", "--pruning-methods"), "methods", "list", "", RUN, "METHOD", METHOD_WORDS, names=METHODS),
    Flag(("-t", "--task"), "tasks", "list", "one or more tasks, or all (those of GLUE)", RUN, "TASK"),
)
LAUNCHER_FLAGS = {name: flag_of(declared, checks=True) for name, declared in declared_fields(LauncherOptions).items()}
"""Name of a field → its flag; which of them a command has, it says itself."""
RUN_FLAGS = _CHOSEN + flags_of(GatedBertConfig) + (
    Flag(("-o", "--output-dir"), "output", "text", "folder of the results", OUTPUT, "FOLDER"),
    LAUNCHER_FLAGS["resume"],
)  # fmt: skip

SWEEP_FLAGS = RUN_FLAGS + (
    Flag(("--seeds",), "seeds", "list", "several seeds: 1,2,3", OUTPUT, "SEED"),
    *(LAUNCHER_FLAGS[name] for name in ("parallel", "max_parallel_jobs", "output_mode")),
    Flag(("--stages",), "stages", "list", "prune in stages, each from the last weights: 25,50,75", OUTPUT, "PERCENT"),
    Flag(("--mode",), "mode", "text", "of stages: pretrain (dense models) or prune (from them, or from -pt)", OUTPUT,
         "MODE", ("pretrain", "prune")),
    Flag(("--device",), "device", "int", "the number of the GPU that stages run on", OUTPUT, low=0),
    Flag(("--dry-run",), "dry_run", "alone", "show the configuration and the jobs, start nothing", OUTPUT),
    Flag(("--check",), "check", "alone", "only check the flags", OUTPUT),
)  # fmt: skip

JOB_FLAGS = RUN_FLAGS + (
    Flag(("--config-file",), "config_file", "text", "a JSON record of the run instead of flags", OUTPUT, "FILE"),
    Flag(("--run-dir",), "run_dir", "text", "folder of this run", OUTPUT, "FOLDER"),
)


PRUNING_FIELDS = frozenset(
    name
    for section in (PruningOptions, *CRITERION_SECTIONS)
    for name in declared_fields(section)
    if name not in ("enable_pruning", "pruning_method")
)
"""Fields that mean nothing to a run that prunes nothing."""


def labels(flags: tuple[Flag, ...]) -> dict[str, str]:
    """Name of a field → its flag as messages show it."""
    return {flag.name: flag.label for flag in flags}


def record_fields() -> set[str]:
    """The names of the fields of `GatedBertConfig`."""
    return set(declared_fields(GatedBertConfig))


def hint(name: str, value: object) -> str:
    """A remark for a refused number that looks like a known slip: a percentage where a fraction is meant, a comma."""
    declared = declared_fields(GatedBertConfig).get(name)
    if declared is None or declared.kind not in (int, float):
        return ""
    text = str(value).strip().rstrip(",;")
    plain = as_number(text.rstrip("% ").replace(",", "."), float)
    if isinstance(plain, str) or not math.isfinite(plain) or (declared.kind is int and plain % 1):
        return ""
    if declared.option.fraction and (1 < plain <= 100 or (text.endswith("%") and 0 <= plain <= 1)):
        return f" (did you mean {plain / 100:g}?)"
    return f" (did you mean {plain:g}?)" if isinstance(value, str) and not text.endswith("%") else ""


_OF_RECORD = ("epochs", "batch_size", "model_size", "pruning_start_epoch", "pruning_end_epoch",
              "spt_explore_per_layer", "tasks", "data", "seed")  # fmt: skip


def _default(name: str) -> str:
    """A record's default as it would be typed."""
    value = declared_fields(GatedBertConfig)[{"tasks": "task"}.get(name, name)].default
    return str(value).lower() if isinstance(value, bool) else str(value).replace("e-0", "e-")


DEFAULTS = {name: _default(name) for name in _OF_RECORD} | {
    "methods": "magnitude,movement,spt,baseline",
    "start_sparsity": str(START_SPARSITY),
    "end_sparsity": str(END_SPARSITY),
    "sparsity_steps": "auto",
    "learning_rate": f"{PRETRAINED_RATE:g}".replace("e-0", "e-"),
    "max_len": str(usual_max_len("")),
    "output": "results",
}
"""What holds where neither a flag nor a script says otherwise, as it would be typed."""

LABELS = labels(SWEEP_FLAGS + JOB_FLAGS) | {
    "pruning_method": "-p/--pruning-methods",
    "task": "-t/--task",
    "rewind_step": "--rewind-step",
    "ticket_control": "--controls",
}
