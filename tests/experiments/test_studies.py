"""Studies, run as a user runs them, at the smallest scale."""

import dataclasses
import shlex
from pathlib import Path

import pandas as pd
import pytest

from gated_bert.cli import main as cli
from gated_bert.cli import sweep_commands
from gated_bert.cli.main import main
from gated_bert.compression.export import export_hugging_face
from gated_bert.experiments.studies.catalogue import SCALES, STUDIES
from gated_bert.experiments.studies.study import RECORD, run_study
from gated_bert.models.architecture import BertConfig
from gated_bert.models.bert import BertClassifier
from gated_bert.models.build import build_model
from gated_bert.models.folder import LoadedModel
from gated_bert.pruning.callbacks import PruningCallback
from gated_bert.pruning.criteria import criterion_of
from gated_bert.support.errors import UserError
from gated_bert.tasks.embedded import embedded_vocabulary
from gated_bert.tasks.task import TASKS
from gated_bert.tasks.wordpiece import Tokenizer
from tests.pictures import is_drawn


def flags_in(part, folder):
    """A part's flags in a study's `folder`, which gets the folder of weights of an earlier part."""
    flags = part.flags.replace("{study}", str(folder)).split()
    if "-pt" in flags:
        Path(flags[flags.index("-pt") + 1]).mkdir(parents=True, exist_ok=True)
    return flags


@pytest.fixture
def plans(monkeypatch):
    """Plans of the sweeps that are asked for, in order."""
    made, read = [], sweep_commands.read_plan
    monkeypatch.setattr(sweep_commands, "read_plan", lambda *words: made.append(read(*words)) or made[-1])
    return made


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("name", STUDIES)
def test_every_sweep_of_every_study_is_accepted(name, scale, tmp_path):
    for part in STUDIES[name].parts[scale]:
        flags = flags_in(part, tmp_path)
        if part.command != "iou":
            assert main([part.command, *flags, "-d", "embedded", "--check"]) == 0


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("name", STUDIES)
def test_no_two_parts_of_a_study_train_the_same(name, scale, plans, tmp_path):
    for part in STUDIES[name].parts[scale]:
        flags = flags_in(part, tmp_path)
        if part.command == "sweep":
            assert main([part.command, *flags, "-d", "embedded", "--check"]) == 0
    records = [job.config for plan in plans for job in plan.jobs]
    twice = [record for place, record in enumerate(records) if record in records[:place]]
    assert not twice


@pytest.mark.nightly
@pytest.mark.parametrize("name", ["accuracy", "movement", "pretrained", "squad", "stages", "units"])
def test_what_a_study_prunes_of_pretrained_weights_can_be_pruned(name, plans, tmp_path):
    """What only a model's matrices can say, for one of MiniLM's sizes."""
    for part in STUDIES[name].parts["standard"]:
        if part.command == "sweep":
            folder = tmp_path / "of_an_earlier_part"
            folder.mkdir(exist_ok=True)
            words = [folder if "{study}" in word else word for word in part.flags.split()]
            assert main([*map(str, (part.command, *words)), "-d", "embedded", "--check"]) == 0
    made = 0
    sizes = {"pretrained": None, "num_layers": 6, "d_model": 384, "num_heads": 12, "dff": 1536}
    for plan in plans:
        for job in plan.jobs:
            if job.config.criterion and job.config.seed == plan.settings.seeds[0]:
                config = dataclasses.replace(job.config, **sizes)
                criterion = criterion_of(config)
                model = build_model(config, TASKS["sst2"], 100, gate_rule=criterion.gate_rule)
                made += bool(PruningCallback.from_config(config, model, steps_per_epoch=100).pruner.groups)
    assert made >= 1


def test_a_sweep_that_fails_ends_the_study(tmp_path):
    calls = []
    assert run_study("spt", "smoke", tmp_path, lambda command, words: calls.append(words) or 1) == 1
    assert len(calls) == 1 and "--resume" in calls[0]


def test_two_studies_do_not_share_a_folder(tmp_path):
    def meanwhile(command, words):
        with pytest.raises(UserError, match="in use"):
            run_study("spt", "smoke", tmp_path, lambda command, words: 0)
        return 1

    assert run_study("spt", "smoke", tmp_path, meanwhile) == 1


def test_a_folder_is_of_one_scale(tmp_path):
    assert run_study("spt", "smoke", tmp_path, lambda command, words: 1) == 1
    with pytest.raises(UserError, match="holds a study at --scale smoke, not standard"):
        run_study("spt", "standard", tmp_path, lambda command, words: 0)
    # What another study goes on with, and a record that was lost.
    assert run_study("patterns", "smoke", tmp_path, lambda command, words: 1) == 1
    (tmp_path / RECORD).write_text("{")
    assert run_study("spt", "standard", tmp_path, lambda command, words: 1) == 1


def test_a_study_says_what_it_lacks(tmp_path):
    with pytest.raises(UserError, match="study pretrained: .* -pt"):
        run_study("pretrained", "smoke", tmp_path, lambda command, words: 0)
    with pytest.raises(UserError, match="study spt: is about embedded data; leave -d out"):
        run_study("spt", "smoke", tmp_path, lambda command, words: 0, data="hub")


