"""Runs on tags of words and on several classes at once: from a user's files to predictions, with teachers."""

import csv
import json

import numpy as np
import pytest

from gated_bert.cli.main import main
from gated_bert.config import GatedBertConfig
from gated_bert.experiments.reports.results import metric_title, read_run
from gated_bert.experiments.runs.run import train
from gated_bert.models.folder import load_model
from gated_bert.tasks.data import load_task_data
from gated_bert.tasks.embedded import embedded_examples
from gated_bert.tasks.embedded_entities import embedded_entities
from gated_bert.tasks.evaluation import evaluate_model, make_dataset
from gated_bert.tasks.task import TASKS
from tests.marks import nightly
from tests.refused import refusal

pytest.importorskip("seqeval")


@pytest.fixture(scope="module", autouse=True)
def _cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Embedded examples as a user's files: `names` in CoNLL's style, with a word that is nothing, and `topics`."""
    place = tmp_path_factory.mktemp("files")
    (place / "names").mkdir()
    names, labels = embedded_entities()[0], TASKS["ner"].labels
    for split, rows in (("train", range(48)), ("dev", range(48, 72))):
        found = names.take(rows)
        tags = iter([labels[tag] for tag in found.labels])
        texts = ["\n".join(f"{word} X {next(tags)}" for word in words) for words in found.words]
        (place / "names" / f"{split}.conll").write_text("-DOCSTART- X O\n\n" + "\n\n".join(texts) + "\n\n\x01 X O\n")
    train_set, labels = embedded_examples("topics")[0].take(range(64)), TASKS["topics"].labels
    (place / "topics.jsonl").write_text("".join(
        json.dumps({"text": text, "labels": [labels[index] for index in np.flatnonzero(row)]}) + "\n"
        for text, row in zip(train_set.texts, train_set.labels, strict=True)))  # fmt: skip
    return place


def config_of(data, method="magnitude", **options):
    sizes = {"model_size": "tiny", "num_layers": 1, "d_model": 16, "num_heads": 2, "dff": 32, "max_len": 32}
    plan = {"epochs": 2, "pruning_start_epoch": 1, "pruning_end_epoch": 2, "batch_size": 16, "end_sparsity": 0.5}
    # Of the embedded vocabulary, whatever the data.
    return GatedBertConfig(pruning_method=method, data=str(data), **{**sizes, **plan, **options})


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory):
    from gated_bert.tasks.embedded import embedded_vocabulary

    path = tmp_path_factory.mktemp("vocabulary") / "vocab.txt"
    path.write_text("\n".join(embedded_vocabulary()) + "\n")
    return str(path)


@pytest.fixture(scope="module")
def named(files, vocabulary, tmp_path_factory):
    """A finished run on the user's names, half of its heads and neurons closed."""
    config = config_of(files / "names", pattern="head_neuron", vocab=vocabulary, learning_rate=1e-2)
    return train(config, tmp_path_factory.mktemp("run") / "names")


@pytest.fixture(scope="module")
def sorted_out(files, vocabulary, tmp_path_factory):
    """A finished run on the user's texts with several labels."""
    config = config_of(files / "topics.jsonl", "movement", vocab=vocabulary)
    return train(config, tmp_path_factory.mktemp("run") / "topics")


def test_the_rows_of_a_run_on_words(named):
    run = read_run(named.folder)
    assert run.finished and run.metric == "f1" and run.task_title == "names"
    assert list(run.rows.columns[3:9]) == ["train_loss", "train_f1", "val_loss", "val_f1", "val_precision",
                                           "val_recall"]  # fmt: skip
    assert run.rows["pattern_sparsity"].iloc[-1] == pytest.approx(0.5, abs=2e-2)
    assert np.isfinite(named.final["val_loss"]) and named.best["val_f1"] == run.rows["val_f1"].max()
    assert metric_title("recall") == "recall (%)" and metric_title("micro_f1") == "micro-averaged F1 (%)"
    log = (named.folder / "log.txt").read_text()
    assert "tags of 3 kinds of entities: LOC, ORG, PER" in log
    assert "words of dev are behind the longest text (-ml), or hold nothing that the tokeniser keeps" in log


