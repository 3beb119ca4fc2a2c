import json

import numpy as np
import pytest

from gated_bert.errors import UserError
from gated_bert.tasks.own import own_task_name, read_own_data


def write(path, header, rows, separator="\t"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(separator.join(row) for row in [header, *rows]) + "\n", encoding="utf-8")
    return path


def test_string_labels_become_sorted_classes(tmp_path):
    write(tmp_path / "my-tickets" / "train.csv", ("body", "team"), [("a", "sales"), ("b", "help"), ("c", "sales")], ",")
    write(tmp_path / "my-tickets" / "dev.tsv", ("team", "body"), [("help", "d")])
    data = read_own_data(tmp_path / "my-tickets", text_column="body", label_column="team")
    assert data.task.name == "my_tickets" and data.task.title == "my-tickets"
    assert data.task.labels == ("help", "sales") and data.task.kind == "classification"
    assert data.train.labels.tolist() == [1, 0, 1]
    assert data.dev["dev"].texts == ["d"] and data.dev["dev"].labels.tolist() == [0]
    assert "split" not in data.source


def test_whole_numbers_are_classes_in_numeric_order(tmp_path):
    rows = [("a", str(number)) for number in (10, 9, 2, 10)]
    data = read_own_data(write(tmp_path / "a.tsv", ("text", "label"), rows * 5))
    assert data.task.labels == ("2", "9", "10")


@pytest.mark.parametrize("values", [[0.5, 1.5, 2.0], list(range(21))])
def test_fractions_or_many_numbers_are_a_regression(tmp_path, values):
    rows = [("a", "b", str(value)) for value in values]
    data = read_own_data(write(tmp_path / "a.tsv", ("text", "other", "label"), rows), text_pair_column="other")
    assert data.task.kind == "regression" and data.task.labels == () and data.task.num_outputs == 1
    assert data.task.metrics == ("pearson", "spearman") and data.task.pair
    assert data.task.target_range == (min(values), max(values))
    assert data.train.labels.dtype == np.float32
    assert data.train.pairs == ["b"] * len(data.train)


def test_without_a_development_file_a_tenth_is_drawn_and_said(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps({"text": f"t{i}", "label": i % 2}) + "\n" for i in range(50)))
    data = read_own_data(path)
    again = read_own_data(path)
    dev, train = data.dev["dev"], data.train
    assert (len(train), len(dev)) == (45, 5)
    assert sorted(train.texts + dev.texts) == sorted(f"t{i}" for i in range(50))
    assert dev.texts == again.dev["dev"].texts
    assert all(label == int(text[1:]) % 2 for text, label in zip(dev.texts, dev.labels, strict=True))
    assert data.source["split"] == "10 % of a.jsonl, drawn with seed 0, are the development examples"


@pytest.mark.parametrize(
    ("rows", "columns", "message"),
    [
        ([("a", "x")], {"text_column": "body"}, "no column 'body'; found: text, label; name it with --text-column"),
        ([("a", "x")], {"text_pair_column": "b"}, "no column 'b'; found: text, label; name it with --text-pair-column"),
        ([("a", "x")], {"label_column": "y"}, "no column 'y'; found: text, label; name it with --label-column"),
        ([("a", "x"), ("b", "x")], {}, "every label in column 'label' is 'x'"),
        ([("a", "x"), ("b", "")], {}, "a.tsv, line 3: no label in column 'label'"),
        ([("a", "x"), (" ", "y")], {}, "a.tsv, line 3: empty text in column 'text'"),
        ([(f"a{i}", f"label{i}") for i in range(30)], {}, "30 different labels in 30 rows .*--label-column"),
        ([], {}, "a.tsv: no examples in it"),
    ],
)
def test_bad_files_are_named(tmp_path, rows, columns, message):
    with pytest.raises(UserError, match=message):
        read_own_data(write(tmp_path / "a.tsv", ("text", "label"), rows), **columns)


def test_an_unknown_label_in_the_development_file(tmp_path):
    write(tmp_path / "train.tsv", ("text", "label"), [("a", "x"), ("b", "y")])
    write(tmp_path / "dev.tsv", ("text", "label"), [("a", "x"), ("b", "z")])
    with pytest.raises(UserError, match="dev.tsv, line 3: unknown label 'z' in column 'label'; allowed: x, y"):
        read_own_data(tmp_path)


def test_files_that_are_no_tables(tmp_path):
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(UserError, match="a.txt: not a .tsv, .csv or .jsonl file"):
        read_own_data(tmp_path / "a.txt")
    with pytest.raises(UserError, match="no train.tsv, train.csv or train.jsonl in it"):
        read_own_data(tmp_path)
    write(tmp_path / "train.tsv", ("text", "label"), [("a", "x")])
    write(tmp_path / "train.csv", ("text", "label"), [("a", "x")], ",")
    with pytest.raises(UserError, match="both train.tsv and train.csv are there"):
        read_own_data(tmp_path)


def test_the_name_of_a_task_is_fit_for_a_folder(tmp_path):
    assert own_task_name(tmp_path / "Häuser & more.v2.tsv.gz") == "h_user_more"
    assert own_task_name(tmp_path / "---.tsv") == "own"
