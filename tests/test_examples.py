"""What a newcomer reads first: the examples of the commands, the commands to begin with, and what a run's end names."""

import importlib
import pkgutil
import shlex
from pathlib import Path

import pytest

import gated_bert.cli
from gated_bert.cli import main as cli
from gated_bert.cli.example_lines import EXAMPLES, FIRST, SPEEDUPS
from gated_bert.config import GatedBertConfig
from gated_bert.experiments.reports.next_steps import say_next_of_run, say_next_of_sweep

REPOSITORY = Path(__file__).resolve().parents[1]


class Accepted(Exception):
    """A command line was read to its end."""


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with what the examples name, in which every command stops where it would begin to work."""

    def accept(*words, **options):
        raise Accepted

    monkeypatch.chdir(tmp_path)
    for name in ("magnitude", "movement", "taylor"):
        (tmp_path / f"results/results_{name}_sst2/model").mkdir(parents=True)
        (tmp_path / f"results/results_{name}_sst2/model/config.json").write_text("{}")
    for name in ("other_results", "explanations", "explanations_pruned"):
        (tmp_path / name).mkdir()
        for file in ("record.json", "documents.jsonl"):
            (tmp_path / name / file).write_text("{}")
    (tmp_path / "other.onnx").write_bytes(b"")
    (tmp_path / "reviews.csv").write_text("review,stars\ngood,5\n")
    (tmp_path / "configs").symlink_to(REPOSITORY / "configs")
    for each in pkgutil.iter_modules(gated_bert.cli.__path__):
        module = importlib.import_module(f"gated_bert.cli.{each.name}")
        if hasattr(module, "prepare_environment"):
            monkeypatch.setattr(module, "prepare_environment", accept)
    begins = {"experiments.reports.compare": "compare", "tasks.download": "download",
              "experiments.studies.study": "run_study", "experiments.sweeps.watching": "Watch"}  # fmt: skip
    for module, name in begins.items():
        monkeypatch.setattr(importlib.import_module(f"gated_bert.{module}"), name, accept)


def accepts(line: str):
    words = shlex.split(line)
    assert words[0] == "gated-bert"
    with pytest.raises(Accepted):
        cli._dispatch(words[1:])


def test_every_command_has_an_example():
    assert list(EXAMPLES) == [name for name in cli.COMMANDS]
    assert all(line.split()[:2] == ["gated-bert", name] for name, line in EXAMPLES.items())


@pytest.mark.parametrize("name", EXAMPLES)
def test_examples_are_read_and_stand_in_the_help(name, place, capsys):
    accepts(EXAMPLES[name])
    assert cli.main([name, "-h"]) == 0
    assert capsys.readouterr().out.endswith(f"example:\n  {EXAMPLES[name]}\n")


def test_a_command_that_words_make_another_has_its_own_example(place, capsys):
    accepts(SPEEDUPS)
    assert cli.main(["compress", "--speedups", "2", "-h"]) == 0
    assert capsys.readouterr().out.endswith(f"example:\n  {SPEEDUPS}\n")


def test_the_script_has_an_example_under_its_own_name(capsys):
    assert cli.main(["sweep", "--defaults", "epochs=25", "-h"]) == 0
    assert "example:\n  ./run_experiments.sh -p baseline," in capsys.readouterr().out


def test_without_words_five_commands_to_begin_with_are_shown(place, capsys):
    assert cli.main([]) == 2
    said = capsys.readouterr().out
    assert len(FIRST) == 5 and all(f"  {line}\n" in said for line in FIRST) and "-h lists all" in said
    for line in FIRST:
        accepts(line)


def commands_in(said: str) -> list[str]:
    lines = [line for line in said.splitlines() if "gated-bert " in line]
    return [line[line.index("gated-bert ") :] for line in lines]


@pytest.mark.parametrize(
    ("pattern", "names"), [("element", ["inspect", "export"]), ("head", ["inspect", "shrink", "export"])]
)
def test_a_run_names_what_can_be_done_with_it(place, capsys, monkeypatch, pattern, names):
    monkeypatch.setenv("VERBOSE", "1")
    folder = Path("results/results_magnitude_sst2")
    config = GatedBertConfig(model_size="tiny", pruning_method="magnitude", pattern=pattern)
    say_next_of_run(folder, config)
    said = capsys.readouterr().out
    assert said.startswith("results in results/results_magnitude_sst2: ")
    assert [line.split()[1] for line in commands_in(said)] == names
    for line in commands_in(said):
        accepts(line)
    monkeypatch.setenv("VERBOSE", "0")
    say_next_of_run(folder, config)
    assert capsys.readouterr().out == ""


def test_a_sweep_names_its_report_a_pruned_model_and_its_trackers(place, capsys, tmp_path):
    output = tmp_path / "a sweep's $HOME"
    folders = {name: output / f"results_{name}_sst2" for name in ("baseline", "magnitude")}
    for folder in folders.values():
        (folder / "model").mkdir(parents=True)
        (folder / "model/config.json").write_text("{}")
    (output / "report.html").write_text("")
    shared = {"model_size": "tiny", "track": ("tensorboard", "mlflow")}
    configs = {name: GatedBertConfig(pruning_method=name, **shared) for name in folders}
    say_next_of_sweep(output, [(folder, configs[name]) for name, folder in folders.items()])
    said = capsys.readouterr().out
    assert str(output / "report.html") in said and "tensorboard --logdir " in said and "mlflow ui " in said
    for line in commands_in(said):
        assert str(folders["magnitude"]) in shlex.split(line)[2]
        accepts(line)
