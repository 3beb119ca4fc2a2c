import itertools
import json
import time

import numpy as np
import pytest

from gated_bert.config import ConfigError, GatedBertConfig
from gated_bert.support.errors import UserError
from gated_bert.tasks import wordpiece
from gated_bert.tasks.glue import read_glue_folder
from gated_bert.tasks.task import TASKS
from gated_bert.tasks.tokenizer import load_tokenizer
from gated_bert.tasks.wordpiece import Tokenizer

WORDS = "[PAD] [UNK] [CLS] [SEP] [MASK] the cafe play ##ing ##ed un ##play ##able , ! ' t don 中 国 1 ##2 . a b c d e"
VOCABULARY = WORDS.split()


@pytest.fixture
def tokenizer():
    return Tokenizer.from_vocab(VOCABULARY)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "gated_bert" / "tokens"


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("The CAFÉ, unplayable!", "the cafe , un ##play ##able !"),
        ("don't playing 12 zebra", "don ' t play ##ing 1 ##2 [UNK]"),
        ("中国\u0000 play\u200bed\n.", "中 国 play ##ed ."),
        ("", ""),
        ("[SEP]", "[SEP]"),
        ("a" * 101, "[UNK]"),
    ],
)
def test_wordpiece_as_bert_does_it(tokenizer, text, tokens):
    expected = [VOCABULARY.index(token) for token in f"[CLS] {tokens} [SEP]".split()]
    assert tokenizer.encode([text]).row(0).tolist() == expected


def test_pairs_have_two_segments(tokenizer):
    encoded = tokenizer.encode(["a b", "a"], ["c", "d e"])
    assert encoded.input_ids.dtype == encoded.inputs["token_type_ids"].dtype == np.int32
    assert encoded.offsets.tolist() == [0, 6, 12]
    assert encoded.lengths.tolist() == [6, 6]
    assert [VOCABULARY[index] for index in encoded.row(0)] == ["[CLS]", "a", "b", "[SEP]", "c", "[SEP]"]
    assert encoded.inputs["token_type_ids"].tolist() == [0, 0, 0, 0, 1, 1, 0, 0, 0, 1, 1, 1]


@pytest.mark.parametrize(
    ("first", "second", "kept"),
    [
        ("a a a a a a", "b b", "[CLS] a a a [SEP] b b [SEP]"),
        ("a", "b b b b b b", "[CLS] a [SEP] b b b b [SEP]"),
        ("a a a a a a", "b b b b", "[CLS] a a a [SEP] b b [SEP]"),
        ("a a a a", "b b b b", "[CLS] a a [SEP] b b b [SEP]"),
        ("a a a", "b b", "[CLS] a a a [SEP] b b [SEP]"),
    ],
)
def test_the_longer_text_of_a_pair_is_cut_first(tokenizer, first, second, kept):
    encoded = tokenizer.encode([first], [second], max_len=8)
    assert [VOCABULARY[index] for index in encoded.row(0)] == kept.split()


def test_a_text_of_ten_thousand_words_is_cut_at_once(tokenizer):
    start = time.process_time()
    encoded = tokenizer.encode(["playing the cafe " * 10_000] * 3, ["the " * 10_000] * 3, max_len=128)
    assert time.process_time() - start < 3
    assert encoded.lengths.tolist() == [128] * 3
    assert encoded.row(0)[-1] == VOCABULARY.index("[SEP]")


def test_a_saved_tokeniser_gives_the_same_ids(tokenizer, tmp_path):
    tokenizer.encode(["a b c"], max_len=8)
    tokenizer.save(tmp_path / "tokenizer.json")
    again = Tokenizer.from_file(tmp_path / "tokenizer.json")
    assert again.vocab_size == tokenizer.vocab_size == len(VOCABULARY)
    assert again.encode(["a " * 600], max_len=512).lengths.tolist() == [512]
    np.testing.assert_array_equal(again.encode(["The CAFÉ"]).input_ids, tokenizer.encode(["The CAFÉ"]).input_ids)


