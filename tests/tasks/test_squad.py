"""SQuAD from JSON files and from the hub: what is read, how one file is split, what is refused."""

import gzip
import json
import re

import datasets
import numpy as np
import pytest

from gated_bert.config import GatedBertConfig
from gated_bert.support.errors import UserError
from gated_bert.tasks import download as download_module
from gated_bert.tasks import squad
from gated_bert.tasks.data import load_task_data, task_name
from gated_bert.tasks.squad import read_squad_folder
from gated_bert.tasks.task import TASKS
from gated_bert.tasks.windows import best_answers, encode_windows
from gated_bert.tasks.wordpiece import Tokenizer


@pytest.fixture(autouse=True)
def _no_data_folder(monkeypatch):
    """Where the variable is set, a folder stands in for the hub."""
    monkeypatch.delenv("GATED_BERT_DATA", raising=False)


CONTEXT = "The abbey, founded in 1066, is old."


def question(name="q1", text="When?", answers=(("1066", 22),), **more):
    return {"id": name, "question": text, "answers": [{"text": t, "answer_start": s} for t, s in answers], **more}


def article(*questions, title="Abbey", context=CONTEXT):
    return {"title": title, "paragraphs": [{"context": context, "qas": list(questions)}]}


def write(path, *articles):
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"version": "1.1", "data": list(articles)})
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


def read(folder):
    return read_squad_folder(folder, TASKS["squad"])


@pytest.mark.parametrize("place", ["", "squad", "SQuAD"])
@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_a_folder_with_training_and_development_files(tmp_path, place, suffix):
    twice = question("q3", answers=(("old", 31), ("is old", 28), ("old", 31)))
    write(tmp_path / place / f"train-v1.1.json{suffix}", article(question(), question("q2")))
    write(tmp_path / place / f"dev-v1.1.json{suffix}", article(twice))
    data = load_task_data(GatedBertConfig(task="squad", data=str(tmp_path)))
    assert data.train.texts == ["When?", "When?"] and data.train.pairs == [CONTEXT] * 2
    assert data.train.labels.tolist() == [[22, 26]] * 2 and data.train.labels.dtype == np.int32
    dev = data.dev["dev"]
    assert dev.ids == ["q3"] and dev.answers == [("old", "is old")] and dev.labels.tolist() == [[31, 34]]
    assert data.source == {
        "kind": "folder", "label": "SQuAD", "path": str(tmp_path / place), "partial": False,
        "rows": {"train": 2, "dev": 1},
    }  # fmt: skip


def test_a_single_file_is_split_by_article(tmp_path):
    articles = [article(question(f"{n}a"), question(f"{n}b"), title=f"T{n}") for n in range(11)]
    write(tmp_path / "x.json", *articles)
    data = read(tmp_path)
    dev, train = data.dev["dev"].ids, data.train.ids
    assert len(dev) == 4 and len(train) == 18
    assert not {name[:-1] for name in dev} & {name[:-1] for name in train}
    assert data.source["label"] == "SQuAD (x.json split by article)"
    assert data.source["split"] == "2 of the 11 articles of x.json, drawn with seed 0, are the development examples"
    assert read(tmp_path).dev["dev"].ids == dev


def test_a_subset_of_the_training_questions(tmp_path):
    write(tmp_path / "train.json", article(*(question(f"q{n}") for n in range(9))))
    write(tmp_path / "dev.json", article(question()))
    config = GatedBertConfig(task="squad", data=str(tmp_path), train_examples=4)
    train = load_task_data(config).train
    assert len(train) == len(train.ids) == len(train.answers) == len(train.labels) == 4
    assert task_name(config) == "squad"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "an empty file; a file in the format of SQuAD v1.1 is needed"),
        ('{"data": [', "line 1: malformed JSON"),
        ("[1, 2]", "holds a list; allowed: an object"),
        ('{"data": 1}', "no list 'data' of articles in it"),
        ('{"data": []}', "no questions in it"),
        ('{"data": [{"title": "A"}]}', "article 1: no field 'paragraphs'"),
        ('{"data": ["A"]}', "article 1: an object or a list is out of place"),
        ('{"data": [{"paragraphs": [{"context": "c", "qas": [{"id": "1"}]}]}]}', "article 1: no field 'answers'"),
    ],
)
def test_files_that_are_no_squad_are_named(tmp_path, content, message):
    (tmp_path / "train.json").write_text(content)
    write(tmp_path / "dev.json", article(question()))
    with pytest.raises(UserError, match=rf"train\.json.*{re.escape(message)}"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("questions", "message"),
    [
        ([question(), question()], "question q1 is there twice; keep one of the two"),
        ([question(answers=())], "question q1 has no answer, as in SQuAD v2; remove such questions"),
        ([question(is_impossible=True)], "question q1 has no answer, as in SQuAD v2"),
        ([question(text=" ")], "question q1: question is ' ', no text; correct or remove it"),
        ([question(5)], "question 5: id is 5, no text"),
        ([question(answers=(("1066", 21),))], "question q1: answer '1066' does not stand at character 21 of its"),
        ([question(answers=(("1066", "22"),))], "answer '1066' does not stand at character 22"),
        (
            [question(answers=(("1066", 22), ("old", 2))), question("q2", answers=(("new", 31),))],
            "question q1: answer 'old' does not stand at character 2 of its context (2 such answers in all); correct",
        ),
    ],
)
def test_questions_that_cannot_be_used_are_named(tmp_path, questions, message):
    write(tmp_path / "train.json", article(*questions))
    write(tmp_path / "dev.json", article(question()))
    with pytest.raises(UserError, match=re.escape(message)) as caught:
        read(tmp_path)
    assert "\n" not in str(caught.value)


