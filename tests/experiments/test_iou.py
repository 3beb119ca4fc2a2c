"""Mask IoU: the definition on literal masks, reading masks without a model, and the command."""

import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from gated_bert.cli.main import main
from gated_bert.experiments.models.iou import chance_iou, iou, iou_summary, iou_table, read_comparable_masks
from gated_bert.experiments.reports.names import short_names
from gated_bert.models.architecture import BertConfig, LayerSizes
from gated_bert.models.bert import BertClassifier
from gated_bert.models.folder import load_model, read_masks, save_model
from gated_bert.tasks.task import Task, get_task
from gated_bert.tasks.wordpiece import Tokenizer
from tests.pictures import is_drawn


def mask(*rows):
    return np.array(rows, bool)


def test_iou_counts_closed_positions():
    one, other = mask([1, 1, 0], [0, 0, 1]), mask([1, 0, 0], [0, 1, 1])
    assert iou(one, other) == 2 / 4
    assert iou(one, one) == 1 and iou(one, ~one) == 0
    nothing = np.zeros((2, 3), bool)
    assert iou(one, nothing) == 0 and math.isnan(iou(nothing, nothing))


def test_runs_are_named_by_what_tells_them_apart():
    folders = [Path("GradCAM_sst2_seed1/model"), Path("results_Mag_Act_sst2_seed1")]
    assert short_names(folders) == ["GradCAM", "Mag_Act"]
    assert short_names([Path("a_sst2"), Path("sst2")]) == ["a_sst2", "sst2"]
    assert short_names([Path("x/onnx/base.onnx"), Path("x/int8/base.onnx")]) == ["onnx/base.onnx", "int8/base.onnx"]
    assert short_names([Path("results_a_b/model")]) == ["a_b"]


def test_iou_by_chance_is_that_of_random_masks():
    rng = np.random.default_rng(0)
    random = [rng.random((1000, 1000)) < share for share in (0.3, 0.6)]
    assert iou(*random) == pytest.approx(chance_iou(0.3, 0.6), abs=2e-3)
    assert chance_iou(0.5, 0.5) == pytest.approx(1 / 3) and math.isnan(chance_iou(0.0, 0.0))


def test_the_summary_leaves_out_matrices_that_neither_run_pruned():
    empty = mask([0, 0], [0, 0])
    masks = {
        "a": {(0, "query"): mask([1, 1], [0, 0]), (0, "key"): empty, (None, "pooler"): empty},
        "b": {(0, "query"): mask([1, 0], [1, 0]), (0, "key"): empty, (None, "pooler"): empty},
        "c": {(0, "query"): mask([1, 1], [0, 0]), (0, "key"): mask([1, 0], [0, 0]), (None, "pooler"): empty},
    }
    table = iou_table(masks)
    assert len(table) == 3 * 2 and set(table["role"]) == {"query", "key"}
    summary = iou_summary(table).set_index(["first", "second"])
    assert summary.loc[("a", "b")][["mean", "min", "max", "matrices"]].tolist() == pytest.approx([1 / 3] * 3 + [1])
    assert summary.loc[("a", "b"), "by_chance"] == pytest.approx(1 / 3)
    assert summary.loc[("a", "c")][["mean", "min", "max", "matrices"]].tolist() == [0.5, 0, 1, 2]
    assert summary.loc[("a", "c")][["sparsity_first", "sparsity_second"]].tolist() == [2 / 8, 3 / 8]


