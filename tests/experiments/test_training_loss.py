"""A loss of one's own that a run trains on: what sees it, and what goes on seeing the task's."""

from __future__ import annotations

import json
import zipfile

import keras
import numpy as np
import pandas as pd
import pytest
from keras import ops

from gated_bert.config import GatedBertConfig
from gated_bert.experiments.reports.results import read_run
from gated_bert.experiments.runs.run import train
from gated_bert.models.architecture import BertConfig
from gated_bert.models.bert import BertClassifier
from gated_bert.models.folder import load_model
from tests.marks import nightly

TIMED = ["seconds", "examples_per_second"]
SHARE = 0.1


def config_of(method="magnitude", **options):
    sizes = {"model_size": "tiny", "num_layers": 1, "d_model": 8, "num_heads": 2, "dff": 16, "max_len": 16}
    plan = {"epochs": 2, "pruning_start_epoch": 1, "pruning_end_epoch": 2, "batch_size": 16, "train_examples": 48}
    return GatedBertConfig(pruning_method=method, data="embedded", learning_rate=1e-2, **{**sizes, **plan, **options})


class Far:
    """The task's loss and 0.1 times the distance of the logits to constant ones, which another model gives."""

    def __init__(self, teacher=None):
        # A layer with variables, which a model that tracked it would save.
        self.teacher = teacher or keras.Sequential([keras.Input((1,)), keras.layers.Dense(2, bias_initializer="ones")])
        self.seen = 0

    def __call__(self, model, inputs, labels, outputs):
        self.seen += 1
        task = keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction="none")(labels, outputs)
        wanted = ops.stop_gradient(self.teacher(ops.zeros((1, 1))))
        return task + SHARE * ops.sum(ops.square(outputs - 3.0 * wanted), axis=-1)


def rows(folder):
    return read_run(folder).rows.drop(columns=TIMED)


def logits(folder):
    """The model's answer to one text."""
    loaded = load_model(folder / "model")
    encoded = loaded.tokenizer.encode(["a fine film"], None, 16)
    length = int(encoded.lengths.max())
    ones = np.ones((1, length), np.int32)
    inputs = {"input_ids": 5 * ones, "token_type_ids": 0 * ones, "attention_mask": ones}
    return ops.convert_to_numpy(loaded.model(inputs, training=False))


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Folders of one record: as it is, with the task's loss handed in, and with a loss of one's own."""
    folder = tmp_path_factory.mktemp("loss")

    def task(model, inputs, labels, outputs):
        return keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction="none")(labels, outputs)

    for name, loss in (("usual", None), ("same", task), ("far", Far())):
        train(config_of(), folder / name, training_loss=loss)
    return folder


def test_the_loss_of_the_task_handed_in_trains_as_by_default(runs):
    pd.testing.assert_frame_equal(rows(runs / "same"), rows(runs / "usual"), rtol=1e-5)


def test_training_uses_the_loss_and_evaluation_that_of_the_task(runs):
    far, usual = rows(runs / "far"), rows(runs / "usual")
    assert (far["train_loss"] > usual["train_loss"] + SHARE).all(), "training reports what it minimises"
    assert (far["val_loss"] < far["train_loss"]).all(), "the distance, of 0.1 times 18 at first, has no part in it"
    constant = 3.0
    assert np.abs(logits(runs / "far") - constant).mean() < np.abs(logits(runs / "usual") - constant).mean() - 0.02


def test_metadata_and_model_know_nothing_of_it(runs):
    metadata = [read_run(runs / name).metadata for name in ("usual", "far")]
    assert metadata[0]["config"] == metadata[1]["config"] and metadata[0].keys() == metadata[1].keys()
    contents = []
    for name in ("usual", "far"):
        with zipfile.ZipFile(runs / name / "model/model.keras") as archive:
            contents.append((json.loads(archive.read("config.json"))["config"], set(archive.namelist())))
            assert b"Far" not in archive.read("config.json")
    assert contents[0] == contents[1]
    shapes = [[w.shape for w in load_model(runs / name / "model").model.weights] for name in ("usual", "far")]
    assert shapes[0] == shapes[1]


@pytest.mark.nightly
def test_a_stopped_run_goes_on_with_the_loss_that_is_handed_in_again(runs, tmp_path, stopped):
    stopped(config_of(), tmp_path, 1, 0, training_loss=Far())
    with np.load(tmp_path / "checkpoint.npz") as arrays:
        model = [name for name in arrays.files if name.startswith("model/")]
    train(config_of(), tmp_path, resume=True, training_loss=Far())
    assert len(model) == len(load_model(tmp_path / "model").model.variables)
    pd.testing.assert_frame_equal(rows(tmp_path), rows(runs / "far"), check_exact=True)


@pytest.mark.nightly
@pytest.mark.parametrize("method", ["spt", "smooth_grad"])
@pytest.mark.daily_every(2)
def test_rewards_and_saliency_look_at_the_loss_of_the_task(tmp_path, monkeypatch, method):
    """Traced with another loss they would be asked of it; they call it only where the model trains."""
    loss, asked = Far(), []
    whole = BertClassifier.compute_loss

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        before = loss.seen
        value = whole(self, x, y, y_pred, sample_weight, training)
        asked.append((training, loss.seen - before))
        return value

    monkeypatch.setattr(BertClassifier, "compute_loss", compute_loss)
    train(config_of(method, score_batches=1, smooth_passes=1), tmp_path, training_loss=loss)
    assert set(asked) == {(True, 1), (False, 0)}


@pytest.mark.parametrize(
    "options",
    [nightly({"jit_compile": True}), {"precision": "mixed_bfloat16"}, nightly({"precision": "mixed_float16"})],
)
@pytest.mark.nightly
def test_it_compiles_and_takes_16_bits(tmp_path, options):
    policy = keras.config.dtype_policy()
    try:
        train(config_of("l0", **options), tmp_path, training_loss=Far())
    finally:
        keras.config.set_dtype_policy(policy)
    assert np.isfinite(rows(tmp_path)["train_loss"]).all()


def test_penalties_of_gates_are_added_and_what_is_taken_back_is_gone():
    keras.utils.set_random_seed(0)
    model = BertClassifier(BertConfig.uniform(1, 8, 2, 16, vocab_size=30), name="m")
    model.compile(loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    tokens = np.ones((4, 5), np.int32)
    inputs = {"input_ids": tokens, "token_type_ids": 0 * tokens, "attention_mask": tokens}
    labels, outputs = np.zeros(4, np.int32), model(inputs, training=False)
    usual = float(model.compute_loss(inputs, labels, outputs))
    model.train_on(lambda model, inputs, labels, outputs: ops.zeros(4) + 7.0)
    assert float(model.compute_loss(inputs, labels, outputs)) == 7.0
    assert float(model.compute_loss(inputs, labels, outputs, training=False)) == usual
    assert "_training_loss" not in str(model.get_config()) and len(model.variables) == len(model.weights)
    model.train_on(None)
    assert float(model.compute_loss(inputs, labels, outputs)) == usual
