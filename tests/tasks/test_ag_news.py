import csv
import gzip
import re

import datasets
import numpy as np
import pytest

from gated_bert.cli.main import main
from gated_bert.config import GatedBertConfig
from gated_bert.experiments.reports.results import metric_title, read_run
from gated_bert.support.errors import UserError
from gated_bert.tasks import ag_news
from gated_bert.tasks import download as download_module
from gated_bert.tasks.data import load_task_data, task_name
from gated_bert.tasks.embedded import embedded_vocabulary
from gated_bert.tasks.examples import Examples
from gated_bert.tasks.task import TASKS

TEST = [("3", "Fears for T N", "Unions say they are 'disappointed'."), ("1", "", 'A "b", c')]


@pytest.fixture(autouse=True)
def _no_data_folder(monkeypatch):
    monkeypatch.delenv("GATED_BERT_DATA", raising=False)


def news(count=100):
    """Rows of a training file: class, title, description; classes 1 to 4 in the shares 40, 30, 20 and 10 per cent."""
    return [(str("1111222334"[row % 10]), f"title {row}", f"story {row}") for row in range(count)]


def put(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    with (gzip.open if path.suffix == ".gz" else open)(path, "wt", encoding="utf-8", newline="") as file:
        csv.writer(file, quoting=csv.QUOTE_ALL).writerows(rows)


def put_folder(folder, train=None, test=None, train_name="train.csv"):
    put(folder / train_name, news() if train is None else train)
    put(folder / "test.csv", TEST if test is None else test)
    return folder


def read(folder, **options):
    return load_task_data(GatedBertConfig(task="ag_news", data=str(folder), **options))


def texts_of(examples: Examples) -> list[tuple[str, int]]:
    return list(zip(examples.texts, examples.labels.tolist(), strict=True))


def test_the_official_files(tmp_path):
    data = read(put_folder(tmp_path))
    assert data.task == TASKS["ag_news"] and data.task.labels == ("World", "Sports", "Business", "Sci/Tech")
    assert texts_of(data.dev["test"]) == [("Fears for T N Unions say they are 'disappointed'.", 2), ('A "b", c', 0)]
    assert data.train.labels.dtype == np.int32 and data.train.pairs is None
    assert data.source == {
        "kind": "folder", "label": "AG News", "path": str(tmp_path), "partial": False,
        "split": "10 % of the training file, stratified by class and drawn with seed 0, are the validation examples",
        "rows": {"train": 90, "validation": 10, "test": 2},
    }  # fmt: skip


def test_a_tenth_of_every_class_is_for_validation(tmp_path):
    data = read(put_folder(tmp_path))
    assert list(data.dev) == ["validation", "test"]
    assert np.bincount(data.dev["validation"].labels).tolist() == [4, 3, 2, 1]
    together = texts_of(data.train) + texts_of(data.dev["validation"])
    assert sorted(together) == sorted((f"{title} {story}", int(label) - 1) for label, title, story in news())
    rows = [int(text.rpartition(" ")[2]) for text in data.train.texts]
    assert rows == sorted(rows), "the order of the file is kept"


def test_a_subset_is_drawn_from_what_is_not_for_validation(tmp_path):
    whole = read(put_folder(tmp_path))
    few = read(tmp_path, train_examples=30, seed=1)
    other = read(tmp_path, train_examples=30, seed=2)
    assert few.dev["validation"].texts == other.dev["validation"].texts == whole.dev["validation"].texts
    assert set(few.train.texts) < set(whole.train.texts) and few.train.texts != other.train.texts
    assert few.source["label"] == "AG News, 30 training examples"


@pytest.mark.parametrize(
    ("place", "train_name", "header"),
    [
        (".", "train.csv.gz", None),
        ("ag_news", "train.csv", ("Class Index", "Title", "Description")),
        ("ag_news_csv", "train.csv.gz", ("class", "title", "description")),
    ],
)
def test_every_place_form_and_header_gives_the_same(tmp_path, place, train_name, header):
    plain = read(put_folder(tmp_path / "plain"))
    first = [header] if header else []
    put_folder(tmp_path / "other" / place, first + news(), first + TEST, train_name)
    found = read(tmp_path / "other")
    assert texts_of(found.train) == texts_of(plain.train)
    assert texts_of(found.dev["test"]) == texts_of(plain.dev["test"])


def test_backslashes_were_line_breaks(tmp_path):
    rows = [
        ("1", "Bears Claw Back", "Street's dwindling\\band of\\ultra-cynics"),
        ("2", " ", "over \\$1 billion\\\\FOAF\\"),
        ("3", "Oil &lt;b&gt;", "#39;s A\\$5"),
    ]
    assert read(put_folder(tmp_path, test=rows)).dev["test"].texts == [
        "Bears Claw Back Street's dwindling band of ultra-cynics", "over \\$1 billion FOAF", "Oil &lt;b&gt; #39;s A\\$5"
    ]  # fmt: skip


def test_a_partial_file_only_when_allowed(tmp_path):
    put_folder(tmp_path, train_name="train_partial.csv.gz")
    message = "train.csv is missing, only train_partial.csv.gz is there; pass --allow-partial to use it"
    with pytest.raises(UserError, match=message):
        read(tmp_path)
    source = read(tmp_path, allow_partial=True).source
    assert source["partial"] and source["label"] == "AG News (partial training data)"
    put(tmp_path / "test_partial.csv", TEST)
    (tmp_path / "test.csv").unlink()
    assert read(tmp_path, allow_partial=True).source["label"] == "AG News (partial training and test data)"


@pytest.mark.parametrize(
    ("train", "message"),
    [
        (news() + [("1", "one text")], "train.csv, line 101: 2 columns instead of 3 (class, title, description)"),
        (news() + [("5", "t", "d")], "train.csv, line 101: unknown label '5' in column 'class'; allowed: 1, 2, 3, 4"),
        ([("0", "t", "d")], "train.csv, line 1: unknown label '0' in column 'class'; allowed: 1, 2, 3, 4"),
        ([("", "t", "d")], "train.csv, line 1: unknown label '' in column 'class'"),
        ([("class", "t", "d"), ("1", " ", "\\")], "train.csv, line 2: empty text; fill it in or remove the line"),
        ([("class", "title", "description")], "train.csv: no examples in it, only a header"),
        ([], "train.csv: no examples in it"),
        (news(40), "train.csv: 4 examples of class Sci/Tech; at least 10 of every class are needed"),
        (None, "train.csv (or .gz) is missing; put the official AG News file there, or fetch it with `gated-bert"),
    ],
)
def test_bad_files_are_refused_in_one_line(tmp_path, train, message):
    put(tmp_path / "news" / "test.csv", TEST)
    if train is not None:
        put(tmp_path / "news" / "train.csv", train)
    with pytest.raises(UserError, match=re.escape(message)) as caught:
        read(tmp_path / "news")
    assert "\n" not in str(caught.value)


def test_a_bad_file_ends_the_command_with_status_2(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    put_folder(tmp_path / "news", news() + [("9", "t", "d")])
    assert main("train -t ag_news -d news -m tiny -p baseline -e 1".split()) == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert line.startswith("error: ") and "train.csv, line 101: unknown label '9'" in line


@pytest.mark.slow
def test_validation_decides_and_the_test_file_is_reported_beside_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    put_folder(tmp_path / "news" / "ag_news", test=news(20))
    (tmp_path / "news" / "vocab.txt").write_text("\n".join(embedded_vocabulary()))
    words = "train -t ag_news -d news -m tiny --num-layers 1 -p baseline -e 2 -b 32 -ml 16 -l 1e-3 -o out"
    assert main(words.split()) == 0
    run = read_run(tmp_path / "out" / "results_baseline_ag_news")
    assert run.metric == "accuracy" and metric_title("accuracy_test") == "accuracy (test) (%)"
    assert {"val_loss", "val_accuracy", "val_loss_test", "val_accuracy_test"} <= set(run.rows)
    assert run.metadata["best"]["val_accuracy"] == run.rows["val_accuracy"].max()
    assert (run.rows["val_accuracy"] * 10 % 1 == 0).all(), "of the 10 validation examples"
    assert run.metadata["data"]["rows"] == {"train": 90, "validation": 10, "test": 20}


def make_splits(names=("World", "Sports", "Business", "Sci/Tech")):
    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=list(names))})

    def split(rows):
        columns = {"text": [f"{title} {story}".strip() for _, title, story in rows],
                   "label": [int(label) - 1 for label, *_ in rows]}  # fmt: skip
        return datasets.Dataset.from_dict(columns, features=features)

    return datasets.DatasetDict(train=split(news()), test=split(TEST))