def test_the_saved_model_tags_as_the_run_did(named, files, tmp_path, monkeypatch):
    loaded = load_model(named.folder / "model")
    config = config_of(files / "names")
    dev = load_task_data(config).dev
    dataset = make_dataset(loaded.task, loaded.tokenizer, dev["dev"], config)
    scores, _ = evaluate_model(loaded.model, loaded.task, {"dev": dataset}, dev, config)
    assert scores["loss"] == pytest.approx(named.final["val_loss"], abs=1e-5)
    monkeypatch.chdir(tmp_path)
    assert main(["predict", str(named.folder / "model"), str(files / "names" / "dev.conll"), "-o", "out.csv"]) == 0
    with open("out.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["row", "word", "prediction", "probability", "label"]
    assert [row["word"] for row in rows] == [word for words in dev["dev"].words for word in words]
    assert rows[-1]["prediction"] == "O" and rows[-1]["probability"] == "" and int(rows[-1]["row"]) == len(dev["dev"])
    record = json.loads((tmp_path / "out_metrics.json").read_text())
    assert record["words"] == len(rows) and record["instances"] == len(dev["dev"])
    for name in ("f1", "precision", "recall", "accuracy"):
        assert record[name] == pytest.approx(named.final[f"val_{name}"])
    right = sum(row["prediction"] == row["label"] for row in rows)
    assert record["correct"] == right == round(record["accuracy"] * len(rows))


def test_what_is_made_for_texts_is_refused_in_one_line(named, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.txt").write_text("a film\n")
    model = str(named.folder / "model")
    assert "names has a token classification task; explanations are of classes of single texts" in refusal(
        capsys, "explain", model, "a.txt"
    )


def test_without_seqeval_nothing_begins(files, capsys, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "seqeval", None)
    words = ("train", "-d", str(files / "names"), "-m", "tiny", "-o", str(tmp_path / "run"))
    assert refusal(capsys, *words).endswith(
        "seqeval, which scores entities, is not installed; pip install 'gated_bert[ner]'"
    )
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("which", ["named", nightly("sorted_out")])
def test_a_teacher_teaches(which, request, files, vocabulary, tmp_path):
    teacher = request.getfixturevalue(which)
    data = files / ("names" if which == "named" else "topics.jsonl")
    config = config_of(data, "baseline", teacher=str(teacher.folder / "model"), vocab=vocabulary, epochs=1,
                       distill_hardness=1.0, distill_layers="last", pruning_end_epoch=1)  # fmt: skip
    found = train(config, tmp_path / "student")
    assert np.isfinite(found.final["train_loss"]) and found.final["train_loss"] > 0


def test_the_rows_of_a_run_on_several_labels(sorted_out, files, tmp_path, monkeypatch):
    run = read_run(sorted_out.folder)
    assert run.metric == "micro_f1"
    assert list(run.rows.columns[3:9]) == ["train_loss", "train_micro_f1", "val_loss", "val_micro_f1", "val_macro_f1",
                                           "val_subset_accuracy"]  # fmt: skip
    monkeypatch.chdir(tmp_path)
    model = sorted_out.folder / "model"
    assert main(["predict", str(model), str(files / "topics.jsonl"), "-o", "out.csv"]) == 0
    with open("out.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    labels = load_model(model).task.labels
    assert list(rows[0]) == ["row", "prediction", *(f"probability_{label}" for label in labels), "label"]
    for row in rows:
        above = [label for label in labels if float(row[f"probability_{label}"]) > 0.5]
        assert row["prediction"] == ";".join(above)
    record = json.loads((tmp_path / "out_metrics.json").read_text())
    assert {"micro_f1", "macro_f1", "subset_accuracy", "loss"} <= set(record)
