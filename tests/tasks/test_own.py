import dataclasses
import json

import numpy as np
import pytest

from gated_bert.config import ConfigError, GatedBertConfig
from gated_bert.support.errors import UserError
from gated_bert.tasks.data import load_task_data, task_name
from gated_bert.tasks.own import own_data_notes, read_own_data
from gated_bert.tasks.tables import read_table
from gated_bert.tasks.task import Task, own_task_name


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


def labelled(path, labels):
    return write(path, ("text", "label"), [(f"t{i}", str(label)) for i, label in enumerate(labels)])


@pytest.mark.parametrize(
    ("numbers", "kind"),
    [
        ([i % 77 for i in range(154)], "classification"),
        ([i % 77 + 1 for i in range(10003)], "classification"),
        ([i % 77 for i in range(153)], "regression"),
        ([3 * (i % 77) for i in range(385)], "classification"),
        ([3 * (i % 77) for i in range(384)], "regression"),
        ([f"{i % 30}.0" for i in range(150)], "classification"),
        ([f"{i % 30}.5" for i in range(3000)], "regression"),
        ([*range(20)], "classification"),
        ([-1, 1] * 5, "classification"),
        (["1e-05", "2.5e-07", "0.1"] * 9, "regression"),
    ],
)
def test_whole_numbers_are_classes_while_they_are_clearly_fewer_than_rows(tmp_path, numbers, kind):
    data = read_own_data(labelled(tmp_path / "a.tsv", numbers))
    assert data.task.kind == kind
    said = own_data_notes(data.source)[0]
    rows = f"in {len(numbers):,} rows of a.tsv (column 'label')"
    count = len(set(numbers))
    if kind == "classification":
        assert data.task.num_outputs == count
        assert said.startswith(f"{count} classes: ") and f"{rows}; --task-type regression makes" in said
    else:
        assert said.startswith(f"a regression: {count} different numbers from ") and f"{rows}; --task-type cl" in said


NO_NUMBERS = ["1_0", "1e3", "0x10", "nan", "inf", "-Infinity", "١", "１", "007", "1,000", "2²", "1 0"]


@pytest.mark.parametrize("name", NO_NUMBERS)
def test_what_python_alone_reads_as_a_number_is_a_name(tmp_path, name):
    data = read_own_data(labelled(tmp_path / "a.tsv", [name, "2", "30", "4.5"] * 5))
    assert data.task.kind == "classification" and set(data.task.labels) == {name, "2", "30", "4.5"}
    if name not in ("1e3", "007"):
        with pytest.raises(UserError, match="a.tsv, line 2: '.*' in column 'label' is no finite number, as --task-"):
            read_own_data(labelled(tmp_path / "a.tsv", [name, "2", "30"] * 5), task_type="regression")


def test_one_slip_among_many_numbers_is_named(tmp_path):
    numbers = [str(i / 8) for i in range(40)]
    with pytest.raises(UserError, match="41 different labels in 41 rows .*, or correct '١', which is no plain decimal"):
        read_own_data(labelled(tmp_path / "a.tsv", [*numbers, "١"]))


def test_many_names_that_python_reads_as_numbers_are_classes(tmp_path):
    data = read_own_data(labelled(tmp_path / "a.tsv", [f"{i % 30}_0" for i in range(90)]))
    assert data.task.kind == "classification" and data.task.num_outputs == 30


@pytest.mark.parametrize("ending", ["tsv", "csv", "jsonl"])
def test_spellings_of_one_number_are_one_class(tmp_path, ending):
    for name in ("train", "dev"):
        path = tmp_path / f"{name}.{ending}"
        if ending == "jsonl":
            cells = [1, 1.0, "1", "1.0", "+1", 2, 2.0, " 2 "]
            path.write_text("".join(json.dumps({"text": "a", "label": cell}) + "\n" for cell in cells))
        else:
            cells = ["1", "1.0", "1", "1.00", "+1", "2", "2.", "2"]
            write(path, ("text", "label"), [("a", cell) for cell in cells], "," if ending == "csv" else "\t")
    data = read_own_data(tmp_path)
    assert data.task.labels == ("1", "2")
    assert data.train.labels.tolist() == data.dev["dev"].labels.tolist() == [0, 0, 0, 0, 0, 1, 1, 1]


def test_large_whole_numbers_stay_apart(tmp_path):
    data = read_own_data(labelled(tmp_path / "a.tsv", ["9007199254740992", "9007199254740993"] * 5))
    assert data.task.labels == ("9007199254740992", "9007199254740993")


