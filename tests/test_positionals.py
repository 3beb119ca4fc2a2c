"""Words of a command line that belong to no flag, paths as users type them, and what `-d` names."""

from __future__ import annotations

import os
import socket

import pytest

from gated_bert.cli import main as cli
from gated_bert.cli.positionals import split_words
from gated_bert.cli.settings import read_settings
from gated_bert.config.flag_table import Flag
from gated_bert.experiments.studies.catalogue import STUDIES
from gated_bert.experiments.sweeps.jobs import plan_jobs
from gated_bert.support.checks import FlagError
from gated_bert.support.errors import UserError
from gated_bert.support.paths import file_name, user_path
from gated_bert.tasks.data_source import find_data, folder_task
from gated_bert.tasks.task import own_task_name
from tests.refused import refusal

FLAGS = (Flag(("-o", "--out"), "out", "text", "", ""), Flag(("--batches",), "batches", "list", "", ""),
         Flag(("--names",), "names", "list", "", ""), Flag(("--fused",), "fused", "alone", "", ""),
         Flag(("--range",), "range", "switch", "", ""),
         Flag(("--classes",), "classes", "list", "", "", choices=("gold", "all")))  # fmt: skip


@pytest.fixture(autouse=True)
def _place(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    for name in ("BENCHMARK_EPOCHS", "VERBOSE", "GATED_BERT_DATA", "KERAS_BACKEND"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("words", "own", "rest"),
    [
        ("M N -o out", "M N", "-o out"),
        ("-o out M N", "M N", "-o out"),
        ("M -o out N", "M N", "-o out"),
        ("--out=out M", "M", "--out=out"),
        ("--batches 1 8 M", "M", "--batches 1 8"),
        ("--batches 1,8 M N", "M N", "--batches 1,8"),
        ("--names a,b M N", "M N", "--names a,b"),
        ("--names a, b M", "M", "--names a, b"),
        ("--names a b -o out M", "M", "--names a b -o out"),
        ("--fused M", "M", "--fused"),
        ("--range M", "M", "--range"),
        ("--range true M", "M", "--range true"),
        ("--classes gold all M", "M", "--classes gold all"),
        ("--fused -- -o M", "-o M", "--fused"),
        ("-o", "", "-o"),
        ("M --unknown", "M", "--unknown"),
        ("M -h", "M", "-h"),
    ],
)
def test_words_of_no_flag_may_stand_anywhere(words, own, rest):
    assert split_words(words.split(), FLAGS) == (own.split(), rest.split())


TAKES_WORDS = {
    "compare": 1, "iou": 2, "inspect": 1, "predict": 2, "benchmark": 1, "export": 2, "quantize": 2, "shrink": 2,
    "trim-vocabulary": 2, "latency-table": 1,
    "explain": 1, "sp-lime": 1, "compare-explanations": 2, "pos": 1, "student": 1, "watch": 1,
}  # fmt: skip


@pytest.mark.parametrize("name", TAKES_WORDS)
def test_every_command_takes_flags_before_its_folders(name, capsys):
    """Both orders are refused alike: for the folder that is not there, and not for its place."""
    own = [f"nowhere{number}.onnx" for number in range(TAKES_WORDS[name])]
    flags = {"shrink": ["--round-to", "2"], "export": ["--fused"], "quantize": ["--precision", "int8"],
             "trim-vocabulary": ["-d", "embedded"], "watch": ["--web", "0"]}  # fmt: skip
    flag = flags.get(name, ["-o", "out.csv"])
    more = ["-d", "embedded"] if name == "student" else []
    after, before = refusal(capsys, *[name, *own, *flag, *more]), refusal(capsys, *[name, *flag, *more, *own])
    assert after == before and "nowhere0.onnx" in after


@pytest.mark.parametrize("name", [name for name in cli.COMMANDS if name not in ("patterns",)])
def test_an_unknown_user_is_refused_by_every_command(name, capsys):
    words = {
        "download": ["glue", "~nosuchuser/x"],
        "study": [next(iter(STUDIES)), "-o", "~nosuchuser/x"],
        "student": ["~nosuchuser/x", "-d", "embedded"],
        "activation-change": ["--config", "~nosuchuser/x.json"],
        "oneshot": ["-d", "~nosuchuser/x", "--sparsities", "50"],
    }.get(name, ["~nosuchuser/m.onnx"] * TAKES_WORDS.get(name, 0) or ["-d", "~nosuchuser/x"])
    assert "~nosuchuser" in refusal(capsys, name, *words)


def test_a_path_of_a_known_user_is_put_in_full(monkeypatch):
    monkeypatch.setenv("HOME", "/somewhere")
    assert str(user_path("~/runs")) == "/somewhere/runs"
    with pytest.raises(UserError, match="~nosuchuser/runs: no home folder is known for ~nosuchuser"):
        user_path("~nosuchuser/runs")


@pytest.mark.parametrize("text", ["a" * 250, "é" * 125, "名" * 90, "x/y z", "a" * 60, "\udce9" * 80])
def test_long_names_are_cut_and_still_differ(text):
    name = file_name(text)
    assert len(os.fsencode(name)) <= 60 or "é" not in text and len(name.encode("utf-8", "backslashreplace")) <= 60
    assert file_name(text + "b") != name and "/" not in name
    assert file_name("short-name_1.0") == "short-name_1.0"


def test_a_run_on_a_file_with_a_long_name_has_a_folder_whose_name_fits(tmp_path):
    path = tmp_path / ("a" * 246 + ".csv")
    path.write_text("text,label\na b,0\n")
    jobs = plan_jobs(read_settings({"data": str(path), "methods": ("magnitude",)}, {}, {})).jobs
    (tmp_path / jobs[0].folder.name).mkdir()
    assert jobs[0].config.task == own_task_name(path)
    jobs = plan_jobs(read_settings({"data": str(path), "tasks": ("b" * 300,)}, {}, {})).jobs
    assert all(len(job.folder.name) < 200 for job in jobs)


def glue_folder(place, name):
    folder = place / name
    folder.mkdir(parents=True)
    (folder / "train.tsv").write_text("sentence\tlabel\ngood\t1\n")
    return folder


@pytest.mark.parametrize(("folder", "task"), [("SST-2", "sst2"), ("CoLA", "cola"), ("sts-b", "stsb"), ("MNLI", "mnli")])
def test_the_folder_of_a_glue_task_names_its_task(tmp_path, folder, task, capsys):
    place = glue_folder(tmp_path / "glue", folder)
    settings = read_settings({"data": f"glue/{folder}/"}, {}, {})
    assert settings.tasks == (task,) and settings.values["data"] == str(place)
    assert f"is the official folder of {task}" in " ".join(settings.notes)
    assert read_settings({"data": str(place), "tasks": (task,)}, {}, {}).tasks == (task,)
    with pytest.raises(FlagError, match=f"-t/--task: 'mrpc' is refused; allowed: {task}, whose"):
        read_settings({"data": str(place), "tasks": ("mrpc",)}, {}, {})
    for name in ("sweep", "train", "oneshot", "compress"):
        words = [name, "-d", str(place), "-t", "mrpc"] + ["--sparsities", "50"] * (name == "oneshot")
        assert task in refusal(capsys, *words)


def test_other_folders_with_a_training_file_are_a_users_own(tmp_path):
    glue_folder(tmp_path, "my reviews")
    assert folder_task("my reviews") is None and folder_task("hub") is None
    assert read_settings({"data": "my reviews"}, {}, {}).tasks == ("my_reviews",)
    glue_folder(tmp_path, "RTE")
    own = {"data": "RTE", "text_column": "sentence"}
    assert read_settings(own, {}, {}).tasks == ("rte",) and not read_settings(own, {}, {}).notes


def test_data_that_cannot_be_read_twice_is_refused_and_never_waited_for(tmp_path):
    os.mkfifo(tmp_path / "texts.csv")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("texts.tsv")
        for name in ("texts.csv", "texts.tsv", "/dev/null"):
            with pytest.raises(FlagError, match="a pipe or device can be read only once"):
                find_data(name, "-d/--data")
    with pytest.raises(FlagError, match="hub, embedded, an existing folder"):
        find_data("nowhere.csv", "-d/--data")


@pytest.mark.parametrize("words", [
    "predict {m} texts.csv", "explain {m} texts.csv", "train --config-file texts.csv", "sweep --sweep-file texts.csv",
    "sweep --vocab texts.csv", "explain {m} -d texts.csv", "benchmark {m} -d texts.csv", "sweep -d texts.csv",
    "inspect texts.csv", "inspect folder", "compare folder", "iou folder folder2", "predict folder file.csv",
    "sp-lime folder", "pos folder", "activation-change --config texts.csv",
])  # fmt: skip
def test_no_command_waits_for_a_pipe(tmp_path, words, capsys):
    os.mkfifo(tmp_path / "texts.csv")
    (tmp_path / "m.onnx").write_bytes(b"")
    (tmp_path / "file.csv").write_text("text\na\n")
    for place in ("folder", "folder2"):
        (tmp_path / place).mkdir()
        for name in ("config.json", "model.keras", "tokenizer.json", "metadata.json", "documents.jsonl", "record.json",
                     "results_a_20260101-000000.csv", "metadata_a_20260101-000000.json", "status.json"):  # fmt: skip
            os.mkfifo(tmp_path / place / name)
    refusal(capsys, *words.replace("{m}", "m.onnx").split())


@pytest.mark.parametrize("words", [
    "lottery --rounds 2147483648", "sweep -e 2147483648", "explain m.onnx -d hub --num-samples 99999999999",
    "benchmark m.onnx --batches 99999999999999", "sweep -max-parallel-jobs 2147483648", "oneshot --sparsities 50 "
    "--dense-epochs 2147483648", "shrink a b --length 2147483648", "pos m.onnx -k 2147483648",
    "sweep --seeds " + "9" * 5000,
    "pipeline --documents 2147483648", "sp-lime m.onnx -d hub --pick 2147483648", "patterns -o .", "patterns -o x.pdf",
])  # fmt: skip
def test_counts_have_an_upper_bound(words, tmp_path, capsys):
    (tmp_path / "m.onnx").write_bytes(b"")
    (tmp_path / "a").mkdir()
    assert "refused" in refusal(capsys, *words.split())
