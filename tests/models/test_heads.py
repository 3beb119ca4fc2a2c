"""Heads of pretrained weights: their outputs matched to classes by name, and heads that are for something else."""

import json
import re
import shutil
import warnings
from pathlib import Path

import keras
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from gated_bert.compression.source import load_source
from gated_bert.config import GatedBertConfig
from gated_bert.experiments.runs.ticket import apply_ticket
from gated_bert.models.bert import BertClassifier
from gated_bert.models.build import build_model
from gated_bert.models.checkpoints import read_head
from gated_bert.models.folder import LoadedModel, save_model
from gated_bert.models.heads import Head, google_head, match_head
from gated_bert.models.pretrained import load_pretrained, read_pretrained_architecture
from gated_bert.support.errors import UserError
from gated_bert.tasks.task import TASKS, Task
from gated_bert.tasks.wordpiece import Tokenizer
from tests.refused import refusal

FIXTURE = Path(__file__).resolve().parent.parent / "fixtures" / "bert"
INPUTS = {
    "input_ids": np.array([[2, 7, 150, 3, 9, 3], [2, 8, 3, 0, 0, 0]], dtype="int32"),
    "token_type_ids": np.array([[0, 0, 0, 0, 1, 1], [0] * 6], dtype="int32"),
    "attention_mask": np.array([[1] * 6, [1, 1, 1, 0, 0, 0]], dtype="int32"),
}
OWN = Task("mood", "mood", labels=("bad", "good", "mixed"))


def array(tensor):
    return keras.ops.convert_to_numpy(tensor)


def hugging_face(place, classes=None, tensors=None, **fields):
    """The fixture with other classes, of which there are as many as the head has rows; `tensors` change its tensors."""
    folder = Path(shutil.copytree(FIXTURE, place / "hf"))
    values = json.loads((folder / "config.json").read_text())
    if classes is not None:
        places = range(len(classes))
        values |= {"id2label": dict(enumerate(classes)), "label2id": dict(zip(classes, places, strict=True))}
    values |= fields
    (folder / "config.json").write_text(json.dumps({name: value for name, value in values.items() if value != "none"}))
    arrays = load_file(FIXTURE / "model.safetensors")
    if classes is not None:
        arrays |= {name: arrays[name][: len(classes)] for name in ("classifier.weight", "classifier.bias")}
    arrays = {name: array for name, array in (arrays | (tensors or {})).items() if array is not None}
    save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, folder / "model.safetensors")
    return folder


def run_model(folder, task, **options):
    config = GatedBertConfig(pretrained=str(folder), task=task.name, max_len=16, **options)
    return build_model(config, task, vocab_size=200)


def rows_of(model):
    return array(model.classifier.raw_kernel).T, array(model.classifier.bias)


@pytest.mark.parametrize(
    ("classes", "task", "order"),
    [
        (("contradiction", "entailment", "neutral"), TASKS["mnli"], [1, 2, 0]),
        (("CONTRADICTION", "NEUTRAL", "ENTAILMENT"), TASKS["mnli"], [2, 1, 0]),
        (("POSITIVE", "NEGATIVE"), TASKS["sst2"], [1, 0]),
        (("pos", "neg"), TASKS["sst2"], [1, 0]),
        (("Equivalent", "Not Equivalent"), TASKS["mrpc"], [1, 0]),
        (("not-equivalent", "equivalent"), TASKS["mrpc"], [0, 1]),
        (("non_entailment", "entailment"), TASKS["rte"], [1, 0]),
        (("entailment", "not_entailment"), TASKS["wnli"], [1, 0]),
        (("mixed", "Good", "BAD"), OWN, [2, 1, 0]),
        (("2", "0", "1"), Task("stars", "stars", labels=("0", "1", "2")), [1, 2, 0]),
        (("3 stars", "1 star", "2 stars"), Task("stars", "stars", labels=("1", "2", "3")), [1, 2, 0]),
        (("1", "-1"), Task("sign", "sign", labels=("-1", "1")), [1, 0]),
    ],
)
def test_rows_are_taken_by_the_names_of_their_classes(classes, task, order, tmp_path):
    folder = hugging_face(tmp_path, classes)
    stored = load_file(folder / "model.safetensors")
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        kernel, bias = rows_of(run_model(folder, task))
    assert np.array_equal(kernel, stored["classifier.weight"][order])
    assert np.array_equal(bias, stored["classifier.bias"][order])


