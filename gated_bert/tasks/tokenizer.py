"""Which tokeniser a run uses."""

from __future__ import annotations

from pathlib import Path

import tokenizers
from tokenizers import normalizers

from gated_bert.config import ConfigError, GatedBertConfig
from gated_bert.support.errors import UserError
from gated_bert.support.paths import user_path
from gated_bert.tasks.data import data_path
from gated_bert.tasks.tokenizer_rules import (
    SETTING_FILES,
    SETTINGS,
    max_length,
    read_rules,
    read_settings,
    say,
    special_tokens,
)
from gated_bert.tasks.wordpiece import Tokenizer, read_vocabulary

BERT_ID = "google-bert/bert-base-uncased"
FILES = ("tokenizer.json", "vocab.txt")
"""Where a folder holds its tokeniser, the first that is there."""


def load_tokenizer(config: GatedBertConfig, kind: type[Tokenizer] = Tokenizer) -> Tokenizer:
    """The tokeniser of a run.

    Args:
        config: the run.
        kind: the class that the family of its model has.

    The first that applies: `config.vocab`; the pretrained model's; the embedded vocabulary; `bert/vocab.txt` (or
    `vocab.txt`) in or beside the data folder; BERT's own from the hub.

    Raises:
        ConfigError: `vocab` does not exist, or `vocab_size` is below the size of the vocabulary.
        UserError: a malformed file, a pretrained folder without a tokeniser, or no network.
    """
    tokenizer = _choose(config, kind)
    if config.vocab_size is not None and config.vocab_size < tokenizer.vocab_size:
        allowed = f"at least the {tokenizer.vocab_size} tokens of the vocabulary"
        raise ConfigError("vocab_size", config.vocab_size, allowed)
    if tokenizer.max_length is not None and config.max_len > tokenizer.max_length:
        say(f"max_len is {config.max_len}, and the tokeniser was made for texts of {tokenizer.max_length} tokens "
            "(model_max_length)")  # fmt: skip
    return tokenizer


def tokenizer_from_folder(
    folder: Path, name: str | None = None, kind: type[Tokenizer] = Tokenizer
) -> Tokenizer | None:
    """The tokeniser in a model's folder, from `tokenizer.json` or `vocab.txt`; `None` where there is neither.

    Args:
        folder: the folder; what its other files say about the tokeniser counts.
        name: what the model is called where the folder is not called so, as on the hub.
        kind: as for `load_tokenizer`.

    Raises:
        UserError: a malformed file.
    """
    for file in FILES:
        if (folder / file).is_file():
            return tokenizer_from_path(folder / file, name, kind)
    return None


def tokenizer_from_path(path: Path, name: str | None = None, kind: type[Tokenizer] = Tokenizer) -> Tokenizer:
    """The tokeniser in a `tokenizer.json` or of a `vocab.txt`, by all that its folder says about it.

    Args:
        path: the file; any that does not end in `.json` is a vocabulary.
        name: as for `tokenizer_from_folder`.
        kind: as for `load_tokenizer`.

    Raises:
        UserError: a malformed file.
    """
    if path.suffix == ".json":
        return _from_json(path, kind)
    tokens = read_vocabulary(path)
    return _same_vocabulary(path, tokens, kind) or kind.from_vocab(path, read_rules(path, tokens, name))


def _from_json(path: Path, kind: type[Tokenizer]) -> Tokenizer:
    # A file of another name, as beside an ONNX file, is not what the other files of its folder are about.
    if path.name != FILES[0]:
        return kind.from_file(path)
    settings = read_settings(path.parent)
    tokenizer = kind.from_file(path, special_tokens(settings), max_length(settings))
    if str(settings.get("tokenizer_class") or "Bert").startswith("Bert"):
        _follow_settings(tokenizer.backend, settings, path)
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


def _choose(config: GatedBertConfig, kind: type[Tokenizer]) -> Tokenizer:
    if config.vocab is not None:
        path = user_path(config.vocab)
        found = tokenizer_from_folder(path, kind=kind) if path.is_dir() else None
        if found is None and not path.is_file():
            raise ConfigError("vocab", config.vocab, "an existing vocab.txt or tokenizer.json, or a folder with one")
        return found or tokenizer_from_path(path, kind=kind)
    if config.pretrained is not None:
        return _pretrained_tokenizer(config.pretrained, kind)
    if config.data == "embedded":
        from gated_bert.tasks.embedded import embedded_vocabulary

        return kind.from_vocab(embedded_vocabulary())
    data = data_path(config)
    if data is not None:
        folder = data if data.is_dir() else data.parent
        for place in (folder, folder / "bert", folder.parent / "bert", folder.parent.parent / "bert"):
            tokenizer = tokenizer_from_folder(place, kind=kind)
            if tokenizer is not None:
                return tokenizer
    return _hub_tokenizer(BERT_ID, kind, "give --vocab FILE, or -pt FOLDER with a vocab.txt in it")


def _pretrained_tokenizer(pretrained: str, kind: type[Tokenizer]) -> Tokenizer:
    path = user_path(pretrained)
    # A TensorFlow checkpoint is named by a prefix that is no file: its folder decides.
    folder = path if path.is_dir() else path.parent
    if path.exists() or (len(path.parts) > 1 and list(folder.glob(path.name + "*"))):
        tokenizer = tokenizer_from_folder(folder, kind=kind)
        if tokenizer is None:
            raise UserError(f"{folder}: no tokenizer.json or vocab.txt in it; put one there or give --vocab FILE")
        return tokenizer
    return _hub_tokenizer(pretrained, kind, "check the name, or give -pt FOLDER with a vocab.txt in it")


def _hub_tokenizer(name: str, kind: type[Tokenizer], remedy: str) -> Tokenizer:
    from gated_bert.tasks.hub import hub_file, hub_files_beside

    # The published small BERTs have a vocab.txt only.
    path = hub_file(name, FILES, remedy)
    if path.suffix != ".json":
        hub_files_beside(name, SETTING_FILES)
    return tokenizer_from_path(path, name.rpartition("/")[2], kind)
