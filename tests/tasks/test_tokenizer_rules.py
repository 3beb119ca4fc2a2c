"""What files, names and pieces say about a vocabulary counts, wherever the vocabulary is read."""

import itertools
import json
import unicodedata

import numpy as np
import pytest
import tokenizers
from texts import many_texts
from tokenizers import normalizers, pre_tokenizers

from gated_bert.cli.settings import read_settings
from gated_bert.config import GatedBertConfig
from gated_bert.support.errors import UserError
from gated_bert.tasks import hub
from gated_bert.tasks.tokenizer import load_tokenizer, tokenizer_from_folder
from gated_bert.tasks.tokenizer_rules import AddedToken, WordPieceRules
from gated_bert.tasks.wordpiece import SPECIAL_TOKENS, Tokenizer

TEXTS = many_texts()


def pieces():
    """Every character of the texts in every form they can take, at the start of a word and inside one."""
    joined = "".join(TEXTS)
    forms = {joined, joined.lower(), unicodedata.normalize("NFD", joined), unicodedata.normalize("NFD", joined.lower())}
    characters = sorted({each for form in forms for each in form if not each.isspace() and each.isprintable()})
    return [*SPECIAL_TOKENS, *characters, *(f"##{each}" for each in characters)]


PIECES = pieces()
VOCABULARY = frozenset(PIECES)
CASES = list(itertools.product((True, False), (None, True, False), (0, 1)))
CASED = ["The", "the", "Cat", "cat", "##S", "##s", "Café", "Cafe", "cafe"]


def put(folder, tokens=(), **files):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.txt").write_text("\n".join([*SPECIAL_TOKENS, *tokens]) + "\n", encoding="utf-8")
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    return folder


def tokens(tokenizer, text):
    return [tokenizer.backend.id_to_token(int(index)) for index in tokenizer.encode([text]).row(0)[1:-1]]


def by_the_library(vocabulary, text, normalizer):
    """Word pieces by hand: the library's normaliser and words, and the longest piece first."""
    found = []
    words = pre_tokenizers.BertPreTokenizer().pre_tokenize_str(normalizer.normalize_str(text))
    for word, _ in words:
        parts, start = [], 0
        while start < len(word):
            prefix = "##" if start else ""
            ends = range(len(word), start, -1)
            end = next((end for end in ends if prefix + word[start:end] in vocabulary), None)
            if end is None or len(word) > 100:
                parts = ["[UNK]"]
                break
            parts.append(prefix + word[start:end])
            start = end
        found += parts
    return found


@pytest.mark.parametrize(("lower", "accents", "chinese"), CASES)
def test_each_setting_beside_a_vocabulary_counts(tmp_path, lower, accents, chinese):
    settings = {"do_lower_case": lower, "strip_accents": accents, "tokenize_chinese_chars": bool(chinese)}
    folder = put(tmp_path / "bert", PIECES[5:], tokenizer_config=settings)
    normalizer = normalizers.BertNormalizer(True, bool(chinese), accents, lower)
    for vocab in (folder, folder / "vocab.txt"):
        found = load_tokenizer(GatedBertConfig(data="embedded", vocab=str(vocab)))
        for text in TEXTS:
            if "[" not in text:
                assert tokens(found, text) == by_the_library(VOCABULARY, text, normalizer), text
    found.save(tmp_path / "tokenizer.json")
    again, fresh = Tokenizer.from_file(tmp_path / "tokenizer.json"), tokenizer_from_folder(folder)
    assert np.array_equal(again.encode(TEXTS).input_ids, found.encode(TEXTS).input_ids)
    assert np.array_equal(fresh.encode(TEXTS).input_ids, found.encode(TEXTS).input_ids)


@pytest.mark.parametrize(
    ("name", "files", "vocabulary", "expected", "said"),
    [
        ("cased_L-12_H-768_A-12", {}, CASED, "The Cat", "cased, by the name cased_L-12_H-768_A-12"),
        ("multi_cased_L-12_H-768_A-12", {"bert_config": {}}, CASED, "The Cat", "cased, by the name multi_cased"),
        ("wwm_uncased_L-24_H-1024_A-16", {}, CASED, "the cat", "lower case, by the name wwm_uncased"),
        ("multilingual_L-12_H-768_A-12", {}, CASED, "the cat", "lower case, by the name multilingual"),
        ("bert-base-german-cased", {"tokenizer_config": {"model_max_length": 512}}, CASED, "The Cat", "cased, by the"),
        ("mine", {}, CASED, "The Cat", "cased, as its pieces hold upper case"),
        ("mine", {}, ["the", "cat", "##s"], "the cat", "lower case, as its pieces are"),
        ("cased_mine", {"tokenizer_config": {"do_lower_case": True}}, CASED, "the cat", ""),
        ("uncased", {"bert_config": {"do_lower_case": False}}, CASED, "The Cat", ""),
        ("uncased", {"tokenizer_config": {"do_basic_tokenize": False}}, CASED, "The Cat", ""),
        ("models--x--bert-base-cased/snapshots/1a2b", {}, CASED, "The Cat", "cased, by the name models--x--bert"),
    ],
)
def test_the_case_is_taken_from_files_then_names_then_pieces_and_said(
    tmp_path, capfd, name, files, vocabulary, expected, said
):
    folder = put(tmp_path / name, vocabulary, **files)
    (folder / "bert_model.ckpt.index").write_text("")
    for field, path in (("pretrained", folder), ("pretrained", folder / "bert_model.ckpt"), ("vocab", folder)):
        found = load_tokenizer(GatedBertConfig(data="embedded", **{field: str(path)}))
        assert " ".join(tokens(found, "The Cat")) == expected
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == bool(said)
    assert all(line.startswith(f"note: {folder}/vocab.txt: no file beside it") and said in line for line in lines)


