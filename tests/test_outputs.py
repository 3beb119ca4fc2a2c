"""What cannot be written is refused before anything is read, and what is refused leaves nothing behind."""

import ast
import itertools
import os
from pathlib import Path

import pytest

import gated_bert
from gated_bert.cli.main import COMMANDS, main
from gated_bert.config import GatedBertConfig
from gated_bert.experiments.runs.run_state import read_status
from gated_bert.experiments.sweeps.jobs import Job, write_job
from gated_bert.support.disk import own
from tests.refused import refusal

TINY = "train -m tiny -e 1 -b 2 -p baseline --num-layers 1 --d-model 8 --num-heads 2 --dff 8".split()
NAMED = {
    "download": ["glue", "{}"], "export": ["m", "{}/a.onnx"], "quantize": ["m", "{}/a.onnx"], "shrink": ["m", "{}"],
    "trim-vocabulary": ["m", "{}"],
}  # fmt: skip
"""Commands whose output is no flag."""
BEFORE = {"predict": ["m", "f"], "study": ["defaults"], "compare": ["m"], "iou": ["m", "m"], "explain": ["m"],
          "latency-table": ["m"]}


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    # Commands set thread counts and log levels for this process.
    monkeypatch.setattr(os, "environ", os.environ.copy())
    Path("m").mkdir()
    Path("FILE").write_text("x")
    Path("f").write_text("x")


def contents() -> list[str]:
    return sorted(str(path) for path in Path().rglob("*"))


OUTPUTS = ("FILE", "FILE/x", "FILE/x/y", "~nosuchuser/x", "x" * 300, "a\0b")


# An earlier picture is drawn anew, and an earlier table measured.
REPLACED = {("patterns", "FILE"), ("latency-table", "FILE")}


@pytest.mark.parametrize(
    ("command", "out"), sorted({*itertools.product(COMMANDS.keys() - {"watch"}, OUTPUTS)} - REPLACED)
)
def test_no_command_starts_where_it_cannot_write(capsys, command, out):
    words = [part.format(out) for part in NAMED[command]] if command in NAMED else [*BEFORE.get(command, []), "-o", out]
    before = contents()
    message = refusal(capsys, command, *words)
    assert out.split("/")[0][:20].strip("~") in message or "a\\x00b" in message
    assert contents() == before


def test_a_removed_working_folder_is_one_sentence(capsys):
    Path("gone").mkdir()
    os.chdir("gone")
    os.rmdir("../gone")
    try:
        for words in (["train"], ["compare", "x"], ["sweep", "-o", "x"]):
            assert "the working folder has been removed; change into one that is there" in refusal(capsys, *words)
    finally:
        os.chdir("/")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["-d", "bad.tsv"], "bad.tsv: every label in column 'label' is '1'"),
        (["-d", "good.tsv", "--vocab", "vocab.txt"], "vocab.txt: token [UNK] is missing"),
        (["-d", "good.jsonl"], r"good.jsonl, line 2: \ud800 is half of a character"),
        (["-d", "good.tsv", "--vocab", "v.txt", "-pt", "m"], "m: no config.json in it"),
    ],
)
def test_a_refused_run_leaves_nothing(capsys, monkeypatch, words, message):
    # Without what is said of data that can be read.
    monkeypatch.setenv("VERBOSE", "0")
    Path("bad.tsv").write_text("text\tlabel\na\t1\nb\t1\n")
    Path("good.tsv").write_text("text\tlabel\na\t1\nb\t0\n")
    Path("good.jsonl").write_text('{"text": "a", "label": 1}\n{"text": "\\ud800", "label": 0}\n')
    Path("vocab.txt").write_text("[PAD]\n")
    Path("v.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\na\n")
    Path("tokenizer_config.json").write_text('{"do_lower_case": true}')
    before = contents()
    assert message in refusal(capsys, *TINY, *words, "-o", "new/deep")
    assert contents() == before


