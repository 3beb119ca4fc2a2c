"""How commands end: an unexpected error is told and kept, streams that fail are named, and advice can be followed."""

from __future__ import annotations

import ast
import errno
import json
import os
import pickle
import re
import subprocess
import sys
from pathlib import Path

import pytest

from gated_bert.cli import main as cli
from gated_bert.cli.endings import RESUMED, end
from gated_bert.config import ConfigError
from gated_bert.config import flag_table as flags
from gated_bert.config.flag_table import LABELS
from gated_bert.start import ROOT, python_command
from gated_bert.support.errors import UserError, one_line
from gated_bert.support.quiet import log_tail, without_library_lines
from tests.refused import refusal

PACKAGE = Path(ROOT) / "gated_bert"


@pytest.fixture(autouse=True)
def _place(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    for name in ("VERBOSE", "KERAS_BACKEND", "PYTHONUNBUFFERED"):
        monkeypatch.delenv(name, raising=False)


def failing(monkeypatch, error: BaseException, name: str = "sweep"):
    def run(words):
        raise error

    monkeypatch.setitem(cli.COMMANDS, name, cli.Command("", run))


@pytest.mark.parametrize("error", [KeyError("x"), TypeError("a\nb"), RecursionError(), ValueError("é" * 5000),
                                   AssertionError(), ImportError("libcudart"), UnicodeError("\udce9")])  # fmt: skip
@pytest.mark.parametrize("words", [[], ["-o", "out"], ["--output-dir=out"], ["--run-dir", "out", "-o", "other"]])
def test_an_unexpected_error_is_one_sentence_and_a_file(monkeypatch, tmp_path, capsys, error, words):
    (tmp_path / "out").mkdir()
    failing(monkeypatch, error)
    assert cli.main(["sweep", *words]) == 70
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1 and type(error).__name__ in said[0] and "issue tracker" in said[0] and len(said[0]) < 600
    report = Path(said[0].rpartition("attach ")[2])
    assert report.is_file() and (report.parent.name == "out") == bool(words)
    written = report.read_text()
    assert "Traceback" in written and "in run" in written and "command: gated-bert sweep" in written
    report.unlink()


def test_an_unexpected_error_is_told_where_no_file_can_be_written(monkeypatch, capsys):
    failing(monkeypatch, KeyError("x"))
    monkeypatch.setattr("gated_bert.cli.endings.tempfile.gettempdir", lambda: "/nowhere")
    assert cli.main(["sweep"]) == 70
    assert "VERBOSE=2" in capsys.readouterr().err


def test_verbose_shows_the_traceback(monkeypatch, capsys):
    failing(monkeypatch, UserError("no such thing"))
    monkeypatch.setenv("VERBOSE", "2")
    assert cli.main(["sweep"]) == 2
    said = capsys.readouterr().err
    assert "Traceback" in said and said.endswith("error: no such thing\n")


@pytest.mark.nightly
def test_an_unexpected_error_of_a_job_is_what_its_launcher_shows(tmp_path):
    """A fault inside a job: its sentence is the end of its log, which the launcher shows."""
    program = ("import sys; from gated_bert.cli.common import prepare_environment; prepare_environment(); "
               "from gated_bert.experiments.runs import run; run.build_model = lambda *a, **b: {}['fault']; "
               "from gated_bert.cli.main import main; sys.exit(main(sys.argv[1:]))")  # fmt: skip
    words = ("-d", "embedded", "-t", "sst2", "-m", "tiny", "-e", "1", "-ml", "16", "-b", "16", "--train-examples", "32",
             "-p", "baseline", "--run-dir", "out")  # fmt: skip
    environment = os.environ | {"PYTHONPATH": ROOT, "CUDA_VISIBLE_DEVICES": "-1"}
    command = [sys.executable, "-c", program, "train", *words]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 70, done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: unexpected KeyError: 'fault'") and "attach out/error-" in line


def test_the_launcher_script_hands_on_the_status(tmp_path):
    (tmp_path / "sitecustomize.py").write_text(
        "import sys, gated_bert.cli.settings as s\ns.read_settings = lambda *a, **b: 1 / 0\n"
    )
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    launcher = Path(ROOT) / "run_experiments.sh"
    done = subprocess.run([launcher, "-e", "1"], env=environment, capture_output=True, text=True, cwd="/")
    assert done.returncode == 70 and "unexpected ZeroDivisionError" in done.stderr


@pytest.mark.parametrize(("error", "said"), [
    (OSError(errno.ENOSPC, "", "out/x"), "out/x: no space is left on the device; free some, then go on with --resume"),
    (OSError(errno.EROFS, os.strerror(errno.EROFS), "x"), "x: read-only file system; choose another folder with -o"),
    (OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG), "x"), "x: file name too long"),
    (OSError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), b"\xff"), "not a directory"),
    (MemoryError(), "memory is used up"),
    (ConfigError("epochs", 0, "more"), "-e/--epochs: 0 is refused; allowed: more"),
])  # fmt: skip
def test_what_a_user_can_mend_is_no_fault(capsys, error, said):
    assert end(error, ["sweep"]) == 2
    shown = capsys.readouterr().err
    assert said in shown and shown.count("\n") == 1


