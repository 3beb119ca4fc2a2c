"""Tokenisers without the tokens that a corpus never uses."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import tokenizers

from gated_bert.support.errors import UserError
from gated_bert.tasks.wordpiece import Tokenizer

CHUNK = 10_000
"""Texts that are tokenised at a time."""
_BYTES = frozenset(f"<0x{byte:02X}>" for byte in range(256))


def used_tokens(tokenizer: Tokenizer, texts: Iterable[str], advance: Callable[[int], None]) -> set[int]:
    """Ids that the texts are cut into, special tokens around them left out.

    Args:
        tokenizer: how texts are cut.
        texts: the corpus.
        advance: told how many more texts have been cut.
    """
    used: set[int] = set()
    for chunk in _chunks(texts):
        used.update(np.unique(tokenizer.token_ids(chunk)[0]).tolist())
        advance(len(chunk))
    return used


def trimmed(tokenizer: Tokenizer, used: set[int], below: int = 0) -> tuple[Tokenizer, np.ndarray]:
    """A tokeniser of these tokens and of those without which it could not cut other texts.

    A text that was cut into kept tokens is cut as before: WordPiece takes the longest piece there is and Unigram the
    likeliest pieces, so that a token that did not win before cannot be missed; of byte pairs those stay, too, that kept
    tokens are merged from. Single characters, bytes and added tokens all stay, so that nothing becomes unknown that was
    not.

    Args:
        tokenizer: the tokeniser; it is not changed.
        used: ids that a corpus is cut into.
        below: ids under this one all stay.

    Returns:
        The smaller tokeniser, and its tokens' ids in the old one [tokens], int64, in the order of the new ids, which
        is that of the old ones.

    Raises:
        UserError: a kind of vocabulary that cannot be made smaller.
    """
    record = json.loads(tokenizer.fingerprint)
    model = record["model"]
    ids = _ids(model, tokenizer.origin)
    kept = {token for token, index in ids.items() if index in used or index < below}
    special = {token["content"]: token["id"] for token in record.get("added_tokens") or ()}
    kept |= ids.keys() & {*special, *tokenizer.special.values(), model.get("unk_token")}
    around = _template_ids(record.get("post_processor") or {})
    kept |= {token for token, index in ids.items() if index in around}
    if model["type"] == "Unigram":
        # What an unknown letter costs is reckoned from the least likely piece.
        kept.add(min(model["vocab"], key=lambda pair: pair[1])[0])
        kept |= set() if model.get("unk_id") is None else {model["vocab"][model["unk_id"]][0]}
    if model.get("dropout"):
        raise UserError(f"{tokenizer.origin}: byte pairs with dropout are refused, as they cut a text otherwise each "
                        "time; set dropout to null in its model")  # fmt: skip
    _keep_characters(model, ids, kept)
    if model["type"] == "BPE":
        _keep_parts(model, kept)
    old = np.array(sorted({ids[token] for token in kept} | set(special.values())), np.int64)
    _renumber(record, kept, {int(index): place for place, index in enumerate(old)})
    backend = tokenizers.Tokenizer.from_str(json.dumps(record))
    small = type(tokenizer)(backend, tokenizer.origin, tokenizer.special, tokenizer.max_length)
    whole, names = tokenizer.backend, small.backend.get_vocab()
    is_same = sorted(names.values()) == list(range(len(old))) and all(
        whole.token_to_id(token) == old[index] for token, index in names.items())  # fmt: skip
    if not is_same or not np.array_equal(old[:below], np.arange(below)):
        raise UserError(f"{tokenizer.origin}: its tokens have ids with gaps, twice, or of added tokens between others; "
                        "such a vocabulary cannot be made smaller")  # fmt: skip
    return small, old


def check_same(
    tokenizer: Tokenizer, small: Tokenizer, old: np.ndarray, texts: Iterable[str],
    advance: Callable[[int], None],
) -> None:  # fmt: skip
    """Cuts the corpus by both tokenisers.

    Args:
        tokenizer: the whole one.
        small: the one without unused tokens.
        old: its tokens' ids in the whole one, [tokens].
        texts: the corpus.
        advance: told how many more texts have been cut.

    Raises:
        UserError: a text is cut otherwise.
    """
    for chunk in _chunks(texts):
        (before, starts), (after, _) = tokenizer.token_ids(chunk), small.token_ids(chunk)
        if not np.array_equal(before, old[after]):
            both = min(len(before), len(after))
            first = int(np.argmax(np.append(before[:both] != old[after[:both]], True)))
            text = chunk[min(int(np.searchsorted(starts, first, "right")) - 1, len(chunk) - 1)]
            raise UserError(f"{tokenizer.origin}: without the unused tokens {text!r:.60} would be cut otherwise; its "
                            "vocabulary cannot be made smaller")  # fmt: skip
        advance(len(chunk))


def _chunks(texts: Iterable[str]) -> Iterable[Sequence[str]]:
    chunk: list[str] = []
    for text in texts:
        chunk.append(text)
        if len(chunk) == CHUNK:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def _ids(model: dict[str, Any], origin: str) -> dict[str, int]:
    if model["type"] == "Unigram":
        return {piece: index for index, (piece, _) in enumerate(model["vocab"])}
    if model["type"] in ("WordPiece", "BPE"):
        return dict(model["vocab"])
    raise UserError(f"{origin}: a vocabulary of the kind {model['type']} is refused; allowed: WordPiece, BPE, Unigram")


def _keep_characters(model: dict[str, Any], ids: Iterable[str], kept: set[str]) -> None:
    """Adds single characters and bytes, at the beginning of words and further on, and what has one that is none."""
    prefix, suffix = model.get("continuing_subword_prefix") or "", model.get("end_of_word_suffix") or ""
    single = {token for token in ids if len(token) == 1 or token in _BYTES
              or len(token.removeprefix(prefix).removesuffix(suffix)) == 1}  # fmt: skip
    kept |= single
    for token in ids:
        inside = prefix and token.startswith(prefix) and len(token) > len(prefix)
        rest = (token.removeprefix(prefix) if inside else token).removesuffix(suffix)
        marks = [prefix * (inside or place > 0) for place in range(len(rest))]
        if any(f"{mark}{letter}" not in single for mark, letter in zip(marks, rest, strict=True)):
            # Nothing shorter could take its place.
            kept.add(token)


def _keep_parts(model: dict[str, Any], kept: set[str]) -> None:
    """Adds to `kept` what its tokens are merged from, and leaves the merges of these alone in the model."""
    prefix = model.get("continuing_subword_prefix") or ""
    pairs = [tuple(pair.split(" ")) if isinstance(pair, str) else tuple(pair) for pair in model["merges"]]
    made_of: dict[str, list[tuple[str, str]]] = {}
    for left, right in pairs:
        made_of.setdefault(left + right.removeprefix(prefix), []).append((left, right))
    waiting = list(kept)
    while waiting:
        for pair in made_of.get(waiting.pop(), ()):
            waiting += [part for part in pair if part not in kept]
            kept.update(pair)
    model["merges"] = [list(pair) for pair in pairs if {*pair, pair[0] + pair[1].removeprefix(prefix)} <= kept]


def _renumber(record: dict[str, Any], kept: set[str], new: dict[int, int]) -> None:
    model = record["model"]
    if model["type"] == "Unigram":
        if model.get("unk_id") is not None:
            model["unk_id"] = new[model["unk_id"]]
        model["vocab"] = [pair for pair in model["vocab"] if pair[0] in kept]
    else:
        model["vocab"] = {token: new[index] for token, index in model["vocab"].items() if token in kept}
    for token in record.get("added_tokens") or ():
        token["id"] = new[token["id"]]
    if record.get("padding"):
        record["padding"]["pad_id"] = new[record["padding"]["pad_id"]]
    if record.get("post_processor"):
        _renumber_template(record["post_processor"], new)


def _template_ids(processor: dict[str, Any]) -> set[int]:
    found = {index for part in processor.get("processors", ()) for index in _template_ids(part)}
    found |= {processor[name][1] for name in ("cls", "sep") if name in processor}
    special = processor.get("special_tokens") or {}
    return found.union(*(entry["ids"] for entry in special.values()))


def _renumber_template(processor: dict[str, Any], new: dict[int, int]) -> None:
    for part in processor.get("processors", ()):
        _renumber_template(part, new)
    for name in ("cls", "sep"):
        if name in processor:
            token, index = processor[name]
            processor[name] = [token, new[index]]
    for special in (processor.get("special_tokens") or {}).values():
        special["ids"] = [new[index] for index in special["ids"]]
