"""A run that cannot be read is named and left out of the comparison; the others are in it as ever."""

from __future__ import annotations

import csv
import json
import os
import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gated_bert.experiments.reports.compare import compare
from gated_bert.experiments.reports.plots import plot_run
from gated_bert.experiments.reports.results import read_run
from gated_bert.support.errors import UserError
from tests.experiments.synthetic_runs import write_run

STAMP = "20250102_030405"
ODD = (None, [], {}, "", "x", 0, -1, 1.5, True, [1], {"a": None}, "é" * 400, 10**400, float("nan"), float("inf"),
       "<script>", [[[]]], {"name": None}, {"total": "many"}, "\udce9")  # fmt: skip
PARTS = ("config", "versions", "seed", "status", "method", "seconds", "data", "task", "hardware", "final", "best",
         "parameters", "label", "macs_per_token", "order", "started")  # fmt: skip
FIELDS = ("model_size", "task", "data", "epochs", "seed", "pruning_method", "learning_rate", "num_layers", "d_model",
          "pretrained", "sparsity_steps", "schedule", "batch_size")  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A good run, another, and what a comparison of the good one alone says."""
    place = tmp_path_factory.mktemp("runs")
    plot_run(read_run(write_run(place / "good", "magnitude", epochs=3)))
    plot_run(read_run(write_run(place / "kept", "spt", epochs=3)))
    compare([place / "good"], place / "alone", say=lambda line: None)
    return place


@pytest.fixture
def runs(made, tmp_path) -> Path:
    """A copy of them, beside which a test puts odd ones."""
    return Path(shutil.copytree(made, tmp_path, dirs_exist_ok=True))


def odd(runs: Path, number: int = 1) -> Path:
    """A fresh copy of the run that is to be spoilt; the first makes room for others beside it."""
    if number == 1:
        shutil.rmtree(runs / "odd", ignore_errors=True)
    return Path(shutil.copytree(runs / "kept" / "results_spt_sst2_seed1", runs / f"odd/results_spt_sst2_seed{number}"))


def rows(path: Path) -> list[dict]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def check(runs: Path) -> list[str]:
    """Compares all; the good run's rows are what they are without the others, which are in the output or named."""
    said: list[str] = []
    compare([runs / "good", runs / "odd"], runs / "out", say=said.append)
    page = (runs / "out/report.html").read_text()
    for file in ("comparison.csv", "comparison_summary.csv"):
        own, all_rows = rows(runs / "alone" / file), rows(runs / "out" / file)
        kept = [row for row in all_rows if row["method"] == "magnitude" and row["data"] == own[0]["data"]]
        plain = [{key: value for key, value in row.items() if not key.startswith("dense_best")} for row in own]
        assert [{key: row.get(key) for key in each} for row, each in zip(kept, plain, strict=True)] == plain
    left_out = [line for line in said if line.startswith(("left out: ", "failed: ")) or ": left out" in line]
    assert not any("\n" in line for line in left_out)
    for folder in (runs / "odd").iterdir():
        named = any(str(folder) in line for line in left_out)
        try:
            read_run(folder)
        except UserError:
            assert named and folder.name in page
    return left_out


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.daily_every(3)
def test_any_part_of_the_metadata_may_be_anything(runs, part):
    for number, value in enumerate((*ODD, ...), start=1):
        path = odd(runs, number) / f"metadata_spt_{STAMP}.json"
        content = json.loads(path.read_text()) | {part: value}
        path.write_text(json.dumps({name: each for name, each in content.items() if each is not ...}))
    check(runs)


@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.daily_every(3)
def test_any_field_of_the_configuration_may_be_anything(runs, field):
    for number, value in enumerate(ODD, start=1):
        path = odd(runs, number) / f"metadata_spt_{STAMP}.json"
        good = json.loads(path.read_text())
        path.write_text(json.dumps(good | {"config": good["config"] | {field: value}}))
    check(runs)


def test_metadata_that_is_none(runs):
    contents = (b"", b"null", b"[]", b"3", b'"x"', b"{", b"\xff\xfe{\x00}\x00", b'{"config": ' + b"[" * 100_000, b"{}",
                '{"config": {"task": "é"}}'.encode("latin-1"), b"9" * 5000, b'{"config": {}}')  # fmt: skip
    for number, content in enumerate(contents, start=1):
        (odd(runs, number) / f"metadata_spt_{STAMP}.json").write_bytes(content)
    assert len(check(runs)) == len(contents) - 1


COLUMNS = "epoch,target_sparsity,sparsity,train_loss,train_accuracy,val_loss,val_accuracy"
GOOD = "1,0,0,1,0.5,1,0.5"