def test_names_may_stand_in_label2id_alone(tmp_path):
    folder = hugging_face(tmp_path, ("x", "y"), id2label="none", label2id={"positive": 0, "negative": 1})
    stored = load_file(folder / "model.safetensors")
    assert np.array_equal(rows_of(run_model(folder, TASKS["sst2"]))[0], stored["classifier.weight"][[1, 0]])


@pytest.mark.parametrize(
    ("classes", "task", "order", "sentence"),
    [
        (("LABEL_0", "LABEL_1"), TASKS["sst2"], [0, 1], "no names; negative, positive is taken for their order"),
        (("LABEL_1", "LABEL_0"), TASKS["sst2"], [1, 0], "no names; negative, positive is taken"),
        (("0", "1"), TASKS["rte"], [0, 1], "no names; entailment, not_entailment is taken"),
        (("1", "2", "3"), OWN, [0, 1, 2], "no names; bad, good, mixed is taken"),
        (
            ("LABEL_0", "LABEL_1", "LABEL_2"),
            TASKS["mnli"],
            [0, 1, 2],
            "entailment, neutral, contradiction is taken for their order, though MNLI's checkpoints differ in it",
        ),
    ],
)
def test_classes_without_names_are_taken_in_the_order_of_the_task_which_is_said(
    classes, task, order, sentence, tmp_path
):
    folder = hugging_face(tmp_path, classes)
    with pytest.warns(UserWarning, match=sentence):
        kernel, _ = rows_of(run_model(folder, task))
    assert np.array_equal(kernel, load_file(folder / "model.safetensors")["classifier.weight"][order])


@pytest.mark.parametrize(
    ("classes", "task"),
    [
        (("negative", "positive"), TASKS["cola"]),
        (("negative", "neutral", "positive"), TASKS["mnli"]),
        (("good", "mixed", "worse"), OWN),
        (("LABEL_0", "positive"), TASKS["sst2"]),
        (("2", "7"), TASKS["sst2"]),
        (("a", "A"), TASKS["sst2"]),
        (("positive", "negative"), OWN),
    ],
)
def test_other_classes_give_a_new_head_with_a_sentence(classes, task, tmp_path):
    folder = hugging_face(tmp_path, classes)
    with pytest.warns(UserWarning, match=f"hf: its head has the classes {classes[0]}, .* starts from random values"):
        kernel, bias = rows_of(run_model(folder, task))
    assert not bias.any() and np.abs(kernel).max() < 0.05 and kernel.shape[0] == len(task.labels)


def other_order(task):
    return Task("other", "other", labels=task.labels[::-1])


@pytest.mark.daily_every(2)
@pytest.mark.parametrize("trained", [False, True], ids=["fixed gates", "trained gates"])
@pytest.mark.parametrize("rule", ["fixed", "straight_through"])
def test_a_model_folder_in_another_order_brings_gates_and_all_with_its_rows(rule, trained, tmp_path):
    sizes = read_pretrained_architecture(FIXTURE).replace(num_outputs=3)
    source = BertClassifier(sizes)
    load_pretrained(source, FIXTURE)
    gates = np.random.default_rng(0).integers(0, 2, (32, 3)).astype(np.float32)
    source.classifier.gates.assign(gates)
    save_model(tmp_path / "model", source, Tokenizer.from_vocab(FIXTURE / "vocab.txt"), OWN, {})
    config = GatedBertConfig(pretrained=str(tmp_path / "model"), max_len=16, gate_trainable=trained)
    model = build_model(config, other_order(OWN), 200, gate_rule=rule)
    np.testing.assert_allclose(array(model(INPUTS)), array(source(INPUTS))[:, ::-1], atol=1e-6)
    assert np.array_equal(array(model.classifier.effective_gates()) != 0, gates[:, ::-1] != 0)


def test_closed_gates_of_other_classes_do_not_stay_on_a_new_head(tmp_path):
    source = BertClassifier(read_pretrained_architecture(FIXTURE).replace(num_outputs=3))
    source.classifier.gates.assign(np.zeros((32, 3)))
    save_model(tmp_path / "model", source, Tokenizer.from_vocab(FIXTURE / "vocab.txt"), OWN, {})
    for trained in (False, True):
        with pytest.warns(UserWarning, match="its head has the classes bad, good, mixed, MNLI has"):
            model = run_model(tmp_path / "model", TASKS["mnli"], gate_trainable=trained)
        assert (array(model.classifier.effective_gates()) == 1).all()


