"""`gated-bert pipeline`: its steps, what is done again, and the whole of it from models to the report."""

import concurrent.futures
import json
import logging
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from gated_bert.cli.main import main
from gated_bert.experiments.explanations import students
from gated_bert.experiments.explanations.model_facts import Judging, keep_benchmark
from gated_bert.experiments.studies import compression_pipeline as module
from gated_bert.experiments.studies.command_process import run_command
from gated_bert.experiments.studies.pipeline_report import verdict_lines
from gated_bert.models.architecture import BertConfig
from gated_bert.models.bert import BertClassifier
from gated_bert.models.folder import save_model
from gated_bert.tasks.embedded import embedded_vocabulary
from gated_bert.tasks.task import TASKS
from gated_bert.tasks.wordpiece import Tokenizer
from tests.compression.conftest import randomize
from tests.pictures import is_drawn
from tests.refused import refusal

NEWS = ("pipeline", "-t", "ag_news", "-d", "embedded")


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "environ", {**os.environ, "VERBOSE": "0"})


class Commands(list):
    """The commands that are run, in place of running them; the one called `failing` fails."""

    failing = None

    def run(self, words):
        self.append(words)
        return int(words[0] == self.failing)


@pytest.fixture
def commands(monkeypatch):
    commands = Commands()
    monkeypatch.setattr(module, "run_command", commands.run)
    return commands


SKIP = ("--skip", "pos,report")


def test_every_step_is_a_command_that_is_shown(capsys):
    pytest.importorskip("nltk")
    assert main([*NEWS, "--levels", "20", "-o", "out", "--dry-run", "--seed", "3", "--skip", "pos", "-e", "1"]) == 0
    shown = capsys.readouterr().out
    lines = [line.strip() for line in shown.splitlines() if line.startswith("  gated-bert")]
    assert lines[0] == "gated-bert compress -t ag_news -d embedded --levels 20 -o out --seed 3 -e 1 --resume"
    assert [line.split()[1] for line in lines] == [
        "compress", "explain", "sp-lime", "compare-explanations", "explain", "student"
    ]  # fmt: skip
    assert "pos: left out" in shown and "--seed 3" in lines[1]
    assert "--names base,base_int8,base_fp16,pruned_20,pruned_20_int8,pruned_20_fp16" in lines[3]
    assert not Path("out").exists()


def test_what_is_done_is_not_done_again_unless_something_before_it_changes(commands, capsys):
    words = [*NEWS, *SKIP, "--levels", "20,40", "-o", "out"]
    commands.failing = "explain"
    assert main(words) == 1
    assert "step explain ended with exit status 1; mend it and go on with --resume" in capsys.readouterr().out
    assert [each[0] for each in commands] == ["compress", "explain"]
    assert "holds a pipeline's results; go on with --resume" in refusal(capsys, *words)

    commands.failing = None
    commands.clear()
    assert main([*words, "--resume"]) == 0
    assert [each[0] for each in commands] == ["explain", "sp-lime", "compare-explanations", "explain", "student"]
    assert set(json.loads(Path("out/pipeline.json").read_text())["steps"]) == {
        "compress", "explain", "sp-lime", "similarity", "tokens", "students"
    }  # fmt: skip
    commands.clear()
    assert main([*words, "--resume"]) == 0 and commands == []
    # Other documents: what rests on them is made anew, the models are not.
    assert main([*words, "--resume", "--pick", "50"]) == 0
    assert [each[0] for each in commands] == ["sp-lime", "compare-explanations", "explain", "student"]


