"""Runs on questions: their files, their answers, going on after a stop, and the command line."""

import json

import numpy as np
import pandas as pd
import pytest

from gated_bert.config import GatedBertConfig
from gated_bert.experiments.reports.results import metric_title, read_run
from gated_bert.experiments.runs.run import train
from gated_bert.models.folder import load_model
from gated_bert.tasks.data import load_task_data
from gated_bert.tasks.evaluation import evaluate_model, make_dataset
from gated_bert.tasks.squad_metrics import squad_scores

TIMED = ["seconds", "examples_per_second"]


def config_of(method, **options):
    sizes = {"model_size": "tiny", "num_layers": 1, "d_model": 16, "num_heads": 2, "dff": 32, "dropout_rate": 0.1}
    plan = {"epochs": 2, "pruning_start_epoch": 2, "pruning_end_epoch": 2, "batch_size": 16, "train_examples": 64}
    return GatedBertConfig(
        pruning_method=method, task="squad", data="embedded", learning_rate=1e-3, end_sparsity=0.5, **sizes, **plan,
        **options,
    )  # fmt: skip


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run of SPT on questions, which probes the loss on batches of its own."""
    return train(config_of("spt"), tmp_path_factory.mktemp("run") / "spt")


def test_the_rows_and_the_answers_of_the_last_evaluation(finished):
    run = read_run(finished.folder)
    assert run.finished and run.metric == "f1" and run.task_title == "SQuAD"
    assert list(run.rows.columns[3:8]) == ["train_loss", "train_f1", "val_loss", "val_f1", "val_exact_match"]
    assert run.rows["sparsity"].iloc[-1] == pytest.approx(0.5, abs=2e-3)
    answers = json.loads((finished.folder / "predictions.json").read_text())
    dev = load_task_data(config_of("spt")).dev["dev"]
    assert list(answers) == dev.ids
    scores = squad_scores(answers, dev.ids, dev.answers)
    assert scores["f1"] == pytest.approx(finished.final["val_f1"])
    assert scores["exact_match"] == pytest.approx(finished.final["val_exact_match"])
    assert list(finished.folder.glob("accuracy_sparsity_*.png")) and list(finished.folder.glob("reward_*.png"))
    assert metric_title("exact_match") == "exact match (%)"


def test_the_saved_model_answers_as_the_run_did(finished):
    loaded = load_model(finished.folder / "model")
    config = config_of("spt")
    dev = load_task_data(config).dev
    dataset = make_dataset(loaded.task, loaded.tokenizer, dev["dev"], config)
    scores, answers = evaluate_model(loaded.model, loaded.task, {"dev": dataset}, dev, config)
    assert answers == json.loads((finished.folder / "predictions.json").read_text())
    assert scores["loss"] == pytest.approx(finished.final["val_loss"], abs=1e-5)


@pytest.mark.nightly
def test_a_stopped_run_goes_on_to_the_same_rows(tmp_path, stopped):
    config = config_of("movement", movement_pruning_frequency_steps=3)
    whole = train(config, tmp_path / "whole")
    stopped(config, tmp_path / "broken", 1, 0)
    train(config, tmp_path / "broken", resume=True)
    rows = [read_run(tmp_path / name).rows.drop(columns=TIMED) for name in ("broken", "whole")]
    pd.testing.assert_frame_equal(*rows, check_exact=True)
    assert np.isfinite(whole.final["val_loss"])
