"""BERT's tokeniser from the files of a folder: its `tokenizer.json` or `vocab.txt`, by all that lies beside it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import tokenizers
from tokenizers import models, normalizers

from gated_bert.support.errors import UserError
from gated_bert.tasks.text_lines import read_text
from gated_bert.tasks.tokenizer_rules import SETTINGS, max_length, read_rules, read_settings, say, special_tokens

if TYPE_CHECKING:
    from gated_bert.tasks.wordpiece import Tokenizer

FILES = ("tokenizer.json", "vocab.txt")
"""Where a folder holds its tokeniser, the first that is there."""


def read_wordpiece(path: Path, name: str | None, kind: type[Tokenizer]) -> Tokenizer:
    """The tokeniser in a `tokenizer.json` or of a `vocab.txt`, by all that its folder says about it.

    Args:
        path: the file; any that does not end in `.json` is a vocabulary.
        name: what the model is called where the folder is not called so, as on the hub.
        kind: the class to be made.

    Raises:
        UserError: a malformed file.
    """
    if path.suffix == ".json":
        return _from_json(path, kind)
    tokens = read_vocabulary(path)
    return _same_vocabulary(path, tokens, kind) or kind.from_vocab(path, read_rules(path, tokens, name))


def read_vocabulary(path: str | os.PathLike) -> list[str]:
    """The tokens of a `vocab.txt` in the order of their ids.

    Raises:
        UserError: an unreadable file.
    """
    return [line.rstrip("\r") for line in read_text(Path(path)).removesuffix("\n").split("\n")]


def _from_json(path: Path, kind: type[Tokenizer]) -> Tokenizer:
    # A file of another name, as beside an ONNX file, is not what the other files of its folder are about.
    if path.name != FILES[0]:
        return kind.from_file(path)
    settings = read_settings(path.parent)
    tokenizer = kind.from_file(path, special_tokens(settings), max_length(settings))
    if str(settings.get("tokenizer_class") or "Bert").startswith(("Bert", "DistilBert", "Electra")):
        _follow_settings(tokenizer.backend, settings, path)
        template, segments = tokenizer.template, len(kind.input_names) > 1
        shape = (len(template.begin), len(template.between), len(template.end), template.segment)
        if segments and shape == (1, 1, 1, 0) and isinstance(tokenizer.backend.model, models.WordPiece):
            say(f"{path}: its pair template marks no second segment; taken as BERT's, which does, as by transformers 5")
            tokenizer.arrange_as_bert()
    return tokenizer


def _follow_settings(backend: tokenizers.Tokenizer, settings: dict, path: Path):
    """Where the two files differ, transformers lets the settings count for tokenisers of BERT's class."""
    normalizer = backend.normalizer
    if not isinstance(normalizer, normalizers.BertNormalizer):
        return
    fields = {"do_lower_case": "lowercase", "strip_accents": "strip_accents",
              "tokenize_chinese_chars": "handle_chinese_chars"}  # fmt: skip
    for name, attribute in fields.items():
        if name in settings and settings[name] != getattr(normalizer, attribute):
            say(f"{path.parent / SETTINGS}: {name} {settings[name]} counts, as in transformers, though {path.name} has "
                f"{getattr(normalizer, attribute)}")  # fmt: skip
            setattr(normalizer, attribute, settings[name])
    backend.normalizer = normalizer


def _same_vocabulary(path: Path, tokens: list[str], kind: type[Tokenizer]) -> Tokenizer | None:
    """The `tokenizer.json` beside a vocabulary, where it is whole and holds the same pieces: it says all about them."""
    beside = path.with_name(FILES[0])
    if not beside.is_file():
        return None
    try:
        found = _from_json(beside, kind)
    except UserError:
        # Who names the vocabulary may do so because the other file is damaged.
        return None
    return found if found.backend.get_vocab() == {token: index for index, token in enumerate(tokens)} else None
