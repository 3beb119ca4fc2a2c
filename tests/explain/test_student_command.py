"""`gated-bert student`, as a user types it."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from keras import ops
from scipy import stats

from gated_bert.cli.main import main
from gated_bert.experiments.explanations import students
from gated_bert.experiments.explanations.student_table import summarize, verdict
from gated_bert.explain.student_training import load_student
from gated_bert.explain.tokens import read_token_explanations
from gated_bert.models.architecture import BertConfig
from gated_bert.models.bert import BertClassifier
from gated_bert.models.folder import load_model, save_model
from gated_bert.tasks.embedded import embedded_examples, embedded_vocabulary
from gated_bert.tasks.task import TASKS
from gated_bert.tasks.wordpiece import Tokenizer
from tests.compression.conftest import randomize
from tests.explain.test_explain_commands import read, refusal, stop_after
from tests.pictures import is_drawn

TRAIN = ("-d", "embedded", "--documents", "40", "--epochs", "2", "--seeds", "1,2", "--xai-weights", "0.5")


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A model of random weights for the embedded SST-2, in `model`, and its explanations of training documents."""
    place = tmp_path_factory.mktemp("saved")
    tokenizer = Tokenizer.from_vocab(embedded_vocabulary())
    config = BertConfig.uniform(1, 16, 4, 12, vocab_size=len(embedded_vocabulary()), max_position=24, num_outputs=2)
    model = BertClassifier(config)
    randomize(model, 0)
    save_model(place / "model", model, tokenizer, TASKS["sst2"], {"config": {"max_len": 24}})
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        patch.setattr(os, "environ", {**os.environ, "VERBOSE": "0"})
        words = ["explain", "model", "-d", "embedded", "--split", "train", "--documents", "40", "--token-level"]
        assert main([*words, "--num-samples", "30", "-o", "tokens"]) == 0
    return place


