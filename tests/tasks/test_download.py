import csv
import gzip
import hashlib
import json
import subprocess

import datasets
import numpy as np
import pytest

from gated_bert.config import ConfigError
from gated_bert.support.errors import UserError
from gated_bert.tasks import download as module
from gated_bert.tasks.download import download, squad_json
from gated_bert.tasks.glue import LAYOUTS, read_glue_folder
from gated_bert.tasks.hub import read_hub_task
from gated_bert.tasks.task import GLUE_TASKS
from gated_bert.tasks.tokenizer import BERT_ID

SQUAD = {
    "id": ["1", "2", "3"],
    "title": ["Abbey", "Abbey", "Bees"],
    "context": ["An abbey, old.", "An abbey, old.", "Bees fly."],
    "question": ["What?", "How?", "Who?"],
    "answers": [
        {"text": ["abbey"], "answer_start": [3]},
        {"text": ["old", "old."], "answer_start": [10, 10]},
        {"text": ["Bees"], "answer_start": [0]},
    ],
}


def make_hub_task(task, rows=4):
    """A data set with the hub's columns; one text has the characters that would break a TSV file."""

    def split(start):
        texts = {
            name: [f"{name} {start + row}" + ("\ttab\nline" if row == 1 else ' "quote') for row in range(rows)]
            for name in LAYOUTS[task.name].hub_texts
        }
        if task.kind == "regression":
            return datasets.Dataset.from_dict({**texts, "label": [np.float32(3.8), 0.0, 5.0, 4.125]})
        label = datasets.ClassLabel(names=list(task.labels))
        features = datasets.Features({**{name: datasets.Value("string") for name in texts}, "label": label})
        return datasets.Dataset.from_dict(
            {**texts, "label": [row % len(task.labels) for row in range(rows)]}, features=features
        )

    names = ["train", *(name.replace("dev", "validation") for name in task.dev_splits)]
    return datasets.DatasetDict({name: split(10 * index) for index, name in enumerate(names)})


@pytest.fixture
def hub_calls(monkeypatch):
    calls = []

    def load(repo, name, remedy):
        calls.append(name or repo)
        if repo == "fancyzhx/ag_news":
            split = datasets.Dataset.from_dict({"text": ['A "b", c', "d"], "label": [3, 0]})
            return {"train": split, "test": split}
        if repo == "rajpurkar/squad":
            return dict.fromkeys(("train", "validation"), datasets.Dataset.from_dict(SQUAD))
        return make_hub_task(GLUE_TASKS[name])

    monkeypatch.setattr(module, "load_hub_dataset", load)
    monkeypatch.setattr("gated_bert.tasks.hub.load_hub_dataset", load)
    return calls


def test_glue_in_the_official_layout_reads_as_the_hub_does(tmp_path, hub_calls):
    done = download("glue", tmp_path)
    assert len(done.fetched) == 17 and not done.verified
    for task in GLUE_TASKS.values():
        folder, hub = read_glue_folder(tmp_path, task), read_hub_task(task)
        for ours, theirs in ((folder.train, hub.train), *((folder.dev[split], hub.dev[split]) for split in hub.dev)):
            assert ours.texts == [text.replace("\t", " ").replace("\n", " ") for text in theirs.texts]
            assert (ours.pairs is None) == (theirs.pairs is None)
            np.testing.assert_array_equal(ours.labels, theirs.labels)
        assert not folder.source["partial"]
    assert (tmp_path / "glue" / "MRPC" / "train.tsv").read_bytes().startswith("\ufeffQuality\t#1 ID".encode())
    assert not list((tmp_path / "glue").glob(".*"))


def test_a_rerun_verifies_and_fetches_what_is_missing_or_damaged(tmp_path, hub_calls):
    download("glue", tmp_path)
    sums = (tmp_path / "glue" / "SHA256SUMS").read_text()
    subprocess.run(["sha256sum", "--check", "--quiet", "SHA256SUMS"], cwd=tmp_path / "glue", check=True)
    del hub_calls[:]
    again = download("glue", tmp_path)
    assert len(again.verified) == 17 and not again.fetched and not hub_calls
    (tmp_path / "glue" / "RTE" / "dev.tsv").unlink()
    with (tmp_path / "glue" / "CoLA" / "train.tsv").open("a") as file:
        file.write("more")
    mended = download("glue", tmp_path)
    assert hub_calls == ["cola", "rte"]
    assert mended.replaced == ["CoLA/train.tsv"] and len(mended.verified) == 13
    assert (tmp_path / "glue" / "SHA256SUMS").read_text() == sums


