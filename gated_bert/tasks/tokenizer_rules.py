"""How a vocabulary's text is cut into pieces, as the files of its folder say it or its name and its pieces show it."""

from __future__ import annotations

import functools
import logging
import re
import sys
import unicodedata
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from gated_bert.support.errors import UserError
from gated_bert.support.records import read_record
from gated_bert.support.schemas import TokenizerClass, TokenizerConfig

LOGGER = logging.getLogger("gated_bert")

ROLES = {"[PAD]": "pad_token", "[UNK]": "unk_token", "[CLS]": "cls_token", "[SEP]": "sep_token", "[MASK]": "mask_token"}
"""BERT's spelling of each special token → the field that may spell it otherwise."""

CLASSES = ("Bert", "DistilBert", "Electra", "MobileBert", "PreTrained", "TokenizersBackend")
"""Starts of the classes of transformers that cut text by BERT's rules, or say nothing about them."""

SETTING_FILES = SETTINGS, SPECIAL, ADDED = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
"""Where the folder of a vocabulary says how it is used."""
CLEAR_SHARE = 0.01
"""Share of the pieces with letters that shows a vocabulary's case: real uncased vocabularies hold no such piece."""

_FLAGS = ("do_lower_case", "tokenize_chinese_chars", "clean_text", "do_basic_tokenize")
_GOOGLE_LOWER = re.compile(r"uncased|^(multilingual|chinese)_l-\d+_")
_GOOGLE_CASED = re.compile(r"(^|[^a-z])cased([^a-z]|$)")


@dataclass(frozen=True)
class AddedToken:
    """A token that is looked for before a text is cut, as `added_tokens_decoder` has it."""

    content: str
    index: int | None = None
    special: bool = False
    single_word: bool = False
    lstrip: bool = False
    rstrip: bool = False
    normalized: bool = False


@dataclass(frozen=True)
class WordPieceRules:
    """What a `vocab.txt` does not say; the defaults are those of BERT, lower case.

    Attributes:
        lowercase: whether texts are lower-cased.
        strip_accents: whether accents are removed; None for with lower case only.
        chinese_chars: whether each Chinese character is a word.
        clean_text: whether control characters are removed, and any space is a blank.
        basic: whether texts are changed and split at punctuation at all, rather than at spaces only.
        prefix: what pieces inside a word begin with.
        special: BERT's spelling of a special token → this vocabulary's, where it is another.
        added: tokens that are looked for first.
        max_length: most tokens the tokeniser was made for; None where that is not said.
    """

    lowercase: bool = True
    strip_accents: bool | None = None
    chinese_chars: bool = True
    clean_text: bool = True
    basic: bool = True
    prefix: str = "##"
    special: Mapping[str, str] = field(default_factory=dict)
    added: tuple[AddedToken, ...] = ()
    max_length: int | None = None


def read_rules(vocabulary: Path, tokens: Sequence[str], name: str | None = None) -> WordPieceRules:
    """The rules of a vocabulary: of the files beside it, else of its folder's name, else as its pieces show them.

    What was not written down is said in one line.

    Args:
        vocabulary: the `vocab.txt`.
        tokens: what it holds.
        name: what the model is called where the folder is not called so, as on the hub.

    Raises:
        UserError: a malformed file beside it, or a tokeniser that does more than BERT's.
    """
    folder = vocabulary.parent
    settings = read_settings(folder)
    kind = settings.get("tokenizer_class")
    if kind is not None and not str(kind).startswith(CLASSES) or str(kind).startswith("BertJapanese"):
        raise UserError(f"{folder / SETTINGS}: tokenizer_class {kind!r} cuts texts by other rules than BERT's, and "
                        f"{vocabulary.name} alone does not hold them; put its tokenizer.json there")  # fmt: skip
    lowercase, strip_accents = settings.get("do_lower_case"), settings.get("strip_accents")
    if lowercase is None and settings.get("do_basic_tokenize", True):
        names = (name,) if name else (folder_name(folder.absolute()), folder_name(folder.resolve()))
        lowercase, shown = _case(names, tokens)
        if lowercase and "strip_accents" not in settings and _share(tokens, _without_accents) >= CLEAR_SHARE:
            strip_accents = False
            shown += "; accents are kept, as its pieces have some"
        say(f"{vocabulary}: no file beside it says its case; taken as {shown}")
    return WordPieceRules(
        lowercase=bool(lowercase),
        strip_accents=strip_accents,
        chinese_chars=settings.get("tokenize_chinese_chars", True),
        clean_text=settings.get("clean_text", True),
        basic=settings.get("do_basic_tokenize", True),
        prefix=settings.get("wordpieces_prefix", "##"),
        special=special_tokens(settings),
        added=(*added_tokens(settings, tokens), *_never_split(settings, tokens, folder)),
        max_length=max_length(settings),
    )


