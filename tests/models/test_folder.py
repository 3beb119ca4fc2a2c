"""The model folder: what comes back, and what is refused."""

import json
import os
import subprocess
import sys

import keras
import numpy as np
import pytest

from gated_bert.models.architecture import BertConfig
from gated_bert.models.bert import BertClassifier
from gated_bert.models.folder import FILES, WEIGHTS, load_model, same_model, save_model, with_fixed_gates
from gated_bert.support.errors import UserError
from gated_bert.support.partial import previous
from gated_bert.tasks.task import TASKS
from gated_bert.tasks.wordpiece import Tokenizer

TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "good", "bad", "film"]
INPUTS = {
    "input_ids": np.array([[2, 5, 7, 3], [2, 6, 3, 0]], dtype="int32"),
    "token_type_ids": np.zeros((2, 4), dtype="int32"),
    "attention_mask": np.array([[1, 1, 1, 1], [1, 1, 1, 0]], dtype="int32"),
}


def make_model(**options):
    return BertClassifier(BertConfig.uniform(1, 16, 2, 32, vocab_size=len(TOKENS), **options))


def save(folder, model=None, metadata=None):
    save_model(folder, model or make_model(), Tokenizer.from_vocab(TOKENS), TASKS["sst2"], metadata or {})
    return folder


def array(tensor):
    return keras.ops.convert_to_numpy(tensor)


def test_everything_comes_back(tmp_path):
    model = make_model()
    for layer in model.gated_layers():
        layer.gates.assign(np.random.default_rng(0).integers(0, 2, layer.gates.shape))
    loaded = load_model(save(tmp_path / "a" / "model", model, {"sparsity": 0.5}))
    assert np.array_equal(loaded.model.predict(INPUTS, verbose=0), model.predict(INPUTS, verbose=0))
    assert loaded.task == TASKS["sst2"]
    assert loaded.metadata == {"sparsity": 0.5}
    assert loaded.config == model.bert_config == loaded.model.bert_config
    assert loaded.tokenizer.encode(["good film"]).input_ids.tolist() == [2, 5, 7, 3]
    assert sorted(os.listdir(tmp_path / "a" / "model")) == [
        "config.json",
        "metadata.json",
        "model.keras",
        "tokenizer.json",
    ]


def test_another_process_predicts_bit_for_bit_the_same(tmp_path):
    model = make_model()
    folder = save(tmp_path / "model", model)
    np.savez(tmp_path / "inputs.npz", **INPUTS)
    code = (
        "import sys, numpy as np, keras; from gated_bert.models.folder import load_model\n"
        "model = load_model(sys.argv[1] + '/model').model\n"
        "outputs = model.predict(dict(np.load(sys.argv[1] + '/inputs.npz')), verbose=0)\n"
        "np.save(sys.argv[1] + '/outputs.npy', outputs)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, capture_output=True, timeout=240)
    assert np.array_equal(np.load(tmp_path / "outputs.npy"), load_model(folder).model.predict(INPUTS, verbose=0))
    assert np.array_equal(np.load(tmp_path / "outputs.npy"), model.predict(INPUTS, verbose=0))


@pytest.mark.parametrize("gate_trainable", [False, True])
@pytest.mark.parametrize("gate_rule", ["straight_through", "soft_threshold", "hard_concrete"])
def test_the_saved_model_has_fixed_gates_and_predicts_the_same(gate_rule, gate_trainable):
    model = make_model(gate_rule=gate_rule, gate_trainable=gate_trainable)
    for index, layer in enumerate(model.gated_layers()):
        layer.scores.assign(np.random.default_rng(index).normal(0, 3, layer.scores.shape))
        layer.mask_variable.assign(np.random.default_rng(index).integers(0, 2, layer.gates.shape))
        if gate_rule == "soft_threshold":
            layer.threshold.assign(0.3)
    before = [array(variable) for variable in model.weights]
    fixed = with_fixed_gates(model)
    assert fixed.bert_config == model.bert_config.replace(gate_rule="fixed")
    assert np.array_equal(array(fixed(INPUTS)), array(model(INPUTS)))
    assert all(np.array_equal(one, array(other)) for one, other in zip(before, model.weights, strict=True))


def test_a_compiled_model_is_saved_without_its_optimizer(tmp_path):
    model = make_model()
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True), run_eagerly=True)
    model.fit(INPUTS, np.array([0, 1]), verbose=0)
    folder = save(tmp_path / "model", model)
    weights = sum(4 * np.prod(variable.shape) for variable in model.weights)
    assert (folder / "model.keras").stat().st_size < 1.5 * weights + 200_000
    assert np.array_equal(array(load_model(folder).model(INPUTS)), array(model(INPUTS)))


