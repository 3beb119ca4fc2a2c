"""Windows of a context and the way back: all tokens covered, answers in their places, the best span by brute force."""

import re
import string
import unicodedata

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from texts import many_texts

from gated_bert.support.errors import UserError
from gated_bert.tasks.examples import SpanExamples
from gated_bert.tasks.squad_metrics import f1, normalize, squad_scores
from gated_bert.tasks.tokenizer_rules import WordPieceRules
from gated_bert.tasks.windows import _owned, _parts, best_answers, encode_windows
from gated_bert.tasks.wordpiece import SPECIAL_TOKENS, Tokenizer

WORDS = "who what is the a b c d e f g h i j ##s ( ) , 10 ##66".split()
TOKENIZER = Tokenizer.from_vocab([*SPECIAL_TOKENS, *WORDS])
IDS = {token: index for index, token in enumerate([*SPECIAL_TOKENS, *WORDS])}


def make(*rows):
    """Examples from (question, context, answer)."""
    questions, contexts, answers = zip(*rows, strict=True)
    starts = [context.index(answer) for context, answer in zip(contexts, answers, strict=True)]
    labels = np.array([(start, start + len(answer)) for start, answer in zip(starts, answers, strict=True)], np.int32)
    ids = [f"q{index}" for index in range(len(rows))]
    return SpanExamples(list(questions), list(contexts), labels, ids, [(answer,) for answer in answers])


def tokens(windows, window):
    names = {index: token for token, index in IDS.items()}
    return " ".join(names[index] for index in windows.encoded.row(window))


def test_windows_by_hand():
    windows = encode_windows(TOKENIZER, make(("who is", "a b c d e f g", "e f")), max_len=9, stride=2)
    assert [tokens(windows, window) for window in range(3)] == [
        "[CLS] who is [SEP] a b c d [SEP]", "[CLS] who is [SEP] c d e f [SEP]", "[CLS] who is [SEP] e f g [SEP]",
    ]  # fmt: skip
    assert windows.labels.tolist() == [[0, 0], [6, 7], [4, 5]], "an answer that is not all inside points at [CLS]"
    assert windows.encoded.inputs["token_type_ids"][:9].tolist() == [0, 0, 0, 0, 1, 1, 1, 1, 1]
    assert windows.question.tolist() == [0, 0, 0] and windows.context_at.tolist() == [4, 4, 4]
    assert windows.tokens.tolist() == [[0, 4], [2, 6], [4, 7]]


def test_a_short_context_is_one_window():
    windows = encode_windows(TOKENIZER, make(("who", "a b", "b"), ("what", "a b", "a")), max_len=10, stride=9)
    assert tokens(windows, 0) == "[CLS] who [SEP] a b [SEP]" and tokens(windows, 1) == "[CLS] what [SEP] a b [SEP]"
    assert windows.labels.tolist() == [[4, 4], [3, 3]]
    assert len(windows.characters) == 2, "a context is tokenised once for all its questions"


@pytest.mark.parametrize(
    ("context", "answer", "label"),
    [("the (1066, A", "1066", [5, 6]), ("the Bs", "Bs", [4, 5]), ("a É b", "b", [5, 5]), ("a  \n b", "b", [4, 4])],
)
def test_answers_inside_words_and_beside_marks(context, answer, label):
    windows = encode_windows(TOKENIZER, make(("who", context, answer)), max_len=16, stride=4)
    assert windows.labels.tolist() == [label]
    logits = np.zeros((1, 2, 16), np.float32)
    logits[0, (0, 1), label] = 1.0
    assert best_answers(windows, logits, make(("who", context, answer)), 20, 30) == {"q0": answer}


def test_a_question_that_leaves_no_room():
    examples = make(("who is the a b c d", "a b c d e f g", "e"))
    with pytest.raises(UserError, match="question q0: its 7 tokens leave 0 of 10 for the context, fewer than a step"):
        encode_windows(TOKENIZER, examples, max_len=10, stride=3)
    with pytest.raises(UserError, match="leave 4 of 14 .* fewer than a step of 5; give a longer -ml or a shorter"):
        encode_windows(TOKENIZER, examples, max_len=14, stride=5)
    assert len(encode_windows(TOKENIZER, examples, max_len=14, stride=4).encoded) == 2


def test_a_question_is_cut_to_64_tokens():
    windows = encode_windows(TOKENIZER, make(("who " * 100, "a b", "b")), max_len=80, stride=10)
    assert windows.encoded.lengths.tolist() == [64 + 2 + 3]


@given(st.integers(1, 200), st.integers(1, 40), st.data())
@settings(max_examples=60, deadline=None)
def test_every_token_is_owned_by_the_window_that_shows_most_around_it(count, room, data):
    stride = data.draw(st.integers(1, room))
    parts = _parts(count, room, stride)
    assert parts[0][0] == 0 and parts[-1][1] == count and all(0 < stop - start <= room for start, stop in parts)
    assert all(stop == start + room for start, stop in parts[:-1])
    owned = _owned(parts)
    for token in range(count):
        # The published rule: context on the shorter side, plus a hundredth of the window's length; the first wins.
        inside = [part for part in parts if part[0] <= token < part[1]]
        best = max(inside, key=lambda p: min(token - p[0], p[1] - 1 - token) + 0.01 * (p[1] - p[0]))
        assert [part for part, (start, stop) in zip(parts, owned, strict=True) if start <= token < stop] == [best]


