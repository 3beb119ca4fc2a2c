"""BERT's WordPiece tokeniser, with a cache of what was tokenised."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors

from gated_bert.support.arrays import DAMAGED, read_npz
from gated_bert.support.errors import UserError
from gated_bert.support.partial import partial, remove_leftovers
from gated_bert.support.records import read_record
from gated_bert.tasks.graphemes import whole_places
from gated_bert.tasks.tables import read_text
from gated_bert.tasks.tokenizer_rules import ROLES, AddedToken, WordPieceRules

SPECIAL_TOKENS = tuple(ROLES)
MOST_TOKENS = 10_000_000
CACHED_FROM = 1000
"""Texts from which the cache is used: fewer are tokenised faster than a file is opened."""


@dataclass(frozen=True)
class Encoded:
    """Token ids of n examples, one after the other.

    Attributes:
        input_ids: [tokens] int32.
        token_type_ids: [tokens] int32, 0 in the first text and 1 in the second.
        offsets: [n + 1] int64; example i is at `offsets[i]:offsets[i + 1]`.
    """

    input_ids: np.ndarray
    token_type_ids: np.ndarray
    offsets: np.ndarray

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each example, [n] int64."""
        return np.diff(self.offsets)

    def row(self, index: int) -> np.ndarray:
        """Token ids of one example."""
        return self.input_ids[self.offsets[index] : self.offsets[index + 1]]

    def take(self, indices: Sequence[int]) -> Encoded:
        """The examples at `indices`, in that order."""
        lengths = self.lengths[indices]
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        places = np.repeat(self.offsets[indices] - offsets[:-1], lengths) + np.arange(offsets[-1])
        return Encoded(self.input_ids[places], self.token_type_ids[places], offsets)