def test_pieces_with_accents_keep_them_where_nothing_is_said(tmp_path, capfd):
    folder = put(tmp_path / "mine", ["grün", "gru", "##n"])
    assert tokens(tokenizer_from_folder(folder), "GRÜN") == ["grün"]
    assert "accents are kept, as its pieces have some" in capfd.readouterr().err
    put(folder, ["grün", "gru", "##n"], tokenizer_config={"do_lower_case": True})
    assert tokens(tokenizer_from_folder(folder), "GRÜN") == ["gru", "##n"], "what transformers does by default"


def test_special_tokens_of_other_spelling(tmp_path):
    names = {"pad_token": "<pad>", "unk_token": {"content": "<unk>"}, "cls_token": "<s>", "sep_token": "</s>"}
    folder = tmp_path / "bert"
    folder.mkdir()
    (folder / "vocab.txt").write_text("</s>\n<s>\na\n<pad>\n<unk>\n")
    (folder / "special_tokens_map.json").write_text(json.dumps(names))
    found = tokenizer_from_folder(folder)
    expected = [1, 2, 4, 0, 2, 0]
    assert found.encode(["a zebra"], ["a"]).row(0).tolist() == expected
    found.save(tmp_path / "tokenizer.json")
    again = Tokenizer.from_file(tmp_path / "tokenizer.json")
    assert again.encode(["a zebra"], ["a"]).row(0).tolist() == expected
    assert [again.special_id(each) for each in ("pad", "unk", "begin", "separator")] == [3, 4, 1, 0]
    assert again.backend.encode("a zebra", "a").ids == expected, "other readers of the file do the same"
    (folder / "special_tokens_map.json").write_text(json.dumps(names | {"sep_token": "<sep>"}))
    with pytest.raises(UserError, match="vocab.txt: token <sep> is missing"):
        tokenizer_from_folder(folder)


def test_tokens_beside_the_vocabulary_and_words_never_split(tmp_path, capfd):
    settings = {
        "do_lower_case": True, "never_split": ["C++", "x.y"],
        "added_tokens_decoder": {"9": {"content": "<e1>", "special": True}, "0": {"content": "[PAD]"},
                                 "8": {"content": "NEW", "normalized": False}},
    }  # fmt: skip
    folder = put(tmp_path / "bert", ["c", "+", "C++"], tokenizer_config=settings)
    found = tokenizer_from_folder(folder)
    assert tokens(found, "C++ c++ NEW <e1> new") == ["C++", "c", "+", "+", "NEW", "<e1>", "[UNK]"]
    assert found.vocab_size == 10
    assert "never_split 'x.y' is not in the vocabulary" in capfd.readouterr().err
    put(folder, ["c", "+", "C++"], added_tokens={"NEW": 30}, tokenizer_config={"do_lower_case": True})
    with pytest.raises(UserError, match="added token 'NEW' would have id 8, and the files beside it say 30"):
        tokenizer_from_folder(folder)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"tokenizer_config": {"do_lower_case": "no"}}, "do_lower_case is a text; allowed: true or false"),
        ({"tokenizer_config": {"tokenizer_class": "BertJapaneseTokenizer"}}, "'BertJapaneseTokenizer' cuts texts by"),
        ({"config": {"tokenizer_class": "XLNetTokenizer"}}, "'XLNetTokenizer' cuts texts by other rules"),
        ({"tokenizer_config": {"added_tokens_decoder": {"x": {"content": "a"}}}}, "has 'x'; allowed: ids, from 0 up"),
        ({"tokenizer_config": {"added_tokens_decoder": {"9": {}}}}, "no field 'content' in added_tokens_decoder"),
        ({"tokenizer_config": {"wordpieces_prefix": 5}}, "wordpieces_prefix is a whole number; allowed: a text"),
        ({"tokenizer_config": {"never_split": [1]}}, r"never_split\[0\] is a whole number; allowed: a text"),
        ({"tokenizer_config": {"unk_token": ["x"]}}, "unk_token is a list; allowed: a text or an object"),
        ({"added_tokens": {"NEW": "8"}}, "added_tokens.json: .* is a text; allowed: a whole number"),
        ({"special_tokens_map": []}, "special_tokens_map.json: holds a list; allowed: an object"),
    ],
)
def test_settings_that_cannot_be_followed_are_refused(tmp_path, files, message):
    folder = put(tmp_path / "bert", CASED, **files)
    with pytest.raises(UserError, match=message) as caught:
        tokenizer_from_folder(folder)
    assert "\n" not in str(caught.value)