@pytest.fixture
def folder(saved, tmp_path, monkeypatch):
    """The working directory, with `model` and `tokens`."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(saved, tmp_path, dirs_exist_ok=True)
    monkeypatch.setattr(os, "environ", {**os.environ, "VERBOSE": "0"})
    return tmp_path


@pytest.mark.nightly
def test_students_are_trained_judged_and_kept(folder, capsys, monkeypatch):
    monkeypatch.setattr(students, "REPEATS", 2)
    assert main(["student", "tokens", *TRAIN, "-o", "out"]) == 0
    shown = capsys.readouterr().out
    assert (
        "SST-2 · embedded data, dev, 40 documents; students: 32 documents, explanations compared on 8 others" in shown
    )
    rows = read("out/students.csv")
    assert [(row["student"], row["seed"]) for row in rows] == [
        ("vanilla", "1"), ("vanilla", "2"), ("XAI 0.5", "1"), ("XAI 0.5", "2")
    ]  # fmt: skip
    record = json.loads(Path("out/record.json").read_text())
    assert record["complete"] and record["explained"]["num_samples"] == 30 and record["epochs"] == 2
    check_row(rows[2], "out/students/weight_0.5_seed_1")
    bert, vanilla, drawn = read("out/students_summary.csv")
    values = [float(row["cosine"]) for row in rows]
    assert float(drawn["cosine_mean"]) == pytest.approx(np.mean(values[2:]))
    apart = np.array(values[2:]) - values[:2]
    low, high = stats.t.interval(0.95, 1, apart.mean(), stats.sem(apart))
    assert (float(drawn["cosine_difference_low"]), float(drawn["cosine_difference_high"])) == pytest.approx((low, high))
    assert drawn["cosine_verdict"] == verdict(low, high) and not vanilla["cosine_verdict"]
    assert int(bert["parameters"]) == load_model("model").config.num_parameters and not bert["cosine_mean"]
    assert all(float(row["ms_a_document_b32"]) > 0 for row in (bert, vanilla, drawn))
    assert is_drawn("out/students.png")


def check_row(row, place):
    """The student in a folder is worth what the table says, by an independent computation."""
    student, bert = load_student(place), load_model("model")
    _, dev = embedded_examples("sst2")
    chosen = np.random.default_rng(0).permutation(len(dev["dev"]))[:40]
    examples = dev["dev"].take(chosen)
    agreed = right = 0
    for text, label in zip(examples.texts, examples.labels, strict=True):
        ids = bert.tokenizer.encode([text], None, 24).input_ids[None]
        inputs = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
        mine, its = (ops.convert_to_numpy(each.model(inputs))[0].argmax() for each in (student, bert))
        agreed, right = agreed + (mine == its), right + (mine == label)
    assert (float(row["accuracy"]), float(row["agreement"])) == (right / 40, agreed / 40)
    found, cosines = read_token_explanations(Path("tokens")), []
    for index in np.random.default_rng(0).permutation(40)[:8]:
        part = slice(*found.offsets[index : index + 2])
        ids, weights = found.input_ids[part][None], found.weights[part]
        given = student.model.attributions({"input_ids": ids, "attention_mask": np.ones_like(ids)})
        given = ops.convert_to_numpy(given)[0] * weights.any(axis=1, keepdims=True)
        norms = np.linalg.norm(weights, axis=0) * np.linalg.norm(given, axis=0)
        cosines.append(np.mean((weights * given).sum(axis=0) / norms))
    assert float(row["cosine"]) == pytest.approx(np.mean(cosines), abs=1e-5)
    assert int(row["parameters"]) == sum(int(np.prod(each.shape)) for each in student.model.trainable_variables)


@pytest.mark.nightly
def test_training_goes_on_where_it_was_stopped(folder, capsys, monkeypatch):
    monkeypatch.setattr(students, "REPEATS", 2)
    words = ["student", "tokens", *TRAIN, "-o", "out"]
    with monkeypatch.context() as patch:
        stop_after(patch, students, "save_student", 1)
        assert main(words) == 130
    assert "stopped; 1 of 4 students are in out, and the same command with --resume goes on" in capsys.readouterr().err
    first = Path("out/students/weight_0_seed_1/student.keras").read_bytes()
    assert "out: holds students already" in refusal(capsys, *words)
    assert "out was begun with epochs 2, not 3" in refusal(capsys, *words, "--resume", "--epochs", "3")
    with monkeypatch.context() as patch:
        # The model is not asked again.
        patch.setattr(BertClassifier, "predict_on_batch", None)
        stop_after(patch, students, "_latency", 0)
        assert main([*words, "--resume"]) == 130
    assert main([*words, "--resume"]) == 0
    assert Path("out/students/weight_0_seed_1/student.keras").read_bytes() == first
    # More seeds and weights go on, too.
    assert (
        main(["student", "tokens", *TRAIN[:-4], "--seeds", "2", "--xai-weights", "0.5,1", "-o", "out", "--resume"]) == 0
    )
    assert [(row["student"], row["seed"]) for row in read("out/students.csv")] == [
        ("vanilla", "2"), ("XAI 0.5", "2"), ("XAI 1", "2")
    ]  # fmt: skip


def test_summary_and_verdicts_of_known_values():
    costs = {"parameters": 10, "size_bytes": 80}
    rows = [{"student": "x", "xai_weight": weight, "seed": seed, "accuracy": 0.5, "agreement": 0.5 + seed / 10,
             "cosine": weight + seed / 100, "spearman": None, **costs}
            for weight in (0.0, 0.5) for seed in (1, 2, 3)]  # fmt: skip
    bert, vanilla, drawn = summarize(rows, {"student": "b", "accuracy": 0.9, **costs}, {"bert": {}, "student": {}})
    assert bert["accuracy_mean"] == 0.9 and vanilla["cosine_mean"] == pytest.approx(0.02)
    # Every seed gains as much: no spread.
    assert drawn["cosine_difference_low"] == pytest.approx(0.5) and drawn["cosine_verdict"] == "above vanilla"
    assert drawn["accuracy_verdict"] == "not told apart" and np.isnan(drawn["spearman_mean"])
    assert vanilla["agreement_low"] == pytest.approx(0.7 - 4.302653 * 0.1 / 3**0.5)
    assert [verdict(*ends) for ends in ((-2.0, -1.0), (-1.0, 1.0), (np.nan, np.nan))] == [
        "below vanilla", "not told apart", "one seed"
    ]  # fmt: skip


def test_what_is_wrong_is_named(folder, capsys):
    Path("empty").mkdir()
    one = ("student", "tokens", "-d", "embedded")
    for words, message in (
        (("student",), "student: needs one folder of token explanations"),
        (("student", "tokens"), "-d/--data: needed"),
        (("student", "empty", "-d", "embedded"), "empty: no token explanations in it; `gated-bert explain"),
        (("student", "tokens", "-d", "nowhere"), "-d/--data: 'nowhere' is refused"),
        ((*one, "--xai-weights", "0.1,2"), "--xai-weights: '0.1,2' is refused; allowed: numbers from 0 to 1"),
        ((*one, "--seeds", "1,x"), "--seeds: '1,x' is refused; allowed: whole numbers from 0 up"),
        ((*one, "--epochs", "0"), "-e/--epochs: 0 is refused; allowed: a whole number from 1 up"),
        ((*one, "-l", "0"), "-l/--learning-rate: 0.0 is refused; allowed: a number above 0"),
        ((*one, "--held-out", "0.001"), "tokens: 40 documents, too few to hold 0.001 of them out"),
        ((*one, "--model", "gone"), "gone: no such file or folder"),
        ((*one, "--split", "test"), "--split: 'test' is refused; SST-2 has dev"),
        ((*one, "-o", "model"), "model: not empty, and no students in it"),
    ):
        assert message in refusal(capsys, *words), words
    Path("model").rename("moved")
    assert "model: no such file or folder, and tokens explains this model; say by --model" in refusal(capsys, *one)
    for changes, message in (
        ({"complete": False}, "tokens: not all its documents are explained"),
        ({"kind": "words"}, "tokens: no explanations of word pieces"),
        ({"data": "SST-2 · embedded data, dev"}, "tokens: explains documents of SST-2 · embedded data, dev, which"),
        ({"task": "ag_news"}, "moved: of task sst2, and tokens explains a model of ag_news"),
    ):
        record = json.loads(Path("tokens/record.json").read_text())
        Path("tokens/record.json").write_text(json.dumps({**record, **changes}))
        assert message in refusal(capsys, *one, "--model", "moved"), changes
        Path("tokens/record.json").write_text(json.dumps(record))
    path = next(Path("tokens").glob("*.npz"))
    with np.load(path) as arrays:
        np.savez(path, **{**arrays, "labels": np.full_like(arrays["labels"], -1)})
    assert "no label of document" in refusal(capsys, *one, "--model", "moved")
    assert not Path("students").exists()