def test_no_digit_of_a_long_number_is_lost(tmp_path):
    numbers = ["123456789012345678901234567890123456789", "123456789012345678901234567890123456780", "7"]
    data = read_own_data(labelled(tmp_path / "a.tsv", numbers * 5))
    assert data.task.labels == ("7", *sorted(numbers[:2]))
    (tmp_path / "a.jsonl").write_text("".join(f'{{"text": "a", "label": {n}}}\n' for n in (10**39, 10**39 + 1) * 3))
    assert len(read_own_data(tmp_path / "a.jsonl").task.labels) == 2


def test_accents_are_the_same_composed_or_not(tmp_path):
    labelled(tmp_path / "train.tsv", ["caf\u00e9", "cafe\u0301", "bar"] * 5)
    labelled(tmp_path / "dev.tsv", ["cafe\u0301", "bar"])
    data = read_own_data(tmp_path)
    assert data.task.labels == ("bar", "caf\u00e9") and data.dev["dev"].labels.tolist() == [1, 0]
    old = dataclasses.replace(data.task, labels=("bar", "cafe\u0301"))
    assert read_own_data(tmp_path, task=old).dev["dev"].labels.tolist() == [1, 0]


def test_many_classes_of_few_rows_are_classes_where_that_is_said(tmp_path):
    path = labelled(tmp_path / "a.tsv", [f"intent {i % 77}" for i in range(150)])
    with pytest.raises(UserError, match="77 different labels in 150 rows .* or say --task-type classification"):
        read_own_data(path)
    assert len(read_own_data(path, task_type="classification").task.labels) == 77


def test_versions_beside_other_names_are_no_numbers(tmp_path):
    data = read_own_data(labelled(tmp_path / "a.tsv", ["1.1", "1.10", "beta"] * 5))
    assert data.task.labels == ("1.1", "1.10", "beta")


def test_json_booleans_are_spelt_as_in_json_and_are_no_numbers(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps({"text": "a", "label": cell}) + "\n" for cell in (True, "true", False, 1, 1.0)))
    assert read_own_data(path).task.labels == ("1", "false", "true")
    table = read_table(path)
    assert table.classes("label", ("False", "True", "true", "1")).tolist() == [2, 2, 0, 3, 3]


@pytest.mark.parametrize("cell", ["NaN", "Infinity", "null", '""', '" "'])
def test_a_json_value_that_says_nothing_is_no_label(tmp_path, cell):
    (tmp_path / "a.jsonl").write_text('{"text": "a", "label": 1}\n{"text": "a", "label": ' + cell + "}\n")
    with pytest.raises(UserError, match="a.jsonl, line 2: no label in column 'label'"):
        read_own_data(tmp_path / "a.jsonl")


@pytest.mark.parametrize(("task_type", "labels"), [("regression", ()), ("classification", ("0", "1", "2"))])
def test_the_kind_of_a_task_can_be_said(tmp_path, task_type, labels):
    path = labelled(tmp_path / "a.tsv", [0, 1, 2] * 10)
    data = load_task_data(GatedBertConfig(data=str(path), task_type=task_type))
    assert data.task.kind == task_type and data.task.labels == labels
    assert "--task-type" not in own_data_notes(data.source)[0]


def test_fractions_are_classes_where_that_is_said(tmp_path):
    path = labelled(tmp_path / "a.tsv", ["0.5", "1.5", "2.50"] * 10)
    assert read_own_data(path, task_type="classification").task.labels == ("0.5", "1.5", "2.5")


def test_a_kind_that_cannot_be_is_refused(tmp_path):
    path = labelled(tmp_path / "a.tsv", ["0", "yes"])
    with pytest.raises(UserError, match="a.tsv, line 3: 'yes' in column 'label' is no finite number, as --task-type"):
        read_own_data(path, task_type="regression")
    with pytest.raises(ConfigError, match="task_type: 'ranking' is refused; allowed: classification, regression"):
        GatedBertConfig(task_type="ranking")
    with pytest.raises(ConfigError, match="task_type: 'regression' is refused; allowed: own data only"):
        load_task_data(GatedBertConfig(data="embedded", task_type="regression"))


@pytest.mark.parametrize("ending", ["tsv", "csv", "jsonl"])
def test_a_test_file_with_labels_is_judged_on_too(tmp_path, ending):
    labelled(tmp_path / "train.tsv", ["x", "y"] * 20)
    path = tmp_path / f"test.{ending}"
    if ending == "jsonl":
        path.write_text('{"text": "a", "label": "y"}\n{"text": "b", "label": "x"}\n')
    else:
        write(path, ("text", "label"), [("a", "y"), ("b", "x")], "," if ending == "csv" else "\t")
    data = read_own_data(tmp_path)
    assert data.task.dev_splits == ("dev", "test") == tuple(data.dev)
    assert data.dev["test"].texts == ["a", "b"] and data.dev["test"].labels.tolist() == [1, 0]
    assert len(data.train) == 36 and f"test.{ending} is judged on too, as val_…_test" in own_data_notes(data.source)