def test_a_tickets_mask_of_the_head_follows_the_classes(tmp_path):
    source = BertClassifier(read_pretrained_architecture(FIXTURE).replace(num_outputs=3))
    source.classifier.gates.assign(np.repeat([[0.0, 1.0, 1.0]], 32, axis=0))
    save_model(tmp_path / "model", source, Tokenizer.from_vocab(FIXTURE / "vocab.txt"), OWN, {})
    config = GatedBertConfig(pruning_method="magnitude", ticket=str(tmp_path / "model"), end_sparsity=0.34, max_len=16,
                             pretrained=str(tmp_path / "model"), prunable_roles=("classifier",))  # fmt: skip
    model = build_model(config, other_order(OWN), 200)
    model.classifier.mask_variable.assign(np.ones((32, 3)))
    apply_ticket(model, other_order(OWN), config, None, None)
    assert array(model.classifier.mask_variable)[:, 2].sum() == 0


WORDS = np.ones((200,), np.float32)
NEXT = np.ones((2, 32), np.float32)
ONE = {"classifier.weight": np.ones((1, 32), np.float32), "classifier.bias": np.ones(1, np.float32)}
NO_CLASSIFIER = {"classifier.weight": None, "classifier.bias": None}
NO_POOLER = {"bert.pooler.dense.weight": None, "bert.pooler.dense.bias": None}
SPANS = {"qa_outputs.weight": NEXT, "qa_outputs.bias": np.ones(2, np.float32)}
OTHERS = {
    "token classification": ("BertForTokenClassification", {}, {}),
    "tags without architectures": (None, {}, {"id2label": {"0": "O", "1": "B-PER", "2": "I-PER"}}),
    "no pooler and no architectures": (None, NO_POOLER, {}),
    "multiple choice": ("BertForMultipleChoice", ONE, {"id2label": "none", "label2id": "none"}),
    "one output that no label is named for": (None, ONE, {"id2label": "none", "label2id": "none"}),
    "masked language modelling": ("BertForMaskedLM", NO_CLASSIFIER | {"cls.predictions.bias": WORDS}, {}),
    "pretraining": ("BertForPreTraining", NO_CLASSIFIER | {"cls.predictions.bias": WORDS,
                                                           "cls.seq_relationship.weight": NEXT}, {}),
    "next sentence prediction": (None, NO_CLASSIFIER | {"cls.seq_relationship.weight": NEXT}, {}),
    "several labels at once": ("BertForSequenceClassification", {}, {"problem_type": "multi_label_classification"}),
    "a regression of 3 values": ("BertForSequenceClassification", {}, {"problem_type": "regression"}),
}  # fmt: skip


TAKEN_ALONE = {
    **dict.fromkeys(("token classification", "tags without architectures", "no pooler and no architectures"),
                    "token_classification"),
    "several labels at once": "multi_label_classification",
}  # fmt: skip
"""Heads for what other tasks learn, whose model is one as it is."""


def other_head(name, place):
    architecture, tensors, fields = OTHERS[name]
    named = {"architectures": [architecture]} if architecture else {"architectures": "none"}
    return hugging_face(place, tensors=tensors, **named, **fields)


@pytest.mark.parametrize("name", OTHERS)
def test_a_head_for_something_else_is_not_taken(name, tmp_path, capsys):
    folder = other_head(name, tmp_path)
    assert match_head(read_head(folder), TASKS["mnli"])[0] is None
    assert match_head(read_head(folder), TASKS["stsb"])[0] is None
    with pytest.warns(UserWarning) as said:
        kernel, bias = rows_of(run_model(folder, TASKS["mnli"]))
    lines = [str(each.message) for each in said if each.category is UserWarning]
    assert [line for line in lines if re.search("its head is for .*, MNLI needs classification .* random values", line)]
    assert len(lines) == 1 + ("no pooler" in name) and ("no pooler in it" in " ".join(lines)) == ("no pooler" in name)
    assert not bias.any() and np.abs(kernel).max() < 0.05
    if name in TAKEN_ALONE:
        task = load_source(folder).task
        assert (task.kind, len(task.labels)) == (TAKEN_ALONE[name], 3)
        return
    for words in (["shrink"], ["export", "--format", "hf"], ["export"]):
        out = str(tmp_path / ("out.onnx" if words == ["export"] else "out"))
        line = refusal(capsys, words[0], str(folder), out, *words[1:])
        assert "its head is for " in line and f"gated-bert train -pt {folder}" in line
    for command in ("predict", "inspect", "benchmark", "explain", "quantize"):
        line = refusal(capsys, command, str(folder), *{"predict": [str(folder / "vocab.txt")], "quantize":
                       [str(tmp_path / "q.onnx"), "--precision", "fp16"]}.get(command, []))  # fmt: skip


