"""The command line of `gated-bert student`."""

from __future__ import annotations

import os

from gated_bert.cli.common import prepare_environment, typed_flags
from gated_bert.cli.explain_commands import OUT_FLAGS, SOURCE_FLAGS, check_output
from gated_bert.cli.positionals import split_words
from gated_bert.compression.preconditions import check_model
from gated_bert.config.flag_table import Flag
from gated_bert.support.checks import FlagError
from gated_bert.support.errors import UserError
from gated_bert.support.paths import user_path
from gated_bert.tasks.data_source import find_data

_TRAIN = "training"
DEFAULTS = {"seeds": "1,2,3", "xai_weights": "0,0.1,0.3,0.5", "epochs": 5, "batch_size": 32, "learning_rate": 1e-3,
            "held_out": 0.2, "threads": 1, "output": "students"}  # fmt: skip
FLAGS = (
    SOURCE_FLAGS[0],
    Flag(("--split",), "split", "text", "which of its splits students are judged on; by default test, if any",
         "documents", "NAME"),
    SOURCE_FLAGS[2],
    Flag(("--documents",), "count", "int", "judge on so many documents, drawn with a fixed seed; by default all",
         "documents", low=1),
    Flag(("--held-out",), "held_out", "float", "share of the explained documents that similarity is measured on",
         "documents", "SHARE"),
    Flag(("--model",), "model", "text", "the explained model, where it is no longer where it was", "documents",
         "MODEL"),
    Flag(("--seeds",), "seeds", "list", "several seeds: 1,2,3", _TRAIN, "SEED"),
    Flag(("--xai-weights",), "xai_weights", "list", "weights of the explanations in the loss; 0, the vanilla student, "
         "is always among them", _TRAIN, "WEIGHT"),
    Flag(("-e", "--epochs"), "epochs", "int", "passes over the documents", _TRAIN, low=1),
    Flag(("-b", "--batch-size"), "batch_size", "int", "documents in a batch", _TRAIN, low=1),
    Flag(("-l", "--learning-rate"), "learning_rate", "float", "of Adam", _TRAIN, "RATE"),
    Flag(("--threads",), "threads", "int", "threads of a product, in all models", _TRAIN, low=1),
    *OUT_FLAGS,
)  # fmt: skip


def student_command(words: list[str]) -> int:
    """`gated-bert student`: small classifiers that learn a model's task, and what its predictions rest on."""
    text = ("Trains small students of an explained model on the documents of `gated-bert explain --token-level`: by "
            "their labels alone, and by its explanations too.")  # fmt: skip
    given, words = split_words(words, FLAGS)
    prog = "gated-bert student FOLDER -d SOURCE"
    typed = typed_flags(prog, text, FLAGS, words, DEFAULTS)
    if len(given) != 1:
        raise FlagError(f"student: needs one folder of token explanations, {prog}")
    folder, out = (user_path(name) for name in (given[0], typed.pop("output", DEFAULTS["output"])))
    options = _read(typed)
    if not (folder / "record.json").is_file():
        raise UserError(f"{folder}: no token explanations in it; `gated-bert explain MODEL -d DATA --split train "
                        f"--token-level -o {folder}` writes them")  # fmt: skip
    if "model" in typed:
        check_model(user_path(typed["model"]))
    resume = typed.get("resume", False)
    check_output(out, resume, "students")
    from gated_bert.support.machine import thread_environment

    os.environ.update(thread_environment(options["threads"]))
    prepare_environment()
    from gated_bert.experiments.explanations.students import Study, train_students

    for path in train_students(folder, out, Study(**options), resume):
        print(f"wrote {path}")
    return 0


def _read(typed: dict) -> dict:
    """The fields of `experiments.students.Study`.

    Raises:
        FlagError: a refused value.
    """
    labels = {flag.name: flag.label for flag in FLAGS}
    data = typed.get("data")
    if data is None:
        raise FlagError("-d/--data: needed, the task's data that students are judged on")
    find_data(data, "-d/--data")
    values = {name: value for name, value in {**DEFAULTS, **typed}.items() if name not in ("output", "resume")}
    for name, most in (("learning_rate", 10), ("held_out", 0.9)):
        if not (isinstance(values[name], float) and 0 < values[name] <= most):
            raise FlagError.refused(labels[name], values[name], f"a number above 0 and up to {most}")
    for name in ("seeds", "xai_weights"):
        given = values[name].split(",") if isinstance(values[name], str) else values[name]
        values[name] = _numbers(labels[name], given, name == "seeds")
    values["xai_weights"] = tuple(sorted({0.0, *values["xai_weights"]}))
    return values


def _numbers(label: str, given: tuple[str, ...], whole: bool) -> tuple:
    allowed = "whole numbers from 0 up, e.g. 1,2,3" if whole else "numbers from 0 to 1, e.g. 0.1,0.3"
    try:
        found = tuple(dict.fromkeys(map(int if whole else float, given)))
    except ValueError:
        raise FlagError.refused(label, ",".join(given), allowed) from None
    if not all(0 <= value <= (2**32 - 1 if whole else 1) for value in found):
        raise FlagError.refused(label, ",".join(given), allowed)
    return found
