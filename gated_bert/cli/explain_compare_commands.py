"""Sub-commands that compare explanations: `compare-explanations` and `pos`."""

from __future__ import annotations

import re
from pathlib import Path

from gated_bert.cli.common import check_judging, prepare_environment, typed_flags
from gated_bert.cli.explain_commands import LIME_DEFAULTS, LIME_FLAGS, OUT_FLAGS, SOURCE_FLAGS, read_lime, read_wanted
from gated_bert.cli.positionals import split_words
from gated_bert.compression.preconditions import check_model
from gated_bert.config.flag_table import Flag
from gated_bert.support.checks import FlagError
from gated_bert.support.errors import UserError
from gated_bert.support.paths import user_path

_FILE = Flag(("--file",), "file", "text", "a file of texts, one row each", "documents", "FILE")
_NAMES = Flag(("--names",), "names", "list", "what tables and plots call them, in their order", "comparison", "NAME")
_TOP_K = Flag(("-k", "--top-k"), "top_k", "int", "words of largest weight of an explanation", "comparison",
              low=1)
_NOISE = Flag(("--noise-floor",), "noise", "text", "BASE explained with another seed, so that it need not be",
              "comparison", "FOLDER")  # fmt: skip
_RECORD = "record.json"
"""What every folder of explanations holds."""
_NOISE_FOLDER = "noise_floor"
_HOW_FLAGS = tuple(flag for flag in LIME_FLAGS if flag.name != "classes")
_JUDGING = ("data", "split", "allow_partial")
"""Flags that say which data documents are drawn from, and models are judged on."""


def compare_explanations_command(words: list[str]) -> int:
    """`gated-bert compare-explanations`: how far models' explanations are from a base model's."""
    flags = (_FILE, *SOURCE_FLAGS, *_HOW_FLAGS, _NAMES, _TOP_K, _NOISE, *OUT_FLAGS)
    defaults = LIME_DEFAULTS | {"output": "explanation_similarity", "top_k": 5}
    text = ("Compares what models' predictions rest on with BASE, a model or a folder of explanations, beside what "
            "another seed alone changes; with -d the models are judged on the task's test set, too.")  # fmt: skip
    given, words = split_words(words, flags)
    typed = typed_flags("gated-bert compare-explanations BASE VARIANT…", text, flags, words, defaults)
    if len(given) < 2:
        raise FlagError("compare-explanations: a base model and at least one variant are needed, gated-bert "
                        "compare-explanations BASE VARIANT…")  # fmt: skip
    sources, out, top_k, options = _read(given, typed, flags, defaults, _JUDGING)
    noise = user_path(typed["noise"]) if "noise" in typed else None
    if noise is not None and not (noise / _RECORD).is_file():
        raise FlagError.refused(_NOISE.label, str(noise), "a folder of explanations, that `gated-bert explain` wrote")
    prepare_environment()
    from gated_bert.experiments.explanations.compare_explanations import compare_explanations
    from gated_bert.experiments.explanations.model_facts import Judging

    explaining = _explaining(out, options)
    folders = explaining.explained(sources, typed.get("names"))
    noise = noise or explaining.noise_floor(next(iter(folders.values())))
    # Documents may be drawn from the training examples; models are not judged on these.
    split = None if typed.get("split") == "train" else typed.get("split")
    judging = Judging(typed.get("data"), split, typed.get("allow_partial", False), typed.get("resume", False))
    for written in compare_explanations(folders, noise, out, top_k, judging):
        print(f"wrote {written}")
    return 0


def pos_command(words: list[str]) -> int:
    """`gated-bert pos`: parts of speech of the words that explanations rest on."""
    flags = (_FILE, *SOURCE_FLAGS, *_HOW_FLAGS, _NAMES, _TOP_K, *OUT_FLAGS)
    defaults = LIME_DEFAULTS | {"output": "pos", "top_k": 10}
    text = ("Tags the words of largest weight in their sentences, for models or folders of explanations, and tests "
            "each one's shares against the first's.")  # fmt: skip
    given, words = split_words(words, flags)
    typed = typed_flags("gated-bert pos MODEL_OR_FOLDER…", text, flags, words, defaults)
    if not given:
        raise FlagError("pos: at least one model or folder of explanations is needed, gated-bert pos MODEL_OR_FOLDER…")
    sources, out, top_k, options = _read(given, typed, flags, defaults)
    prepare_environment()
    from gated_bert.explain.pos import check_data

    # Before models are explained, which may take hours.
    check_data()
    from gated_bert.experiments.explanations.parts_of_speech import compare_parts_of_speech

    folders = _explaining(out, options).explained(sources, typed.get("names"))
    for written in compare_parts_of_speech(folders, out, top_k):
        print(f"wrote {written}")
    return 0


def _read(given: list[str], typed: dict, flags: tuple[Flag, ...], defaults: dict, judging: tuple[str, ...] = ()):
    """The sources, the output folder, the number of words, and how models are explained, for `_explaining`.

    Args:
        given: models and folders of explanations.
        typed: what was typed of `flags`.
        flags: all flags of the command.
        defaults: of the output folder and the number of words.
        judging: flags that also say what models are judged on.

    Raises:
        UserError: a source that is not there, or a value or a combination of flags that is refused.
    """
    sources, names = [user_path(name) for name in given], typed.get("names")
    if names is not None:
        plain = all(re.fullmatch(r"\w[\w.+-]*", name) and name != _NOISE_FOLDER for name in names)
        if not plain or len(set(names)) < len(names) or len(names) != len(given):
            allowed = f"{len(given)} different ones of letters, digits and _.+-, without {_NOISE_FOLDER}"
            raise FlagError.refused(_NAMES.label, ",".join(names), allowed)
    models = [source for source in sources if not (source / _RECORD).is_file()]
    for source in models:
        check_model(source)
    out, top_k = user_path(typed.get("output", defaults["output"])), typed.get("top_k", defaults["top_k"])
    if out.exists() and not out.is_dir():
        raise FlagError.refused("-o/--output-dir", str(out), "a folder")
    if models and (out / "explanations").is_dir() and not typed.get("resume"):
        raise UserError(f"{out}: holds explanations already; go on with them by --resume, or choose another folder")
    wanted, lime = None, read_lime(typed, flags)
    if sources[0] in models:
        wanted = read_wanted([typed["file"]] if "file" in typed else [], typed, flags)
    else:
        for flag in (_FILE, *SOURCE_FLAGS, *_HOW_FLAGS):
            if flag.name in typed and flag.name not in (*judging, "batch_size"):
                raise FlagError(f"{flag.label}: not where the first is a folder of explanations, as {sources[0]} is; "
                                "all others are explained as it was")  # fmt: skip
        check_judging(typed)
    return sources, out, top_k, (wanted, lime, typed.get("resume", False))


def _explaining(out: Path, options: tuple[dict | None, dict, bool]):
    from gated_bert.experiments.explanations.documents import Wanted
    from gated_bert.experiments.explanations.explained_models import Explaining
    from gated_bert.experiments.explanations.explaining import Lime

    wanted, lime, resume = options
    return Explaining(out, Wanted(**(wanted or {})), Lime(**lime), resume)