@pytest.mark.parametrize(
    ("header", "rows"),
    [
        (("text",), [("a",), ("b",)]),
        (("text", "label"), [("a", ""), ("b", "")]),
        (("text", "label"), [("a", "-1"), ("b", "-1")]),
        (("sentence", "target"), [("a", "?")]),
    ],
)
@pytest.mark.parametrize("labels", [["x", "y"] * 20, [i / 8 for i in range(40)]], ids=["classes", "targets"])
def test_a_test_file_without_labels_is_left_alone_and_mentioned(tmp_path, header, rows, labels):
    labelled(tmp_path / "train.tsv", labels)
    write(tmp_path / "test.tsv", header, rows)
    data = read_own_data(tmp_path)
    assert data.task.dev_splits == ("dev",) == tuple(data.dev)
    assert "test.tsv has no labels in column 'label'; it is not used" in own_data_notes(data.source)


def test_a_test_file_with_an_unknown_label_is_refused(tmp_path):
    labelled(tmp_path / "train.tsv", ["x", "y"] * 20)
    labelled(tmp_path / "test.tsv", ["x", "z"])
    with pytest.raises(UserError, match="test.tsv, line 3: unknown label 'z' in column 'label'; allowed: x, y"):
        read_own_data(tmp_path)


@pytest.mark.parametrize("name", ["dev.tsv", "validation.csv", "valid.jsonl", "val.tsv"])
def test_a_training_file_stands_for_its_folder(tmp_path, name):
    train = labelled(tmp_path / "subj" / "train.tsv", ["x", "y"] * 20)
    other = train.with_name(name)
    if name.endswith("jsonl"):
        other.write_text('{"text": "d", "label": "y"}\n')
    else:
        write(other, ("text", "label"), [("d", "y")], "," if name.endswith("csv") else "\t")
    for path in (train, train.parent):
        data = read_own_data(path)
        assert data.task.name == "subj" and data.dev["dev"].texts == ["d"] and len(data.train) == 40
    assert task_name(GatedBertConfig(data=str(train))) == "subj"
    labelled(tmp_path / "subj" / "validation.tsv", ["x"])
    with pytest.raises(UserError, match="subj: both .* and .* are there; keep one of them"):
        read_own_data(train)


def test_a_models_classes_are_kept_whatever_a_file_holds(tmp_path):
    path = labelled(tmp_path / "a.tsv", ["9", "2", "9.0"])
    task = Task("stars", "stars", labels=("9", "10", "2"))
    data = read_own_data(path, task=task)
    assert data.task == task and sorted([*data.train.labels, *data.dev["dev"].labels]) == [0, 0, 2]
    labelled(tmp_path / "test.tsv", ["3", "3"])
    data = read_own_data(labelled(tmp_path / "train.tsv", ["9", "2", "9.0"]), task=Task("stars", "stars", "regression"))
    assert data.task.kind == "regression" and data.task.dev_splits == ("dev", "test")
    assert "a regression: 2 different numbers from 2 to 9 in 3 rows of train.tsv" in own_data_notes(data.source)[0]


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
    (tmp_path / "a.pdf").write_text("x")
    with pytest.raises(UserError, match="a.pdf: not a .tsv, .csv, .jsonl or .conll file"):
        read_own_data(tmp_path / "a.pdf")
    with pytest.raises(UserError, match="no train.tsv, train.csv, train.jsonl or train.conll in it"):
        read_own_data(tmp_path)
    write(tmp_path / "train.tsv", ("text", "label"), [("a", "x")])
    write(tmp_path / "train.csv", ("text", "label"), [("a", "x")], ",")
    with pytest.raises(UserError, match="both train.tsv and train.csv are there"):
        read_own_data(tmp_path)


def test_the_name_of_a_task_is_fit_for_a_folder(tmp_path):
    assert own_task_name(tmp_path / "Häuser & more.v2.tsv.gz") == "h_user_more"
    assert own_task_name(tmp_path / "---.tsv") == "own"
    for name in ("train.tsv", "Train.csv.gz", "dev.jsonl", "test.tsv", "data.tsv", "data/train.tsv", "data", "."):
        assert own_task_name(tmp_path / "My Subj" / name) == "my_subj"
    assert own_task_name(tmp_path / "My Subj" / "training.tsv") == "training"
