"""What the user wants to see of a sweep is asked once, and of nobody who may not be there."""

import sys

import pytest

from gated_bert.experiments.sweeps import sweep


@pytest.fixture
def asked(monkeypatch):
    """The questions that were asked on a terminal."""
    said: list[str] = []
    for stream in (sys.stdin, sys.stdout):
        monkeypatch.setattr(stream, "isatty", lambda: True)
    monkeypatch.setattr("builtins.input", lambda text: said.append(text) or "logs")
    sweep._asked_mode.cache_clear()
    yield said
    sweep._asked_mode.cache_clear()


def test_many_sweeps_of_one_command_ask_once(asked):
    assert [sweep._output_mode(None, asks=True) for _ in range(3)] == ["logs"] * 3
    assert len(asked) == 1


def test_in_the_middle_of_something_else_nothing_is_asked(asked):
    assert sweep._output_mode(None, asks=False) == "bars"
    assert sweep._output_mode("both", asks=True) == "both"
    assert not asked
