"""`gated-bert activation-change`, as a user types it, on embedded data."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from gated_bert.cli.activation_commands import read_command
from gated_bert.cli.main import main
from gated_bert.experiments.studies import activation_table
from gated_bert.experiments.studies.activation_config import ThresholdSet, read_activation_config
from gated_bert.experiments.studies.activation_study import run_activation_change
from gated_bert.experiments.studies.activation_table import COSTS, METRICS, memory, summary, summary_text
from gated_bert.experiments.sweeps.jobs import Job
from gated_bert.models.build import build_model
from gated_bert.models.folder import load_model, save_model
from gated_bert.support.errors import UserError
from gated_bert.tasks.task import TASKS
from gated_bert.tasks.tokenizer import load_tokenizer

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
TINY = {
    "model_path": None, "data": "embedded", "num_epochs": 1, "batch_size": 16, "max_len": 32, "train_examples": 32,
    "num_hidden_layers": 2, "hidden_size": 16, "num_attention_heads": 4, "intermediate_size": 32, "seeds": [3],
    "optimizer": {"type": "SGD", "lr": 0.01, "momentum": 0.9}, "resource_seconds": 1.0,
    "thresholds": {"half": {"attention": [0, 0.5], "ffn": [0, 0.5], "scale": "quantile"}},
}  # fmt: skip


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GATED_BERT_DATA", raising=False)
    (tmp_path / "tiny.json").write_text(json.dumps(TINY))
    return tmp_path


@pytest.mark.slow
def test_the_command_prunes_fine_tunes_and_compares(folder, jobs_here, commands_here, capsys):
    command = ["activation-change", "--config", "tiny.json", "-o", "out"]
    assert main(command) == 0
    shown = capsys.readouterr().out
    for part in ("layer 1: 2 heads of 4, 16 neurons", "sgd, rate 0.01", "accuracy (%)", "against unpruned"):
        assert part in shown
    rows = pd.read_csv("out/activation_change.csv").set_index("variant")
    assert list(rows.index) == ["unpruned", "half"]
    lost = 4 * 2 * 4 * 16 + 3 * 2 * 4 + 16 * (2 * 16 + 1)
    assert rows.loc["unpruned", "parameters"] - rows.loc["half", "parameters"] == lost
    assert rows.loc["half", "macs_per_token"] < rows.loc["unpruned", "macs_per_token"]
    assert (rows[["accuracy", "f1", "precision", "latency_ms", "peak_memory_mb", "seconds"]] >= 0).all(axis=None)
    starts = [load_model(f"out/starts/{name}_seed3").model for name in ("unpruned", "half")]
    classifiers = [np.asarray(model.classifier.raw_kernel) for model in starts]
    np.testing.assert_array_equal(*classifiers)
    assert load_model("out/results_half_sst2_seed3/model").config.layers == starts[1].bert_config.layers
    events = pd.read_csv("out/results_half_sst2_seed3/resources.csv")["event"]
    assert {"start", "epoch begin", "epoch end", "end"} <= set(events)
    changes = pd.read_csv("out/starts/changes_seed3.csv")
    assert len(changes) == 2 * (4 + 16 + 16 + 32 + 16) + 16

    before = {path: path.stat().st_mtime_ns for path in Path("out").rglob("model.keras")}
    shutil.rmtree("out/results_half_sst2_seed3")
    assert main([*command, "--resume", "--publish", "published"]) == 0
    published = list(Path("published").rglob("*.csv"))
    assert {path.name for path in published} >= {"activation_change.csv", "activation_change_summary.csv"}
    assert "resources.csv" not in {path.name for path in published}
    assert not any(str(folder) in path.read_text() for path in published)
    kept = [path for path in before if "results_half" not in str(path)]
    assert kept and all(path.stat().st_mtime_ns == before[path] for path in kept)


def test_what_was_measured_after_its_models_is_not_measured_again(folder, monkeypatch):
    _, settings = read_command(["--config", "tiny.json", "-o", "out"])
    configs = [settings.config("baseline", "sst2", seed) for seed in (3, 4)]
    jobs = [Job(f"{variant} seed {config.seed}", config, folder / f"{variant}{config.seed}", [])
            for config in configs for variant in ("unpruned", "half")]  # fmt: skip
    for job in jobs:
        (job.folder / "model").mkdir(parents=True)
        (job.folder / "model/model.keras").touch()
    measured = []

    def rows_of_seed(jobs):
        measured.extend(job.config.seed for job in jobs.values())
        numbers = dict.fromkeys((*METRICS, "loss", *COSTS), 0.93232099973102 / len(measured))
        return [{"variant": name, "seed": job.config.seed, **numbers, "layers": "…"} for name, job in jobs.items()]

    monkeypatch.setattr(activation_table, "_rows_of_seed", rows_of_seed)
    table = folder / "activation_change.csv"

    def again() -> list[int]:
        measured.clear()
        activation_table.write_tables(jobs, folder)
        assert list(pd.read_csv(table)["seed"]) == [3, 3, 4, 4]
        return measured[::2]

    assert again() == [3, 4]
    first = table.read_bytes()
    assert again() == [] and table.read_bytes() == first
    (folder / "half4/model/model.keras").touch()
    assert again() == [4]
    os.utime(folder / "half3/model/model.keras", (0, 0))
    assert again() == [3]
    for damaged in ("variant,seed\n", first.decode().replace("half", "third"), ""):
        table.write_text(damaged)
        assert again() == [3, 4], damaged
    table.write_text(first.decode()[:-90])
    assert again() == [4]
    lines = first.decode().splitlines()
    for cell in ("", "nan", "inf"):
        table.write_text("\n".join([*lines[:4], f"half,4,{cell},{lines[4].split(',', 3)[3]}"]))
        assert again() == [4], cell
    (folder / "half4/model/model.keras").unlink()
    with pytest.raises(UserError, match=r"half4/model: the model of a finished run is gone; remove \S+half4, and --re"):
        again()


@pytest.mark.nightly
def test_the_base_may_be_fine_tuned_first(folder, capsys):
    (folder / "tiny.json").write_text(json.dumps(TINY | {"base_epochs": 2, "seeds": [3, 4]}))
    study, settings = read_command(["--config", "tiny.json", "-o", "out"])
    plans = []

    def sweep_without_training(plan, compared):
        assert not compared
        plans.append(plan.jobs)
        for job in plan.jobs:
            task = TASKS["sst2"]
            tokenizer = load_tokenizer(job.config)
            model = build_model(job.config, task, tokenizer.vocab_size)
            model.classifier.bias.assign([job.config.epochs, 0.0])
            save_model(job.folder / "model", model, tokenizer, task, {})
        return 0

    assert run_activation_change(study, settings, sweep_without_training) == 0
    assert [[job.name for job in jobs] for jobs in plans] == [
        ["base seed 3", "base seed 4"],
        ["unpruned seed 3", "half seed 3", "unpruned seed 4", "half seed 4"],
    ]
    assert [job.config.epochs for jobs in plans for job in jobs] == [2, 2, 1, 1, 1, 1]
    biases = [np.asarray(load_model(job.config.pretrained).model.classifier.bias)[0] for job in plans[1]]
    assert biases == [2.0] * 4
    assert "2 epoch(s) of fine-tuning" in capsys.readouterr().out


def test_models_before_fine_tuning_are_neither_replaced_nor_kept_without_a_word(folder, capsys):
    def sweep(plan, compared):
        return 1

    assert run_activation_change(*read_command(["--config", "tiny.json", "-o", "out"]), sweep) == 1
    before = {path: path.read_bytes() for path in Path("out/starts").rglob("*") if path.is_file()}
    weights = Path("out/starts/half_seed3/model.keras")
    written = weights.stat().st_mtime_ns
    assert run_activation_change(*read_command(["--config", "tiny.json", "-o", "out", "--resume"]), sweep) == 1
    assert weights.stat().st_mtime_ns == written

    other = {"half": {"attention": [0, 0.25], "ffn": [0, 0.5], "scale": "quantile"}}
    (folder / "tiny.json").write_text(json.dumps(TINY | {"thresholds": other | {"more": other["half"]}}))
    again = ["--config", "tiny.json", "-o", "out"]
    with pytest.raises(UserError, match=r"half_seed3 was made with attention \[0, 0.5\] of the thresholds half, not"):
        run_activation_change(*read_command([*again, "--resume"]), sweep)
    assert {path: path.read_bytes() for path in before} == before
    capsys.readouterr()
    assert run_activation_change(*read_command(again), sweep) == 1
    (aside,) = Path("out/saved_results").iterdir()
    assert f"are now in {aside}" in capsys.readouterr().out
    assert (aside / "starts/half_seed3/model.keras").read_bytes() == before[weights]


def test_the_published_files_are_read():
    study = read_activation_config([str(CONFIGS / "evaluate_config.json"), str(CONFIGS / "bert_small_config.json")])
    assert study.thresholds == {"published": ThresholdSet((0, 0, 0.3, 0.7), (0, 0, 0.8, 0.8), "raw")}
    expected = {"pretrained": "prajjwal1/bert-small", "task": "sst2", "epochs": 3, "batch_size": 64,
                "learning_rate": 2e-5, "optimizer": "adamw", "weight_decay": 0.01, "num_layers": 4, "d_model": 512,
                "num_heads": 8, "dff": 2048, "vocab_size": 30522, "dropout_rate": 0.1}  # fmt: skip
    assert expected.items() <= study.run.items()
    alone = read_activation_config([str(CONFIGS / "bert_small_config.json")])
    assert alone.thresholds == study.thresholds and alone.run["learning_rate"] == 2e-5


def test_scales_and_flags(folder):
    minilm = str(CONFIGS / "minilm_4_layers.json")
    study, settings = read_command(["--config", minilm, "--scale", "standard", "-d", "embedded", "-pt", str(folder)])
    assert study.seeds == settings.seeds == tuple(range(1, 11))
    config = settings.config("baseline", "sst2", 4)
    assert (config.train_examples, config.max_len, config.num_layers, config.resource_seconds) == (4000, 48, 4, 10.0)
    assert config.pretrained == str(folder.resolve()) and settings.output == Path("finetuned_minilm")
    study, settings = read_command(["--config", "tiny.json", "--seeds", "1,2", "-o", "there"])
    assert study.seeds == (1, 2) and settings.output == Path("there")
    assert settings.config("baseline", "sst2", 1).momentum == 0.9


@pytest.mark.parametrize(
    ("words", "change", "parts"),
    [
        ("", {}, ["--config: needed"]),
        ("--config nowhere.json", {}, ["nowhere.json", "no such file"]),
        ("--config tiny.json --scale big", {}, ["--scale: 'big'", "smoke, standard, full"]),
        ("--config tiny.json --sede 1", {}, ["--sede: unknown flag", "did you mean --seeds?"]),
        ("--config tiny.json -d nodata", {}, ["-d/--data: 'nodata'"]),
        ("--config tiny.json", {"num_epoch": 2}, ["num_epoch: 2", "did you mean num_epochs?"]),
        ("--config tiny.json", {"num_epochs": 0}, ["tiny.json: num_epochs: 0", "whole number from 1"]),
        ("--config tiny.json", {"hidden_act": "relu"}, ["hidden_act: 'relu'", "gelu"]),
        ("--config tiny.json", {"task_name": 3}, ["task_name: 3", "a text"]),
        ("--config tiny.json", {"task_name": "sst3"}, ["'sst3'", "sst2"]),
        ("--config tiny.json", {"optimizer": {"type": "Adam"}}, ["optimizer type: 'Adam'", "AdamW"]),
        ("--config tiny.json", {"learning_rate": 1.0}, ["optimizer lr: 0.01", "learning_rate, 1.0"]),
        ("--config tiny.json", {"seeds": []}, ["seeds: []"]),
        ("--config tiny.json", {"activation_batches": 1}, ["activation_batches: 1", "from 2 up"]),
        ("--config tiny.json", {"thresholds": {"a b": {}}}, ["thresholds: 'a b'", "names of letters"]),
        ("--config tiny.json", {"thresholds": {"x": {"attention": [0]}}}, ["thresholds x"]),
        ("--config tiny.json", {"thresholds": {"x": {"attention": [0], "ffn": [0, 1]}}}, ["thresholds x ffn"]),
        (
            "--config tiny.json",
            {"thresholds": {"x": {"attention": [2], "ffn": [0], "scale": "minmax"}}},
            ["thresholds x: 2", "from 0 to 1"],
        ),
        (
            "--config tiny.json -o out",
            {"thresholds": {"x": {"attention": [0], "ffn": [0]}}},
            ["thresholds x: 1 layers, and the model has 2"],
        ),
        ("--config tiny.json -o out", {"task_name": "stsb"}, ["task_name: stsb", "a task of classes"]),
    ],
)
def test_nonsense_is_refused_in_one_line(folder, capsys, words, change, parts):
    (folder / "tiny.json").write_text(json.dumps(TINY | change))
    assert main(["activation-change", *words.split()]) == 2
    line = capsys.readouterr().err
    assert line.startswith("error: ") and line.count("\n") == 1 and all(part in line for part in parts), line


def test_a_file_that_is_no_json_is_named_with_its_line(folder, capsys):
    (folder / "tiny.json").write_text('{"num_epochs": 1,\n oops}')
    assert main(["activation-change", "--config", "tiny.json"]) == 2
    assert "tiny.json, line 2: malformed JSON" in capsys.readouterr().err


def test_the_summary_pairs_seeds(tmp_path):
    costs = dict.fromkeys(("macs_per_token", "file_mb", "latency_ms", "peak_memory_mb", "training_memory_mb"), 8.0)
    rows = [
        {"variant": variant, "seed": seed, "accuracy": accuracy, "f1": 0.5, "precision": 0.5, "parameters": size,
         "seconds": float("nan"), **costs}
        for variant, size, values in (("unpruned", 100, (0.8, 0.9)), ("small", 75, (0.82, 0.92)))
        for seed, accuracy in enumerate(values)
    ]  # fmt: skip
    found = summary(pd.DataFrame(rows)).set_index(["variant", "measure"])
    accuracy = found.loc[("small", "accuracy")]
    assert accuracy["n"] == 2 and accuracy["mean"] == pytest.approx(0.87)
    assert [accuracy[f"change_{name}"] for name in ("mean", "low", "high")] == pytest.approx([0.02] * 3)
    assert found.loc[("small", "parameters"), "change_mean"] == 0.75
    text = summary_text(found.reset_index())
    assert "87.00" in text and "+2.00 points" in text and "× 0.750" in text
    assert np.isnan(memory(tmp_path / "none.csv")["peak_memory_mb"])
