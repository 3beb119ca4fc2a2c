"""Sub-commands that explain predictions: `explain` and `sp-lime`."""

from __future__ import annotations

from pathlib import Path

from gated_bert.cli.common import prepare_environment, typed_flags
from gated_bert.cli.positionals import split_words
from gated_bert.compression.preconditions import check_model
from gated_bert.config.flag_table import Flag
from gated_bert.support.checks import FlagError
from gated_bert.support.errors import UserError
from gated_bert.support.lock import LOCK
from gated_bert.support.partial import remove_leftovers_in
from gated_bert.support.paths import user_path
from gated_bert.tasks.data_source import find_data

_WHAT, _HOW, _OUT = "documents", "explanations", "output"
DATA_COUNT = 100
"""Documents that are drawn from a task's data where it is not said how many."""
LEAST_SAMPLES = 10
"""Of a document: fewer say nothing."""

SOURCE_FLAGS = (
    Flag(("-d", "--data"), "data", "text", "the task's data: hub, embedded, a folder or a file", _WHAT, "SOURCE"),
    Flag(("--split",), "split", "text", "which of its splits, or train; by default test, if any", _WHAT),
    Flag(("--allow-partial",), "allow_partial", "alone", "accept *_partial files", _WHAT),
    Flag(("--documents",), "count", "int", f"documents, drawn with a fixed seed; with -d {DATA_COUNT}, else all",
         _WHAT, low=1),
    Flag(("--per-class",), "per_class", "alone", "so many documents of each class", _WHAT),
    Flag(("--text-column",), "text_column", "text", "column of the text in FILE; by default by usual names", _WHAT,
         "NAME"),
    Flag(("--label-column",), "label_column", "text", "column of the label", _WHAT, "NAME"),
)  # fmt: skip

LIME_FLAGS = (
    Flag(("--classes",), "classes", "list", "predicted, gold, or all", _HOW, "CLASS", ("predicted", "gold", "all")),
    Flag(("--num-features",), "num_features", "int", "most words of an explanation", _HOW, low=1),
    Flag(("--num-samples",), "num_samples", "int", "samples of each document", _HOW, low=LEAST_SAMPLES),
    Flag(("--seed",), "seed", "int", "seed of the samples", _HOW, low=0),
    Flag(("-b", "--batch-size"), "batch_size", "int", "samples in a batch", _HOW, low=1),
    Flag(("-ml", "--max-len"), "max_len", "int", "longest text in tokens; by default that of training", _HOW),
)

OUT_FLAGS = (
    Flag(("-o", "--output-dir"), "output", "text", "folder of what is written", _OUT, "FOLDER"),
    Flag(("--resume",), "resume", "alone", "go on with what is in that folder", _OUT),
)

LIME_DEFAULTS = {"classes": "predicted,gold", "num_features": 10, "num_samples": 500, "seed": 42, "batch_size": 32}


def explain_command(words: list[str]) -> int:
    """`gated-bert explain`: LIME for a model's predictions."""
    more = (
        Flag(("--text",), "text", "text", "one text; 100 words of 5000 samples by default", _WHAT, "TEXT"),
        Flag(("--token-level",), "token_level", "alone", "weights of word pieces for all classes, as .npz", _HOW),
    )
    flags = (more[0], *SOURCE_FLAGS, *LIME_FLAGS, more[1], *OUT_FLAGS)
    text = "Explains predictions by LIME: which words of a document add to a class, and which take from it."
    given, words = split_words(words, flags)
    defaults = LIME_DEFAULTS | {"output": "explanations"}
    typed = typed_flags("gated-bert explain MODEL [FILE]", text, flags, words, defaults)
    if not 1 <= len(given) <= 2:
        raise FlagError("explain: needs a model and texts, gated-bert explain MODEL FILE, or MODEL with -d or --text")
    source, out = (user_path(name) for name in (given[0], typed.pop("output", defaults["output"])))
    check_model(source)
    tokens = typed.pop("token_level", False)
    if tokens:
        for flag in (more[0], *LIME_FLAGS[:2]):
            if flag.name in typed:
                raise FlagError(f"{flag.label}: not with --token-level, which explains all classes of many documents "
                                "by all their words")  # fmt: skip
    wanted, lime, resume = read_wanted(given[1:], typed, flags), read_lime(typed, flags), typed.get("resume", False)
    check_output(out, resume)
    prepare_environment()
    from gated_bert.experiments.explanations.documents import Wanted
    from gated_bert.experiments.explanations.explaining import Lime, explain

    if tokens:
        from gated_bert.experiments.explanations.token_explanations import explain_tokens

        return _report(explain_tokens(source, out, Wanted(**wanted), Lime(**lime), resume))
    return _report(explain(source, out, Wanted(**wanted), Lime(**lime), resume))


