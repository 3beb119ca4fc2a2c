"""A user's own files of words and tags, and of texts with several labels."""

import gzip
import json

import numpy as np
import pytest

from gated_bert.config import GatedBertConfig
from gated_bert.support.errors import UserError
from gated_bert.tasks.columns import find_columns
from gated_bert.tasks.data import load_task_data
from gated_bert.tasks.kinds import MULTI_LABEL, TOKENS
from gated_bert.tasks.own import read_own_data
from gated_bert.tasks.tables import read_table
from gated_bert.tasks.task import Task

CONLL = """-DOCSTART- -X- -X- O

# sent_id = 1
EU NNP B-NP B-ORG
rejects VBZ B-VP O
German JJ B-NP B-MISC

Peter\tNNP\tB-NP\tB-PER
Blackburn NNP I-NP I-PER
"""
LABELS = ("O", "B-MISC", "I-MISC", "B-ORG", "I-ORG", "B-PER", "I-PER")


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def jsonl(path, *records):
    return write(path, "".join(json.dumps(record) + "\n" for record in records))


@pytest.mark.parametrize("name", ["train.conll", "train.txt", "train.iob", "train.bio"])
def test_conll_files_are_words_and_the_tags_of_the_last_column(name, tmp_path):
    write(tmp_path / "news" / name, CONLL)
    write(tmp_path / "news" / "valid.txt", "U.N. NNP B-NP I-ORG\n\n\nEU NNP B-NP O\n")
    data = read_own_data(tmp_path / "news")
    assert (data.task.name, data.task.kind, data.task.labels) == ("news", TOKENS, LABELS)
    assert data.task.metrics == ("f1", "precision", "recall", "accuracy")
    assert data.train.words == [("EU", "rejects", "German"), ("Peter", "Blackburn")]
    assert [LABELS[tag] for tag in data.train.labels] == ["B-ORG", "O", "B-MISC", "B-PER", "I-PER"]
    assert data.dev["dev"].words == [("U.N.",), ("EU",)] and data.dev["dev"].labels.tolist() == [4, 0]
    assert data.source["labels"] == (f"tags of 3 kinds of entities: MISC, ORG, PER, of 5 words in 2 texts of {name} "
                                     "(column 'tags')")  # fmt: skip


@pytest.mark.parametrize(("damaged", "said"), [
    (b"Ann B-PER\nruns\nRome B-LOC\n", "dev.txt, line 2: 1 columns instead of 2"),
    (b"Ren\xe9 B-PER\nruns O\n", "dev.txt"),
    (b"Ann PERSON\nruns O\n", "dev.txt: no words and tags line by line"),
])  # fmt: skip
@pytest.mark.parametrize("name", ["train.txt", "train.conll"])
def test_a_damaged_file_beside_the_training_file_is_named_and_not_passed_over(name, damaged, said, tmp_path):
    write(tmp_path / "news" / name, CONLL)
    (tmp_path / "news" / "dev.txt").write_bytes(damaged)
    with pytest.raises(UserError, match=said):
        read_own_data(tmp_path / "news")


def test_packed_files_of_words_are_found(tmp_path):
    for name, text in (("train", CONLL), ("dev", "U.N. NNP B-NP I-ORG\nis VBZ B-VP O\n")):
        with gzip.open(tmp_path / f"{name}.txt.gz", "wt", encoding="utf-8") as file:
            file.write(text)
    assert read_own_data(tmp_path).dev["dev"].words == [("U.N.", "is")]


def test_lines_that_tell_of_a_text_are_passed_over_and_words_are_not(tmp_path):
    path = write(tmp_path / "train.conll", "# newdoc id = x\n# sent_id = 3\n#id O\nrocks O\n\n#foo B-PER\n# O\n")
    data = read_own_data(path)
    assert sorted(data.train.words + data.dev["dev"].words) == [("#foo", "#"), ("#id", "rocks")]


@pytest.mark.parametrize("tag", ["", " ", "NN\nX"])
def test_a_tag_that_cannot_be_shown_is_refused_with_its_line(tag, tmp_path):
    jsonl(tmp_path / "train.jsonl", {"tokens": ["a", "b"], "tags": ["NN", "DT"]}, {"tokens": ["a"], "tags": [tag]})
    with pytest.raises(UserError, match="train.jsonl, line 2: a tag in column 'tags' is empty, or holds") as refused:
        read_own_data(tmp_path / "train.jsonl")
    assert "\n" not in str(refused.value)


