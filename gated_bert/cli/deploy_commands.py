"""Sub-commands about models in use: `predict`, `inspect` and `benchmark`."""

from __future__ import annotations

import os

from gated_bert.cli.common import check_judging, note_replaced, prepare_environment, typed_flags
from gated_bert.cli.positionals import split_words
from gated_bert.compression.preconditions import check_model
from gated_bert.config.flag_table import Flag
from gated_bert.support.checks import MOST, FlagError, as_number
from gated_bert.support.errors import UserError
from gated_bert.support.paths import user_path


def predict_command(words: list[str]) -> int:
    """`gated-bert predict`: predictions for every row of a file."""
    group = "predict"
    flags = (
        Flag(("-o", "--output"), "output", "text", "the CSV file of the predictions", group, "FILE"),
        Flag(("--text-column",), "text_column", "text", "column of the text; by default by usual names", group, "NAME"),
        Flag(("--text-pair-column",), "text_pair_column", "text", "column of the second text", group, "NAME"),
        Flag(("--label-column",), "label_column", "text", "column of the label, for metrics", group, "NAME"),
        Flag(("-b", "--batch-size"), "batch_size", "int", "rows in a batch", group, low=1),
        Flag(("-ml", "--max-len"), "max_len", "int", "longest text in tokens; by default that of training", group),
        Flag(("--monitor",), "monitor", "alone", "log memory, processor and GPU memory", group),
    )
    defaults = {"output": "predictions.csv", "batch_size": 32}
    text = "Predicts every row of a .tsv, .csv, .jsonl or .txt file (one text a line; .gz may follow) of any size."
    given, words = split_words(words, flags)
    typed = defaults | typed_flags("gated-bert predict MODEL FILE", text, flags, words, defaults)
    if len(given) != 2:
        raise FlagError("predict: needs a model and a file of texts, gated-bert predict MODEL FILE")
    source, path, out = (user_path(name) for name in (*given, typed.pop("output")))
    check_model(source)
    if not path.is_file():
        raise UserError(f"{path}: no such file; give a .tsv, .csv, .jsonl or .txt file of texts")
    if out.is_dir() or out.suffix != ".csv" or (out.exists() and out.samefile(path)):
        raise FlagError.refused("-o/--output", str(out), "a .csv file, other than that of the texts")
    columns = {name: typed.pop(name, None) for name in ("text_column", "text_pair_column", "label_column")}
    note_replaced(out)
    prepare_environment()
    from gated_bert.experiments.models.predictions import predict_file

    for written in predict_file(source, path, out, columns, **typed):
        print(f"wrote {written}")
    return 0


def inspect_command(words: list[str]) -> int:
    """`gated-bert inspect`: what is inside a model."""
    flags = (Flag(("-o", "--output-dir"), "output", "text", "folder for CSV files and a picture", "inspect", "FOLDER"),)
    text = "Shows sizes, sparsity and units left of a model folder, or operators and initialisers of an ONNX file."
    given, words = split_words(words, flags)
    typed = typed_flags("gated-bert inspect MODEL", text, flags, words)
    if len(given) != 1:
        raise FlagError("inspect: needs one model, gated-bert inspect MODEL")
    source = user_path(given[0])
    check_model(source)
    out = user_path(typed["output"]) if "output" in typed else None
    prepare_environment()
    from gated_bert.experiments.models.inspection import inspect_model

    for written in inspect_model(source, out):
        print(f"wrote {written}")
    return 0


def benchmark_command(words: list[str]) -> int:
    """`gated-bert benchmark`: models side by side."""
    group = "benchmark"
    flags = (
        Flag(("-o", "--output-dir"), "output", "text", "folder of the tables and the plot", group, "FOLDER"),
        Flag(("--batches",), "batches", "list", "sequences in a prediction: 1,8", group, "N"),
        Flag(("--lengths",), "lengths", "list", "tokens of a sequence: 32,128", group, "N"),
        Flag(("--repeats",), "repeats", "int", "timed predictions of each model at each shape", group, low=1),
        Flag(("--threads",), "threads", "int", "threads of a product, in all models", group, low=1),
        Flag(("-d", "--data"), "data", "text", "judge the models: hub, embedded, a folder or a file", group, "SOURCE"),
        Flag(("--split",), "split", "text", "which of the task's splits; by default its test set, if any", group),
        Flag(("--allow-partial",), "allow_partial", "alone", "accept *_partial files; the table says so", group),
    )
    defaults = {"output": "benchmark", "batches": "1,8", "lengths": "32,128, or the longest input", "repeats": 30,
                "threads": 1}  # fmt: skip
    text = "Compares model folders and ONNX files: parameters, size, MACs, latency, throughput, memory and metric."
    given, words = split_words(words, flags)
    typed = typed_flags("gated-bert benchmark MODEL…", text, flags, words, defaults)
    if not given:
        raise FlagError("benchmark: at least one model is needed, gated-bert benchmark MODEL…")
    for flag in flags[1:5]:
        if flag.name in typed:
            typed[flag.name] = _counts(flag, typed[flag.name])
    check_judging(typed)
    sources = [user_path(name) for name in given]
    for source in sources:
        check_model(source)
    from gated_bert.support.machine import thread_environment

    out = user_path(typed.pop("output", defaults["output"]))
    os.environ.update(thread_environment(typed.get("threads", defaults["threads"])))
    prepare_environment()
    from gated_bert.experiments.models.model_benchmark import TABLE, Measure, benchmark

    note_replaced(out / TABLE)

    for written in benchmark(sources, out, Measure(**typed)):
        print(f"wrote {written}")
    return 0


def _counts(flag: Flag, value: object) -> object:
    """A number, or a tuple of them."""
    words = value if isinstance(value, tuple) else (str(value),)
    numbers = [as_number(word, int) if word.isdecimal() else word for word in words]
    if not all(isinstance(number, int) and 1 <= number <= MOST for number in numbers):
        kind = "whole numbers" if flag.kind == "list" else "a whole number"
        raise FlagError.refused(flag.label, ",".join(words), f"{kind} from 1 to {MOST}")
    return tuple(dict.fromkeys(numbers)) if flag.kind == "list" else value