def test_lengths_saved_in_a_tokenizer_json_are_not_used(tokenizer, tmp_path):
    tokenizer.backend.enable_truncation(4)
    tokenizer.backend.enable_padding(length=12)
    tokenizer.save(tmp_path / "tokenizer.json")
    assert Tokenizer.from_file(tmp_path / "tokenizer.json").encode(["a b c d e"]).lengths.tolist() == [7]


def test_what_was_tokenised_is_kept_and_a_damaged_file_rebuilt(tokenizer, cache, monkeypatch):
    texts = [f"the {'a b c d'[: 1 + i % 7]}" for i in range(wordpiece.CACHED_FROM)]
    first = tokenizer.encode(texts, max_len=16)
    (path,) = cache.glob("*")
    with monkeypatch.context() as patch:
        patch.setattr(Tokenizer, "_encode", None)
        kept = tokenizer.encode(texts, max_len=16)
    np.testing.assert_array_equal(kept.input_ids, first.input_ids)
    for damage in (b"", b"no archive", path.read_bytes()[:-500]):
        path.write_bytes(damage)
        np.testing.assert_array_equal(tokenizer.encode(texts, max_len=16).input_ids, first.input_ids)
        assert len(path.read_bytes()) > 1000
    tokenizer.encode(texts, max_len=8)
    tokenizer.encode([*texts[:-1], "b"], max_len=16)
    assert len(list(cache.glob("*"))) == 3
    tokenizer.encode([*texts[:-1], "c"], max_len=16, cached=False)
    assert len(list(cache.glob("*"))) == 3


def test_some_of_the_examples_in_another_order(tokenizer):
    encoded = tokenizer.encode(["the cafe", "", "a b c"])
    taken = encoded.take([2, 0, 2])
    assert [taken.row(index).tolist() for index in range(3)] == [encoded.row(index).tolist() for index in (2, 0, 2)]
    assert taken.lengths.tolist() == [5, 4, 5] and len(taken.inputs["token_type_ids"]) == 14


def test_a_cache_that_cannot_be_written_stops_nothing(tokenizer, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert len(tokenizer.encode(["a"] * wordpiece.CACHED_FROM)) == wordpiece.CACHED_FROM


def test_bad_vocabularies_are_named(tmp_path):
    path = tmp_path / "vocab.txt"
    path.write_text("[PAD]\n[UNK]\n[CLS]\nthe\n")
    with pytest.raises(UserError, match=r"vocab.txt: token \[SEP\] is missing; a BERT vocabulary is needed"):
        Tokenizer.from_vocab(path)
    path.write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\nthe\nthe\n")
    with pytest.raises(UserError, match="vocab.txt, line 5: token 'the' appears again"):
        Tokenizer.from_vocab(path)
    path.write_text("{}")
    with pytest.raises(UserError, match="vocab.txt: not a tokenizer.json"):
        Tokenizer.from_file(path)


def test_which_tokeniser_a_run_uses(tmp_path, monkeypatch):
    def put(path, extra):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(VOCABULARY + [f"extra{i}" for i in range(extra)]) + "\n")
        return path

    base = len(VOCABULARY)
    data = tmp_path / "data" / "glue"
    (data / "SST-2").mkdir(parents=True)
    put(tmp_path / "data" / "bert" / "vocab.txt", 1)
    config = GatedBertConfig(data=str(data))
    assert load_tokenizer(config).vocab_size == base + 1
    assert load_tokenizer(config.replace(data=str(data / "SST-2"))).vocab_size == base + 1
    assert load_tokenizer(config.replace(data=str(tmp_path / "data"))).vocab_size == base + 1
    monkeypatch.setenv("GATED_BERT_DATA", str(data))
    assert load_tokenizer(config.replace(data="hub")).vocab_size == base + 1
    put(tmp_path / "model" / "vocab.txt", 2)
    (tmp_path / "model" / "bert_model.ckpt.index").write_text("")
    pretrained = config.replace(pretrained=str(tmp_path / "model"))
    assert load_tokenizer(pretrained).vocab_size == base + 2
    assert load_tokenizer(config.replace(pretrained=str(tmp_path / "model" / "bert_model.ckpt"))).vocab_size == base + 2
    vocab = pretrained.replace(vocab=str(put(tmp_path / "mine.txt", 3)))
    assert load_tokenizer(vocab).vocab_size == base + 3
    assert load_tokenizer(vocab.replace(vocab_size=99)).vocab_size == base + 3
    with pytest.raises(ConfigError, match=f"vocab_size: 5 is refused; allowed: at least the {base + 3} tokens"):
        load_tokenizer(vocab.replace(vocab_size=5))
    with pytest.raises(ConfigError, match="vocab: 'none.txt' is refused; allowed: an existing vocab.txt"):
        load_tokenizer(config.replace(vocab="none.txt"))


