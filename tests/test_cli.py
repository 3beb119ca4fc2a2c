"""The command line: every flag, every refusal in one line, and an answer before any framework is imported."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from gated_bert.cli.main import main
from gated_bert.config.flag_table import JOB_FLAGS, SWEEP_FLAGS
from tests.refused import refusal

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch, tmp_path):
    for name in ("BENCHMARK_EPOCHS", "VERBOSE", "GATED_BERT_DATA", "KERAS_BACKEND"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        ("-e abc", ["-e/--epochs: 'abc'", "whole number from 0"]),
        ("-e 0", ["-e/--epochs: 0"]),
        ("-e 2.5", ["-e/--epochs: '2.5'"]),
        ("-b -3", ["-b/--batch-size: -3", "from 1"]),
        ("-l 0", ["-l/--learning-rate", "above 0"]),
        ("-l -1e-5", ["-l/--learning-rate: -1e-05"]),
        ("-l nan", ["-l/--learning-rate: nan"]),
        ("-m huge", ["-m/--model-size: 'huge'", "tiny, small, base, large"]),
        ("-p movment", ["-p/--pruning-methods: 'movment'", "(did you mean movement?)"]),
        ("-p ,", ["-p/--pruning-methods"]),
        ("-s 90", ["-s/--start-sparsity: 90", "did you mean 0.9?"]),
        ("-f -0.1", ["-f/--end-sparsity: -0.1", "from 0 to 1"]),
        ("-s 0.9 -f 0.5", ["-s/--start-sparsity: 0.9", "end_sparsity=0.5"]),
        ("-ps 0", ["-ps/--pruning-start: 0"]),
        ("-ps 9 -e 5", ["-ps/--pruning-start: 9", "1 to 5"]),
        ("-ps 5 -pe 4", ["-ps/--pruning-start: 5"]),
        ("-pe x", ["-pe/--pruning-end: 'x'"]),
        ("-ss 10 abc", ["-ss/--sparsity-steps: '10 abc'", "percentages"]),
        ("-ss 50 10", ["-ss/--sparsity-steps: 10", "never fall"]),
        ("-ss 10,120", ["-ss/--sparsity-steps: 120"]),
        ("-e 3 -ss 1 2 3 4", ["-ss/--sparsity-steps", "at most 3 values"]),
        ("-se maybe", ["-se/--spt-explore: 'maybe'", "true, false"]),
        ("-t sst", ["-t/--task: 'sst'", "sst2, cola", "did you mean sst2?"]),
        ("-ml 4", ["-ml/--max-len: 4", "8 to 512"]),
        ("-max-parallel-jobs 0", ["-max-parallel-jobs/--max-parallel-jobs: 0"]),
        ("-d nowhere", ["-d/--data: 'nowhere'", "hub, embedded"]),
        ("-d embeded", ["did you mean embedded?"]),
        ("-pt ./nowhere", ["-pt/--pretrained: './nowhere'", "Hugging Face id"]),
        ("--vocab nowhere.txt", ["--vocab: 'nowhere.txt'"]),
        ("--seeds 1,x", ["--seeds: 'x'"]),
        ("--seed -1", ["--seed: -1"]),
        ("--output-mode pictures", ["--output-mode: 'pictures'", "bars, logs, both"]),
        ("--criterion weight", ["--criterion: 'weight'", "magnitude"]),
        ("--criterion spt -p magnitude", ["--criterion", "-p/--pruning-methods"]),
        ("--pattern hed", ["--pattern: 'hed'", "did you mean head?"]),
        ("-p l0 --pattern head", ["--pattern: 'head'", "element"]),
        ("--pruning-type 9", ["--pruning-type: 9", "0, 1, 2, 3, 4, 5, 6, 7, 8"]),
        ("--tilesparsity-variant cod", ["--tilesparsity-variant: 'cod'", "did you mean code?"]),
        ("--tilesparsity-variant code", ["--tilesparsity-variant: 'code'", "pruning_type, 0 to 8"]),
        ("--tilesparsity-variant readme --pruning-type 6", ["--tilesparsity-variant: 'readme'", "code, with"]),
        ("--tilesparsity-variant code --pruning-type 7 --scope layer", ["--scope: 'layer'", "global, with"]),
        ("-p LayerMagAct --activation-variant mean", ["--activation-variant: 'mean'", "default, published"]),
        ("--scope local", ["--scope: 'local'", "layer, global, role"]),
        ("--schedule square", ["--schedule: 'square'", "linear"]),
        ("--schedule steps", ["-ss/--sparsity-steps"]),
        ("--optimizer lion", ["--optimizer: 'lion'", "adamw, adam, sgd"]),
        ("--weight-decay 2", ["--weight-decay: 2"]),
        ("--momentum 1", ["--momentum: 1"]),
        ("--dropout 1", ["--dropout: 1"]),
        ("--warmup 2", ["--warmup: 2"]),
        ("--clip-norm 0", ["--clip-norm: 0"]),
        ("--train-examples 0", ["--train-examples: 0"]),
        ("--num-layers x", ["--num-layers: 'x'"]),
        ("--num-heads 5 -m tiny", ["--num-heads: 5", "divisor"]),
        ("--precision int8", ["--precision: 'int8'"]),
        ("--jit-compile perhaps", ["--jit-compile: 'perhaps'"]),
        ("--prunable-roles query,keys", ["--prunable-roles: 'keys'"]),
        ("--spt-unit tiles", ["--spt-unit: 'tiles'"]),
        ("--spt-reward shared", ["--spt-reward: 'shared'"]),
        ("--movement-schedule step", ["--movement-schedule: 'step'"]),
        ("--seed 3 --seeds 1,2", ["--seed: not together with --seeds"]),
        ("--schedule linear --movement-schedule cubic", ["--movement-schedule: 'cubic'", "or without --schedule"]),
        ("-ss 10 50 -f 0.9", ["-f/--end-sparsity: 0.9", "0.5, or without -ss/--sparsity-steps"]),
        ("--epoch 3", ["--epoch: unknown flag", "did you mean --epochs?"]),
        ("-pz 3", ["-pz: unknown flag"]),
        ("-e5", ["-e5: unknown flag"]),
        ("-e", ["-e/--epochs: a value is missing"]),
        ("-e -b 3", ["-e/--epochs: a value is missing"]),
        ("-o", ["-o/--output-dir: a value is missing"]),
        ("stray", ["'stray'"]),
        ("-parallel 4", ["'4'"]),
        ("--resume=yes", ["--resume"]),
    ],
)
def test_nonsense_is_refused_in_one_line(capsys, words, parts):
    line = refusal(capsys, "sweep", *words.split())
    for part in parts:
        assert part in line


@pytest.mark.parametrize(
    "flag", [flag for flag in SWEEP_FLAGS if flag.kind in ("int", "float")], ids=lambda flag: flag.name
)
@pytest.mark.parametrize("value", ["", "many", "1,5", "-7"])
def test_no_number_gets_past_its_flag(capsys, flag, value):
    assert flag.options[0] in refusal(capsys, "sweep", "--check", "-p", "l0,magnitude,spt", flag.options[0], value)


def test_one_run_has_one_folder(capsys):
    line = refusal(capsys, "train", "-d", "embedded", "--run-dir", "here", "-o", "there")
    assert "-o/--output-dir: not together with --run-dir" in line


def test_every_flag_has_its_own_spellings():
    for flags in (SWEEP_FLAGS, JOB_FLAGS):
        options = [option for flag in flags for option in flag.options]
        assert len(options) == len(set(options))


@pytest.mark.parametrize(
    ("name", "value", "part"),
    [
        ("BENCHMARK_EPOCHS", "few", "BENCHMARK_EPOCHS: 'few'"),
        ("BENCHMARK_EPOCHS", "0", "BENCHMARK_EPOCHS: '0'"),
        ("VERBOSE", "3", "VERBOSE: '3'"),
        ("GATED_BERT_DATA", "/nowhere/at/all", "GATED_BERT_DATA: '/nowhere/at/all'"),
        ("KERAS_BACKEND", "theano", "KERAS_BACKEND: 'theano'"),
    ],
)
def test_bad_environment_variables_are_refused(capsys, monkeypatch, name, value, part):
    monkeypatch.setenv(name, value)
    assert part in refusal(capsys, "sweep", "--check")


def test_help_shows_defaults_as_they_are_typed_and_those_of_the_command(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    for words, part in (("sweep -h", "peak learning rate (default 2e-5)"),
                        ("activation-change -h", "most runs at a time (default 1)")):  # fmt: skip
        assert main(words.split()) == 0
        assert part in capsys.readouterr().out


def test_commands_are_known_by_name(capsys):
    assert "did you mean sweep?" in refusal(capsys, "swep")
    assert main(["-h"]) == 0
    assert "compare" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "part"),
    [
        ("compare", "at least one folder"),
        ("compare nowhere", "'nowhere'"),
        ("download", "glue, ag_news, squad, bert"),
        ("download glu data", "did you mean glue?"),
        ("train -p magnitude,spt", "one method"),
        ("train --config-file nowhere.json", "--config-file: 'nowhere.json'"),
        ("train --seeds 1,2", "--seeds: unknown flag"),
    ],
)
def test_other_commands_refuse_in_one_line(capsys, words, part):
    assert part in refusal(capsys, *words.split())


def test_broken_and_foreign_records_are_refused(capsys, tmp_path):
    record = tmp_path / "job.json"
    record.write_text('{"epochs": 3,\n "batch_si')
    assert "line 2" in refusal(capsys, "train", "--config-file", str(record))
    record.write_text('{"epochz": 3}')
    assert "did you mean epochs?" in refusal(capsys, "train", "--config-file", str(record))
    record.write_text("[1, 2]")
    assert "--config-file" in refusal(capsys, "train", "--config-file", str(record))
    record.write_text("{}")
    assert "-e/--epochs" in refusal(capsys, "train", "--config-file", str(record), "-e", "3")


def timed(command: list, **options) -> tuple[subprocess.CompletedProcess, float]:
    """A finished command and the seconds of processor time it took, which a busy machine does not change much."""
    before = os.times()
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, **options)
    after = os.times()
    used = after.children_user + after.children_system - before.children_user - before.children_system
    return done, used


@pytest.mark.parametrize(
    "words", [["-h"], ["-p", "movment"], ["--check", "-p", "l0,spt"], ["--dry-run", "-d", "embedded"]]
)
def test_an_answer_needs_no_framework_and_less_than_a_second(words, tmp_path):
    # A machine has nothing but Python before the first installation, and no results.
    words = [*words, "-o", str(tmp_path / "out")]
    code = f"import sys; before = set(sys.modules)\nfrom gated_bert.cli.main import main\n" \
           f"try: main(['sweep', *{words!r}])\nfinally: " \
           "print(sorted({name.partition('.')[0] for name in set(sys.modules) - before} - {'gated_bert'}"\
           " - set(sys.stdlib_module_names)))"  # fmt: skip
    done, seconds = timed([sys.executable, "-c", code], cwd=REPOSITORY)
    assert done.stdout.splitlines()[-1] == "[]"
    assert seconds < 1.0


def test_the_script_refuses_before_it_installs(tmp_path):
    script = REPOSITORY / "run_experiments.sh"
    done, seconds = timed([script, "-p", "movment"], cwd=tmp_path)
    assert seconds < 1.0
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1 and "did you mean movement?" in done.stderr
    shown = subprocess.run(
        [script, "-h"], capture_output=True, text=True, cwd=tmp_path, env={**os.environ, "COLUMNS": "200"}
    )
    assert shown.returncode == 0
    for part in ("default 25", "default 96", "default 2e-5", "default magnitude,movement,spt,baseline", "default sst2"):
        assert part in " ".join(shown.stdout.split())


@pytest.mark.parametrize(("change", "shown_as"), [
    (("END_SPARSITY=0.99", "END_SPARSITY=0.8"), {"end sparsity": "80 %"}),
    # Steps say where it ends.
    (("SPARSITY_STEPS=auto", 'SPARSITY_STEPS="10 50"'),
     {"start sparsity": "10 %", "end sparsity": "50 %", "schedule": "10 50 %"}),
])  # fmt: skip
def test_the_defaults_at_the_head_of_the_script_are_used(tmp_path, change, shown_as):
    text = (REPOSITORY / "run_experiments.sh").read_text()
    assert "EPOCHS=25" in text and change[0] in text
    text = text.replace("EPOCHS=25", "EPOCHS=7").replace(*change)
    text = text.replace('$(dirname "${BASH_SOURCE[0]}")', str(REPOSITORY))
    script = tmp_path / "mine.sh"
    script.write_text(text)
    words = ["bash", script, "--dry-run", "-d", "embedded"]
    shown = subprocess.run(words, capture_output=True, text=True, cwd=tmp_path).stdout.split("\n")
    rows = dict(line.strip().split("  ", 1) for line in shown if line.startswith("  ") and "  " in line.strip())
    rows = {name: value.strip() for name, value in rows.items()}
    assert {name: rows[name] for name in ("epochs", *shown_as)} == {"epochs": "7", **shown_as}


@pytest.mark.parametrize("module", ("cli/main.py", "models/bert.py", "experiments/runs/run.py"))
def test_a_warning_of_any_part_of_the_package_is_one_line_without_its_place(module, capsys, monkeypatch):
    monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)
    main(["-h"])
    path = str(REPOSITORY / "gated_bert" / module)
    assert warnings.formatwarning("told", UserWarning, path, 7) == "warning: told\n"
    assert "7" in warnings.formatwarning("told", UserWarning, "/elsewhere.py", 7)