ROWS = (
    (b"", "cannot be read as CSV"), (b"\xff\xfe\x00", "cannot be read as CSV"), (b"\0" * 100, "no column"),
    (COLUMNS.encode(), "only a header"), (b"a,b\n1,2\n", "no column epoch"),
    (f"{COLUMNS}\n1,0,0,1,0.5,1,x\n".encode(), "'x' is no number"),
    (f"{COLUMNS}\n{GOOD}\n{GOOD}\n".encode(), "an epoch is empty or written twice"),
    (f"{COLUMNS}\n,0,0,1,0.5,1,0.5\n".encode(), "epoch"),
    (f"{COLUMNS}\n1.5,0,0,1,0.5,1,0.5\n".encode(), "whole number"),
    (f"{COLUMNS}\n1e300,0,0,1,0.5,1,0.5\n".encode(), "epoch"),
    (f"{COLUMNS}\ninf,0,0,1,0.5,1,0.5\n".encode(), "epoch"), (f"{COLUMNS}\n-3,0,0,1,0.5,1,0.5\n".encode(), "epoch"),
    (f"{COLUMNS}\n1,0,1.5,1,0.5,1,0.5\n".encode(), "column sparsity"),
    (f"{COLUMNS}\n1,0,nan,1,0.5,1,0.5\n".encode(), "column sparsity"),
    (f"{COLUMNS}\n{'9' * 5000},0,0,1,0.5,1,0.5\n".encode(), "epoch"), (b'"' + b"x" * 1000, "cannot be read as CSV"),
    (b"epoch,sparsity,val_loss\n1,0,1\n", "no column val_<metric>"),
)  # fmt: skip


def test_rows_that_are_none(runs):
    for number, (content, _) in enumerate(ROWS, start=1):
        (odd(runs, number) / f"results_spt_{STAMP}.csv").write_bytes(content)
    lines = check(runs)
    for number, (_, reason) in enumerate(ROWS, start=1):
        assert any(f"seed{number}/" in line and reason in line for line in lines), (number, reason)


def test_numbers_that_have_run_away_leave_gaps(runs):
    cells = ("1,0,0,inf,0.5,inf,0.5", "1,0,0,nan,nan,nan,nan", "1,,0,1e308,0.5,-1e308,1e308", "1,0,0,1,0.5,1",
             "1,0,0,1,0.5,1,0.5,7,8", "3,0,0,1e-320,0,0,0")  # fmt: skip
    for number, line in enumerate(cells, start=1):
        folder = odd(runs, number)
        (folder / f"results_spt_{STAMP}.csv").write_text(f"{COLUMNS}\n{line}\n")
        path = folder / f"metadata_spt_{STAMP}.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"seed": number}))
    assert check(runs) == []


def test_files_that_are_none(runs):
    number = 0
    for name in (f"metadata_spt_{STAMP}.json", f"results_spt_{STAMP}.csv"):
        for make in (os.mkfifo, os.mkdir, lambda path: os.symlink("/nowhere", path)):
            folder = odd(runs, number := number + 1)
            (folder / name).unlink()
            make(folder / name)
    folder = odd(runs, number + 1)
    for name in ("metadata_other_20240101_000000.json", "status.json"):
        (folder / name).write_text('{"state": ["failed"], "job": {}, "seed": {}}')
    assert len(check(runs)) == number


def test_nothing_but_odd_runs_is_refused_in_one_line(runs):
    (odd(runs) / f"metadata_spt_{STAMP}.json").write_text("{}")
    with pytest.raises(UserError, match="none of 1 run folder.s. can be read; the first: .*: config: None is refused"):
        compare([runs / "odd"], runs / "none", say=print)
    assert not (runs / "none").exists()


MUTATED = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats()
    | st.text(st.characters(exclude_characters="$"), max_size=400),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from((*PARTS, *FIELDS, "name", "rows",
                                                                                 "label", "kind", "partial")), inner),
    max_leaves=12,
)  # fmt: skip


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(changes=st.dictionaries(st.sampled_from(PARTS), MUTATED, min_size=1, max_size=3),
       inner=st.dictionaries(st.sampled_from(FIELDS), MUTATED, max_size=2))  # fmt: skip
def test_mutated_metadata_spoils_no_other_run(runs, changes, inner):
    folder = odd(runs)
    path = folder / f"metadata_spt_{STAMP}.json"
    good = json.loads(path.read_text())
    path.write_text(json.dumps(good | {"config": good["config"] | inner} | changes))
    check(runs)
