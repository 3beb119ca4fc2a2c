import dataclasses
import sys
import types

import numpy as np
import pytest

from gated_bert.config import ConfigError, GatedBertConfig
from gated_bert.support.errors import UserError
from gated_bert.tasks.data import load_task_data, task_name
from gated_bert.tasks.examples import Examples


def make_folder(folder, rows=10):
    (folder / "SST-2").mkdir(parents=True)
    lines = "".join(f"film {i}\t{i % 2}\n" for i in range(rows))
    for split in ("train", "dev"):
        (folder / "SST-2" / f"{split}.tsv").write_text("sentence\tlabel\n" + lines)
    return folder


def test_a_folder_is_read_and_its_rows_counted(tmp_path):
    data = load_task_data(GatedBertConfig(data=str(make_folder(tmp_path))))
    assert data.task.name == "sst2"
    assert data.source == {
        "kind": "folder", "label": "SST-2", "path": str(tmp_path / "SST-2"), "partial": False,
        "rows": {"train": 10, "dev": 10},
    }  # fmt: skip


def test_the_data_variable_stands_for_the_hub(tmp_path, monkeypatch):
    monkeypatch.setenv("GATED_BERT_DATA", str(make_folder(tmp_path)))
    assert load_task_data(GatedBertConfig()).source["kind"] == "folder"
    monkeypatch.setenv("GATED_BERT_DATA", str(tmp_path / "none"))
    with pytest.raises(ConfigError, match="data: .*none' is refused; allowed: hub, embedded, or an existing folder"):
        load_task_data(GatedBertConfig())


def test_train_examples_draws_a_seeded_subset(tmp_path):
    config = GatedBertConfig(data=str(make_folder(tmp_path)), train_examples=4, seed=1)
    data = load_task_data(config)
    assert len(data.train) == 4 and len(data.dev["dev"]) == 10
    assert data.source["label"] == "SST-2, 4 training examples"
    assert load_task_data(config).train.texts == data.train.texts
    assert load_task_data(dataclasses.replace(config, seed=2)).train.texts != data.train.texts
    whole = load_task_data(dataclasses.replace(config, train_examples=99))
    assert len(whole.train) == 10 and whole.source["label"] == "SST-2"


def test_embedded_data_are_labelled_as_such(monkeypatch):
    stub = types.ModuleType("gated_bert.tasks.embedded")
    examples = Examples(["a", "b"], None, np.array([0, 1], np.int32))
    stub.embedded_examples = lambda name: (examples, {"dev": examples})
    monkeypatch.setitem(sys.modules, "gated_bert.tasks.embedded", stub)
    source = load_task_data(GatedBertConfig(data="embedded")).source
    assert (source["kind"], source["label"], source["rows"]) == ("embedded", "embedded data", {"train": 2, "dev": 2})


@pytest.mark.parametrize("field", ["text_column", "text_pair_column", "label_column"])
def test_columns_are_refused_where_nothing_reads_them(field):
    with pytest.raises(ConfigError, match=f"{field}: 'x' is refused; allowed: own data only"):
        load_task_data(GatedBertConfig(data="embedded", **{field: "x"}))


def test_own_data_in_a_file_or_a_folder(tmp_path):
    path = tmp_path / "mail.csv"
    path.write_text("text,label\n" + "".join(f"t{i},{'ham' if i % 2 else 'spam'}\n" for i in range(20)))
    config = GatedBertConfig(data=str(path))
    assert task_name(config) == "mail"
    assert task_name(dataclasses.replace(config, task="filter")) == "filter"
    data = load_task_data(config)
    assert data.task.name == "mail" and data.source["kind"] == "file"
    assert data.source["rows"] == {"train": 18, "dev": 2}
    path.rename(tmp_path / "train.csv")
    folder = dataclasses.replace(config, data=str(tmp_path))
    assert load_task_data(folder).task.labels == ("ham", "spam")
    with pytest.raises(UserError, match="no column 'body'; found: text, label; name it with --text-column"):
        load_task_data(dataclasses.replace(folder, text_column="body"))


def test_a_folder_with_neither_layout(tmp_path):
    with pytest.raises(UserError, match="no folder SST-2 in it"):
        load_task_data(GatedBertConfig(data=str(tmp_path)))


def test_nothing_here_imports_keras():
    import subprocess

    code = "import sys, gated_bert.tasks.data, gated_bert.tasks.tokenizer; assert 'keras' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