def test_an_unreadable_input_is_not_mended_by_another_output(tmp_path, capsys, monkeypatch):
    path = tmp_path / "texts.csv"
    path.write_text("")
    monkeypatch.setattr("gated_bert.cli.endings.os.access", lambda place, mode: mode != os.R_OK)
    end(PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path)), ["predict"])
    said = capsys.readouterr().err
    assert "texts.csv: permission denied; let this user read it" in said and said.endswith("let this user read it\n")
    monkeypatch.setattr("gated_bert.cli.endings.os.access", lambda place, mode: mode == os.R_OK)
    end(PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path)), ["predict"])
    assert "choose another folder with -o" in capsys.readouterr().err


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_only_commands_that_go_on_say_so(name, capsys):
    assert cli.main([name, "-h"]) == 0
    assert ("--resume" in capsys.readouterr().out) == (name in RESUMED)
    assert end(KeyboardInterrupt(), [name]) == 130
    assert ("--resume" in capsys.readouterr().err) == (name in RESUMED)


@pytest.mark.parametrize("name", cli.COMMANDS)
@pytest.mark.parametrize("backend", ["torch", "openvino", "tensorfow", "numpy"])
def test_every_command_checks_the_backend_first(name, backend, monkeypatch, capsys):
    monkeypatch.setenv("KERAS_BACKEND", backend)
    said = refusal(capsys, name, "x")
    assert f"KERAS_BACKEND: '{backend}' is refused; allowed: tensorflow, jax" in said
    assert cli.main([name, "-h"]) == 0


def flags_of_other_programs() -> set[str]:
    """Flags in texts that are not ours: Slurm's, Ray's, pip's, Python's, trackers' and the compilers'."""
    return {"--gres", "--time", "--job-name", "--array", "--cpus-per-task", "--mem", "--requeue", "--output", "--head",
            "--address", "--xla_cpu_multi_thread_eigen", "--query-gpu", "--format", "--no-input", "--user",
            "--disable-pip-version-check", "--dist", "--maxprocesses", "--quick", "--only", "--partition", "--nodes",
            "--export", "--upgrade", "--test-only", "--ntasks", "--no-index", "--find-links", "--port",
            "--xla_force_host_platform_device_count", "--cov", "--cov-report", "--durations", "--nightly",
            "--shuffle", "--dependency", "--parsable", "--logdir", "--backend-store-uri", "--strict"}  # fmt: skip


@pytest.fixture(scope="module")
def known_flags() -> set[str]:
    found = {"--defaults", "--help", "--here", "--data", "--output-dir"}
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Flag":
                first = node.args[0]
                found |= {item.value for item in getattr(first, "elts", ()) if isinstance(item, ast.Constant)}
    known = (*flags.JOB_FLAGS, *flags.SWEEP_FLAGS, *flags.LAUNCHER_FLAGS.values())
    return found | {option for flag in known for option in flag.options}


def named_flags(text: str) -> set[str]:
    return set(re.findall(r"(?<![\w/<!|.-])--[a-z][a-z0-9_-]*[a-z0-9]", text))


def test_every_flag_that_a_message_names_exists(known_flags):
    allowed = known_flags | flags_of_other_programs()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                assert named_flags(node.value) <= allowed, (path, node.lineno)


def test_every_flag_that_a_page_of_the_documentation_names_exists(known_flags):
    allowed = known_flags | flags_of_other_programs()
    for path in (*Path(ROOT).glob("*.md"), *Path(ROOT).glob("docs/**/*.md"), *Path(ROOT).glob("*.sh")):
        assert named_flags(path.read_text(encoding="utf-8")) <= allowed, path


def test_a_refused_field_of_a_record_is_called_by_a_flag_that_exists(known_flags):
    for label in LABELS.values():
        assert set(label.split("/")) <= known_flags | {option for option in label.split("/") if option[1] != "-"}, label