def test_a_vocabulary_beside_its_tokenizer_json_is_used_as_that_says(tmp_path):
    folder = put(tmp_path / "bert", CASED)
    backend = tokenizers.Tokenizer.from_str(Tokenizer.from_vocab([*SPECIAL_TOKENS, *CASED]).backend.to_str())
    backend.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Replace("dog", "Cat")])
    backend.save(str(folder / "tokenizer.json"))
    config = GatedBertConfig(data="embedded")
    for path in (folder, folder / "vocab.txt", folder / "tokenizer.json"):
        assert tokens(load_tokenizer(config.replace(vocab=str(path))), "The dog") == ["The", "Cat"]
    put(folder, [*CASED, "dog"])
    assert tokens(load_tokenizer(config.replace(vocab=str(folder / "vocab.txt"))), "The dog") == ["The", "dog"]
    (folder / "tokenizer.json").write_text("{")
    assert tokens(load_tokenizer(config.replace(vocab=str(folder / "vocab.txt"))), "The dog") == ["The", "dog"]


def test_settings_count_over_a_tokenizer_json_of_berts_class_as_in_transformers(tmp_path, capfd):
    settings = {"do_lower_case": False, "tokenizer_class": "BertTokenizer"}
    folder = put(tmp_path / "bert", CASED, tokenizer_config=settings)
    Tokenizer.from_vocab(folder / "vocab.txt").save(folder / "tokenizer.json")
    assert tokens(tokenizer_from_folder(folder), "The Cat") == ["The", "Cat"]
    assert "do_lower_case False counts, as in transformers, though tokenizer.json has True" in capfd.readouterr().err
    put(folder, CASED, tokenizer_config=settings | {"tokenizer_class": "PreTrainedTokenizerFast"})
    assert tokens(tokenizer_from_folder(folder), "The Cat") == ["the", "cat"]


def test_links_are_not_followed_away_from_the_settings(tmp_path):
    blobs = tmp_path / "blobs"
    blobs.mkdir()
    folder = put(tmp_path / "models--a--b" / "snapshots" / "1", CASED, tokenizer_config={"do_lower_case": False})
    for path in list(folder.iterdir()):
        path.rename(blobs / path.name.replace(".", "0"))
        path.symlink_to(blobs / path.name.replace(".", "0"))
    vocab = read_settings({"data": "embedded", "vocab": str(folder / "vocab.txt")}, {}, {}).values["vocab"]
    assert tokens(load_tokenizer(GatedBertConfig(data="embedded", vocab=vocab)), "The") == ["The"]
    assert read_settings({"data": "embedded", "vocab": str(folder)}, {}, {}).values["vocab"] == str(folder)
    with pytest.raises(UserError, match="or a folder with one"):
        read_settings({"data": "embedded", "vocab": str(tmp_path)}, {}, {})


def test_a_model_of_the_hub_goes_by_its_settings_and_by_its_name(tmp_path, monkeypatch):
    folder = put(tmp_path / "snapshots" / "1a2b", CASED)
    monkeypatch.setattr(hub, "hub_file", lambda name, names, remedy: folder / "vocab.txt")
    fetched = []
    monkeypatch.setattr(hub, "hub_files_beside", lambda name, names: fetched.append(names))
    config = GatedBertConfig(data="embedded", pretrained="someone/bert-uncased")
    assert tokens(load_tokenizer(config), "The") == ["the"]
    assert fetched == [("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")]
    put(folder, CASED, tokenizer_config={"do_lower_case": False})
    assert tokens(load_tokenizer(config), "The") == ["The"]


def test_a_length_above_the_tokenisers_is_said(tmp_path, capfd):
    folder = put(tmp_path / "bert", CASED, tokenizer_config={"do_lower_case": False, "model_max_length": 64})
    load_tokenizer(GatedBertConfig(data="embedded", vocab=str(folder), max_len=64))
    assert not capfd.readouterr().err
    load_tokenizer(GatedBertConfig(data="embedded", vocab=str(folder), max_len=65))
    assert "max_len is 65, and the tokeniser was made for texts of 64 tokens" in capfd.readouterr().err


def test_the_cache_tells_spellings_apart(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    both = [*SPECIAL_TOKENS, "<s>", "a"]
    texts = ["a"] * 1000
    assert Tokenizer.from_vocab(both).encode(texts).row(0)[0] == 2
    assert Tokenizer.from_vocab(both, WordPieceRules(special={"[CLS]": "<s>"})).encode(texts).row(0)[0] == 5
    added = Tokenizer.from_vocab(both, WordPieceRules(added=(AddedToken("zz"),)))
    assert added.encode(texts).row(0)[0] == 2 and added.vocab_size == 8