def test_a_dry_run_shows_commands_that_can_be_typed_and_makes_nothing(tmp_path, capsys):
    folder = tmp_path / "of a study"
    words = ["study", "spt", "--scale", "smoke", "-o", str(folder), "--parts", "element-random,element-taylor"]
    assert main([*words, "--dry-run", "--publish", str(tmp_path / "published")]) == 0
    commands = [shlex.split(line) for line in capsys.readouterr().out.splitlines() if line.startswith("  ")]
    assert not list(tmp_path.iterdir())
    assert [Path(command[command.index("-o") + 1]).name for command in commands] == words[-1].split(",")
    assert {command[0] for command in commands} == {"gated-bert"}
    assert all(main([*command[1:], "--check"]) == 0 for command in commands)


def test_help_of_a_study_names_its_parts(capsys):
    assert main(["study", "latency", "-h"]) == 0
    assert {"sst2-at-once,", "ag_news-3,"} <= set(capsys.readouterr().out.split())


SMALLER = ("--num-layers", "1", "--d-model", "128", "--num-heads", "4", "--dff", "256")


@pytest.fixture
def smaller(monkeypatch):
    """Sweeps of a study train models of one layer."""
    run = cli._run_command
    monkeypatch.setattr(cli, "_run_command", lambda command, words: run(command, [*words, *SMALLER]))


@pytest.fixture
def published_model(tmp_path) -> Path:
    """A small BERT under the names of Hugging Face."""
    tokenizer = Tokenizer.from_vocab(embedded_vocabulary())
    sizes = BertConfig.uniform(2, 40, 5, 80, vocab_size=tokenizer.vocab_size, max_position=128)
    folder = tmp_path / "small_bert"
    export_hugging_face(folder, LoadedModel(BertClassifier(sizes), tokenizer, TASKS["sst2"], sizes, {}))
    return folder


def smoke(tmp_path, name, *flags):
    words = ["study", name, "--scale", "smoke", "-o", str(tmp_path / "study"), "--publish", str(tmp_path / "published")]
    assert main([*words, "-max-parallel-jobs", "2", *flags]) == 0
    published = tmp_path / "published"
    assert not list(published.rglob("results_*")) and not list(published.rglob("*.html"))
    assert (published / "pruning_methods_comparison_dual_axis.png").exists()
    assert {path.suffix for path in published.rglob("*") if path.is_file()} == {".csv", ".png"}
    texts = [path.read_text() for path in published.rglob("*.csv")]
    assert len(texts) > 1 and not any(str(tmp_path) in text for text in texts)
    return pd.read_csv(published / "comparison_summary.csv")


@pytest.mark.nightly
def test_the_embedded_study(smaller, tmp_path, capfd):
    summary = smoke(tmp_path, "embedded")
    assert set(summary["method"]) == {"baseline", "magnitude", "movement", "spt"}
    pruned = summary[summary["method"] != "baseline"]
    assert (pruned["final_sparsity_mean"] - 0.9).abs().max() < 2e-3
    # A second start finds everything finished.
    assert main(["study", "embedded", "--scale", "smoke", "-o", str(tmp_path / "study")]) == 0


@pytest.mark.nightly
def test_the_spt_study(jobs_here, tmp_path):
    assert len(smoke(tmp_path, "spt")) == len(STUDIES["spt"].parts["smoke"])


@pytest.mark.nightly
def test_the_sst2_study(jobs_here, tmp_path, real_data):
    assert len(smoke(tmp_path, "sst2", "-d", str(real_data / "glue"))) == 4


@pytest.mark.nightly
def test_the_pretrained_study(jobs_here, tmp_path, real_data, minilm):
    summary = smoke(tmp_path, "pretrained", "-d", str(real_data / "glue"), "-pt", str(minilm))
    assert set(summary["method"]) == {"baseline", "magnitude", "random"}


@pytest.mark.nightly
def test_the_patterns_study(jobs_here, smaller, tmp_path):
    summary = smoke(tmp_path, "patterns")
    assert len(summary) == 4
    assert (summary["final_sparsity_mean"] - 0.5).abs().max() < 0.02
    whole = summary[summary["method"].str.contains("head_neuron")]
    assert (whole["mac_reduction_shrunk_mean"] > 0.4).all()


@pytest.mark.nightly
def test_the_study_of_stages(jobs_here, tmp_path, real_data, minilm):
    summary = smoke(tmp_path, "stages", "-d", str(real_data / "glue"), "-pt", str(minilm))
    assert len(summary) == 5
    stages = pd.read_csv(tmp_path / "published" / "stages.csv")
    assert list(stages["stage"]) == [50, 75] * 2
    assert len(set(stages["method"])) == 2
    assert (tmp_path / "published" / "stages.png").exists()