@pytest.mark.parametrize("content", [b"\xff\xfe\0", b"one word\n"])
def test_checksums_that_are_none_are_one_sentence(tmp_path, hub_calls, content):
    (tmp_path / "glue").mkdir()
    (tmp_path / "glue" / "SHA256SUMS").write_bytes(content)
    with pytest.raises(UserError, match="SHA256SUMS"):
        download("glue", tmp_path)
    assert not hub_calls


def test_files_of_ones_own_are_not_overwritten(tmp_path, hub_calls):
    (tmp_path / "glue" / "SST-2").mkdir(parents=True)
    (tmp_path / "glue" / "SST-2" / "dev.tsv").write_text("mine")
    with pytest.raises(UserError, match="SST-2/dev.tsv: there already, and not of a download .*; move it away"):
        download("glue", tmp_path)
    assert (tmp_path / "glue" / "SST-2" / "dev.tsv").read_text() == "mine"


def test_a_download_that_stops_half_way_goes_on(tmp_path, hub_calls, monkeypatch):
    load = module.load_hub_dataset

    def fail(repo, name, remedy):
        if name == "stsb":
            raise UserError(f"the hub cannot be reached; {remedy}")
        return load(repo, name, remedy)

    monkeypatch.setattr(module, "load_hub_dataset", fail)
    with pytest.raises(UserError, match="run this where there is a network and copy the folder"):
        download("glue", tmp_path)
    monkeypatch.setattr(module, "load_hub_dataset", load)
    assert len(download("glue", tmp_path).verified) == 6


def test_ag_news_and_squad_in_their_official_formats(tmp_path, hub_calls):
    download("ag_news", tmp_path)
    with (tmp_path / "ag_news" / "test.csv").open(newline="") as file:
        assert list(csv.reader(file)) == [["4", "", 'A "b", c'], ["1", "", "d"]]
    download("squad", tmp_path)
    squad = json.loads((tmp_path / "squad" / "train-v1.1.json").read_text())
    assert squad == squad_json(SQUAD)
    assert [len(article["paragraphs"]) for article in squad["data"]] == [1, 1]
    assert squad["data"][0]["paragraphs"][0]["qas"][1] == {
        "id": "2", "question": "How?",
        "answers": [{"answer_start": 10, "text": "old"}, {"answer_start": 10, "text": "old."}],
    }  # fmt: skip


def test_bert_and_its_checksums(tmp_path, monkeypatch):
    source = tmp_path / "source"
    source.mkdir()

    def hub_file(repo, names, remedy):
        assert repo == BERT_ID
        (source / names[0]).write_text(f"content of {names[0]}")
        return source / names[0]

    monkeypatch.setattr(module, "hub_file", hub_file)
    done = download("bert", tmp_path)
    assert {"vocab.txt", "tokenizer.json", "config.json", "model.safetensors"} <= set(done.fetched)
    digest = hashlib.sha256(b"content of vocab.txt").hexdigest()
    assert f"{digest}  vocab.txt\n" in (tmp_path / "bert" / "SHA256SUMS").read_text()
    (tmp_path / "bert" / "SHA256SUMS").write_text("nonsense\n")
    with pytest.raises(UserError, match="SHA256SUMS: malformed"):
        download("bert", tmp_path)


def test_bad_arguments(tmp_path):
    with pytest.raises(ConfigError, match="what: 'gleu' is refused; allowed: glue, .*did you mean glue"):
        download("gleu", tmp_path)
    (tmp_path / "file").write_bytes(gzip.compress(b""))
    with pytest.raises(UserError, match="file/glue: cannot be written .*; choose another folder"):
        download("glue", tmp_path / "file")