def test_saving_again_replaces_the_whole_folder(tmp_path):
    folder = save(tmp_path / "model", metadata={"epoch": 1})
    (folder / "stray").touch()
    save(folder, metadata={"epoch": 2})
    assert load_model(folder).metadata == {"epoch": 2}
    assert os.listdir(tmp_path) == ["model"] and not (folder / "stray").exists()


def test_a_save_that_was_killed_between_its_renames_leaves_the_previous_model(tmp_path):
    save(tmp_path / "model", metadata={"epoch": 1}).rename(previous(tmp_path / "model"))
    assert load_model(tmp_path / "model").metadata == {"epoch": 1}
    save(tmp_path / "model", metadata={"epoch": 2})
    assert load_model(tmp_path / "model").metadata == {"epoch": 2}


def change_architecture(folder):
    record = json.loads((folder / "config.json").read_text())
    record["architecture"]["vocab_size"] = 9
    (folder / "config.json").write_text(json.dumps(record))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "model.keras").write_bytes((folder / "model.keras").read_bytes()[:-3000]),
         "model.keras: not a whole model"),
        (lambda folder: (folder / "model.keras").write_bytes(b""), "model.keras: not a whole model"),
        (lambda folder: (folder / "config.json").unlink(), "no config.json in it; a model folder holds config.json, "),
        (lambda folder: (folder / "config.json").write_text("{}"), "config.json: no field 'architecture'"),
        (lambda folder: (folder / "metadata.json").write_text("[1"), "metadata.json, line 1: malformed JSON"),
        (lambda folder: (folder / "tokenizer.json").write_text("{}"), "not a tokenizer.json"),
        (change_architecture, "config.json and model.keras do not belong together"),
    ],
)  # fmt: skip
def test_a_damaged_folder_is_refused_in_one_line(tmp_path, damage, message):
    folder = save(tmp_path / "model")
    damage(folder)
    with pytest.raises(UserError, match=message) as caught:
        load_model(folder)
    assert "\n" not in str(caught.value)


def test_an_unwritable_place_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="model: the model cannot be written .* choose another folder"):
        save(tmp_path / "file" / "model")


def test_the_same_model_takes_no_room_twice_and_stays_when_the_other_is_saved_anew(tmp_path):
    save(tmp_path / "best", metadata={"epoch": 3})
    same_model(tmp_path / "best", tmp_path / "last")
    for name in FILES:
        assert (tmp_path / "last" / name).read_bytes() == (tmp_path / "best" / name).read_bytes()
    assert (tmp_path / "last" / WEIGHTS).stat().st_ino == (tmp_path / "best" / WEIGHTS).stat().st_ino
    before = (tmp_path / "best" / WEIGHTS).read_bytes()
    save(tmp_path / "last", make_model(), {"epoch": 4})
    assert (tmp_path / "best" / WEIGHTS).read_bytes() == before != (tmp_path / "last" / WEIGHTS).read_bytes()


def test_where_links_are_not_known_the_same_model_is_a_copy(tmp_path, monkeypatch):
    save(tmp_path / "best")
    monkeypatch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(OSError("no links")))
    same_model(tmp_path / "best", tmp_path / "last")
    assert (tmp_path / "last" / WEIGHTS).stat().st_ino != (tmp_path / "best" / WEIGHTS).stat().st_ino
    load_model(tmp_path / "last")
