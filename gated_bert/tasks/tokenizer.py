"""Which tokeniser a run uses."""

from __future__ import annotations

from pathlib import Path

from gated_bert.config import ConfigError, GatedBertConfig
from gated_bert.errors import UserError
from gated_bert.records import read_record
from gated_bert.schemas import TokenizerConfig
from gated_bert.tasks.data import data_path
from gated_bert.tasks.wordpiece import Encoded, Tokenizer

__all__ = ["Encoded", "Tokenizer", "load_tokenizer", "tokenizer_from_folder"]

BERT_ID = "google-bert/bert-base-uncased"


def load_tokenizer(config: GatedBertConfig) -> Tokenizer:
    """The tokeniser of a run.

    The first that applies: `config.vocab`; the pretrained model's; the embedded vocabulary; `bert/vocab.txt` (or
    `vocab.txt`) in or beside the data folder; BERT's own from the hub.

    Raises:
        ConfigError: `vocab` does not exist, or `vocab_size` is below the size of the vocabulary.
        UserError: a malformed file, a pretrained folder without a tokeniser, or no network.
    """
    tokenizer = _choose(config)
    if config.vocab_size is not None and config.vocab_size < tokenizer.vocab_size:
        allowed = f"at least the {tokenizer.vocab_size} tokens of the vocabulary"
        raise ConfigError("vocab_size", config.vocab_size, allowed)
    return tokenizer


def tokenizer_from_folder(folder: Path) -> Tokenizer | None:
    """The tokeniser in a model's folder, from `tokenizer.json` or `vocab.txt`; `None` where there is neither."""
    if (folder / "tokenizer.json").is_file():
        return Tokenizer.from_file(folder / "tokenizer.json")
    if not (folder / "vocab.txt").is_file():
        return None
    settings = folder / "tokenizer_config.json"
    found = read_record(settings, TokenizerConfig, remedy="fetch it again or remove it") if settings.is_file() else {}
    return Tokenizer.from_vocab(folder / "vocab.txt", lowercase=found.get("do_lower_case", True) is not False)


def _choose(config: GatedBertConfig) -> Tokenizer:
    if config.vocab is not None:
        path = Path(config.vocab).expanduser()
        if not path.is_file():
            raise ConfigError("vocab", config.vocab, "an existing vocab.txt or tokenizer.json")
        return Tokenizer.from_file(path) if path.suffix == ".json" else Tokenizer.from_vocab(path)
    if config.pretrained is not None:
        return _pretrained_tokenizer(config.pretrained)
    if config.data == "embedded":
        from gated_bert.tasks.embedded import embedded_vocabulary

        return Tokenizer.from_vocab(embedded_vocabulary())
    path = data_path(config)
    if path is not None:
        folder = path if path.is_dir() else path.parent
        for place in (folder, folder / "bert", folder.parent / "bert", folder.parent.parent / "bert"):
            tokenizer = tokenizer_from_folder(place)
            if tokenizer is not None:
                return tokenizer
    return _hub_tokenizer(BERT_ID, "give --vocab FILE, or -pt FOLDER with a vocab.txt in it")


def _pretrained_tokenizer(pretrained: str) -> Tokenizer:
    path = Path(pretrained).expanduser()
    # A TensorFlow checkpoint is named by a prefix that is no file: its folder decides.
    folder = path if path.is_dir() else path.parent
    if path.exists() or (len(path.parts) > 1 and list(folder.glob(path.name + "*"))):
        tokenizer = tokenizer_from_folder(folder)
        if tokenizer is None:
            raise UserError(f"{folder}: no tokenizer.json or vocab.txt in it; put one there or give --vocab FILE")
        return tokenizer
    return _hub_tokenizer(pretrained, "check the name, or give -pt FOLDER with a vocab.txt in it")


def _hub_tokenizer(name: str, remedy: str) -> Tokenizer:
    from gated_bert.tasks.hub import hub_file

    # The published small BERTs have a vocab.txt only.
    path = hub_file(name, ("tokenizer.json", "vocab.txt"), remedy)
    return Tokenizer.from_file(path) if path.suffix == ".json" else Tokenizer.from_vocab(path)