@pytest.mark.nightly
def test_the_study_of_accuracy(jobs_here, tmp_path, real_data, minilm):
    summary = smoke(tmp_path, "accuracy", "-d", str(real_data / "glue"), "-pt", str(minilm))
    assert {"baseline", "magnitude", "sparsegpt"} <= set(summary["method"])
    kept = pd.read_csv(tmp_path / "published" / "accuracy_summary.csv")
    assert set(kept["way"]) == {"dense", "one-shot", "trained", "with a teacher"}
    assert set(kept["method"]) == {"dense", "random", "magnitude", "wanda", "sparsegpt", "obert"}
    assert (tmp_path / "published" / "accuracy.png").exists()


@pytest.mark.nightly
def test_the_study_of_latency(jobs_here, tmp_path, real_data, minilm):
    smoke(tmp_path, "latency", "-d", str(real_data / "glue"), "-pt", str(minilm))
    found = pd.read_csv(tmp_path / "published" / "speed.csv")
    assert set(found["way"]) == {"obs, int8", "obs, fp32, without training"}
    assert len(pd.read_csv(tmp_path / "published" / "speed_summary.csv")) == 2 + 3
    assert is_drawn(tmp_path / "published" / "speed.png")


@pytest.mark.nightly
@pytest.mark.parametrize("name", ["movement", "units"])
def test_the_studies_of_movement_and_of_units(jobs_here, tmp_path, real_data, minilm, name):
    summary = smoke(tmp_path, name, "-d", str(real_data / "glue"), "-pt", str(minilm))
    assert len(summary) == len(STUDIES[name].parts["smoke"])


@pytest.mark.nightly
def test_the_squad_study(jobs_here, tmp_path, real_data, minilm):
    summary = smoke(tmp_path, "squad", "-d", str(real_data), "-pt", str(minilm))
    assert list(summary["final_sparsity_mean"].round(2)) == [0, 0.5]


@pytest.mark.nightly
def test_the_saliency_study(jobs_here, tmp_path, real_data, minilm):
    words = ["study", "saliency", "--scale", "smoke", "-o", str(tmp_path / "study"), "-max-parallel-jobs", "2"]
    words += ["-d", str(real_data / "glue"), "-pt", str(minilm), "--publish", str(tmp_path / "published")]
    assert main(words) == 0
    summary = pd.read_csv(tmp_path / "published" / "sst2" / "oneshot_summary.csv")
    assert list(summary["n"]) == [2, 2] and (summary["sparsity"] - 0.64).abs().max() < 2e-3
    tickets = pd.read_csv(tmp_path / "published" / "tickets" / "lottery.csv")
    assert set(tickets["kind"]) == {"dense", "ticket", "random"}
    overlap = pd.read_csv(tmp_path / "published" / "iou" / "iou_summary.csv")
    assert len(overlap) == 1
    assert (tmp_path / "published" / "iou" / "iou_pairs.png").exists()


@pytest.mark.nightly
def test_the_ag_news_study_and_that_of_its_explanations(
    jobs_here, commands_here, tmp_path, real_data, published_model, nltk_data, capfd
):
    pytest.importorskip("onnx")
    # Nine models on 7,600 documents would take minutes.
    (tmp_path / "data").mkdir()
    lines = (real_data / "ag_news" / "test.csv").read_text(encoding="utf-8").splitlines(keepends=True)
    (tmp_path / "data" / "test.csv").write_text("".join(lines[:300]), encoding="utf-8")
    (tmp_path / "data" / "train.csv").write_text("".join(lines[300:900]), encoding="utf-8")
    words = ["study", "ag_news", "--scale", "smoke", "-o", str(tmp_path / "study"), "-max-parallel-jobs", "2"]
    words += ["-d", str(tmp_path / "data"), "-pt", str(published_model), "--publish", str(tmp_path / "published")]
    assert main(words) == 0
    table = pd.read_csv(tmp_path / "published" / "compress" / "reports" / "compression.csv")
    assert len(table) == 3 + 6 and set(table["instances"]) == {300}
    assert (tmp_path / "published" / "compress" / "reports" / "compression.png").exists()
    text = (tmp_path / "published" / "compress" / "metrics" / "benchmark.csv").read_text()
    assert str(tmp_path) not in text and not list((tmp_path / "published").rglob("*.onnx"))
    models = {path: path.stat().st_mtime_ns for path in (tmp_path / "study").rglob("*.onnx")}
    capfd.readouterr()
    assert main(["study", "explanations", *words[2:]]) == 0
    assert "measured already" in capfd.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "study").rglob("*.onnx")} == models
    published = tmp_path / "published" / "compress"
    assert len(pd.read_csv(published / "reports" / "explanations.csv")) == 1 + 6
    assert (published / "similarity" / "similarity_levels.png").exists() and (published / "pos" / "pos.csv").exists()
    assert set(pd.read_csv(published / "students" / "students.csv")["student"]) == {"vanilla", "XAI 0.3"}
    # The documents themselves stay where they are.
    assert {"document", "covered"} <= (columns := set(pd.read_csv(published / "sp_lime" / "sp_lime.csv")))
    assert not columns & {"text", "words"} and not list(published.rglob("*_words.csv"))
