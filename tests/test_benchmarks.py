"""The benchmarks: figures, files, the two sides of a ratio, and the command."""

import argparse
import importlib
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from benchmarks.__main__ import BENCHMARKS
from benchmarks.figures import Figure, read_figures, table, write_figures
from benchmarks.timing import Times, interleave, ratio
from gated_bert.config import GatedBertConfig

REPOSITORY = Path(__file__).resolve().parent.parent


def test_help_names_every_benchmark_and_imports_no_framework():
    began = time.perf_counter()
    words = [sys.executable, "-X", "importtime", "-m", "benchmarks", "--help"]
    done = subprocess.run(words, cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0 and time.perf_counter() - began < 20
    assert all(name in done.stdout for name in BENCHMARKS)
    assert "keras" not in done.stderr


@pytest.mark.parametrize("name", BENCHMARKS)
def test_every_benchmark_can_be_imported(name):
    assert callable(importlib.import_module(f"benchmarks.{name}").measure)


def test_a_goal_is_met_on_its_own_side():
    assert Figure("a", 1.1, "×", "≤ 1.10").met == "met" and Figure("a", 1.11, "×", "≤ 1.10").met == "not met"
    assert Figure("a", 3.0, "×", "≥ 3").met == "met" and Figure("a", 2.9, "×", "≥ 3").met == "not met"
    assert Figure("a", float("nan"), "×", "≤ 1").met == "not met" and Figure("a", 1.0).met == "–"


def test_figures_are_written_and_read_back(tmp_path):
    figures = [Figure("step", 1.05, "×", "≤ 1.10", "spread, both sides"), Figure("memory", 12.0, "MB")]
    write_figures(tmp_path, "some", figures, "2 cores")
    assert read_figures(tmp_path / "some.json") == ("2 cores", figures)
    assert (tmp_path / "some.csv").read_text().splitlines()[1] == 'step,1.05,×,≤ 1.10,met,"spread, both sides"'
    assert "1.050×" in table(figures) and "12 MB" in table(figures)


def test_a_ratio_is_the_median_of_the_repeats_ratios():
    above, below = np.array([2.0, 30.0, 4.0]), np.array([1.0, 10.0, 4.0])
    value, details = ratio(Times(above, above), Times(below, below))
    assert value == 2.0 and "quartiles 1.50–2.50 of 3" in details


def test_the_sides_take_turns():
    order = []
    times = interleave({side: lambda side=side: order.append(side) for side in "ab"}, repeats=2)
    assert order == ["b", "a", "a", "b", "b", "a"]
    assert len(times["a"].wall) == 2


def test_the_plain_model_computes_what_the_gated_one_does():
    from benchmarks.training_step import check_same_logits, make_batch, make_model

    config = GatedBertConfig(model_size="tiny", pruning_method="baseline", d_model=16, num_heads=2, dff=32)
    gated, plain = make_model(config), make_model(config, gated=False)
    assert len(plain.variables) == len(gated.variables) - len(gated.gated_layers())
    inputs, _ = make_batch(2, 8)
    check_same_logits(gated, plain, inputs)
    gated.gated_layers()[-1].gates.assign(np.full((16, 2), 0.5, np.float32))
    with pytest.raises(RuntimeError, match="differ"):
        check_same_logits(gated, plain, inputs)


def test_the_mask_update_is_measured():
    from benchmarks.mask_update import measure

    figures = measure(argparse.Namespace(quick=True))
    assert all(figure.value >= 0 for figure in figures)
    assert [figure.unit for figure in figures] == ["s", "s", "×", "MB", "MB", "MB"]


@pytest.mark.nightly
def test_shrunk_models_are_measured():
    from benchmarks.shrink import measure

    figures = measure(argparse.Namespace(quick=True))
    promises = [figure for figure in figures if figure.goal]
    assert len(promises) == 2 and all(np.isfinite(figure.value) and figure.value > 0 for figure in figures)


@pytest.mark.nightly
def test_masks_of_movement_are_measured():
    from benchmarks.movement_masks import measure

    figures = measure(argparse.Namespace(quick=True))
    assert len(figures) == 2 and figures[0].value == pytest.approx(10 * figures[1].value)
    assert all(figure.value > 0 for figure in figures)
