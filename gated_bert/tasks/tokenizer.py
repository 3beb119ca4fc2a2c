"""Which tokeniser a run uses."""

from __future__ import annotations

from pathlib import Path

from gated_bert.config import ConfigError, GatedBertConfig
from gated_bert.support.errors import UserError
from gated_bert.support.paths import user_path
from gated_bert.tasks.data import data_path
from gated_bert.tasks.module_folder import encoder_folder
from gated_bert.tasks.tokenizer_protocol import TokenizerProtocol
from gated_bert.tasks.tokenizer_rules import SETTING_FILES, say
from gated_bert.tasks.wordpiece import Tokenizer

BERT_ID = "google-bert/bert-base-uncased"


def load_tokenizer(config: GatedBertConfig, kind: type[TokenizerProtocol] = Tokenizer) -> TokenizerProtocol:
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
    folder: Path, name: str | None = None, kind: type[TokenizerProtocol] = Tokenizer
) -> TokenizerProtocol | None:
    """The tokeniser in a model's folder, of the first of the files of its kind; `None` where there is none of them.

    Args:
        folder: the folder; what its other files say about the tokeniser counts.
        name: what the model is called where the folder is not called so, as on the hub.
        kind: as for `load_tokenizer`.

    Raises:
        UserError: a malformed file.
    """
    folder = encoder_folder(folder)
    for file in kind.files:
        if (folder / file).is_file():
            return kind.read(folder / file, name)
    return None


def _choose(config: GatedBertConfig, kind: type[TokenizerProtocol]) -> TokenizerProtocol:
    if config.vocab is not None:
        path = user_path(config.vocab)
        found = tokenizer_from_folder(path, kind=kind) if path.is_dir() else None
        if found is None and not path.is_file():
            raise ConfigError("vocab", config.vocab, "an existing vocab.txt or tokenizer.json, or a folder with one")
        return found or kind.read(path)
    if config.pretrained is not None:
        return _pretrained_tokenizer(config.pretrained, kind)
    if config.data == "embedded":
        from gated_bert.tasks.embedded import embedded_vocabulary

        return Tokenizer.from_vocab(embedded_vocabulary())
    data = data_path(config)
    if data is not None:
        folder = data if data.is_dir() else data.parent
        for place in (folder, folder / "bert", folder.parent / "bert", folder.parent.parent / "bert"):
            tokenizer = tokenizer_from_folder(place, kind=kind)
            if tokenizer is not None:
                return tokenizer
    return _hub_tokenizer(BERT_ID, kind, "give --vocab FILE, or -pt FOLDER with a vocab.txt in it")


def _pretrained_tokenizer(pretrained: str, kind: type[TokenizerProtocol]) -> TokenizerProtocol:
    path = user_path(pretrained)
    # A TensorFlow checkpoint is named by a prefix that is no file: its folder decides.
    folder = path if path.is_dir() else path.parent
    if path.exists() or (len(path.parts) > 1 and list(folder.glob(path.name + "*"))):
        tokenizer = tokenizer_from_folder(folder, kind=kind)
        if tokenizer is None:
            raise UserError(f"{folder}: no {' or '.join(kind.files)} in it; put one there or give --vocab FILE")
        return tokenizer
    return _hub_tokenizer(pretrained, kind, "check the name, or give -pt FOLDER with a vocab.txt in it")


def _hub_tokenizer(name: str, kind: type[TokenizerProtocol], remedy: str) -> TokenizerProtocol:
    from gated_bert.tasks.hub import hub_file, hub_files_beside

    # The published small BERTs have a vocab.txt only.
    path = hub_file(name, kind.files, remedy)
    if path.name != "tokenizer.json":
        hub_files_beside(name, SETTING_FILES + ("merges.txt",) * (path.suffix == ".json"))
    return kind.read(path, name.rpartition("/")[2])