def read_settings(folder: Path) -> dict:
    """What the files of a folder say about its tokeniser, under the names of `tokenizer_config.json`.

    Raises:
        UserError: a malformed file, or a value of another kind.
    """
    settings = _read(folder / SETTINGS, TokenizerConfig)
    for index in settings.get("added_tokens_decoder") or ():
        if not re.fullmatch("[0-9]{1,9}", index):
            raise UserError(f"{folder / SETTINGS}: added_tokens_decoder has {index!r:.60}; allowed: ids, from 0 up")
    for name, value in _read(folder / SPECIAL, TokenizerConfig).items():
        settings.setdefault(name, value)
    for name in ("config.json", "bert_config.json"):
        model = _read(folder / name, TokenizerClass)
        for key in ("do_lower_case", "tokenizer_class"):
            if model.get(key) is not None:
                settings.setdefault(key, model[key])
    settings["added_tokens"] = _read(folder / ADDED, dict[str, int])
    for name in _FLAGS:
        if settings.get(name) is None:
            settings.pop(name, None)
    return settings


def special_tokens(settings: Mapping) -> dict[str, str]:
    """BERT's spelling of each special token whose spelling is given → that spelling."""
    given = {token: settings.get(name) for token, name in ROLES.items()}
    return {token: _content(value) for token, value in given.items() if value is not None}


def max_length(settings: Mapping) -> int | None:
    """The length a tokeniser was made for; transformers writes 1e30 where there is none."""
    value = settings.get("model_max_length")
    return int(value) if isinstance(value, int | float) and 0 < value < 1e9 else None


def folder_name(folder: Path) -> str:
    """What a folder is called; one of the hub's cache by its model."""
    return folder.parents[1].name if folder.parent.name == "snapshots" else folder.name


def say(sentence: str) -> None:
    """Logs a sentence, and prints it once for this process."""
    LOGGER.info("%s", sentence)
    _print_once(sentence)


@functools.cache
def _print_once(sentence: str):
    print(f"note: {sentence}", file=sys.stderr)


def _read(path: Path, schema: object) -> dict:
    return read_record(path, schema, remedy="fetch it again or remove it", file_names=False) if path.is_file() else {}


def _case(names: Sequence[str], tokens: Sequence[str]) -> tuple[bool, str]:
    """Whether texts are lower-cased, as Google's own tools see it by the folder's name, and how that was found."""
    for name in names:
        if _GOOGLE_LOWER.search(name.lower()):
            return True, f"lower case, by the name {name}"
        if _GOOGLE_CASED.search(name.lower()):
            return False, f"cased, by the name {name}"
    if _share(tokens, str.lower) >= CLEAR_SHARE:
        return False, "cased, as its pieces hold upper case"
    return True, "lower case, as its pieces are"


def _share(tokens: Sequence[str], change) -> float:
    """Share of the pieces with letters that no text would have after `change`."""
    pieces = [token for token in tokens if any(map(str.isalpha, token)) and not re.fullmatch(r"\[.*\]|<.*>", token)]
    return sum(change(piece) != piece for piece in pieces) / max(1, len(pieces))


def _without_accents(text: str) -> str:
    return "".join(each for each in unicodedata.normalize("NFD", text) if unicodedata.category(each) != "Mn")


def _content(value) -> str:
    return str(value["content"] if isinstance(value, dict) else value)


def added_tokens(
    settings: Mapping, vocabulary: Container[str], names: Iterable[str] = ROLES
) -> tuple[AddedToken, ...]:
    """The tokens beside a vocabulary, in the order of their ids, and those that are special by name.

    Args:
        settings: what `read_settings` found.
        vocabulary: its pieces; a special token that is none of them stands beside it.
        names: the usual spellings of special tokens.
    """
    extra = settings.get("additional_special_tokens") or settings.get("extra_special_tokens") or ()
    extra = [_content(value) for value in (extra.values() if isinstance(extra, dict) else extra)]
    named = {*names, *special_tokens(settings).values()}
    given = {str(index): {"content": content, "special": content in named or content in extra}
             for content, index in settings["added_tokens"].items()}  # fmt: skip
    found = {}
    # As transformers has it: the newer of the two counts alone, and only special tokens are looked for in a text as it
    # was typed.
    for index, value in (settings.get("added_tokens_decoder") or given).items():
        options = {"normalized": not value.get("special", False)} | value
        found[_content(value)] = AddedToken(_content(value), int(index), **{name: bool(options.get(name)) for name in (
            "special", "single_word", "lstrip", "rstrip", "normalized")})  # fmt: skip
    for content in extra:
        found.setdefault(content, AddedToken(content, special=True))
    rest = [token for content, token in found.items() if content not in named or content not in vocabulary]
    return tuple(sorted(rest, key=lambda token: sys.maxsize if token.index is None else token.index))


def _never_split(settings: Mapping, tokens: Sequence[str], folder: Path) -> tuple[AddedToken, ...]:
    words, known = settings.get("never_split") or (), set(tokens)
    unknown = [word for word in words if word not in known and word not in ROLES]
    if unknown:
        say(f"{folder / SETTINGS}: never_split {unknown[0]!r} is not in the vocabulary; it is cut as other text is")
    return tuple(AddedToken(word, single_word=True) for word in words if word in known and word not in ROLES)