def test_the_hub_a_saved_data_set_a_download_and_the_files_are_the_same(tmp_path, monkeypatch):
    for module in (ag_news, download_module):
        monkeypatch.setattr(module, "load_hub_dataset", lambda *_: make_splits())
    hub = read("hub")
    assert (hub.source["kind"], hub.source["path"]) == ("hub", "fancyzhx/ag_news")
    assert hub.source["rows"] == {"train": 90, "validation": 10, "test": 2}
    make_splits().save_to_disk(str(tmp_path / "saved" / "ag_news"))
    download_module.download("ag_news", tmp_path / "fetched")
    put_folder(tmp_path / "files")
    for folder in ("saved", "saved/ag_news", "fetched", "fetched/ag_news", "files"):
        found = read(tmp_path / folder)
        assert found.source["kind"] == "folder" and found.source["split"] == hub.source["split"]
        for ours, theirs in ((found.train, hub.train), *((found.dev[name], hub.dev[name]) for name in hub.dev)):
            assert texts_of(ours) == texts_of(theirs)


def test_another_data_set_of_the_hub_is_named(monkeypatch):
    monkeypatch.setattr(ag_news, "load_hub_dataset", lambda *_: make_splits(("a", "b", "c", "d")))
    with pytest.raises(UserError, match="fancyzhx/ag_news, train: unknown label 'a'; allowed: World, Sports"):
        read("hub")
    empty = make_splits()
    empty["test"] = empty["test"].map(lambda row: {"text": ""})
    monkeypatch.setattr(ag_news, "load_hub_dataset", lambda *_: empty)
    with pytest.raises(UserError, match="fancyzhx/ag_news, test, row 0: empty text"):
        read("hub")


def test_ones_own_data_beside_the_task(tmp_path):
    """A file, or named columns, are the user's own task."""
    path = tmp_path / "mail.csv"
    path.write_text("text,label\n" + "".join(f"t{i},{'ham' if i % 2 else 'spam'}\n" for i in range(20)))
    assert task_name(GatedBertConfig(task="ag_news", data=str(path))) == "mail"
    assert read(path).task.labels == ("ham", "spam")


@pytest.mark.real_data
def test_the_real_files_read_whole(real_data):
    if not (real_data / "ag_news").is_dir():
        pytest.skip(f"no AG News files in {real_data / 'ag_news'}")
    data = read(real_data, allow_partial=True)
    assert np.bincount(data.dev["test"].labels).tolist() == [1900] * 4
    rows = data.source["rows"]
    assert rows["validation"] == -(-(rows["train"] + rows["validation"]) // 10)
    shares = [np.bincount(part.labels) / len(part) for part in (data.train, data.dev["validation"])]
    np.testing.assert_allclose(*shares, atol=1e-3)
    assert not any("\\" in text.replace("\\$", "") for part in (data.train, *data.dev.values()) for text in part.texts)