def test_a_refused_run_in_a_folder_of_ones_own_changes_no_file(capsys):
    Path("bad.tsv").write_text("text\tlabel\na\t1\nb\t1\n")
    Path("mine").mkdir()
    kept = {"notes.txt": "n", "log.txt": "earlier\n", "status.json": '{"state": "finished"}'}
    for name, text in kept.items():
        Path("mine", name).write_text(text)
    refusal(capsys, *TINY, "-d", "bad.tsv", "--run-dir", "mine")
    assert {path.name: path.read_text() for path in Path("mine").iterdir() if path.name != ".lock"} == kept


def test_an_earlier_run_is_back_where_the_next_one_is_refused(capsys):
    Path("bad.tsv").write_text("text\tlabel\na\t1\nb\t1\n")
    Path("results/mine/model").mkdir(parents=True)
    Path("results/mine/model/config.json").write_text("{}")
    Path("results/mine/results_spt_20250102-030405.csv").write_text("epoch\n")
    Path("results/mine/log.txt").write_text("earlier\n")
    before = contents()
    assert main([*TINY, "-d", "bad.tsv", "--run-dir", "results/mine"]) == 2
    said = capsys.readouterr()
    assert "the earlier results are in results/mine again" in said.out and len(said.err.splitlines()) == 1
    assert contents() == before and Path("results/mine/log.txt").read_text() == "earlier\n"


def test_a_refused_job_of_a_sweep_says_so_in_one_line_of_its_log(capsys):
    Path("bad.tsv").write_text("text\tlabel\na\t1\nb\t1\n")
    config = GatedBertConfig(model_size="tiny", pruning_method="baseline", data=str(Path("bad.tsv").absolute()))
    write_job(Job("baseline bad", config, Path("job"), ()))
    message = refusal(capsys, "train", "--config-file", "job/job.json", "--run-dir", "job")
    (line,) = Path("job/log.txt").read_text().splitlines()
    assert message.removeprefix("error: ") in line
    assert read_status(Path("job"))["state"] == "failed"


def test_a_file_that_is_changed_in_place_is_no_link_and_no_pipe():
    Path("real").write_text("x")
    assert own(Path("real")) == Path("real") and own(Path("new")) == Path("new")
    Path("link").symlink_to("FILE")
    Path("broken").symlink_to("nowhere")
    os.mkfifo("pipe")
    for name in ("link", "broken", "pipe", "m"):
        with pytest.raises(OSError, match="remove it"):
            own(Path(name))


def test_every_file_that_is_changed_in_place_is_looked_at_first():
    found = 0
    for path in Path(gated_bert.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call):
                continue
            name = getattr(node.func, "id", getattr(node.func, "attr", None))
            words = [each.value for each in (*node.args, *(each.value for each in node.keywords))
                     if isinstance(each, ast.Constant) and isinstance(each.value, str)]  # fmt: skip
            in_place = name == "open" and any(set(word) <= set("abrtwx+") and set(word) & set("a+") for word in words)
            if in_place or name == "FileHandler":
                found += 1
                assert ast.unparse(node.args[0]).startswith("own("), f"{path}, line {node.lineno}"
    assert found >= 8


RUN_FOLDER = "out/results_baseline_sst2"
TRAINED = (*TINY, "-d", "embedded", "-t", "sst2", "-ml", "16", "--train-examples", "8")


@pytest.mark.parametrize("words", [("train",), ("train", "--resume"), ("sweep", "--resume")])
@pytest.mark.parametrize("name", [".lock", "log.txt"])
def test_a_link_in_an_output_folder_leads_nowhere(capsys, words, name):
    folder = Path(RUN_FOLDER) if words[0] == "train" or name != ".lock" else Path("out")
    folder.mkdir(parents=True)
    (folder / name).symlink_to(Path("FILE").absolute())
    status = main([words[0], *TRAINED[1:], "-o", "out", *words[1:]])
    said = capsys.readouterr().err
    assert Path("FILE").read_text() == "x" and status in (1, 2)
    assert f"{name}" in said or "a link, which is not followed" in said, said
