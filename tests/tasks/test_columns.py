"""Which columns a task reads, in its official files and in others, and what is refused."""

import json

import pytest

from gated_bert.support.errors import UserError
from gated_bert.tasks.columns import find_columns
from gated_bert.tasks.tables import read_chunks
from gated_bert.tasks.task import TASKS, Task

OWN = Task("reviews", "reviews.csv", labels=("bad", "good"))


def examples(path, task, given=None, recorded=None):
    columns = find_columns(path, task, given or {}, recorded or {})
    return columns.examples(next(read_chunks(path, None, columns.header)), task)


def write(folder, name, text):
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("task", "name", "text", "expected"),
    [
        ("sst2", "a.tsv", "sentence\tlabel\na film\t1\n", ("a film", None, 1)),
        ("sst2", "a.csv", "id,text,label\n7,a film,positive\n", ("a film", None, 1)),
        ("cola", "a.tsv", "gj04\t0\t*\ta film\n", ("a film", None, 0)),
        ("cola", "a.tsv", "source\tlabel\tmark\tsentence\ngj04\t0\t*\ta film\n", ("a film", None, 0)),
        ("mrpc", "a.tsv", "\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String\n1\t2\t3\ta\tb\n", ("a", "b", 1)),
        ("mnli", "a.jsonl", '{"premise": "a", "hypothesis": "b", "label": "neutral"}\n', ("a", "b", 1)),
        ("qnli", "a.tsv", "index\tquestion\tsentence\tlabel\n0\ta\tb\tnot_entailment\n", ("a", "b", 1)),
        ("stsb", "a.tsv", "sentence1\tsentence2\tscore\na\tb\t2.5\n", ("a", "b", 2.5)),
        ("ag_news", "a.csv", '"3","Oil\\rises","to $ 50\\now"\n', ("Oil rises to $ 50 now", None, 2)),
        ("ag_news", "a.csv", "Class Index,Title,Description\n4,one,two\n", ("one two", None, 3)),
        ("ag_news", "a.jsonl", '{"text": "one", "label": "Sports"}\n', ("one", None, 1)),
    ],
)
def test_official_and_usual_files_are_read_as_they_are(tmp_path, task, name, text, expected):
    found = examples(write(tmp_path, name, text), TASKS[task])
    assert (found.texts[0], found.pairs and found.pairs[0], found.labels[0]) == expected


def test_files_without_labels(tmp_path):
    assert examples(write(tmp_path, "a.txt", "a film\nanother\n"), TASKS["sst2"]).labels is None
    found = examples(write(tmp_path, "a.tsv", "index\tsentence1\tsentence2\n0\ta\tb\n"), TASKS["rte"])
    assert found.labels is None and found.pairs == ["b"]


def test_named_columns_come_first_then_those_of_training(tmp_path):
    path = write(tmp_path, "a.csv", "text,review,stars\none,two,good\n")
    recorded = {"text_column": "review", "label_column": "stars", "text_pair_column": None}
    assert examples(path, OWN).texts == ["one"] and examples(path, OWN).labels is None
    assert examples(path, OWN, {}, recorded).texts == ["two"] and examples(path, OWN, {}, recorded).labels.tolist() == [
        1
    ]
    assert examples(path, OWN, {"text_column": "text"}, recorded).texts == ["one"]
    assert examples(write(tmp_path, "b.txt", "three\n"), OWN, {}, recorded).texts == ["three"]


def test_answers_as_text_and_as_on_the_hub(tmp_path):
    records = [
        {"question": "who", "context": "it is me", "answers": {"text": ["me", "it"], "answer_start": [6, 0]}},
        {"question": "what", "context": "it is me", "answers": "it"},
    ]
    path = write(tmp_path, "a.jsonl", "".join(json.dumps(record) + "\n" for record in records))
    found = examples(path, TASKS["squad"])
    assert found.answers == [("me", "it"), ("it",)] and found.texts == ["who", "what"]
    with pytest.raises(UserError, match="b.jsonl, line 1: 3 in column 'answer' is refused; allowed: an answer's text"):
        examples(write(tmp_path, "b.jsonl", '{"question": "a", "context": "b", "answer": 3}\n'), TASKS["squad"])


@pytest.mark.parametrize(
    ("task", "name", "text", "given", "message"),
    [
        (
            "sst2",
            "a.csv",
            "review\ngood\n",
            {},
            "no column sentence or text, as SST-2 needs; found: review; name yours ",
        ),
        ("rte", "a.txt", "good\n", {}, "no column sentence1 and sentence2 or .*, as RTE needs; found: text"),
        ("rte", "a.csv", "a,b\n1,2\n", {"text_column": "a"}, "RTE has pairs of texts; give both or neither"),
        (
            "sst2",
            "a.csv",
            "a,b\n1,2\n",
            {"text_pair_column": "a"},
            "--text-pair-column: 'a' is refused; SST-2 has single",
        ),
        ("sst2", "a.csv", "text\nok\n", {"label_column": "y"}, "no column 'y', named with --label-column; found: text"),
        ("sst2", "a.csv", "text,label\nok,1\nno,2\n", {}, "line 3: unknown label '2' in column 'label'; allowed: neg"),
        ("sst2", "a.csv", "text,label\nok,1\n ,1\n", {}, "line 3: empty text in column 'text'"),
        ("ag_news", "a.csv", "1,ok,ok\n5,a,b\n", {}, "line 2: unknown label '5' .*; allowed: World, Sports"),
        ("ag_news", "a.csv", "1,ok,ok\n2,, \n", {}, "line 2: empty text"),
        ("stsb", "a.csv", "sentence1,sentence2,score\na,b,high\n", {}, "line 2: 'high' in column 'score' is refused"),
        ("sst2", "a.pdf", "x", {}, "not a .tsv, .csv, .jsonl, .conll or .txt file"),
        ("sst2", "a.csv", "", {}, "found: an empty file"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(tmp_path, task, name, text, given, message):
    with pytest.raises(UserError, match=message) as caught:
        examples(write(tmp_path, name, text), TASKS[task], given)
    assert "\n" not in str(caught.value)
