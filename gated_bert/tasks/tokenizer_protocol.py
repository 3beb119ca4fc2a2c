"""What the toolkit asks of a tokeniser, whatever its kind."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Literal, Protocol

import numpy as np

from gated_bert.tasks.encoded import Column, Encoded, Template

Special = Literal["pad", "unk", "begin", "separator", "mask"]
"""What a special token is for, whatever a vocabulary calls it."""


class TokenizerProtocol(Protocol):
    """A tokeniser; `tasks.wordpiece.Tokenizer` is the one of BERT, and a family of models names its own.

    Attributes:
        files: where a folder of another tool holds such a tokeniser, the first that is there.
        origin: where it came from, for messages.
        max_length: most tokens it was made for; None where that is not said.
        input_names: inputs of the model that have a value for each token, `input_ids` first; `attention_mask`, which
            says what is padding, comes with the batches.
    """

    files: ClassVar[tuple[str, ...]]
    origin: str
    max_length: int | None
    input_names: ClassVar[tuple[str, ...]]

    @classmethod
    def read(cls, path: Path, name: str | None = None) -> TokenizerProtocol:
        """The tokeniser in one of `files` as other tools wrote it, by all that its folder says about it.

        Args:
            path: the file.
            name: what the model is called where the folder is not called so, as on the hub.
        """

    @classmethod
    def from_file(cls, path: str | os.PathLike) -> TokenizerProtocol:
        """The tokeniser that `save` wrote."""

    def save(self, path: str | os.PathLike) -> None:
        """Writes a `tokenizer.json` that `from_file` and other tools read."""

    def transformers_files(self, longest: int) -> dict[str, str]:
        """Name → content of the files that transformers reads; `longest` is the model's longest input in tokens."""

    @property
    def fingerprint(self) -> str:
        """A text that is another wherever texts would be encoded otherwise."""

    @property
    def vocab_size(self) -> int:
        """Rows that the token embedding needs: the highest id and one."""

    def check_rows(self, rows: int) -> None:
        """Refuses, by a `UserError`, a model whose token embedding has fewer rows."""

    @property
    def template(self) -> Template:
        """The special tokens around one text and around two."""

    def special_id(self, special: Special) -> int | None:
        """The id of a special token; None where the vocabulary has none for that."""

    def encode(
        self, texts: Sequence[str], pairs: Sequence[str] | None = None, max_len: int = 128, cached: bool = True
    ) -> Encoded:
        """Texts, or pairs of texts, with the special tokens around them, cut to `max_len` tokens.

        Args:
            texts: first texts.
            pairs: second texts, or `None`.
            max_len: most tokens of an example, special tokens included; of a pair the longer text is cut first.
            cached: whether many texts are looked up in the cache, and kept there.
        """

    def places(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Token ids without special tokens, and where each token stands in its text.

        Returns:
            Ids [tokens] int32 of all texts, one after the other; the characters of each token [tokens, 2] int32, first
            and one after the last; and [n + 1] int64, text i is at `offsets[i]:offsets[i + 1]`.
        """

    @property
    def for_words(self) -> TokenizerProtocol:
        """The tokeniser that cuts the first word of a text as one in its middle, which is how `words` cuts all."""

    def words(self, texts: Sequence[Sequence[str]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Token ids of texts that are cut into words already, each word as in the middle of a text.

        Returns:
            Ids [tokens] int32 without special tokens; which word of its text each token is of [tokens] int32; and
            [n + 1] int64, text i is at `offsets[i]:offsets[i + 1]`. A word may have no token.
        """

    def join(self, *columns: Column) -> Encoded:
        """Parts of texts that `places` cut, with the special tokens around them: windows of long texts.

        Args:
            *columns: parts of the first texts, and of the second ones if there are any.
        """