@pytest.mark.parametrize("seed", range(4))
def test_the_best_answer_by_brute_force(seed):
    random = np.random.default_rng(seed)
    context = " ".join(random.choice(list("abcdefghij"), 23))
    examples = make(("who is", context, "a" if "a" in context else context[0]))
    windows = encode_windows(TOKENIZER, examples, max_len=13, stride=5)
    logits = random.normal(size=(len(windows.encoded), 2, 13)).astype(np.float32)
    best = (-np.inf, "")
    for window, (first, stop) in enumerate(windows.tokens):
        for start in range(*windows.owned[window]):
            for end in range(start, min(stop, start + 3)):
                score = logits[window, 0, 4 + start - first] + logits[window, 1, 4 + end - first]
                best = max(best, (score, context[2 * start : 2 * end + 1]))
    assert best_answers(windows, logits, examples, n_best=13, max_tokens=3) == {"q0": best[1]}


def test_few_best_and_no_answer_at_all():
    examples = make(("who", "a b c", "b"))
    windows = encode_windows(TOKENIZER, examples, max_len=8, stride=2)
    logits = np.zeros((1, 2, 8), np.float32)
    logits[0, 0, 5], logits[0, 1, 3] = 9, 9
    logits[0, 0, 0] = logits[0, 1, 1] = logits[0, 1, 7] = 99
    assert best_answers(windows, logits, examples, 1, 30) == {"q0": ""}, "the likeliest end is before the start"
    logits[0, 1, 5] = 5
    assert best_answers(windows, logits, examples, 2, 30) == {"q0": "c"}, "question, [CLS] and [SEP] are no answers"


def official_normal(answer):
    """`normalize_answer` of the official script of SQuAD v1.1."""
    kept = "".join(each for each in answer.lower() if each not in set(string.punctuation))
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", kept).split())


def official_f1(prediction, answer):
    """`f1_score` of the official script of SQuAD v1.1."""
    predicted, wanted = official_normal(prediction).split(), official_normal(answer).split()
    shared = sum(min(predicted.count(word), wanted.count(word)) for word in set(predicted))
    if not shared:
        return 0
    precision, recall = shared / len(predicted), shared / len(wanted)
    return 2 * precision * recall / (precision + recall)


# Python takes these for spaces, and the tokenisers for nothing.
SPACES_TO_NONE = dict.fromkeys(map(ord, "\x1c\x1d\x1e\x1f\x85"))
MANY = [" ".join(text.translate(SPACES_TO_NONE).split()) for text in many_texts(120, seed=7)]
KEPT = sorted({each for text in MANY for form in ("NFC", "NFD") for each in unicodedata.normalize(form, text)} - {" "})
KINDS = [Tokenizer.from_vocab([*SPECIAL_TOKENS, *KEPT, *(f"##{each}" for each in KEPT), *pieces],
                              WordPieceRules(lowercase=lower, strip_accents=accents))
         for pieces in ((), ("cafe", "un", "##play"))
         for lower, accents in ((True, None), (True, False), (False, False), (False, True))]  # fmt: skip
KINDS += [Tokenizer.from_vocab([*SPECIAL_TOKENS, "a"])]


@given(st.lists(st.sampled_from(MANY), min_size=1, max_size=4), st.sampled_from(KINDS), st.data())
@settings(max_examples=200, deadline=None)
def test_perfect_logits_give_answers_of_whole_words_in_any_script(texts, tokenizer, data):
    context = " ".join(texts)
    _, characters, _ = tokenizer.places([context])
    words = [(found.start(), found.end()) for found in re.finditer(r"\S+", context)]
    told = [word for word in words if any(start < word[1] and end > word[0] for start, end in characters)]
    if not told:
        return
    first = data.draw(st.integers(0, len(told) - 1))
    last = data.draw(st.integers(first, min(first + 5, len(told) - 1)))
    start, end = told[first][0], told[last][1]
    answer = context[start:end]
    examples = SpanExamples(["a"], [context], np.array([(start, end)], np.int32), ["q"], [(answer,)])
    windows = encode_windows(tokenizer, examples, max_len=2000, stride=1000)
    logits = np.zeros((len(windows.encoded), 2, 2000), np.float32)
    logits[0, (0, 1), windows.labels[0]] = 1.0
    found = best_answers(windows, logits, examples, 5, 2000)
    assert found == {"q": answer}
    assert squad_scores(found, ["q"], [(answer,)])["exact_match"] == 1
    guess = context[told[0][0] : told[last][1]]
    assert normalize(guess) == official_normal(guess) and f1(guess, answer) == pytest.approx(official_f1(guess, answer))
