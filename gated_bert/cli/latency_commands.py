"""The command line of `gated-bert latency-table`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from gated_bert.cli.common import note_replaced, prepare_environment, typed_flags
from gated_bert.cli.outputs import check_writable
from gated_bert.cli.positionals import split_words
from gated_bert.compression.preconditions import RUNTIMES, SERVED_GRAPHS, SERVED_PRECISIONS, check_model
from gated_bert.config.flag_table import Flag
from gated_bert.support.checks import FlagError, choose
from gated_bert.support.paths import user_path

_GROUP = "latency"
SERVED = (
    Flag(("--batch",), "batch", "int", "sequences in a prediction", _GROUP, low=1),
    Flag(("--length",), "length", "int", "tokens of each", _GROUP, low=1),
    Flag(("--threads",), "threads", "int", "threads of a product", _GROUP, low=1),
    Flag(("--precision",), "served_precision", "text", "what is served: fp32, or int8 (dynamic quantisation)", _GROUP,
         "BITS", SERVED_PRECISIONS),
    Flag(("--graph",), "graph", "text", "kind of the ONNX graph", _GROUP, "KIND", SERVED_GRAPHS,
         names=SERVED_GRAPHS),
)  # fmt: skip
"""Flags that say what a prediction is like whose time counts."""
DEFAULTS = {"batch": 1, "threads": 1, "served_precision": "fp32", "runtime": "onnx", "repeats": 31}
SHOWN = {**DEFAULTS, "length": "128, or the longest input", "graph": "fused where the family has one"}


def latency_table_command(words: list[str]) -> int:
    """`gated-bert latency-table`: what the parts of a model cost in time on this machine."""
    flags = (
        Flag(("-o", "--output"), "output", "text", "the file of the table", _GROUP, "FILE"),
        *SERVED,
        Flag(("--runtime",), "runtime", "text", "ONNX Runtime or Keras", _GROUP, "NAME", RUNTIMES, names=RUNTIMES),
        Flag(("--repeats",), "repeats", "int", "timed predictions of each model", _GROUP, low=3),
    )
    text = "Measures attention by heads and feed-forward networks by neurons, for pruning to a speed."
    defaults = {"output": "latency.json"}
    given, rest = split_words(words, flags)
    found = typed_flags("gated-bert latency-table MODEL", text, flags, rest, {**SHOWN, **defaults})
    typed = {**DEFAULTS, **defaults, **found}
    if len(given) != 1:
        raise FlagError("latency-table: needs one model, gated-bert latency-table MODEL")
    source, out = user_path(given[0]), user_path(typed["output"])
    check_model(source)
    if source.suffix == ".onnx":
        raise FlagError.refused("latency-table MODEL", given[0], "the model folder that the file was exported from")
    check_writable("-o/--output", typed.pop("output"), is_folder=False)
    note_replaced(out)
    served = served_in(typed)
    from gated_bert.support.machine import thread_environment

    os.environ.update(thread_environment(served["threads"]))
    prepare_environment()
    from gated_bert.experiments.models.latency_report import measure_latency

    measure_latency(source, out, typed["repeats"], **served)
    return 0


def served_in(typed: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of `gated_bert.compression.latency.Conditions` that `SERVED` and `--runtime` say; without what depends
    on the model, where nobody says it.

    Raises:
        ConfigError: a word that is not allowed.
        FlagError: 8 bits in Keras.
    """
    for label, name, allowed in (("--precision", "served_precision", SERVED_PRECISIONS),
                                 ("--graph", "graph", SERVED_GRAPHS),
                                 ("--runtime", "runtime", RUNTIMES)):  # fmt: skip
        if name in typed:
            choose(label, typed[name], allowed)
    if typed["runtime"] == "keras" and typed["served_precision"] != "fp32":
        raise FlagError.refused("--precision", typed["served_precision"], "fp32 with --runtime keras")
    return {
        **{name: typed[name] for name in ("batch", "length", "threads", "runtime", "graph") if name in typed},
        "precision": typed["served_precision"],
    }
