"""The command line of `gated-bert trim-vocabulary`."""

from __future__ import annotations

from gated_bert.cli.common import prepare_environment, two_folders
from gated_bert.config.flag_table import Flag
from gated_bert.support.checks import FlagError
from gated_bert.support.errors import UserError
from gated_bert.support.paths import user_path
from gated_bert.tasks.data_source import find_data

_GROUP = "corpus"


def trim_vocabulary_command(words: list[str]) -> int:
    """`gated-bert trim-vocabulary`: a model without the tokens that a corpus never uses."""
    flags = (
        Flag(("--texts",), "texts", "files", "a .tsv, .csv, .jsonl or .txt file of texts (one a line); may come again",
             _GROUP, "FILE"),
        Flag(("-d", "--data"), "data", "text", "training and development texts of the model's task: hub, embedded, a "
             "folder or a file", _GROUP, "SOURCE"),
        Flag(("--allow-partial",), "allow_partial", "alone", "take *_partial files", _GROUP),
        Flag(("--text-column",), "text_column", "text", "column of the text; by default by usual names", _GROUP,
             "NAME"),
        Flag(("--text-pair-column",), "text_pair_column", "text", "column of the second text", _GROUP, "NAME"),
    )  # fmt: skip
    text = "Leaves out of the embedding, and of the tokeniser, the tokens that none of some texts needs."
    source, out, typed = two_folders("trim-vocabulary", text, flags, words)
    if "texts" not in typed and "data" not in typed:
        raise FlagError("trim-vocabulary: needs texts; name files with --texts, or the data of the task with -d")
    if "texts" not in typed:
        given = [flag.label for flag in flags[3:] if flag.name in typed]
        if given:
            raise FlagError(f"{given[0]}: only with --texts, of whose files it names a column")
    if "data" not in typed and typed.get("allow_partial"):
        raise FlagError("--allow-partial: only with -d, whose files it is about")
    files = [user_path(str(file)) for file in typed.get("texts", ())]
    for file in files:
        if not file.is_file():
            raise UserError(f"--texts: {file}: no such file; give a .tsv, .csv, .jsonl or .txt file of texts")
    if "data" in typed:
        find_data(typed["data"], "-d/--data")
    prepare_environment()
    from gated_bert.compression.vocabulary import Corpus, trim_folder

    columns = {name: typed.get(name) for name in ("text_column", "text_pair_column")}
    trim_folder(source, out, Corpus(files, columns, typed.get("data"), bool(typed.get("allow_partial"))))
    return 0