@pytest.mark.parametrize(("text", "said"), [
    ("A total of 3 objects could not be loaded. Example error message for object <Dense name=a>:\n\n"
     "Layer 'a' expected 2 variables.\n\nList of objects:\n[]", "Layer 'a' expected 2 variables."),
    ("one\ntwo", "one"), ("one:\n", "one:"), ("", "ValueError"), ("a\t\n  b", "a"),
])  # fmt: skip
def test_one_line_of_an_error_holds_its_reason(text, said):
    assert one_line(ValueError(text)).endswith(said) and "\n" not in one_line(ValueError(text))
    assert len(one_line(ValueError("x" * 10_000))) <= 303


def test_a_model_that_is_cut_off_is_not_called_missing(tmp_path, capsys):
    from gated_bert.models.folder import FILES

    for name in FILES:
        (tmp_path / name).write_text("{}")
    (tmp_path / "config.json").write_text('{"architecture": {}, "task": {"name": "a", "title": "b"}}')
    said = refusal(capsys, "inspect", str(tmp_path))
    assert "not found" not in said.lower()


LIBRARY = ("WARNING: All log messages before absl::InitializeLog() is called are written to STDERR\n"
           "I0000 00:00:1795621404.1   8872 port.cc:153] oneDNN custom operations are on.\n"
           "E0000 00:00:1795621404.1   8872 cuda_platform.cc:52] failed call to cuInit\n"
           "2026-01-01 10:00:00.123456: I tensorflow/core/platform/cpu_feature_guard.cc:210] This TensorFlow binary\n"
           )  # fmt: skip


def test_the_end_of_a_log_is_not_that_of_the_library(tmp_path, monkeypatch):
    (tmp_path / "log.txt").write_text("began\n" + LIBRARY * 40 + "error: x\n" + LIBRARY * 40)
    assert log_tail(tmp_path / "log.txt", 2).splitlines()[-1] == "error: x"
    assert without_library_lines(LIBRARY + "I think so\n") == "I think so\n"
    monkeypatch.setenv("VERBOSE", "2")
    assert "oneDNN" in log_tail(tmp_path / "log.txt", 2) or "cpu_feature_guard" in log_tail(tmp_path / "log.txt", 2)


def test_models_that_are_traced_one_after_another_are_no_warning(monkeypatch, caplog):
    tensorflow = pytest.importorskip("tensorflow")
    from gated_bert.support import quiet

    def traced():
        return tensorflow.function(lambda x: x + 1)(1)

    logger = tensorflow.get_logger()
    monkeypatch.setattr(logger, "propagate", True)
    monkeypatch.setattr(logger, "filters", [])
    for _ in range(8):
        traced()
    assert "triggered tf.function retracing" in caplog.text, "TensorFlow's words have changed"
    caplog.clear()
    quiet._quietly(lambda _: None, tensorflow)
    for _ in range(8):
        traced()
    logger.warning("something else")
    assert [record.getMessage() for record in caplog.records] == ["something else"]


@pytest.mark.parametrize("verbose", ["1", "2"])
@pytest.mark.daily_every(2)
def test_a_refusal_after_the_framework_has_started_stands_alone(tmp_path, verbose):
    pytest.importorskip("tensorflow")
    for name in ("model.keras", "tokenizer.json", "metadata.json"):
        (tmp_path / name).write_text("{}")
    (tmp_path / "config.json").write_text("{}")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TF_")}
    environment |= {"VERBOSE": verbose, "KERAS_BACKEND": "tensorflow"}
    done = subprocess.run(python_command("gated_bert", "inspect", "."), env=environment, capture_output=True, text=True)
    assert done.returncode == 2
    assert (done.stderr.count("\n") == 1) == (verbose == "1"), done.stderr


def test_a_refusal_quotes_no_more_of_a_file_than_a_screen_holds(tmp_path, capsys):
    rows = [{"text": f"text {number}", "label": "ab"[number % 2]} for number in range(20)]
    rows[7]["label"] = "x" * 100_000
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    said = refusal(capsys, "train", "-d", str(tmp_path / "train.jsonl"), "-m", "tiny", "-e", "1", "--train-examples",
                   "8", "--run-dir", str(tmp_path / "run"), "--task-type", "regression")  # fmt: skip
    assert len(said) < 2000
    long = UserError(f"{'a' * 5000}: file; {'b' * 5000}: remedy")
    assert str(long).startswith("aaa") and str(long).endswith(": remedy") and len(str(long)) < 2000
    assert pickle.loads(pickle.dumps(long)).args == long.args


def test_an_error_is_one_line_whatever_it_quotes():
    for mark in "\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029":
        said = str(UserError(f"tags.txt: 'B{mark}I' is no tag\n"))
        assert len(said.splitlines()) == 1 and repr(mark)[1:-1] in said and said.endswith("no tag")