class Tokenizer:
    """BERT's tokeniser: WordPiece after the normalisation its backend does.

    Args:
        backend: a tokeniser of the `tokenizers` library that knows a padding, an unknown and the two separating tokens.
        origin: where it came from, for messages.
        special: BERT's spelling of a special token → this tokeniser's; by default as the backend has them.
        max_length: most tokens it was made for; None where that is not said.

    Raises:
        UserError: a special token is missing.
    """

    def __init__(
        self,
        backend: tokenizers.Tokenizer,
        origin: str = "tokenizer",
        special: Mapping[str, str] | None = None,
        max_length: int | None = None,
    ):
        self.special = {**dict.fromkeys(SPECIAL_TOKENS), **_own_spelling(backend), **(special or {})}
        for token, spelling in self.special.items():
            self.special[token] = spelling or token
            if token != "[MASK]" and backend.token_to_id(self.special[token]) is None:
                raise UserError(f"{origin}: token {self.special[token]} is missing; a BERT vocabulary is needed")
        if max(backend.get_vocab().values()) >= MOST_TOKENS:
            raise UserError(f"{origin}: an id of {max(backend.get_vocab().values()):,}; allowed: below {MOST_TOKENS:,}")
        # A tokenizer.json may carry the lengths its author trained with; here the length is an argument of encode.
        backend.no_truncation()
        backend.no_padding()
        # What encode does, so that other tools do the same with the saved file.
        ends = (self.special[token] for token in ("[SEP]", "[CLS]"))
        backend.post_processor = processors.BertProcessing(*((token, backend.token_to_id(token)) for token in ends))
        self.backend, self.origin, self.max_length = backend, origin, max_length

    @classmethod
    def from_vocab(
        cls, vocabulary: str | os.PathLike | Sequence[str], rules: WordPieceRules | None = None
    ) -> Tokenizer:
        """A tokeniser from a `vocab.txt` or from the list of its tokens in the order of their ids.

        Args:
            vocabulary: the file or the tokens.
            rules: how texts are cut; by default as by BERT's lower-case models, whatever lies beside the file.

        Raises:
            UserError: an unreadable file, a repeated or a missing token.
        """
        rules = rules or WordPieceRules()
        is_path = isinstance(vocabulary, str | os.PathLike)
        origin, tokens = (str(vocabulary), read_vocabulary(vocabulary)) if is_path else ("vocabulary", list(vocabulary))
        ids = {token: index for index, token in enumerate(tokens)}
        if len(ids) != len(tokens):
            line = next(index for index, token in enumerate(tokens) if ids[token] != index) + 1
            raise UserError(f"{origin}, line {line}: token {tokens[line - 1]!r} appears again; keep one line per token")
        special = {token: rules.special.get(token, token) for token in SPECIAL_TOKENS}
        options = {"unk_token": special["[UNK]"], "continuing_subword_prefix": rules.prefix}
        backend = tokenizers.Tokenizer(models.WordPiece(ids, max_input_chars_per_word=100, **options))
        backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
        if rules.basic:
            backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
            backend.normalizer = normalizers.BertNormalizer(
                clean_text=rules.clean_text,
                handle_chinese_chars=rules.chinese_chars,
                strip_accents=rules.strip_accents,
                lowercase=rules.lowercase,
            )
        backend.decoder = decoders.WordPiece(prefix=rules.prefix)
        backend.add_special_tokens([token for token in special.values() if token in ids])
        _add_tokens(backend, rules.added, origin)
        return cls(backend, origin, special, rules.max_length)

    @classmethod
    def from_file(
        cls, path: str | os.PathLike, special: Mapping[str, str] | None = None, max_length: int | None = None
    ) -> Tokenizer:
        """A tokeniser from a `tokenizer.json`.

        Args:
            path: the file.
            special: as for the class, where another file spells them.
            max_length: as for the class.

        Raises:
            UserError: a missing or malformed file.
        """
        remedy = "fetch it again or give --vocab FILE"
        record = read_record(Path(path), remedy=remedy, file_names=False)
        try:
            backend = tokenizers.Tokenizer.from_str(json.dumps(record))
        except BaseException as error:
            raise _refused(error, f"{path}: not a tokenizer.json", remedy) from error
        return cls(backend, str(path), special, max_length)

    def save(self, path: str | os.PathLike):
        """Writes a `tokenizer.json` that `from_file` and other tools read."""
        if self.special["[PAD]"] != "[PAD]":
            # The only field of the format that names this token.
            self.backend.enable_padding(pad_id=self.special_id("[PAD]"), pad_token=self.special["[PAD]"])
        # Not by the library, which takes no name that is not UTF-8.
        Path(path).write_bytes(self.backend.to_str(pretty=True).encode())
        self.backend.no_padding()

    def check_rows(self, rows: int):
        """Refuses a tokeniser whose tokens a model does not know.

        Args:
            rows: of the model's token embedding.

        Raises:
            UserError: there are more tokens.
        """
        if self.vocab_size > rows:
            raise UserError(f"{self.origin}: ids up to {self.vocab_size - 1:,}, and the model's embedding has {rows:,} "
                            "rows; put the tokeniser of the model there")  # fmt: skip

    @property
    def vocab_size(self) -> int:
        """Rows that the token embedding needs: the highest id and one."""
        return max(self.backend.get_vocab().values()) + 1

    def encode(
        self, texts: Sequence[str], pairs: Sequence[str] | None = None, max_len: int = 128, cached: bool = True
    ) -> Encoded:
        """Token ids with [CLS] and [SEP], cut to `max_len` tokens; of a pair the longer text is cut first.

        Args:
            texts: first texts.
            pairs: second texts, or `None`.
            max_len: most tokens of an example, special tokens included.
            cached: whether many texts are looked up in the cache, and kept there; not for those that never come again.
        """
        if not cached or len(texts) < CACHED_FROM:
            return self._encode(texts, pairs, max_len)
        path = cache_folder() / "tokens" / f"{self._digest(texts, pairs, max_len)}.npz"
        encoded = _read_cache(path, len(texts), self.vocab_size)
        if encoded is None:
            encoded = self._encode(texts, pairs, max_len)
            _write_cache(path, encoded)
        return encoded

    def _encode(self, texts: Sequence[str], pairs: Sequence[str] | None, max_len: int) -> Encoded:
        # The library's own truncation keeps every part it cuts off, and for a pair every combination of parts: a minute
        # for texts of ten thousand words. So the tokens are cut and joined here.
        columns = [self._tokens(column) for column in (texts, pairs) if column is not None]
        kept = kept_lengths([np.diff(offsets) for _, offsets in columns], max_len - len(columns) - 1)
        ends = np.cumsum(sum(kept) + len(columns) + 1)
        offsets = np.concatenate([[0], ends]).astype(np.int64)
        input_ids = np.full(offsets[-1], self.special_id("[SEP]"), dtype=np.int32)
        token_type_ids = np.zeros(offsets[-1], dtype=np.int32)
        input_ids[offsets[:-1]] = self.special_id("[CLS]")
        place = offsets[:-1] + 1
        for segment, ((tokens, starts), count) in enumerate(zip(columns, kept, strict=True)):
            within = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
            target = np.repeat(place, count) + within
            input_ids[target] = tokens[np.repeat(starts[:-1], count) + within]
            place = place + count
            token_type_ids[target] = segment
            token_type_ids[place] = segment
            place = place + 1
        return Encoded(input_ids, token_type_ids, offsets)

    def _tokens(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        encodings = self._batch(self.backend.encode_batch_fast, texts)
        ids = [encoding.ids for encoding in encodings]
        offsets = np.cumsum([0, *map(len, ids)], dtype=np.int64)
        return np.fromiter(itertools.chain.from_iterable(ids), dtype=np.int32, count=offsets[-1]), offsets

    def places(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Token ids without special tokens, and where each token stands in its text.

        Returns:
            Ids [tokens] int32 of all texts, one after the other; the characters of each token [tokens, 2] int32, first
            and one after the last, with those that belong to them (see `graphemes.whole_places`); and [n + 1] int64,
            text i is at `offsets[i]:offsets[i + 1]`.
        """
        encodings = self._batch(self.backend.encode_batch, texts)
        offsets = np.cumsum([0, *map(len, encodings)], dtype=np.int64)
        ids, characters = np.empty(offsets[-1], dtype=np.int32), np.empty((offsets[-1], 2), dtype=np.int32)
        for text, encoding, start, end in zip(texts, encodings, offsets[:-1], offsets[1:], strict=True):
            if end > start:
                ids[start:end] = encoding.ids
                characters[start:end] = whole_places(text, np.array(encoding.offsets, dtype=np.int32))
        return ids, characters, offsets

    def _batch(self, encode: Callable, texts: Sequence[str]) -> list[tokenizers.Encoding]:
        """The library's encodings, or which of the texts it refuses."""
        try:
            return encode(list(texts), add_special_tokens=False)
        except BaseException as error:
            refused = _refused(error, "", "")
            for number, text in enumerate(texts):
                try:
                    encode([text], add_special_tokens=False)
                except BaseException as why:
                    raise _refused(why, f"text {number + 1}, {text!r:.60}, cannot be tokenised", "correct it") from why
            raise refused from error

    def special_id(self, token: str) -> int:
        """The id of [CLS], [SEP], [PAD] or [UNK], however this vocabulary spells them."""
        return self.backend.token_to_id(self.special[token])

    def _digest(self, texts: Sequence[str], pairs: Sequence[str] | None, max_len: int) -> str:
        digest = hashlib.sha256(f"{tokenizers.__version__} {max_len} ".encode())
        # Holds the post-processor, and with it the spelling of [CLS] and [SEP].
        digest.update(self.backend.to_str().encode())
        for column in (texts, pairs or ()):
            for text in column:
                data = text.encode()
                digest.update(b"%d:" % len(data))
                digest.update(data)
            digest.update(b"|")
        return digest.hexdigest()


def read_vocabulary(path: str | os.PathLike) -> list[str]:
    """The tokens of a `vocab.txt` in the order of their ids.

    Raises:
        UserError: an unreadable file.
    """
    return [line.rstrip("\r") for line in read_text(Path(path)).removesuffix("\n").split("\n")]


def _own_spelling(backend: tokenizers.Tokenizer) -> dict[str, str]:
    """The special tokens that a backend names itself, in its model, its padding and what it puts around texts."""
    found = {"[UNK]": getattr(backend.model, "unk_token", None), "[PAD]": (backend.padding or {}).get("pad_token")}
    processor = json.loads(backend.post_processor.__getstate__()) if backend.post_processor else {}
    if "cls" in processor:
        found |= {"[CLS]": processor["cls"][0], "[SEP]": processor["sep"][0]}
    around = [part["SpecialToken"]["id"] for part in processor.get("single", ()) if "SpecialToken" in part]
    if len(around) == 2:
        found |= dict(zip(("[CLS]", "[SEP]"), around, strict=True))
    return {token: spelling for token, spelling in found.items() if spelling}


def _add_tokens(backend: tokenizers.Tokenizer, added: Sequence[AddedToken], origin: str):
    for token in added:
        names = ("single_word", "lstrip", "rstrip", "normalized", "special")
        options = {name: getattr(token, name) for name in names}
        backend.add_tokens([tokenizers.AddedToken(token.content, **options)])
        found = backend.token_to_id(token.content)
        if token.index not in (None, found):
            raise UserError(f"{origin}: the added token {token.content!r} would have id {found}, and the files beside "
                            f"it say {token.index}; the vocabulary is not theirs")  # fmt: skip


def _refused(error: BaseException, what: str, remedy: str) -> UserError:
    """The error of the `tokenizers` library in a sentence; a panic of its Rust code is no `Exception`."""
    if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
        raise error
    return UserError(f"{what} ({' '.join(str(error).split())[:200]}); {remedy}")


def kept_lengths(lengths: list[np.ndarray], room: int) -> list[np.ndarray]:
    """How many tokens of each text are kept: of a pair the longer is cut first, then both alike.

    Args:
        lengths: tokens of the first texts, and of the second texts if there are any, each [n].
        room: most tokens of an example, special tokens aside.

    Returns:
        Tokens kept, as `lengths`. An odd token goes to the longer text, to the second of equals, as in the
        `tokenizers` library.
    """
    if len(lengths) == 1:
        return [np.minimum(lengths[0], room)]
    first, second = lengths
    short = np.minimum(np.minimum(first, second), room // 2)
    long = room - short
    fits = first + second <= room
    first_is_short = first <= second
    return [
        np.where(fits, first, np.where(first_is_short, short, long)),
        np.where(fits, second, np.where(first_is_short, long, short)),
    ]


def cache_folder() -> Path:
    """Where derived files are kept between runs: `gated_bert` in XDG_CACHE_HOME or ~/.cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "gated_bert"


def _read_cache(path: Path, rows: int, tokens: int) -> Encoded | None:
    try:
        encoded = Encoded(**read_npz(path))
    except (*DAMAGED, TypeError):
        return None
    arrays = (encoded.input_ids, encoded.token_type_ids, encoded.offsets)
    whole = all(array.ndim == 1 and array.dtype.kind == "i" for array in arrays) and len(encoded) == rows
    # A file of another's, whose places or ids lie outside, is made again.
    whole = whole and encoded.offsets[0] == 0 and (encoded.lengths >= 0).all()
    whole = whole and len(encoded.input_ids) == len(encoded.token_type_ids) == encoded.offsets[-1]
    return encoded if whole and _ids_below(encoded.input_ids, tokens) else None


def _ids_below(ids: np.ndarray, tokens: int) -> bool:
    return not len(ids) or (ids.min() >= 0 and ids.max() < tokens)


def _write_cache(path: Path, encoded: Encoded):
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(path)
        temporary = partial(path)
        try:
            with open(temporary, "wb") as file:
                np.savez(file, **{name: getattr(encoded, name) for name in ("input_ids", "token_type_ids", "offsets")})
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError:
        # The cache saves time only: a home folder that cannot be written to must not stop a run.
        return