def test_a_stop_names_the_step(monkeypatch, capsys):
    def stop(words):
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "run_command", stop)
    assert main([*NEWS, *SKIP, "-o", "out"]) == 130
    assert "stopped in step compress; the same command with --resume goes on" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--skip", "training"), "--skip: 'training' is refused; allowed: compress, explain"),
        (("--documents", "0"), "--documents: 0 is refused; allowed: a whole number from 1 up"),
        (("--num-samples", "5"), "--num-samples: 5 is refused; allowed: a whole number from 10 up"),
        (("--levels", "0"), "--levels: '0' is refused"),
        (("--skip", "compress", "-o", "none"), "none/models: no base in it, and --skip compress"),
        (("-t", "stsb"), "STS-B has a regression task; explanations are of classes of single texts"),
        (("-t", "mrpc"), "MRPC has pairs of texts"),
        (("-t", "sst3"), "-t/--task: 'sst3' is refused"),
        (("--pik", "3"), "--pik: unknown flag (did you mean --pick?)"),
    ],
)
def test_what_is_refused_before_anything_starts(commands, capsys, words, message):
    given = NEWS if "-t" not in words else NEWS[:1] + NEWS[3:]
    assert message in refusal(capsys, *given, *(() if "--skip" in words else SKIP), *words)
    assert commands == [] and not Path("results").exists()


def test_without_nltk_data_nothing_starts(commands, capsys, monkeypatch):
    nltk = pytest.importorskip("nltk")
    monkeypatch.setattr(nltk.data, "path", [])
    assert "NLTK data" in refusal(capsys, *NEWS) and commands == []


def save_news_model(folder, layers, heads, width):
    """A model of random weights for AG News."""
    vocabulary = embedded_vocabulary()
    config = BertConfig.uniform(layers, 16, heads, width, vocab_size=len(vocabulary), max_position=24, num_outputs=4)
    model = BertClassifier(config)
    randomize(model, 0)
    record = {"config": {"max_len": 24}}
    save_model(folder, model, Tokenizer.from_vocab(vocabulary), TASKS["ag_news"], record)


@pytest.mark.slow
def test_from_models_to_the_report(commands_here, monkeypatch, capsys, nltk_data):
    pytest.importorskip("onnx")
    from gated_bert.experiments.studies.compress import make_models

    save_news_model(Path("trained/base"), 1, 4, 12)
    save_news_model(Path("trained/pruned_50"), 1, 2, 6)
    out = Path("out")
    make_models(out / "models", {name: Path("trained") / name for name in ("base", "pruned_50")})
    monkeypatch.setattr(students, "REPEATS", 2)
    words = [*NEWS, "--skip", "compress", "--documents", "3", "--pick", "5", "--num-samples", "20", "--token-documents",
             "5", "--student-seeds", "1,2", "--student-epochs", "1", "--xai-weights", "0.3", "-o", "out"]  # fmt: skip
    assert main(words) == 0
    names = ["base", "base_int8", "base_fp16", "pruned_50", "pruned_50_int8", "pruned_50_fp16"]
    table = pd.read_csv(out / "reports" / "explanations.csv")
    assert list(table["model"]) == ["noise floor", *names]
    own = pd.read_csv(out / "similarity" / "similarity.csv").set_index(["variant", "measure"])
    row = table.set_index("model").loc["pruned_50_int8"]
    assert row["rbo"] == own.loc["pruned_50_int8", "rbo"]["mean"]
    assert row["cosine_verdict"] == own.loc["pruned_50_int8", "cosine"]["verdict"]
    assert np.isnan(table.set_index("model").loc["base", "cosine"]) and row["kind"] == "shrunk"
    # 16 bits change next to nothing, seen through the same samples.
    assert table.set_index("model").loc["base_fp16", "cosine"] > 0.99
    picked = json.loads((out / "similarity/explanations/base/record.json").read_text())["documents"]
    sp_lime = pd.read_csv(out / "sp_lime" / "sp_lime.csv")
    assert sorted(picked) == sorted(sp_lime[sp_lime["pick"] == "coverage"]["document"]) and len(picked) == 5
    for name in names[1:]:
        record = json.loads((out / "similarity/explanations" / name / "record.json").read_text())
        assert sorted(record["documents"]) == sorted(picked)
    report = (out / "reports" / "report.html").read_text()
    for heading in ("Similarity of explanations", "Parts of speech", "Students", "How it was made"):
        assert f"<h2>{heading}</h2>" in report
    assert "<h2>Models</h2>" not in report and report.count("data:image/png;base64,") == 5
    assert is_drawn(out / "reports" / "explanations.png")
    capsys.readouterr()
    assert main([*words, "--resume"]) == 0
    assert capsys.readouterr().out.count("done before") == 6