@pytest.fixture
def save(tmp_path):
    """Saves a small BERT, its gates closed at random with a seed, as the `model/` of a run folder, and returns that."""

    def save(name, seed=0, metadata=None, sizes=None, **options):
        config = BertConfig.uniform(2, 8, 2, 12, vocab_size=10, max_position=8, **options)
        model = BertClassifier(config.replace(layers=sizes or config.layers))
        rng = np.random.default_rng(seed)
        for layer in model.gated_layers()[:-2]:
            layer.mask_variable.assign(rng.random(layer.raw_kernel.shape) < 0.5)
        tokenizer = Tokenizer.from_vocab(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a"])
        save_model(tmp_path / name / "model", model, tokenizer, get_task("sst2"), metadata or {})
        return tmp_path / name

    return save


@pytest.mark.parametrize("options", [{}, {"gate_trainable": True, "gate_init_value": 0.5}, {"span_head": True}])
def test_masks_are_read_as_the_model_has_them(save, options):
    folder = save("results_a", **options) / "model"
    masks, layers = read_masks(folder), load_model(folder).model.gated_layers()
    assert list(masks) == [(layer.layer_index, layer.role) for layer in layers]
    for layer, closed in zip(layers, masks.values(), strict=True):
        np.testing.assert_array_equal(closed, np.asarray(layer.effective_gates()) == 0)
    assert masks[0, "query"].any() and not masks[None, "classifier"].any()


def test_the_command_writes_tables_and_heat_maps(save, tmp_path, capsys):
    runs = [str(save(f"results_{name}", seed)) for name, seed in (("a", 1), ("b", 2), ("again", 1))]
    runs[1] += "/model"
    assert main(["iou", *runs, "-o", str(tmp_path / "out")]) == 0
    table = pd.read_csv(tmp_path / "out" / "iou.csv")
    assert len(table) == 3 * 12 and table["iou"].between(0, 1).all()
    summary = pd.read_csv(tmp_path / "out" / "iou_summary.csv").set_index(["first", "second"])
    assert summary.loc[("a", "again"), "mean"] == 1
    assert summary.loc[("a", "b"), "mean"] == pytest.approx(summary.loc[("a", "b"), "by_chance"], abs=0.1)
    row = table[(table["layer"] == 1) & (table["role"] == "ffn_output")].iloc[0]
    closed = [read_masks(f"{tmp_path}/results_{name}/model")[1, "ffn_output"] for name in "ab"]
    assert row["closed_both"] == (closed[0] & closed[1]).sum() and row["weights"] == 96
    assert all(is_drawn(tmp_path / "out" / name) for name in ("iou_pairs.png", "iou_layers.png"))


def test_heads_are_compared_by_the_names_of_their_classes(tmp_path):
    for name, labels, closed in (("a", ("x", "y", "z"), 0), ("b", ("Z", "X", "Y"), 1), ("c", ("p", "q", "r"), 0)):
        model = BertClassifier(BertConfig.uniform(1, 8, 2, 8, vocab_size=9, num_outputs=3))
        gates = np.ones((8, 3), np.float32)
        gates[:, closed] = 0
        model.classifier.gates.assign(gates)
        save_model(tmp_path / name, model, Tokenizer.from_vocab(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "b"]),
                   Task(name, name, labels=labels), {})  # fmt: skip
    masks = read_comparable_masks([tmp_path / name for name in "abc"])
    assert [found[None, "classifier"].all(axis=0).tolist() for found in masks.values()] == [[True, False, False]] * 3


def test_what_the_command_refuses(save, tmp_path, capsys):
    def refusal(*folders):
        assert main(["iou", *map(str, folders), "-o", str(tmp_path / "out")]) == 2
        return capsys.readouterr().err

    first = save("results_a")
    assert "at least two runs" in refusal(first)
    assert "'nowhere' is refused; allowed: existing folders of runs" in refusal(first, "nowhere")
    assert "no model here; give a finished run's folder" in refusal(first, tmp_path)
    assert "the same model twice" in refusal(first, first / "model")
    smaller = save("results_b", sizes=(LayerSizes(2, 4, 4, 6), LayerSizes(2, 4, 4, 12)))
    assert "its layers differs from that of" in refusal(first, smaller)
    assert "a shrunk model" in refusal(first, save("results_c", metadata={"shrunk_from": {}}))
    path = save("results_d") / "model" / "model.keras"
    path.write_bytes(path.read_bytes()[:500])
    assert "not a whole model" in refusal(first, path.parent)
    path = save("results_e") / "model" / "config.json"
    path.write_text(json.dumps({}))
    assert "no field 'architecture'" in refusal(first, path.parent)
