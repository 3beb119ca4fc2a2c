"""What a tokeniser of the `tokenizers` library puts around texts, and how its file spells the special tokens."""

from __future__ import annotations

import itertools
import json

import numpy as np
import tokenizers
from tokenizers import models, normalizers

from gated_bert.support.errors import UserError
from gated_bert.tasks.encoded import Template

_PROBES = ("a", "0", ".", "的")
_SPACES = np.array([code for code in range(0x3001) if chr(code).isspace()], np.uint32)


def read_template(backend: tokenizers.Tokenizer, origin: str, lenient: bool = False) -> Template | None:
    """The special tokens that a backend puts around one text and around two; None where it puts none.

    Args:
        backend: the tokeniser, which neither cuts nor pads.
        origin: where it came from, for messages.
        lenient: whether of a file with one token before a text and one behind it, which says nothing sensible of two
            texts, these are put together as BERT's.

    Raises:
        UserError: an arrangement that is no template: others around one text than around two, or texts out of order.
    """
    if backend.post_processor is None:
        return None
    try:
        probe = next((text for text in _probes(backend) if backend.encode(text, add_special_tokens=False).ids), None)
        if probe is None:
            return None
        single, pair = backend.encode(probe), backend.encode(probe, probe)
    except BaseException as error:
        raise refused(error, f"{origin}: its post_processor cannot be used", "fetch it again") from error
    begin, end = _around(single.ids, single.sequence_ids, (0,), origin)
    try:
        first, between, last = _around(pair.ids, pair.sequence_ids, (0, 1), origin)
    except UserError:
        if not lenient or len(begin) != 1 or len(end) != 1:
            raise
        first, between, last = (), (), ()
    if not (begin or end or between):
        return None
    if (first, last) != (begin, end):
        if lenient and len(begin) == len(end) == 1:
            return Template(begin, end, end)
        raise UserError(f"{origin}: its post_processor puts other special tokens around two texts than around one; "
                        "allowed: the same at both ends")  # fmt: skip
    return Template(begin, between, end, pair.type_ids[pair.sequence_ids.index(1)])


def _probes(backend: tokenizers.Tokenizer):
    """Texts, of which one has a token."""
    return itertools.chain(_PROBES, itertools.islice(backend.get_vocab(with_added_tokens=False), 50))


def _around(ids: list[int], texts: list[int | None], order: tuple[int, ...], origin: str) -> list[tuple[int, ...]]:
    """The special tokens before, between and behind the texts."""
    groups = [(text, tuple(index for index, _ in group))
              for text, group in itertools.groupby(zip(ids, texts, strict=True), key=lambda pair: pair[1])]  # fmt: skip
    if tuple(text for text, _ in groups if text is not None) != order:
        raise UserError(f"{origin}: its post_processor does not put a first text before a second one; allowed: special "
                        "tokens before, between and behind them")  # fmt: skip
    found: list[tuple[int, ...]] = [()]
    for text, group in groups:
        if text is None:
            found[-1] = group
        else:
            found.append(())
    return found


def own_spelling(backend: tokenizers.Tokenizer, template: Template | None, padding: dict | None) -> dict[str, str]:
    """BERT's spelling of the special tokens that a file names itself, in its model, padding and template → its own."""
    found = {"[UNK]": getattr(backend.model, "unk_token", None), "[PAD]": (padding or {}).get("pad_token")}
    if template is not None and template.begin:
        found["[CLS]"] = backend.id_to_token(template.begin[0])
    if template is not None and template.end:
        found["[SEP]"] = backend.id_to_token(template.end[-1])
    return {token: spelling for token, spelling in found.items() if spelling}


def without_spaces(text: str, places: np.ndarray) -> np.ndarray:
    """The places of tokens [tokens, 2] without the blanks that pieces of some tokenisers begin or end with."""
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
    space = np.isin(codes, _SPACES)
    starts, ends = places.T
    if not len(codes) or not (space[np.minimum(starts, len(codes) - 1)] | space[np.maximum(ends - 1, 0)]).any():
        return places
    index = np.arange(len(codes))
    following = np.minimum.accumulate(np.where(space, len(codes), index)[::-1])[::-1]
    preceding = np.maximum.accumulate(np.where(space, 0, index + 1))
    first = np.minimum(np.append(following, len(codes))[starts], ends)
    return np.stack([first, np.maximum(preceding[np.maximum(ends - 1, 0)], first)], axis=1).astype(places.dtype)


def refused(error: BaseException, what: str, remedy: str) -> UserError:
    """The error of the `tokenizers` library in a sentence; a panic of its Rust code is no `Exception`."""
    if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
        raise error
    return UserError(f"{what} ({' '.join(str(error).split())[:200]}); {remedy}")


def as_saved(backend: tokenizers.Tokenizer) -> tokenizers.Tokenizer:
    """A tokeniser that cuts texts as it will once it has been saved and read.

    The library reads some of Unigram's scores, in JSON the only fractions, a last bit off, which cuts a text otherwise
    where two ways to cut it are equally likely. What was read once stays nearly always as it is, hence the loop.
    """
    if not isinstance(backend.model, models.Unigram):
        return backend
    text = ""
    while text != (text := backend.to_str()):
        backend = tokenizers.Tokenizer.from_str(text)
    return backend


def with_blank_before_words(backend: tokenizers.Tokenizer) -> tokenizers.Tokenizer:
    """A tokeniser that cuts words given one by one as it cuts them in the middle of a text.

    Byte-level byte pairs, and some others, know a word in the middle of a text by the blank before it, which a word
    alone has not unless the tokeniser adds it. Every other tokeniser is given back as it is.
    """
    record = json.loads(backend.to_str())
    # Later parts of a sequence see pieces of words.
    parts = [record.get("pre_tokenizer"), record.get("post_processor")]
    while parts:
        part = parts.pop()
        if isinstance(part, dict):
            parts += [*(part.get("pretokenizers") or ())[:1], *(part.get("processors") or ())]
            if "add_prefix_space" in part:
                part["add_prefix_space"] = True
            if part.get("prepend_scheme") == "never":
                part["prepend_scheme"] = "always"
    made = tokenizers.Tokenizer.from_str(json.dumps(record))
    if not _cuts_words_alike(made, backend):
        made = tokenizers.Tokenizer.from_str(backend.to_str())
        first = normalizers.Prepend(" ")
        made.normalizer = first if made.normalizer is None else normalizers.Sequence([first, made.normalizer])
    return backend if json.loads(backend.to_str()) == json.loads(made.to_str()) else made


def _cuts_words_alike(made: tokenizers.Tokenizer, backend: tokenizers.Tokenizer) -> bool:
    """Whether `made` cuts some words as `backend` does behind another one."""

    def ids(tokenizer: tokenizers.Tokenizer, text: str) -> list[int]:
        return tokenizer.encode(text, add_special_tokens=False).ids

    before = ids(backend, "a")
    return all(ids(backend, f"a {word}") == [*before, *ids(made, word)] for word in ("b", "a1b2", "don't"))
