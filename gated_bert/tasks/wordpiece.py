"""BERT's uncased WordPiece tokeniser, with a cache of what was tokenised."""

from __future__ import annotations

import hashlib
import itertools
import os
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tokenizers
from tokenizers import models, normalizers, pre_tokenizers, processors

from gated_bert.errors import UserError
from gated_bert.partial import partial, remove_leftovers
from gated_bert.tasks.tables import read_text

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
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
    """BERT's tokeniser: lower case, accents stripped, WordPiece.

    Args:
        backend: a tokeniser of the `tokenizers` library that knows [PAD], [UNK], [CLS] and [SEP].
        origin: where it came from, for messages.

    Raises:
        UserError: a special token is missing.
    """

    def __init__(self, backend: tokenizers.Tokenizer, origin: str = "tokenizer"):
        for token in SPECIAL_TOKENS[:4]:
            if backend.token_to_id(token) is None:
                raise UserError(f"{origin}: token {token} is missing; a BERT vocabulary is needed")
        # A tokenizer.json may carry the lengths its author trained with; here the length is an argument of encode.
        backend.no_truncation()
        backend.no_padding()
        self.backend = backend

    @classmethod
    def from_vocab(cls, vocabulary: str | os.PathLike | Sequence[str], lowercase: bool = True) -> Tokenizer:
        """A tokeniser from a `vocab.txt` or from the list of its tokens in the order of their ids.

        Raises:
            UserError: an unreadable file, a repeated or a missing token.
        """
        if isinstance(vocabulary, str | os.PathLike):
            origin = str(vocabulary)
            tokens = [line.rstrip("\r") for line in read_text(Path(vocabulary)).removesuffix("\n").split("\n")]
        else:
            origin, tokens = "vocabulary", list(vocabulary)
        ids = {token: index for index, token in enumerate(tokens)}
        if len(ids) != len(tokens):
            line = next(index for index, token in enumerate(tokens) if ids[token] != index) + 1
            raise UserError(f"{origin}, line {line}: token {tokens[line - 1]!r} appears again; keep one line per token")
        for token in SPECIAL_TOKENS[:4]:
            if token not in ids:
                raise UserError(f"{origin}: token {token} is missing; a BERT vocabulary is needed")
        backend = tokenizers.Tokenizer(models.WordPiece(ids, unk_token="[UNK]", max_input_chars_per_word=100))
        backend.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
        backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        backend.post_processor = processors.BertProcessing(("[SEP]", ids["[SEP]"]), ("[CLS]", ids["[CLS]"]))
        backend.add_special_tokens([token for token in SPECIAL_TOKENS if token in ids])
        return cls(backend, origin)

    @classmethod
    def from_file(cls, path: str | os.PathLike) -> Tokenizer:
        """A tokeniser from a `tokenizer.json`.

        Raises:
            UserError: a missing or malformed file.
        """
        text = read_text(Path(path))
        try:
            backend = tokenizers.Tokenizer.from_str(text)
        # The library raises nothing narrower for text that is no tokeniser.
        except Exception as error:
            raise UserError(f"{path}: not a tokenizer.json ({error}); fetch it again or give --vocab FILE") from error
        return cls(backend, str(path))

    def save(self, path: str | os.PathLike):
        """Writes a `tokenizer.json` that `from_file` and other tools read."""
        self.backend.save(str(path))

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
        encoded = _read_cache(path, len(texts))
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
        input_ids = np.full(offsets[-1], self.backend.token_to_id("[SEP]"), dtype=np.int32)
        token_type_ids = np.zeros(offsets[-1], dtype=np.int32)
        input_ids[offsets[:-1]] = self.backend.token_to_id("[CLS]")
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
        encodings = self.backend.encode_batch_fast(list(texts), add_special_tokens=False)
        ids = [encoding.ids for encoding in encodings]
        offsets = np.cumsum([0, *map(len, ids)], dtype=np.int64)
        return np.fromiter(itertools.chain.from_iterable(ids), dtype=np.int32, count=offsets[-1]), offsets

    def places(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Token ids without special tokens, and where each token stands in its text.

        Returns:
            Ids [tokens] int32 of all texts, one after the other; the characters of each token [tokens, 2] int32, first
            and one after the last; and [n + 1] int64, text i is at `offsets[i]:offsets[i + 1]`.
        """
        encodings = self.backend.encode_batch(list(texts), add_special_tokens=False)
        offsets = np.cumsum([0, *map(len, encodings)], dtype=np.int64)
        ids, characters = np.empty(offsets[-1], dtype=np.int32), np.empty((offsets[-1], 2), dtype=np.int32)
        for encoding, start, end in zip(encodings, offsets[:-1], offsets[1:], strict=True):
            if end > start:
                ids[start:end], characters[start:end] = encoding.ids, encoding.offsets
        return ids, characters, offsets

    def special_id(self, token: str) -> int:
        """The id of [CLS], [SEP], [PAD] or [UNK]."""
        return self.backend.token_to_id(token)

    def _digest(self, texts: Sequence[str], pairs: Sequence[str] | None, max_len: int) -> str:
        digest = hashlib.sha256(f"{tokenizers.__version__} {max_len} ".encode())
        digest.update(self.backend.to_str().encode())
        for column in (texts, pairs or ()):
            for text in column:
                data = text.encode()
                digest.update(b"%d:" % len(data))
                digest.update(data)
            digest.update(b"|")
        return digest.hexdigest()


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


def _read_cache(path: Path, rows: int) -> Encoded | None:
    try:
        with np.load(path) as arrays:
            encoded = Encoded(arrays["input_ids"], arrays["token_type_ids"], arrays["offsets"])
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
    whole = len(encoded) == rows and len(encoded.input_ids) == len(encoded.token_type_ids) == encoded.offsets[-1]
    return encoded if whole else None


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