def test_words_beside_the_whole_text_are_words(tmp_path):
    words, tags = ["Ann", "lives", "in", "Rome"], ["B-PER", "O", "O", "B-LOC"]
    record = {"text": " ".join(words), "tokens": words, "ner_tags": tags}
    path = jsonl(tmp_path / "train.jsonl", *[record] * 4)
    assert read_own_data(path).task.kind == TOKENS
    topics = jsonl(tmp_path / "topics.jsonl", *[{"text": "a b", "tokens": ["a", "b"], "labels": ["x", "y"]}] * 4)
    assert read_own_data(topics).task.kind == MULTI_LABEL


def test_a_test_file_without_any_label_is_not_judged_on(tmp_path):
    write(tmp_path / "train.csv", "text,label\na,x;y\nb,y\nc,x\nd,x\n")
    write(tmp_path / "test.csv", "text,label\na,\nb,\n")
    assert read_own_data(tmp_path, task_type=MULTI_LABEL).task.dev_splits == ("dev",)


def test_columns_of_conll_files_are_named_by_their_numbers(tmp_path):
    path = write(tmp_path / "a.conll", "1 The DET\n2 dog NOUN\n\n1 It PRON\n2 barks VERB\n")
    data = read_own_data(path, text_column="2", label_column="3")
    assert data.task.labels == ("DET", "NOUN", "PRON", "VERB") and data.task.metrics == ("accuracy",)
    assert sorted(data.train.words + data.dev["dev"].words) == [("It", "barks"), ("The", "dog")]


def test_tags_of_other_columns_and_names(tmp_path):
    path = jsonl(tmp_path / "a.jsonl", {"w": ["a", "b"], "t": ["S-X", "O"]}, {"w": ["c"], "t": ["B-Y"]})
    data = read_own_data(path, text_column="w", label_column="t")
    assert data.task.labels == ("O", "B-X", "S-X", "B-Y", "S-Y")
    numbers = jsonl(tmp_path / "b.jsonl", {"tokens": ["a", "b"], "ner_tags": [3, 0]},
                    {"tokens": ["c"], "ner_tags": [0]})  # fmt: skip
    assert read_own_data(numbers).task.labels == ("0", "3")
    tsv = write(tmp_path / "c.tsv", "words\ttags\nEU rejects\tB-ORG O\nPeter\tB-PER\n")
    data = read_own_data(tsv, task_type=TOKENS)
    assert data.task.labels == ("O", "B-ORG", "B-PER") and data.task.kind == TOKENS


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a O\nb\n", "a.conll, line 2: 1 columns instead of 2, as in the lines before"),
        ("a\nb\n", "no column 'tags'; found: 1, tokens; name it with --label-column"),
        ("a B-X\nb Y\n", "the tag 'Y' is not one of entities, as 'B-X' is; allowed: O, B-TYPE, I-TYPE"),
        ("a O\nb O\n", "every tag in column 'tags' is 'O'; give at least two"),
        ("\n\n", "no examples in it"),
        ("a O\nb B-X\n", "one example only"),
    ],
)
def test_files_of_words_that_are_refused(text, message, tmp_path):
    with pytest.raises(UserError, match=message):
        read_own_data(write(tmp_path / "a.conll", text))


def test_a_tag_that_training_does_not_have_is_refused_with_its_line(tmp_path):
    write(tmp_path / "train.conll", "a B-X\n\nb O\n")
    write(tmp_path / "dev.conll", "a O\n\nb B-Y\nc O\n")
    with pytest.raises(UserError, match=r"dev.conll, line 3: unknown tag 'B-Y' in column 'tags'; allowed, as in the "
                       "training file: O, B-X$"):  # fmt: skip
        read_own_data(tmp_path)


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"tokens": ["a", "b"], "tags": ["O"]}, "line 2: 2 words in column 'tokens' and 1 tags in 'tags'"),
        ({"tokens": [], "tags": []}, "line 2: no words in column 'tokens'"),
        ({"tokens": ["a", None], "tags": ["O", "O"]}, r"line 2: 'tokens' holds \"\['a', None\]\", not a list of texts"),
        ({"tokens": ["a"]}, "line 2: 'tags' holds 'None', not a list of texts"),
    ],
)
def test_rows_of_words_that_are_refused(record, message, tmp_path):
    with pytest.raises(UserError, match=message):
        read_own_data(jsonl(tmp_path / "a.jsonl", {"tokens": ["a", "b"], "tags": ["O", "B-X"]}, record))


