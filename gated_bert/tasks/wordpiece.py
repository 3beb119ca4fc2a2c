"""BERT's WordPiece tokeniser."""

from __future__ import annotations

import functools
import itertools
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors

from gated_bert.support.errors import UserError
from gated_bert.support.records import read_record
from gated_bert.tasks.arrangement import (
    as_saved,
    own_spelling,
    read_template,
    refused,
    with_blank_before_words,
    without_spaces,
)
from gated_bert.tasks.encoded import REAL, Column, Encoded, Template, arrange, kept_lengths
from gated_bert.tasks.graphemes import whole_places
from gated_bert.tasks.token_cache import CACHED_FROM, cache_file, read_cache, write_cache
from gated_bert.tasks.tokenizer_protocol import Special
from gated_bert.tasks.tokenizer_rules import ROLES, AddedToken, WordPieceRules
from gated_bert.tasks.wordpiece_files import FILES, read_vocabulary, read_wordpiece

SPECIAL_TOKENS = tuple(ROLES)
MEANINGS = {"pad": "[PAD]", "unk": "[UNK]", "begin": "[CLS]", "separator": "[SEP]", "mask": "[MASK]"}
"""What a special token is for → BERT's spelling."""
MOST_TOKENS = 10_000_000


class Tokenizer:
    """BERT's tokeniser: WordPiece after the normalisation its backend does, or whatever its `tokenizer.json` holds.

    A file that puts other special tokens around texts than BERT, as `<s> text </s></s> text </s>`, is followed.

    Args:
        backend: a tokeniser of the `tokenizers` library that knows a padding, an unknown and the two separating tokens.
        origin: where it came from, for messages.
        special: BERT's spelling of a special token → this tokeniser's; by default as the backend has them.
        max_length: most tokens it was made for; None where that is not said.

    Raises:
        UserError: a special token is missing.
    """

    input_names: ClassVar[tuple[str, ...]] = ("input_ids", "token_type_ids")
    files: ClassVar[tuple[str, ...]] = FILES
    lenient: ClassVar[bool] = True
    spellings: ClassVar[Mapping[str, str]] = {}
    """BERT's spelling of a special token → the usual one of this class, where it is another."""

    def __init__(
        self,
        backend: tokenizers.Tokenizer,
        origin: str = "tokenizer",
        special: Mapping[str, str] | None = None,
        max_length: int | None = None,
    ):
        backend = as_saved(backend)
        # A tokenizer.json may carry the lengths its author trained with; here the length is an argument of encode.
        padding = backend.padding
        backend.no_truncation()
        backend.no_padding()
        found = read_template(backend, origin, self.lenient)
        self._own_template = None if found is None or self._is_usual(found) else found
        named = own_spelling(backend, found, padding)
        own = {**dict.fromkeys(SPECIAL_TOKENS), **self.spellings, **named, **(special or {})}
        self.special: dict[str, str] = {token: spelling or token for token, spelling in own.items()}
        for token, spelling in self.special.items():
            needed = token != "[MASK]" if self._own_template is None else token == "[PAD]"
            if needed and backend.token_to_id(spelling) is None:
                raise UserError(f"{origin}: token {spelling} is missing; a BERT vocabulary is needed")
        if max(backend.get_vocab().values()) >= MOST_TOKENS:
            raise UserError(f"{origin}: an id of {max(backend.get_vocab().values()):,}; allowed: below {MOST_TOKENS:,}")
        self.backend, self.origin, self.max_length = backend, origin, max_length
        if self._own_template is None:
            # What encode does, so that other tools do the same with the saved file.
            self.arrange_as_bert()

    def _is_usual(self, found: Template) -> bool:
        """Whether a file's arrangement is BERT's, whose tokens other files may spell otherwise."""
        return (len(found.begin), len(found.between), len(found.end), found.segment) == (1, 1, 1, 1)

    def _post_processor(self) -> processors.PostProcessor:
        """The usual template, as the library has it."""
        begin, separator = (self.special["[CLS]"], self._id("begin")), (self.special["[SEP]"], self._id("separator"))
        return processors.BertProcessing(separator, begin)

    def arrange_as_bert(self) -> None:
        """Puts two texts together as BERT does, whatever the file says."""
        self._own_template = None
        self.backend.post_processor = self._post_processor()

    @property
    def template(self) -> Template:
        """That of the file, else `[CLS] text [SEP]`, and `[CLS] text [SEP] text [SEP]`."""
        return self._own_template or self._usual_template()

    def _usual_template(self) -> Template:
        begin, separator = self._id("begin"), self._id("separator")
        return Template((begin,), (separator,), (separator,))

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
        if isinstance(vocabulary, str | os.PathLike):
            origin, tokens = str(vocabulary), read_vocabulary(vocabulary)
        else:
            origin, tokens = "vocabulary", list(vocabulary)
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
        add_tokens(backend, rules.added, origin)
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
            raise refused(error, f"{path}: not a tokenizer.json", remedy) from error
        return cls(backend, str(path), special, max_length)

    @classmethod
    def read(cls, path: Path, name: str | None = None) -> Tokenizer:
        """A tokeniser from a file of others; see `wordpiece_files.read_wordpiece`."""
        return read_wordpiece(path, name, cls)

    def save(self, path: str | os.PathLike) -> None:
        """Writes a `tokenizer.json` that `from_file` and other tools read."""
        if self.special["[PAD]"] != "[PAD]":
            # The only field of the format that names this token.
            self.backend.enable_padding(pad_id=self.special_id("pad"), pad_token=self.special["[PAD]"])
        # Not by the library, which takes no name that is not UTF-8.
        Path(path).write_bytes(self.backend.to_str(pretty=True).encode())
        self.backend.no_padding()

    def check_rows(self, rows: int) -> None:
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
        path = cache_file(f"{tokenizers.__version__} {max_len} {self.fingerprint}", texts, pairs)
        encoded = read_cache(path, len(texts), self.input_names, self.vocab_size, self._id("pad"))
        if encoded is None:
            encoded = self._encode(texts, pairs, max_len)
            write_cache(path, encoded)
        return encoded

    def _encode(self, texts: Sequence[str], pairs: Sequence[str] | None, max_len: int) -> Encoded:
        # The library's own truncation keeps every part it cuts off, and for a pair every combination of parts: a minute
        # for texts of ten thousand words. So the tokens are cut and joined here.
        cut = [self.token_ids(column) for column in (texts, pairs) if column is not None]
        kept = kept_lengths([np.diff(offsets) for _, offsets in cut], max_len - self.template.around(len(cut)))
        return self.join(*(Column(ids, starts[:-1], count) for (ids, starts), count in zip(cut, kept, strict=True)))

    def join(self, *columns: Column) -> Encoded:
        """Parts of texts with the special tokens around them; see `TokenizerProtocol`."""
        return arrange(columns, self.template, self.input_names, self._id("pad"))

    def token_ids(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Ids [tokens] int32 of all texts without special tokens, and [n + 1] int64, where each begins and ends."""
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
                places = without_spaces(text, np.array(encoding.offsets, dtype=np.int32))
                # Once more, since pieces at the end of a text have no character behind them to begin at.
                characters[start:end] = without_spaces(text, whole_places(text, places))
        return ids, characters, offsets

    def words(self, texts: Sequence[Sequence[str]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Token ids of texts that are cut into words already; see `TokenizerProtocol`."""
        encode = self.for_words.backend.encode_batch
        encodings = self._batch(encode, [list(words) for words in texts], is_pretokenized=True)
        offsets = np.cumsum([0, *map(len, encodings)], dtype=np.int64)
        ids, of_words = ([part for each in encodings for part in getattr(each, name)] for name in ("ids", "word_ids"))
        return np.array(ids, dtype=np.int32), np.array(of_words, dtype=np.int32), offsets

    @functools.cached_property
    def for_words(self) -> Tokenizer:
        """The tokeniser that cuts the first word of a text as one in its middle."""
        backend = with_blank_before_words(self.backend)
        return self if backend is self.backend else type(self)(backend, self.origin, self.special, self.max_length)

    def _batch(self, encode: Callable, texts: Sequence, **options: Any) -> list[tokenizers.Encoding]:
        """The library's encodings, or which of the texts it refuses."""
        try:
            return encode(list(texts), add_special_tokens=False, **options)
        except BaseException as error:
            whole = refused(error, "", "")
            for number, text in enumerate(texts):
                try:
                    encode([text], add_special_tokens=False, **options)
                except BaseException as why:
                    raise refused(why, f"text {number + 1}, {text!r:.60}, cannot be tokenised", "correct it") from why
            raise whole from error

    def special_id(self, special: Special) -> int | None:
        """The id of a special token, however this vocabulary spells it; None where it has none, as often of `mask`."""
        return self.backend.token_to_id(self.special[MEANINGS[special]])

    def _id(self, special: Special) -> int:
        """The same of a token that every vocabulary has, which `__init__` looks for."""
        found = self.special_id(special)
        if found is None:
            raise KeyError(special)
        return found

    @property
    def fingerprint(self) -> str:
        """All that decides how texts are encoded; the post-processor says how [CLS] and [SEP] are spelt."""
        return self.backend.to_str()

    def transformers_files(self, longest: int) -> dict[str, str]:
        """Name → content of the files that make transformers cut texts as `tokenizer.json` says, and those who read the
        vocabulary alone nearly so; `longest` is the model's longest input in tokens."""
        normalizer = self.backend.normalizer
        special = {name: self.special[token] for token, name in ROLES.items()}
        fields: dict[str, Any] = {
            name: token for name, token in special.items() if self.backend.token_to_id(token) is not None
        }
        if isinstance(normalizer, normalizers.BertNormalizer):
            fields |= {"do_lower_case": normalizer.lowercase, "strip_accents": normalizer.strip_accents,
                       "tokenize_chinese_chars": normalizer.handle_chinese_chars}  # fmt: skip
        settings = {
            # BertTokenizer would take the vocabulary alone from the file and build the rest by rules of its own.
            "tokenizer_class": "PreTrainedTokenizerFast",
            "model_max_length": min(longest, self.max_length or longest),
            "model_input_names": [*self.input_names, REAL],
            **fields,
        }
        files = {"tokenizer_config.json": json.dumps(settings, indent=2, ensure_ascii=False) + "\n"}
        if not isinstance(self.backend.model, models.WordPiece):
            return files
        tokens = {index: token for token, index in self.backend.get_vocab().items()}
        # Ids without a token get a name that no text holds.
        vocabulary = [tokens.get(index, f"[unused_{index}]") for index in range(self.vocab_size)]
        return files | {"vocab.txt": "\n".join(vocabulary) + "\n"}


def add_tokens(backend: tokenizers.Tokenizer, added: Sequence[AddedToken], origin: str) -> None:
    """Adds the tokens beside a vocabulary to a tokeniser of the library, whose ids go on where the vocabulary ends.

    Raises:
        UserError: a token whose id would be another than it is said to be.
    """
    for token in added:
        names = ("single_word", "lstrip", "rstrip", "normalized", "special")
        options = {name: getattr(token, name) for name in names}
        backend.add_tokens([tokenizers.AddedToken(token.content, **options)])
        found = backend.token_to_id(token.content)
        if token.index not in (None, found):
            raise UserError(f"{origin}: the added token {token.content!r} would have id {found}, and the files beside "
                            f"it say {token.index}; the vocabulary is not theirs")  # fmt: skip
