"""`gated-bert explain` and `sp-lime`, as a user types them."""

import csv
import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from gated_bert.cli.main import main
from gated_bert.experiments.explanations import explaining as explanations
from gated_bert.experiments.explanations import token_explanations
from gated_bert.experiments.explanations.documents import Wanted, draw, find_documents
from gated_bert.experiments.explanations.explanation_folder import read_documents
from gated_bert.explain.lime import explain_texts
from gated_bert.explain.tokens import read_token_explanations
from gated_bert.models.folder import load_model, save_model
from gated_bert.support.errors import UserError
from gated_bert.tasks.task import TASKS
from tests.explain.conftest import loaded_model
from tests.refused import refusal

TEXTS = ("a good film", "the cast was dull, not bad", "?!", "very <long> plot & a joy", "a good, good plot", "bad")
LABELS = (1, 0, 0, 1, 1, 0)
QUICK = ("--num-samples", "30")


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    place = tmp_path_factory.mktemp("saved")
    loaded = loaded_model("sst2")
    save_model(place / "model", loaded.model, loaded.tokenizer, loaded.task, {"config": {"max_len": 20}})
    return place


@pytest.fixture
def folder(saved, tmp_path, monkeypatch):
    """The working directory, with a model in `model` and `a.tsv`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VERBOSE", "0")
    shutil.copytree(saved, tmp_path, dirs_exist_ok=True)
    rows = [f"{text}\t{label}\n" for text, label in zip(TEXTS, LABELS, strict=True)]
    Path("a.tsv").write_text("sentence\tlabel\n" + "".join(rows))
    # What a command sets for the libraries it is about to start, in a process where they run already.
    monkeypatch.setattr(os, "environ", os.environ.copy())
    return tmp_path


def read(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def stop_after(monkeypatch, module, name, calls):
    """Ctrl-C in place of the call after so many."""
    original, done = getattr(module, name), []

    def stop(*arguments):
        if len(done) == calls:
            raise KeyboardInterrupt
        done.append(1)
        return original(*arguments)

    monkeypatch.setattr(module, name, stop)


def test_explain_writes_the_words_of_every_document(folder, capsys):
    assert main(["explain", "model", "a.tsv", "-o", "out", "--seed", "3", *QUICK]) == 0
    assert re.search(r"6 documents, \d of 6 predicted right; mean R² of the explanations", capsys.readouterr().out)
    lines, rows = read_documents(Path("out")), read("out/explanations.csv")
    assert [line["document"] for line in lines] == [1, 2, 3, 4, 5, 6] and [line["text"] for line in lines] == [*TEXTS]
    labels = TASKS["sst2"].labels
    assert [line["label"] for line in lines] == [labels[label] for label in LABELS]
    loaded = load_model("model")
    every = [(0, 1)] * len(TEXTS)
    found = explain_texts(loaded, TEXTS, every, documents=range(1, 7), num_samples=30, seed=3)
    for line, (number, both) in zip(lines, found, strict=True):
        assert line["predicted"] == max(line["probabilities"], key=line["probabilities"].get)
        # Predicted and gold, which may be one class.
        assert [each["class"] for each in line["explanations"]] == list(
            dict.fromkeys([line["predicted"], line["label"]])
        )
        for each in line["explanations"]:
            own = both[labels.index(each["class"])]
            there = [row for row in rows if (row["document"], row["class"]) == (str(number), each["class"])]
            assert [row["word"] for row in there] == [word["word"] for word in each["words"]] == list(own.words)
            assert np.abs(np.array([float(row["weight"]) for row in there]) - own.weights).max(initial=0) < 1e-6
            assert all(float(row["fidelity"]) == pytest.approx(own.fidelity, abs=1e-6) for row in there)
    record = json.loads(Path("out/record.json").read_text())
    assert record["complete"] and record["documents"] == [1, 2, 3, 4, 5, 6] and record["data"] == "SST-2 · a.tsv"
    assert (record["model"], record["seed"], record["num_samples"], record["max_len"]) == ("model", 3, 30, 20)


def test_the_page_marks_words_where_they_stand_and_needs_nothing(folder):
    assert main(["explain", "model", "a.tsv", "-o", "out", "--classes", "all", *QUICK]) == 0
    text = Path("out/explanations.html").read_text()
    assert not re.search(r"(src|href)=|https?:|<script|@import", text)
    marked = re.findall(r'<p class="text">(.*?)</p>', text)
    plain = [re.sub(r"<[^>]*>", "", each) for each in marked]
    assert plain[6:8] == ["very &lt;long&gt; plot &amp; a joy"] * 2 and len(plain) == 12
    lines = read_documents(Path("out"))
    for line, first in zip(lines, marked[::2], strict=True):
        words = re.findall(r'<mark style="background: rgba\((.*?), ([\d.]+)\)" title="(.*?)">(.*?)</mark>', first)
        weights = {word["word"]: word["weight"] for word in line["explanations"][0]["words"]}
        assert {word for *_, word in words} == set(weights)
        for colour, opacity, title, word in words:
            assert colour == ("0, 114, 178" if weights[word] > 0 else "213, 94, 0")
            assert float(opacity) == pytest.approx(0.6 * abs(weights[word]) / max(map(abs, weights.values())), abs=1e-3)
            assert title == f"{weights[word]:+.3f}".replace("-", "−")
    # A weight of the word in all its places.
    assert marked[8].count(">good</mark>") == 2


@pytest.mark.nightly
def test_explaining_goes_on_where_it_was_stopped(folder, capsys, monkeypatch):
    words = ["explain", "model", "a.tsv", *QUICK, "-o"]
    assert main([*words, "whole"]) == 0
    with monkeypatch.context() as patch:
        stop_after(patch, explanations, "append_document", 2)
        assert main([*words, "out"]) == 130
    assert (
        "2 of 6 documents are explained in out, and the same command with --resume goes on" in capsys.readouterr().err
    )
    assert {row["document"] for row in read("out/explanations.csv")} == {"1", "2"}
    # As a kill in the middle of a write leaves it.
    with open("out/documents.jsonl", "ab") as file:
        file.write(b'{"document": 3, "te')
    assert [line["document"] for line in read_documents(Path("out"))] == [1, 2]
    first = Path("out/documents.jsonl").read_bytes().splitlines()[:2]
    assert "out: holds explanations already" in refusal(capsys, *words, "out")
    assert "out was begun with seed 42, not 7" in refusal(capsys, *words, "out", "--resume", "--seed", "7")
    assert main([*words, "out", "--resume"]) == 0
    assert Path("out/documents.jsonl").read_bytes().splitlines()[:2] == first
    whole, resumed = read("whole/explanations.csv"), read("out/explanations.csv")
    assert [row["word"] for row in whole] == [row["word"] for row in resumed]
    assert all(abs(float(a["weight"]) - float(b["weight"])) < 1e-6 for a, b in zip(whole, resumed, strict=True))
    with monkeypatch.context() as patch:
        stop_after(patch, explanations, "append_document", 0)
        assert main([*words, "out", "--resume"]) == 0
    other = loaded_model("sst2", seed=1)
    save_model(folder / "model", other.model, other.tokenizer, other.task, {"config": {"max_len": 20}})
    capsys.readouterr()
    assert "--resume: the model gives document 1 other probabilities than when out was" in refusal(
        capsys, *words, "out", "--resume"
    )


def test_one_text_is_explained_by_many_words(folder, capsys):
    assert main(["explain", "model", "--text", TEXTS[1], "-o", "out"]) == 0
    shown = capsys.readouterr().out
    assert re.search(r"predicted: \w+, \d+\.\d %\nfor \w+ +R² ", shown) and re.search(r"\ndull +[+-]0\.\d{4}\n", shown)
    record = json.loads(Path("out/record.json").read_text())
    assert (record["num_features"], record["num_samples"]) == (100, 5000)
    [line] = read_documents(Path("out"))
    assert line["label"] is None and [each["class"] for each in line["explanations"]] == [line["predicted"]]


def test_documents_of_a_tasks_data(folder):
    words = ["explain", "model", "-d", "embedded", "--per-class", *QUICK]
    assert main([*words, "--documents", "2", "-o", "few"]) == 0
    assert main([*words, "--documents", "3", "-o", "more", "--seed", "1"]) == 0
    few, more = read_documents(Path("few")), read_documents(Path("more"))
    assert sorted(line["label"] for line in few) == ["negative"] * 2 + ["positive"] * 2
    # Another seed is another choice of samples, not of documents; more documents hold those of fewer.
    assert {line["text"] for line in few} < {line["text"] for line in more} and len(more) == 6
    assert json.loads(Path("few/record.json").read_text())["data"] == "SST-2 · embedded data, dev"


def test_drawing():
    labels = np.array([0, 1, 1, 1, 0, 1])
    rows = draw(6, labels, 2)
    assert rows.tolist() == sorted(rows) and sorted(labels[rows]) == [0, 0, 1, 1]
    assert len(draw(6, labels, 3)) == 5 and draw(6, None, None).tolist() == [0, 1, 2, 3, 4, 5]
    assert set(draw(100, None, 5)) < set(draw(100, None, 9))


def test_token_level_explanations_go_on_where_they_were_stopped(folder, capsys, monkeypatch):
    monkeypatch.setattr(token_explanations, "SHARD", 2)
    words = ["explain", "model", "a.tsv", "--token-level", *QUICK, "-o"]
    with monkeypatch.context() as patch:
        stop_after(patch, token_explanations, "_document", 3)
        assert main([*words, "out"]) == 130
    assert "stopped; 2 files of documents are in out" in capsys.readouterr().err
    assert read_token_explanations(Path("out")).documents.tolist() == [1, 2, 3]
    before = Path("out/tokens_00002.npz").read_bytes()
    assert main([*words, "out", "--resume"]) == 0
    assert sorted(path.name for path in Path("out").glob("*.npz")) == [
        "tokens_00000.npz", "tokens_00002.npz", "tokens_00003.npz", "tokens_00005.npz"
    ]  # fmt: skip
    assert Path("out/tokens_00002.npz").read_bytes() == before
    found, loaded = read_token_explanations(Path("out")), load_model("model")
    assert found.documents.tolist() == [1, 2, 3, 4, 5, 6] and found.labels.tolist() == [*LABELS]
    for index, text in enumerate(TEXTS):
        part = slice(*found.offsets[index : index + 2])
        assert found.input_ids[part].tolist() == loaded.tokenizer.encode([text]).input_ids.tolist()
        [(_, [_, own])] = explain_texts(loaded, [text], [(0, 1)], documents=[index + 1], num_features=None,
                                        num_samples=30, seed=42)  # fmt: skip
        assert found.weights[part, 1].sum() == pytest.approx(own.weights.sum(), abs=1e-5)
        assert found.intercepts[index, 1] == pytest.approx(own.intercept, abs=1e-5)
    assert found.weights[found.input_ids == 2].any() is np.False_ and np.isnan(found.fidelity[2]).all()


def test_sp_lime_of_a_folder_and_of_a_model(folder, capsys):
    assert main(["explain", "model", "a.tsv", "-o", "explained", *QUICK]) == 0
    assert main(["sp-lime", "explained", "--pick", "3", "-o", "picked"]) == 0
    assert "coverage: 3 documents with" in capsys.readouterr().out
    rows, words = read("picked/sp_lime.csv"), read("picked/sp_lime_words.csv")
    assert [(row["pick"], row["rank"]) for row in rows] == [
        (pick, rank) for pick in ("coverage", "diversity") for rank in "123"
    ]
    explained = {
        (row["document"], row["class"], row["word"]): row["weight"] for row in read("explained/explanations.csv")
    }
    for row in rows:
        own = [each for each in words if (each["pick"], each["rank"]) == (row["pick"], row["rank"])]
        assert row["words"].split() == [each["word"] for each in own]
        for each in own:
            assert explained[each["document"], each["class"], each["word"]] == each["weight"]
        assert TEXTS[int(row["document"]) - 1] == row["text"]
    assert all(row["covered"] and not row["mean_cosine"] for row in rows[:3])
    assert Path("picked/sp_lime.html").read_text().count('class="document"') == 6
    assert main(["sp-lime", "model", "a.tsv", "--pick", "3", "-o", "other", *QUICK]) == 0
    assert Path("other/sp_lime.csv").read_bytes() == Path("picked/sp_lime.csv").read_bytes()
    assert main(["sp-lime", "model", "a.tsv", "--pick", "2", "-o", "other", "--resume", *QUICK]) == 0
    assert len(read("other/sp_lime.csv")) == 4 and Path("other/candidates/record.json").is_file()


def test_the_picked_explanations_can_be_compared_with(folder, capsys):
    assert main(["explain", "model", "a.tsv", "-o", "all", "--classes", "all", *QUICK]) == 0
    words = ["sp-lime", "all", "--pick", "2", "-o", "picks"]
    assert main([*words, "--picked", "picked"]) == 0
    rows = [int(row["document"]) for row in read("picks/sp_lime.csv") if row["pick"] == "coverage"]
    every = {line["document"]: line for line in read_documents(Path("all"))}
    assert read_documents(Path("picked")) == [every[number] for number in sorted(rows)] and len(rows) == 2
    record = json.loads(Path("picked/record.json").read_text())
    assert record == json.loads(Path("all/record.json").read_text()) | {"documents": sorted(rows)}
    assert {int(row["document"]) for row in read("picked/explanations.csv")} == set(rows)
    # Once more, in place of what was picked before.
    assert main(["sp-lime", "all", "--pick", "1", "-o", "picks", "--picked", "picked"]) == 0
    assert len(read_documents(Path("picked"))) == 1
    shutil.copytree("model", "copy")
    names = ["compare-explanations", "picked", "copy", "--names", "base,same", "-o", "compared"]
    assert main(names) == 0
    assert {row["variant"] for row in read("compared/similarity.csv")} == {"noise floor", "same"}
    assert [line["document"] for line in read_documents(Path("compared/explanations/same"))] == rows[:1]
    capsys.readouterr()
    for wrong in ("base", "base,base", "base,a/b", "base,noise_floor"):
        message = f"--names: '{wrong}' is refused; allowed: 2 different ones of letters, digits and _.+-"
        assert message in refusal(capsys, *names[:3], "--names", wrong, "-o", "other")
    for taken in ("model", "all"):
        assert f"--picked: '{taken}' is refused; allowed: a new folder" in refusal(capsys, *words, "--picked", taken)


def test_explain_names_what_is_wrong(folder, capsys):
    Path("plain.txt").write_text("good\n")
    Path("full").mkdir()
    Path("full/notes").write_text("mine")
    one = ("explain", "model", "a.tsv")
    for words, message in (
        (("explain",), "explain: needs a model and texts"),
        (("explain", "model"), "documents: give one of a FILE of texts, -d/--data SOURCE and --text TEXT"),
        ((*one, "-d", "embedded"), "documents: give one of a FILE"),
        (("explain", "nowhere", "a.tsv"), "nowhere: no such file or folder"),
        (("explain", "model", "none.tsv"), "none.tsv: no such file"),
        (("explain", "model", "-d", "nowhere"), "-d/--data: 'nowhere' is refused"),
        (("explain", "model", "-d", "embedded", "--split", "x"), "--split: 'x' is refused; SST-2 has dev"),
        (("explain", "model", "--text", " "), "--text: ' ' is refused"),
        (("explain", "model", "--text", "a", "--documents", "3"), "--documents: only with a FILE or -d"),
        ((*one, "--split", "dev"), "--split: only with -d"),
        ((*one, "--per-class"), "--per-class: needs --documents"),
        ((*one, "--documents", "0"), "--documents: 0 is refused; allowed: a whole number from 1 up"),
        ((*one, "--num-samples", "9"), "--num-samples: 9 is refused; allowed: a whole number from 10 up"),
        ((*one, "--classes", "golden"), "--classes: 'golden' is refused; allowed: predicted, gold, all (did"),
        ((*one, "-ml", "99"), "-ml/--max-len: 99 is refused"),
        ((*one, "-o", "full"), "full: not empty, and no explanations in it"),
        ((*one, "-o", "a.tsv"), "-o/--output-dir: 'a.tsv' is refused (a file is there); allowed: a folder"),
        ((*one, "--token-level", "--num-features", "3"), "--num-features: not with --token-level"),
        (("explain", "model", "plain.txt", "--documents", "1", "--per-class"), "--per-class: plain.txt has no labels"),
        (("explain", "model", "plain.txt", "--classes", "gold"), "--classes: gold needs labels, and SST-2 ·"),
        (("sp-lime",), "sp-lime: needs a folder of explanations, or a model and texts"),
        (("sp-lime", "model"), "documents: give one of a FILE of texts, -d/--data SOURCE"),
        (("sp-lime", "model", "a.tsv", "--pick", "0"), "--pick: 0 is refused"),
    ):  # fmt: skip
        assert message in refusal(capsys, *words), words
    assert "--text" not in refusal(capsys, "sp-lime", "model")
    assert not Path("explanations").exists() and not Path("sp_lime").exists()


def test_sp_lime_refuses_what_has_no_predicted_class(folder, capsys):
    assert main(["explain", "model", "a.tsv", "-o", "e", *QUICK]) == 0
    capsys.readouterr()
    assert "--seed: only with a model; e holds explanations already" in refusal(capsys, "sp-lime", "e", "--seed", "3")
    lines = [dict(line, explanations=[]) for line in read_documents(Path("e"))]
    Path("e/documents.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert "e: no explanation of a predicted class in it" in refusal(capsys, "sp-lime", "e")
    Path("e/documents.jsonl").write_text("[]\n")
    assert "e/documents.jsonl, line 1: holds a list" in refusal(capsys, "sp-lime", "e")


@pytest.mark.parametrize(("task", "what"), [("stsb", "a regression task"), ("mrpc", "pairs of texts")])
def test_other_tasks_are_refused(folder, capsys, task, what):
    other = loaded_model(task)
    save_model(folder / task, other.model, other.tokenizer, TASKS[task], {})
    for command in (("explain",), ("explain", "--token-level"), ("sp-lime",)):
        message = refusal(capsys, command[0], task, "a.tsv", *command[1:])
        assert f"{TASKS[task].title} has {what}; explanations are of classes of single texts" in message


def test_documents_of_nowhere_are_refused():
    with pytest.raises(UserError, match="give one of a text, a file of texts and data"):
        find_documents(None, Wanted())
