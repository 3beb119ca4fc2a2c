"""Vocabularies without what a corpus never uses: what they cut as before, and what of other texts stays known."""

import numpy as np
import pytest
import tokenizers
from test_file_tokenizers import TEXTS, kinds
from tokenizers import models

from gated_bert.support.errors import UserError
from gated_bert.tasks.tokenizer_rules import WordPieceRules
from gated_bert.tasks.trimmed_vocabulary import check_same, trimmed, used_tokens
from gated_bert.tasks.wordpiece import Tokenizer

CORPUS, OTHERS = TEXTS[::25], TEXTS[1::7]


def nothing(steps):
    pass


def cut(tokenizer, special, kind):
    return kind(tokenizer, "here", {own: special[name] for own, name in zip(
        ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"), special, strict=True)})  # fmt: skip


@pytest.fixture(scope="module", params=["byte-level", "byte-level, sequence", "unigram", "unigram, BERT's names",
                                        "lower case", "no normaliser"])  # fmt: skip
def whole(request):
    return cut(*kinds()[request.param][:3])


def pieces(tokenizer, texts):
    return [encoding.tokens for encoding in tokenizer.backend.encode_batch(texts, add_special_tokens=False)]


def test_the_corpus_is_cut_as_before_and_nothing_else_becomes_unknown(whole, tmp_path):
    small, old = trimmed(whole, used_tokens(whole, CORPUS, nothing))
    assert small.vocab_size == len(old) < whole.vocab_size
    names = small.backend.get_vocab()
    assert sorted(names.values()) == list(range(len(old)))
    assert all(whole.backend.token_to_id(token) == old[index] for token, index in names.items())
    small.save(tmp_path / "tokenizer.json")
    # As the library reads the file, without anything of ours.
    library = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    library.no_padding()
    for pairs in (None, CORPUS[::-1]):
        before, after = whole.encode(CORPUS, pairs, 2000), small.encode(CORPUS, pairs, 2000)
        np.testing.assert_array_equal(old[after.input_ids], before.input_ids)
        given = CORPUS if pairs is None else list(zip(CORPUS, pairs, strict=True))
        assert [one.ids for one in library.encode_batch(given)] == [
            after.input_ids[start:end].tolist() for start, end in zip(after.offsets, after.offsets[1:], strict=False)
        ]
    unknown = whole.special["[UNK]"]
    for one, other in zip(pieces(whole, OTHERS), pieces(small, OTHERS), strict=True):
        assert (unknown in other) == (unknown in one)
        assert len(other) >= len(one)


def test_texts_of_many_parts_are_looked_at_in_chunks(whole, monkeypatch):
    told = []
    once = used_tokens(whole, CORPUS, told.append)
    monkeypatch.setattr("gated_bert.tasks.trimmed_vocabulary.CHUNK", 7)
    assert used_tokens(whole, iter(CORPUS), told.append) == once
    assert sum(told) == 2 * len(CORPUS) and max(told[1:]) == 7


def test_ids_below_a_bound_stay_where_they_are(whole):
    small, old = trimmed(whole, set(), 40)
    np.testing.assert_array_equal(old[:40], np.arange(40))
    assert small.special_id("pad") == whole.special_id("pad") < 40


def test_a_kept_token_is_still_merged_from_its_parts():
    """`abc` comes about as `a` and `bc`, although another merge would give it, too."""
    vocabulary = dict.fromkeys(("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdx", "bc", "abc", "dx", "ab"))
    ids = {token: index for index, token in enumerate(vocabulary)}
    merges = [("b", "c"), ("a", "bc"), ("d", "x"), ("a", "b")]
    whole = Tokenizer(tokenizers.Tokenizer(models.BPE(ids, merges, unk_token="[UNK]")))
    small, old = trimmed(whole, used_tokens(whole, ["abc"], nothing))
    assert pieces(small, ["abc", "dx", "ab"]) == [["abc"], ["d", "x"], ["a", "b"]]
    assert {whole.backend.id_to_token(int(index)) for index in old} == set(ids) - {"dx", "ab"}


def test_what_has_a_character_that_is_no_piece_stays():
    """Without it a word of the same letters would become unknown."""
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "x", "##x", "y", "xyz", "##xz", "xx", "##y"]
    small, _ = trimmed(Tokenizer.from_vocab(tokens), set())
    assert set(small.backend.get_vocab()) == {*tokens} - {"xx"}
    assert pieces(small, ["xyz xx"]) == [["xyz", "x", "##x"]]


@pytest.mark.parametrize(("model", "said"), [
    (models.BPE({**dict.fromkeys(("a",), 5)}, [], dropout=0.5, unk_token="[UNK]"), "dropout are refused"),
    (models.WordLevel({"good": 5, "[UNK]": 1}, unk_token="[UNK]"), "of the kind WordLevel is refused"),
    (models.BPE({"[PAD]": 0, "a": 9}, [], unk_token="[UNK]"), "have ids with gaps"),
])  # fmt: skip
def test_vocabularies_that_cannot_be_made_smaller_are_refused_in_one_line(model, said):
    backend = tokenizers.Tokenizer(model)
    backend.add_special_tokens(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"])
    with pytest.raises(UserError, match=said) as refused:
        trimmed(Tokenizer(backend), set(), 3)
    assert "\n" not in str(refused.value)


def test_pieces_of_another_prefix_are_characters_too():
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "@@a", "aa", "@@aa"]
    whole = Tokenizer.from_vocab(tokens, WordPieceRules(prefix="@@"))
    small, _ = trimmed(whole, set())
    assert set(small.backend.get_vocab()) == {*tokens[:5], "a", "@@a"}


def test_a_text_that_is_cut_otherwise_is_named(whole):
    small, old = trimmed(whole, used_tokens(whole, CORPUS[:3], nothing))
    with pytest.raises(UserError, match="would be cut otherwise; its vocabulary cannot be made smaller") as refused:
        check_same(whole, small, old, TEXTS, nothing)
    named = str(refused.value).partition("unused tokens ")[2].partition(" would")[0]
    first = next(text for text in TEXTS if pieces(whole, [text]) != pieces(small, [text]))
    assert repr(first).startswith(named)


def test_scores_that_json_reads_a_last_bit_off_cut_as_they_will_once_saved(tmp_path):
    """Two ways to cut a word are as likely as each other, but for how their sums are rounded."""
    draw = np.random.default_rng(3)
    scores = dict.fromkeys(("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"), 0.0)
    words = []
    for first in range(0x4E00, 0x4E00 + 2000, 4):
        before, a, b, c = map(chr, range(first, first + 4))
        scores[before], one, other = -10 * draw.random(3)
        scores |= {a: one, b + c: other, a + b: other, c: one, b: -99.0}
        words.append(before + a + b + c)
    given = tokenizers.Tokenizer(models.Unigram(list(scores.items()), 1))
    in_memory = [[token.value for token in given.model.tokenize(word)] for word in words]
    whole = Tokenizer(given)
    whole.save(tmp_path / "tokenizer.json")
    read = Tokenizer.from_file(tmp_path / "tokenizer.json")
    assert read.fingerprint == whole.fingerprint
    assert pieces(read, words) == pieces(whole, words) != in_memory
    small, old = trimmed(whole, used_tokens(whole, words, nothing))
    check_same(whole, small, old, words, nothing)