def test_a_txt_of_texts_alone_is_refused_for_training(tmp_path):
    with pytest.raises(UserError, match="a .txt holds texts alone, unless its lines are words and tags of entities"):
        read_own_data(write(tmp_path / "a.txt", "a film\nanother film\n"))


def test_texts_with_several_labels(tmp_path):
    records = [{"text": "a", "labels": ["x", "y"]}, {"text": "b", "labels": []}, {"text": "c", "labels": ["z", "z"]}]
    jsonl(tmp_path / "train.jsonl", *records)
    jsonl(tmp_path / "dev.jsonl", {"text": "d", "labels": ["y"]})
    jsonl(tmp_path / "test.jsonl", {"text": "e"})
    data = read_own_data(tmp_path)
    assert data.task.kind == MULTI_LABEL and data.task.labels == ("x", "y", "z")
    assert data.task.metrics == ("micro_f1", "macro_f1", "subset_accuracy") and data.task.num_outputs == 3
    assert data.train.labels.tolist() == [[1, 1, 0], [0, 0, 0], [0, 0, 1]] and data.train.labels.dtype == np.int32
    assert data.dev["dev"].labels.tolist() == [[0, 1, 0]] and "no labels in column" in data.source["test"]
    assert "3 labels, 0 to 2 a text: x, y, z in 3 rows" in data.source["labels"]
    csv = write(tmp_path / "own" / "a.csv", 'text,label\na,x; y\nb,\n"c, d",z\n')
    found = read_own_data(csv, task_type=MULTI_LABEL)
    assert found.task.labels == ("x", "y", "z") and len(found.train) == 2
    with pytest.raises(UserError, match="line 1: unknown label 'q' in column 'labels'; allowed: x, y, z"):
        jsonl(tmp_path / "dev.jsonl", {"text": "d", "labels": ["q"]})
        read_own_data(tmp_path)


def test_lists_are_read_again_for_predictions(tmp_path):
    task = Task("own", "own", TOKENS, ("O", "B-X"))
    for name, text, labels in (
        ("a.txt", "a b\nc\n", None), ("a.conll", "a\nb\n\nc\n", None), ("b.conll", "a O\nb B-X\n\nc O\n", [0, 1, 0]),
        ("b.txt", "a O\nb B-X\n\nc O\n", [0, 1, 0]), ("a.jsonl", '{"text": "a b"}\n{"text": "c"}\n', None),
        ("b.jsonl", '{"tokens": ["a", "b"], "tags": ["O", "B-X"]}\n{"tokens": ["c"], "tags": ["O"]}\n', [0, 1, 0]),
        ("a.csv", "text\na b\nc\n", None),
    ):  # fmt: skip
        path = write(tmp_path / name, text)
        columns = find_columns(path, task, {}, {"text_column": None})
        found = columns.examples(read_table(path), task)
        assert found.words == [("a", "b"), ("c",)], name
        assert labels == (found.labels if found.labels is None else found.labels.tolist()), name
    several = Task("own", "own", MULTI_LABEL, ("x", "y"))
    path = write(tmp_path / "c.csv", "text,labels\na,y;x\nb,\n")
    columns = find_columns(path, several, {}, {})
    assert columns.examples(read_table(path), several).labels.tolist() == [[1, 1], [0, 0]]


def test_names_of_embedded_tasks_stand_for_own_files_too(tmp_path):
    write(tmp_path / "mine.conll", "a B-X\n\nb O\n\nc O\n")
    data = load_task_data(GatedBertConfig(task="ner", data=str(tmp_path / "mine.conll")))
    assert data.task.name == "mine" and data.task.labels == ("O", "B-X")
    with pytest.raises(UserError, match="-d/--data: 'hub' has no data of NER; give embedded, a .conll file"):
        load_task_data(GatedBertConfig(task="ner"))
    with pytest.raises(UserError, match="has no data of Topics; give embedded, a .jsonl file with lists of labels"):
        load_task_data(GatedBertConfig(task="topics", data=str(tmp_path)))


def test_second_texts_are_refused(tmp_path):
    path = jsonl(tmp_path / "a.jsonl", {"tokens": ["a"], "tags": ["O"], "b": "c"})
    with pytest.raises(UserError, match="--text-pair-column: 'b' is refused for token_classification"):
        read_own_data(path, text_pair_column="b")