def test_spans_and_classes_do_not_stand_for_each_other(tmp_path):
    spans = hugging_face(tmp_path / "a", tensors=NO_CLASSIFIER | SPANS, architectures=["BertForQuestionAnswering"])
    with pytest.warns(UserWarning, match="its head is for answers as spans, SST-2 needs classification"):
        assert not rows_of(run_model(spans, TASKS["sst2"]))[1].any()
    with pytest.warns(UserWarning, match=r"its head is for classification \(yes, no\), SQuAD needs answers as spans"):
        model = run_model(hugging_face(tmp_path / "b", ("yes", "no")), TASKS["squad"])
    assert not rows_of(model)[1].any()
    assert load_source(spans).task == TASKS["squad"]


def test_an_architecture_whose_tensors_are_not_there_decides_nothing(tmp_path):
    assert read_head(hugging_face(tmp_path, ("b", "a"), architectures=["BertForMaskedLM"])) == Head(
        "classification", ("b", "a")
    )


def test_a_regression_is_no_class(tmp_path):
    folder = hugging_face(tmp_path, ("LABEL_0",))
    assert read_head(folder).kind == "regression"
    assert np.array_equal(
        rows_of(run_model(folder, TASKS["stsb"]))[0], load_file(folder / "model.safetensors")["classifier.weight"]
    )
    with pytest.warns(UserWarning, match="its head is for a regression, SST-2 needs classification"):
        run_model(folder, TASKS["sst2"])


def test_googles_files_have_the_order_of_googles_code():
    head = google_head({"output_weights": (3, 32), "output_bias": (3,), "bert/pooler/dense/kernel": (32, 32)})
    rows, sentence = match_head(head, TASKS["mnli"])
    assert rows == [1, 2, 0] and "contradiction, entailment, neutral is taken for their order" in sentence
    assert match_head(google_head({"output_weights": (2, 32)}), TASKS["mrpc"])[0] == [0, 1]
    own = Task("mnli", "mnli.tsv", labels=("maybe", "no", "yes"))
    assert match_head(head, own)[0] == [0, 1, 2]
    assert google_head({"output_weights": (1, 32)}).kind == "regression"
    assert google_head({"cls/squad/output_weights": (2, 32)}).kind == "span"
    assert google_head({"cls/predictions/output_bias": (9,), "cls/seq_relationship/output_weights": (2, 32)}) == Head(
        "pretraining"
    )
    assert google_head({"bert/pooler/dense/kernel": (32, 32)}) == Head()


def test_an_exported_folder_comes_back_in_the_order_of_another_task(tmp_path):
    from gated_bert.compression.export import export_hugging_face

    source = BertClassifier(read_pretrained_architecture(FIXTURE).replace(num_outputs=3))
    load_pretrained(source, FIXTURE)
    tokenizer = Tokenizer.from_vocab(FIXTURE / "vocab.txt")
    export_hugging_face(tmp_path / "hf", LoadedModel(source, tokenizer, OWN, source.bert_config, {}))
    assert load_source(tmp_path / "hf").task.labels == OWN.labels
    model = run_model(tmp_path / "hf", other_order(OWN))
    np.testing.assert_allclose(array(model(INPUTS)), array(source(INPUTS))[:, ::-1], atol=1e-5)


def test_two_classes_of_one_name_are_refused_where_the_head_is_needed(tmp_path):
    folder = hugging_face(tmp_path, ("same", "same"))
    with pytest.raises(UserError, match=r"config.json: id2label gives two classes one name \(same, same\)"):
        load_source(folder)
    assert match_head(read_head(folder), TASKS["sst2"])[0] is None


def test_a_broken_folder_is_refused_in_one_line(tmp_path):
    folder = hugging_face(tmp_path)
    (folder / "model.safetensors").write_bytes(b"x" * 30)
    with pytest.raises(UserError, match="not a whole safetensors file") as caught:
        read_head(folder)
    assert "\n" not in str(caught.value)


def test_weights_in_the_folder_of_a_user_there_is_not_are_refused():
    with pytest.raises(UserError, match="no home folder is known for ~nosuchuser"):
        read_head("~nosuchuser/model")
