"""Tokenisers of families without segments, as their `tokenizer.json` has them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import tokenizers
from tokenizers import decoders, models, pre_tokenizers, processors

from gated_bert.support.errors import UserError
from gated_bert.tasks.arrangement import refused
from gated_bert.tasks.encoded import Template
from gated_bert.tasks.tokenizer_rules import added_tokens, max_length, read_settings, special_tokens
from gated_bert.tasks.wordpiece import Tokenizer, add_tokens


class PlainTokenizer(Tokenizer):
    """BERT's tokeniser for models without segments; arguments as of `Tokenizer`."""

    input_names: ClassVar[tuple[str, ...]] = ("input_ids",)


class RobertaTokenizer(Tokenizer):
    """The tokeniser of RoBERTa and XLM-R, whatever its model is; arguments as of `Tokenizer`.

    From a `tokenizer.json`, or byte-level BPE from `vocab.json` and `merges.txt`.
    """

    lenient: ClassVar[bool] = False
    input_names: ClassVar[tuple[str, ...]] = ("input_ids",)
    files: ClassVar[tuple[str, ...]] = ("tokenizer.json", "vocab.json", "vocab.txt")
    spellings: ClassVar[Mapping[str, str]] = {
        "[PAD]": "<pad>", "[UNK]": "<unk>", "[CLS]": "<s>", "[SEP]": "</s>", "[MASK]": "<mask>",
    }  # fmt: skip

    def _is_usual(self, found: Template) -> bool:
        return False

    def _usual_template(self) -> Template:
        begin, separator = self._id("begin"), self._id("separator")
        return Template((begin,), (separator, separator), (separator,), 0)

    def _post_processor(self) -> processors.PostProcessor:
        begin, end = self.special["[CLS]"], self.special["[SEP]"]
        return processors.TemplateProcessing(
            single=[begin, "$A", end], pair=[begin, "$A", end, end, "$B:0", f"{end}:0"],
            special_tokens=[(begin, self._id("begin")), (end, self._id("separator"))],
        )  # fmt: skip

    @classmethod
    def read(cls, path: Path, name: str | None = None) -> Tokenizer:
        """A tokeniser from a file of others, by all that its folder says about it.

        Raises:
            UserError: a malformed file, or `vocab.json` without its `merges.txt`.
        """
        if path.name != "vocab.json":
            return super().read(path, name)
        merges = path.with_name("merges.txt")
        if not merges.is_file():
            raise UserError(f"{path.parent}: no merges.txt beside vocab.json; put it there, or its tokenizer.json")
        settings = read_settings(path.parent)
        try:
            backend = tokenizers.Tokenizer(models.BPE.from_file(str(path), str(merges)))
        except BaseException as error:
            raise refused(error, f"{path}: no vocabulary of byte pairs", "fetch it again") from error
        blank = bool(settings.get("add_prefix_space"))
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=blank)
        backend.decoder = decoders.ByteLevel()
        special = {**cls.spellings, **special_tokens(settings)}
        known = [token for token in special.values() if backend.token_to_id(token) is not None]
        mask = special["[MASK]"]
        backend.add_special_tokens([tokenizers.AddedToken(token, lstrip=token == mask) for token in known])
        added = added_tokens(settings, backend.get_vocab(), special.values())
        add_tokens(backend, [replace(token, lstrip=True) if token.content == mask else token for token in added],
                   str(path))  # fmt: skip
        tokenizer = cls(backend, str(path), special, max_length(settings))
        begin, end = (special["[CLS]"], tokenizer._id("begin")), (special["[SEP]"], tokenizer._id("separator"))
        # Also trims the places of pieces, which begin with blanks.
        backend.post_processor = processors.RobertaProcessing(end, begin, trim_offsets=True, add_prefix_space=blank)
        return tokenizer
