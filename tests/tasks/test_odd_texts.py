"""Texts that no tokeniser takes, in every source: named with their place."""

import json

import pytest

from gated_bert.support.errors import UserError
from gated_bert.tasks.hub import hub_examples
from gated_bert.tasks.own import read_own_data
from gated_bert.tasks.squad import read_squad_folder
from gated_bert.tasks.task import TASKS
from gated_bert.tasks.wordpiece import Tokenizer

TOKENIZER = Tokenizer.from_vocab(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a"])
LONE = ("\ud800", "a\udfff", "\udc00\ud800")


@pytest.mark.parametrize("lone", LONE)
@pytest.mark.parametrize("field", ["text", "label", "other"])
def test_half_a_character_in_own_data(tmp_path, lone, field):
    rows = [{"text": f"t{number}", "label": number % 2, "other": "x"} for number in range(4)]
    rows[2][field] = lone
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(UserError, match="a.jsonl, line 3: .* is half of a character"):
        read_own_data(tmp_path / "a.jsonl")


@pytest.mark.parametrize("lone", LONE)
@pytest.mark.parametrize("field", ["title", "context", "question", "id", "answer"])
def test_half_a_character_in_questions(tmp_path, lone, field):
    texts = {"title": "t", "context": "a b", "question": "q", "id": "1", "answer": "a"} | {field: lone}
    question = {"id": texts["id"], "question": texts["question"], "answers": [{"text": texts["answer"],
                                                                              "answer_start": 0}]}  # fmt: skip
    paragraph = {"context": texts["context"], "qas": [question]}
    content = {"data": [{"title": texts["title"], "paragraphs": [paragraph]}]}
    for name in ("train", "dev"):
        (tmp_path / f"{name}.json").write_text(json.dumps(content, indent=1))
    with pytest.raises(UserError, match=r"train.json, line \d+: .* is half of a character"):
        read_squad_folder(tmp_path, TASKS["squad"])


def test_whole_pairs_and_odd_characters_are_taken(tmp_path):
    texts = ("\N{GRINNING FACE}", "a\0b", "\u2028x", "a")
    rows = [{"text": text, "label": number % 2} for number, text in enumerate(texts)]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = read_own_data(tmp_path / "a.jsonl")
    assert len(TOKENIZER.encode(data.train.texts)) == 3


@pytest.mark.parametrize("label", [None, float("nan"), float("inf"), ["a"], {"a": 1}])
def test_labels_that_are_no_names(tmp_path, label):
    rows = [{"text": "t", "label": "a"}, {"text": "t", "label": label}]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(UserError, match="a.jsonl, line 2: no label in column 'label'"):
        read_own_data(tmp_path / "a.jsonl")


@pytest.mark.parametrize("odd", ["\ud800", None, 5, ["a"]])
def test_the_tokeniser_says_which_text_it_refuses(odd):
    for encode in (TOKENIZER.encode, TOKENIZER.places):
        with pytest.raises(UserError, match="text 2, .*, cannot be tokenised"):
            encode(["a", odd, "a"])


def test_rows_of_the_hub_are_texts():
    datasets = pytest.importorskip("datasets")
    features = datasets.Features(
        {"sentence": datasets.Value("string"), "label": datasets.ClassLabel(names=["negative", "positive"])}
    )
    split = datasets.Dataset.from_dict({"sentence": ["a", None], "label": [0, 1]}, features=features)
    with pytest.raises(UserError, match="hub, train, row 1: 'sentence' holds None, not a text"):
        hub_examples({"train": split}, "train", ("sentence",), TASKS["sst2"], "hub")