def test_a_pretrained_folder_says_its_case_and_must_have_a_vocabulary(tmp_path):
    config = GatedBertConfig(data="embedded", pretrained=str(tmp_path))
    with pytest.raises(UserError, match="no tokenizer.json or vocab.txt in it; put one there or give --vocab FILE"):
        load_tokenizer(config)
    (tmp_path / "vocab.txt").write_text("\n".join([*VOCABULARY, "The"]) + "\n")
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": True}))
    assert load_tokenizer(config).encode(["The"]).row(0)[1] == VOCABULARY.index("the")
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": False}))
    assert load_tokenizer(config).encode(["The"]).row(0)[1] == len(VOCABULARY)


@pytest.mark.parametrize("max_len", range(3, 20))
def test_cutting_equals_the_librarys(tokenizer, max_len):
    texts, pairs = zip(*itertools.product(["a " * n for n in range(10)], ["b " * n for n in range(10)]), strict=True)
    ours = tokenizer.encode(texts, pairs, max_len)
    tokenizer.backend.enable_truncation(max_len, strategy="longest_first")
    for index, theirs in enumerate(tokenizer.backend.encode_batch(list(zip(texts, pairs, strict=True)))):
        assert ours.row(index).tolist() == theirs.ids
        assert ours.inputs["token_type_ids"][ours.offsets[index] : ours.offsets[index + 1]].tolist() == theirs.type_ids


@pytest.mark.real_data
@pytest.mark.parametrize(("name", "max_len"), [("sst2", 128), ("mrpc", 128), ("mrpc", 33), ("sst2", 8)])
@pytest.mark.nightly
def test_ids_equal_those_of_transformers(real_data, name, max_len):
    transformers = pytest.importorskip("transformers")
    reference = transformers.BertTokenizer(str(real_data / "bert" / "vocab.txt"))
    dev = read_glue_folder(real_data, TASKS[name]).dev["dev"]
    encoded = Tokenizer.from_vocab(real_data / "bert" / "vocab.txt").encode(dev.texts, dev.pairs, max_len)
    expected = reference(dev.texts, dev.pairs, truncation=True, max_length=max_len)
    assert len(encoded) == len(dev)
    np.testing.assert_array_equal(encoded.input_ids, np.concatenate(expected["input_ids"]))
    np.testing.assert_array_equal(encoded.inputs["token_type_ids"], np.concatenate(expected["token_type_ids"]))


def test_minilms_own_tokenizer_json_equals_its_vocabulary(minilm):
    texts = ["A first sentence, with naïve words.", "Ünïcode & 中文!"]
    from_json, from_vocab = Tokenizer.from_file(minilm / "tokenizer.json"), Tokenizer.from_vocab(minilm / "vocab.txt")
    assert from_json.vocab_size == from_vocab.vocab_size == 30_522
    np.testing.assert_array_equal(from_json.encode(texts).input_ids, from_vocab.encode(texts).input_ids)