def test_missing_and_surplus_files(tmp_path):
    with pytest.raises(UserError, match=r"no train\*\.json in it; put train-v1\.1\.json there, or fetch it with"):
        read(tmp_path)
    write(tmp_path / "one.json", article(question()))
    with pytest.raises(UserError, match="one.json: one article only; at least two are needed"):
        read(tmp_path)
    write(tmp_path / "train-v1.1.json", article(question()))
    with pytest.raises(UserError, match=r"no dev\*\.json in it \(found: one.json, train-v1.1.json\)"):
        read(tmp_path)
    write(tmp_path / "train-v2.0.json", article(question()))
    with pytest.raises(UserError, match="both train-v1.1.json and train-v2.0.json are there; keep one of them"):
        read(tmp_path)


COLUMNS = {
    "id": ["1", "2"],
    "title": ["Abbey", "Bees"],
    "context": [CONTEXT, "Bees fly."],
    "question": ["When?", "Who?"],
    "answers": [{"text": ["1066"], "answer_start": [22]}, {"text": ["Bees", "fly"], "answer_start": [0, 5]}],
}


def test_the_hub_and_what_a_download_leaves_are_the_same(tmp_path, monkeypatch):
    splits = datasets.DatasetDict(dict.fromkeys(("train", "validation"), datasets.Dataset.from_dict(COLUMNS)))
    for module in (squad, download_module):
        monkeypatch.setattr(module, "load_hub_dataset", lambda *_: splits)
    hub = load_task_data(GatedBertConfig(task="squad"))
    assert hub.source["path"] == "rajpurkar/squad" and hub.source["rows"] == {"train": 2, "dev": 2}
    assert hub.dev["dev"].answers == [("1066",), ("Bees", "fly")]
    download_module.download("squad", tmp_path)
    folder = load_task_data(GatedBertConfig(task="squad", data=str(tmp_path)))
    for ours, theirs in ((hub.train, folder.train), (hub.dev["dev"], folder.dev["dev"])):
        assert (ours.texts, ours.pairs, ours.ids, ours.answers) == (
            theirs.texts, theirs.pairs, theirs.ids, theirs.answers)  # fmt: skip
        np.testing.assert_array_equal(ours.labels, theirs.labels)


def test_another_data_set_of_the_hub_is_named(monkeypatch):
    other = datasets.Dataset.from_dict({"sentence": ["a"]})
    monkeypatch.setattr(squad, "load_hub_dataset", lambda *_: datasets.DatasetDict(train=other))
    with pytest.raises(UserError, match="rajpurkar/squad, train: no column 'title'; found: sentence"):
        load_task_data(GatedBertConfig(task="squad"))


@pytest.mark.real_data
def test_real_answers_survive_windows_and_decoding(real_data):
    if not (real_data / "squad").is_dir():
        pytest.skip(f"no SQuAD files in {real_data / 'squad'}")
    dev = read(real_data).dev["dev"]
    windows = encode_windows(Tokenizer.from_vocab(real_data / "bert" / "vocab.txt"), dev, 192, 64)
    assert len(windows.encoded) > len(dev) and windows.encoded.lengths.max() == 192
    logits = np.zeros((len(windows.encoded), 2, 192), np.float32)
    for window, label in enumerate(windows.labels):
        logits[window, (0, 1), label] = 9.0
    found = best_answers(windows, logits, dev, 20, 60)
    assert np.mean([found[name] == accepted[0] for name, accepted in zip(dev.ids, dev.answers, strict=True)]) > 0.99