def sp_lime_command(words: list[str]) -> int:
    """`gated-bert sp-lime`: documents whose explanations stand for all."""
    pick = Flag(("--pick",), "pick", "int", "documents that each way picks", "pick", low=1)
    picked = Flag(("--picked",), "picked", "text", "write the explanations of the documents that cover most there, for "
                  "`compare-explanations`", "pick", "FOLDER")  # fmt: skip
    flags = (pick, picked, *SOURCE_FLAGS, *LIME_FLAGS[1:], *OUT_FLAGS)
    text = ("Picks documents whose explanations cover most (SP-LIME's submodular pick) and differ most, from a folder "
            "that `gated-bert explain` wrote, or from a model and texts, which are explained first.")  # fmt: skip
    given, words = split_words(words, flags)
    defaults = LIME_DEFAULTS | {"output": "sp_lime", "pick": 100}
    prog = "gated-bert sp-lime FOLDER, or sp-lime MODEL [FILE]"
    typed = typed_flags(prog, text, flags, words, defaults)
    count = typed.pop("pick", defaults["pick"])
    if not 1 <= len(given) <= 2:
        raise FlagError(f"sp-lime: needs a folder of explanations, or a model and texts, {prog}")
    source, out = (user_path(name) for name in (given[0], typed.pop("output", defaults["output"])))
    chosen = user_path(typed.pop("picked")) if "picked" in typed else None
    if chosen is not None and chosen.exists() and (
        not (chosen / "record.json").is_file() or chosen.resolve() == source.resolve()
    ):
        raise FlagError.refused(picked.label, str(chosen), "a new folder, or other explanations, which are replaced")
    if (source / "documents.jsonl").is_file():
        if len(given) > 1 or typed:
            named = given[1] if len(given) > 1 else next(flag.label for flag in flags if flag.name in typed)
            raise FlagError(f"{named}: only with a model; {source} holds explanations already")
        prepare_environment()
        from gated_bert.experiments.explanations.sp_lime_pick import pick_documents

        return _report(pick_documents(source, out, count, chosen))
    check_model(source)
    candidates = out / "candidates"
    wanted, lime, resume = read_wanted(given[1:], typed, flags), read_lime(typed, flags), typed.get("resume", False)
    check_output(candidates, resume)
    prepare_environment()
    from gated_bert.experiments.explanations.documents import Wanted
    from gated_bert.experiments.explanations.explaining import Lime, explain
    from gated_bert.experiments.explanations.sp_lime_pick import pick_documents

    settings = Lime(classes=("predicted",), **lime)
    written = explain(source, candidates, Wanted(**wanted), settings, resume)
    return _report([*written, *pick_documents(candidates, out, count, chosen)])


def _report(written: list[Path]) -> int:
    for path in written:
        print(f"wrote {path}")
    return 0


def read_wanted(files: list[str], typed: dict, flags: tuple[Flag, ...]) -> dict:
    """Which documents a command line names, as fields of `experiments.documents.Wanted`.

    Raises:
        FlagError: none, more than one source of them, or flags that belong to another source.
    """
    labels = {flag.name: flag.label for flag in flags}
    text, data, file = typed.get("text"), typed.get("data"), files[0] if files else None
    if sum(each is not None for each in (text, data, file)) != 1:
        raise FlagError(
            "documents: give one of a FILE of texts, -d/--data SOURCE" + " and --text TEXT" * ("text" in labels)
        )
    only = {"split": data, "allow_partial": data, "text_column": file, "label_column": file,
            "count": data or file, "per_class": data or file}  # fmt: skip
    for name, needed in only.items():
        if name in typed and needed is None:
            belongs = {"split": "-d", "allow_partial": "-d", "text_column": "a FILE", "label_column": "a FILE"}
            raise FlagError(f"{labels[name]}: only with {belongs.get(name, 'a FILE or -d')}")
    if text is not None and not text.strip():
        raise FlagError.refused("--text", text, "a text that is not empty")
    if file is not None and not user_path(file).is_file():
        raise UserError(f"{file}: no such file; give a .tsv, .csv, .jsonl or .txt file of texts")
    if data is not None:
        find_data(data, "-d/--data")
    if typed.get("per_class") and data is None and "count" not in typed:
        raise FlagError("--per-class: needs --documents, how many of each class")
    count = typed.get("count", DATA_COUNT if data is not None else None)
    columns = {name: typed.get(name) for name in ("text_column", "label_column")}
    return {"text": text, "file": user_path(file) if file else None, "columns": columns, "data": data,
            "split": typed.get("split"), "allow_partial": typed.get("allow_partial", False), "count": count,
            "per_class": typed.get("per_class", False)}  # fmt: skip


def read_lime(typed: dict, flags: tuple[Flag, ...]) -> dict:
    """How a command line explains documents, as fields of `experiments.explanations.Lime`.

    Raises:
        FlagError: a number that is refused.
    """
    single = {"num_features": 100, "num_samples": 5000} if "text" in typed else {}
    names = [flag.name for flag in LIME_FLAGS]
    return single | {name: typed[name] for name in names if name in typed}


def check_output(out: Path, resume: bool, what: str = "explanations"):
    """Refuses a folder that holds something, except explanations (or `what` else is made) that are gone on with.

    Raises:
        UserError: one of these.
    """
    if out.exists() and not out.is_dir():
        raise FlagError.refused("-o/--output-dir", str(out), "a folder")
    if out.is_dir():
        # One that was killed before its first record may go on as well.
        remove_leftovers_in(out)
    holds = [path.name for path in out.iterdir() if path.name != LOCK] if out.is_dir() else []
    if holds and "record.json" not in holds:
        raise UserError(f"{out}: not empty, and no {what} in it; choose another folder")
    if holds and not resume:
        raise UserError(f"{out}: holds {what} already; go on with them by --resume, or choose another folder")
