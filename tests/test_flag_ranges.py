"""Ranges of whole numbers stand in flags, and what is asked of a launcher in one record."""

from __future__ import annotations

import dataclasses

import pytest

from gated_bert.cli import (
    activation_commands,
    compress_commands,
    explain_commands,
    lottery_commands,
    oneshot_commands,
    pipeline_commands,
    student_commands,
    sweep_commands,
)
from gated_bert.cli.common import typed_flags
from gated_bert.cli.settings import read_settings
from gated_bert.config import ConfigError
from gated_bert.config.flag_table import LAUNCHER_FLAGS, Flag, flags_of
from gated_bert.config.launcher_options import LauncherOptions
from gated_bert.config.record import GatedBertConfig
from gated_bert.support.checks import FlagError

OF_RUNS = {flag.name for flag in flags_of(GatedBertConfig)}
TABLES = {
    "activation-change": activation_commands.FLAGS,
    "compress": compress_commands.FLAGS,
    "explain": (*explain_commands.SOURCE_FLAGS, *explain_commands.LIME_FLAGS),
    "lottery": lottery_commands.FLAGS,
    "oneshot": oneshot_commands.FLAGS,
    "pipeline": pipeline_commands._OWN,
    "student": student_commands.FLAGS,
    "sweep": sweep_commands.FLAGS,
}
WHOLE = [(command, flag) for command, flags in TABLES.items() for flag in flags
         if flag.kind == "int" and (flag.name not in OF_RUNS or command in ("explain", "student"))]  # fmt: skip


@pytest.mark.parametrize(("command", "flag"), WHOLE, ids=lambda each: getattr(each, "name", each))
def test_a_whole_number_that_no_record_checks_has_a_range(command, flag):
    if (command, flag.name) == ("explain", "max_len"):
        return  # What a model takes, it says itself.
    assert flag.low is not None
    for word in (str(flag.low - 1), "1.5", "x", "nan", *([str(flag.high + 1)])):
        with pytest.raises(FlagError, match=rf"^{flag.label}: .* is refused; allowed: a whole number from {flag.low}"):
            typed_flags(command, "", (flag,), [flag.options[-1], word])
    assert typed_flags(command, "", (flag,), [flag.options[-1], str(flag.low)]) == {flag.name: flag.low}


def test_a_flag_says_its_highest_number_where_it_has_one():
    flag = Flag(("--rounds",), "rounds", "int", "", "", low=1, high=9)
    with pytest.raises(FlagError, match="--rounds: 10 is refused; allowed: a whole number from 1 to 9"):
        flag.read(["10"])
    with pytest.raises(FlagError, match="from 1 to 9"):
        flag.read(["0"])


def test_the_flags_of_a_launcher_are_those_of_its_record():
    names = [field.name for field in dataclasses.fields(LauncherOptions)]
    assert list(LAUNCHER_FLAGS) == names
    of_sweep = {flag.name: flag for flag in sweep_commands.FLAGS}
    assert all(of_sweep[name] is LAUNCHER_FLAGS[name] for name in names if name != "publish")


def test_what_is_asked_of_the_launcher_is_no_part_of_the_runs():
    settings = read_settings({"data": "embedded", "resume": True, "max_parallel_jobs": 3, "epochs": 2}, {}, {})
    assert settings.launcher == LauncherOptions(resume=True, max_parallel_jobs=3)
    assert not {"resume", "max_parallel_jobs"} & settings.values.keys()
    assert read_settings({"data": "embedded"}, {}, {}).launcher == LauncherOptions()


@pytest.mark.parametrize(("values", "message"), [
    ({"max_parallel_jobs": 0}, "-max-parallel-jobs/--max-parallel-jobs: 0 is refused; allowed: a whole number from 1"),
    ({"output_mode": "loud"}, "--output-mode: 'loud' is refused; allowed: bars, logs, both"),
])  # fmt: skip
def test_a_value_that_came_past_the_flags_is_refused_by_its_flag(values, message):
    with pytest.raises(FlagError, match=message):
        read_settings({"data": "embedded", **values}, {}, {})
    with pytest.raises(ConfigError):
        LauncherOptions(**values)
