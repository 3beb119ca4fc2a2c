"""Folders of sentence-transformers: in which part of one the encoder and its tokeniser lie."""

from __future__ import annotations

from pathlib import Path

from gated_bert.support.errors import UserError
from gated_bert.support.records import read_record
from gated_bert.support.weight_schemas import SentenceModule, SentenceSettings
from gated_bert.tasks.tokenizer_rules import say

MODULES, SETTINGS = "modules.json", "config_sentence_transformers.json"
_REMEDY = "fetch it again"


def encoder_folder(folder: Path) -> Path:
    """The folder of the encoder: of sentence-transformers the part that `modules.json` names, else `folder`.

    Args:
        folder: a folder with pretrained weights.

    Raises:
        UserError: a malformed file, no encoder in it, or one outside the folder.
    """
    if not (folder / MODULES).is_file():
        return folder
    modules = read_record(folder / MODULES, list[SentenceModule], remedy=_REMEDY, file_names=False)
    paths = [each["path"] for each in modules if each["type"].rpartition(".")[2] == "Transformer"]
    if not paths:
        kinds = ", ".join(each["type"].rpartition(".")[2] for each in modules)
        raise UserError(f"{folder / MODULES}: its modules are {kinds or 'none'}; allowed: one of the type Transformer")
    found = folder / paths[0]
    try:
        inside = found.resolve().is_relative_to(folder.resolve()) and found.is_dir()
    except (OSError, ValueError):
        inside = False
    if not inside:
        raise UserError(f"{folder / MODULES}: {paths[0]!r:.80} is no folder in {folder}; {_REMEDY}")
    settings = read_record(folder / SETTINGS, SentenceSettings, tolerant=True) or {}
    if settings.get("default_prompt_name"):
        say(f"{folder}: its prompt {settings['default_prompt_name']!r:.60} is put before no text; write it into the "
            "data where it is wanted")  # fmt: skip
    return found