def test_the_report_says_in_words_what_is_told_apart():
    less, more, same = ("less alike than the noise floor", "more alike than the noise floor", "not told apart")
    values = dict.fromkeys(("cosine", "spearman", "jaccard", "rbo"), 0.5)

    def row(name, *verdicts):
        return {"model": name, **values, **{f"{m}_verdict": v for m, v in zip(values, verdicts, strict=True)}}

    rows = [row("noise floor", *["noise floor"] * 4), {"model": "base"}, row("small", *[less] * 4),
            row("int8", more, more, same, less)]  # fmt: skip
    assert verdict_lines(rows, 3) == [
        "Less alike than the noise floor: small, int8 (rank-biased overlap).",
        "More alike than the noise floor: int8 (cosine, Spearman).",
        "Not told apart: int8 (top-3 Jaccard).",
    ]


def test_a_command_in_a_process_of_its_own_gives_its_status():
    assert run_command(["-h"]) == 0
    assert run_command(["nonsense"]) == 2


def test_what_a_command_prints_is_logged_where_nobody_asked_for_it(capfd, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("gated_bert"), "propagate", True)
    with caplog.at_level(logging.INFO, "gated_bert"):
        assert run_command(["-h"], quiet=True) == 0
    assert capfd.readouterr().out == "" and any("gated-bert" in each.message for each in caplog.records)


def test_a_command_is_started_from_any_thread_and_without_what_windows_lacks(monkeypatch):
    start = subprocess.Popen

    def on_windows(*words, preexec_fn=None, **options):
        if preexec_fn is not None:
            raise ValueError("preexec_fn is not supported on Windows platforms")
        return start(*words, **options)

    monkeypatch.setattr(subprocess, "Popen", on_windows)
    with concurrent.futures.ThreadPoolExecutor() as pool:
        assert pool.submit(run_command, ["nonsense"]).result() == 2


@pytest.mark.parametrize("interrupt_is", [signal.default_int_handler, signal.SIG_IGN])
@pytest.mark.parametrize("quiet", [False, True])
def test_a_command_in_a_process_of_its_own_is_stopped_once_and_waited_for(tmp_path, monkeypatch, interrupt_is, quiet):
    """Also where Ctrl-C is ignored, as in the background of a script: a shell cannot even trap it then."""
    program = tmp_path / "python"
    program.write_text("#!/bin/sh\ntrap 'sleep 0.3; echo stopped >> ended; exit 130' INT\necho > begun\n"
                       "while :; do sleep 0.05; done\n")  # fmt: skip
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))

    def interrupt():
        while not Path(tmp_path / "begun").exists():
            threading.Event().wait(0.02)
        os.kill(os.getpid(), signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    usual = signal.signal(signal.SIGINT, interrupt_is)
    try:
        thread = threading.Thread(target=interrupt)
        thread.start()
        with pytest.raises(KeyboardInterrupt):
            run_command(["explain"], quiet)
        thread.join()
        assert signal.getsignal(signal.SIGINT) is interrupt_is
    finally:
        signal.signal(signal.SIGINT, usual)
    assert Path("ended").read_text() == "stopped\n" and signal.getsignal(signal.SIGTERM) is before


def test_the_comparison_takes_what_the_newest_benchmark_found():
    judging = Judging("embedded", None, False, resume=True)
    for value in (0.5, 0.75):
        row = {"path": "model", "parameters": 3, "nonzero_parameters": 2, "metric": "accuracy", "value": value}
        keep_benchmark({"complete": True, "data": "some", "models": [row]}, judging, Path("judged.json"))
    keep_benchmark({"complete": False}, judging, Path("judged.json"))
    kept = json.loads(Path("judged.json").read_text())
    facts = {"parameters": 3, "nonzero_parameters": 2, "test_metric": "accuracy", "test_value": 0.75}
    assert kept["models"] == {str(Path("model").resolve()): facts} and kept["judged_on"] == "some"
