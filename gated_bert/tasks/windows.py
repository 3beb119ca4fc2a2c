"""Questions and contexts as windows of tokens, and the way back from logits to text."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gated_bert.support.errors import UserError
from gated_bert.tasks.encoded import Column, Encoded
from gated_bert.tasks.examples import SpanExamples
from gated_bert.tasks.tokenizer_protocol import TokenizerProtocol

MOST_QUESTION_TOKENS = 64
"""What a question is cut to, as in the published BERT."""


@dataclass(frozen=True)
class Windows:
    """Windows of a question and a part of its context, as pairs; those of one question next to each other.

    Attributes:
        encoded: token ids of the windows.
        labels: [windows, 2] int32, first and last token of the answer; 0, the first token of all,
            where it is not all in the window.
        question: [windows] index of the question.
        context_at: [windows] place of the context's first token in the window.
        tokens: [windows, 2] which tokens of `characters` the window shows: first, and one after the last.
        owned: [windows, 2] as `tokens`, those that have more context here than in any other window of the question.
        characters: [context tokens, 2] characters of each token in its context: first, and one after the last.
    """

    encoded: Encoded
    labels: np.ndarray
    question: np.ndarray
    context_at: np.ndarray
    tokens: np.ndarray
    owned: np.ndarray
    characters: np.ndarray


def encode_windows(tokenizer: TokenizerProtocol, examples: SpanExamples, max_len: int, stride: int) -> Windows:
    """Cuts each context into overlapping windows that fit behind its question.

    Args:
        tokenizer: the run's tokeniser.
        examples: questions, contexts and answers.
        max_len: most tokens of a window, special tokens included.
        stride: tokens from the start of one window's part of the context to the next one's.

    Raises:
        UserError: a question leaves too little room for its context.

    Paper: Devlin et al. 2019, BERT (https://arxiv.org/abs/1810.04805), `run_squad.py`.
    """
    contexts = {context: index for index, context in enumerate(dict.fromkeys(examples.pairs))}
    context_ids, characters, context_ends = tokenizer.places(list(contexts))
    question_ids, _, question_ends = tokenizer.places(examples.texts)
    template, rows = tokenizer.template, []
    for index, context in enumerate(examples.pairs):
        asked = int(min(question_ends[index + 1] - question_ends[index], MOST_QUESTION_TOKENS))
        first, end = context_ends[contexts[context]], context_ends[contexts[context] + 1]
        room = max_len - template.around(2) - asked
        if room < min(stride, max(end - first, 1)):
            raise UserError(
                f"question {examples.ids[index]}: its {asked} tokens leave {max(room, 0)} of {max_len} for the "
                f"context, fewer than a step of {stride}; give a longer -ml or a shorter --doc-stride"
            )
        answer = _answer_tokens(characters[first:end], examples.labels[index])
        parts = _parts(int(end - first), room, stride)
        for (start, stop), owned in zip(parts, _owned(parts), strict=True):
            at = len(template.begin) + asked + len(template.between)
            inside = answer is not None and start <= answer[0] and answer[1] < stop
            label = (at + answer[0] - start, at + answer[1] - start) if inside else (0, 0)
            rows.append((*label, index, at, first + start, first + stop, first + owned[0], first + owned[1], asked))
    table = np.array(rows, dtype=np.int64)
    question, shown = table[:, 2], table[:, 4:6]
    encoded = tokenizer.join(Column(question_ids, question_ends[question], table[:, 8]),
                             Column(context_ids, shown[:, 0], shown[:, 1] - shown[:, 0]))  # fmt: skip
    return Windows(encoded, table[:, :2].astype(np.int32), question, table[:, 3], shown, table[:, 6:8], characters)


def _answer_tokens(characters: np.ndarray, answer: np.ndarray) -> tuple[int, int] | None:
    """First and last token that share a character with the answer, counted in the context; None where none does."""
    first = int(np.searchsorted(characters[:, 1], answer[0], side="right"))
    last = int(np.searchsorted(characters[:, 0], answer[1], side="left")) - 1
    return (first, last) if first <= last else None


def _parts(tokens: int, room: int, stride: int) -> list[tuple[int, int]]:
    """The windows' parts of a context of `tokens` tokens: first, and one after the last."""
    count = 1 + max(0, -((room - tokens) // stride))
    return [(start, min(start + room, tokens)) for start in range(0, count * stride, stride)]


def _owned(parts: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Of each part the tokens with the most context on their shorter side, longer parts and then earlier ones first."""
    if len(parts) == 1:
        return parts
    places = np.arange(parts[-1][1])
    scores = np.full((len(parts), len(places)), -np.inf)
    for row, (start, stop) in zip(scores, parts, strict=True):
        inside = places[start:stop]
        row[start:stop] = np.minimum(inside - start, stop - 1 - inside) + 0.01 * (stop - start)
    owner = scores.argmax(axis=0)
    found = [np.flatnonzero(owner == part) for part in range(len(parts))]
    return [(int(mine[0]), int(mine[-1]) + 1) if len(mine) else (0, 0) for mine in found]


def best_answers(
    windows: Windows, logits: np.ndarray, examples: SpanExamples, n_best: int, max_tokens: int
) -> dict[str, str]:
    """The likeliest answer to each question over all its windows.

    In each window the `n_best` likeliest starts and ends are combined; start + end logits rank what is left: the end
    not before the start, at most `max_tokens` tokens, all in the context, and the start in the window that shows most
    of what surrounds it. Unlike in `run_squad.py`, tokens outside the context take no places among the n best.

    Args:
        windows: the windows of `examples`.
        logits: [windows, 2, at least the longest window] start and end logits.
        examples: the questions.
        n_best: starts and ends that are combined.
        max_tokens: most tokens of an answer.

    Returns:
        Text by the name of the question, cut out of the context as it is; "" where no window has an answer to give.
    """
    best = np.full(len(examples), -np.inf)
    answers = dict.fromkeys(examples.ids, "")
    for window, question in enumerate(windows.question):
        found = _best_span(windows, window, logits[window], n_best, max_tokens)
        if found is not None and found[0] > best[question]:
            best[question], first, last = found
            start, end = windows.characters[first, 0], windows.characters[last, 1]
            answers[examples.ids[question]] = examples.pairs[question][start:end]
    return answers


def _best_span(windows: Windows, window: int, logits: np.ndarray, n_best: int, max_tokens: int):
    """Score, first and last token in `windows.characters` of a window's best answer; None where there is none."""
    (first, end), owned, at = windows.tokens[window], windows.owned[window], windows.context_at[window]
    starts = logits[0, at + owned[0] - first : at + owned[1] - first]
    ends = logits[1, at : at + end - first]
    from_token = np.argsort(-starts, kind="stable")[:n_best]
    to_token = np.argsort(-ends, kind="stable")[:n_best]
    lengths = (to_token + first)[None, :] - (from_token + owned[0])[:, None] + 1
    sums = np.where(
        (lengths >= 1) & (lengths <= max_tokens), starts[from_token][:, None] + ends[to_token][None, :], -np.inf
    )
    if not np.isfinite(sums).any():
        return None
    row, column = np.unravel_index(sums.argmax(), sums.shape)
    return sums[row, column], from_token[row] + owned[0], to_token[column] + first
