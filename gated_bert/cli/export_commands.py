"""The commands that write models in other forms: `gated-bert export` and `gated-bert quantize`."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from gated_bert.cli.common import prepare_environment, two_folders, typed_flags
from gated_bert.cli.outputs import check_writable
from gated_bert.cli.positionals import split_words
from gated_bert.compression.preconditions import PRECISIONS, PRECISIONS_OF, check_file, check_model
from gated_bert.config.flag_table import Flag
from gated_bert.support.checks import FlagError, choose
from gated_bert.support.partial import temporary_folder
from gated_bert.support.paths import file_name, user_path
from gated_bert.tasks.data_source import find_data

_SUFFIX = ".onnx"
_GRAPHS = (
    Flag(("--fused",), "fused", "alone", "ONNX Runtime's own attention, embedding and layer norm operators", "export"),
    Flag(("--tiled",), "tiled", "alone", "the same, and every tile of a matrix a small dense product", "export"),
)


def export_command(words: list[str]) -> int:
    """`gated-bert export`: a model as an ONNX file, or in another tool's format."""
    flags = (
        *_GRAPHS,
        Flag(("--format",), "format", "text", "a folder OUT instead of an ONNX file: hf, that transformers reads, or "
             "optimum, that optimum and transformers.js do", "export", "FORMAT", ("hf", "optimum")),
    )  # fmt: skip
    text = "Writes a model folder as an ONNX file, with record and tokeniser beside it, or in another tool's format."
    places, rest = split_words(words, flags)
    if any(word.partition("=")[0] == "--format" for word in rest):
        source, out, typed = two_folders("export", text, flags, words)
        for flag in _GRAPHS:
            if typed.get(flag.name):
                raise FlagError(f"{flag.label}: not together with --format, which writes no ONNX file")
        prepare_environment()
        from gated_bert.compression.folders import export_folder

        export_folder(source, out, typed["format"])
        return 0
    typed = typed_flags("gated-bert export MODEL OUT.onnx", text, flags, rest)
    source, out = _model_and_file("export", places)
    graph = _graph(typed)
    prepare_environment()
    from gated_bert.compression.onnx_export import export_file

    export_file(source, out, graph)
    return 0


def quantize_command(words: list[str]) -> int:
    """`gated-bert quantize`: a model as an ONNX file of 8 or 16 bits."""
    flags = (
        Flag(("--precision",), "precision", "text", "int8 (ranges of activations found as it runs), fp16 (weights "
             "alone), int8-static (ranges found beforehand, from -d)", "quantise", "BITS", PRECISIONS),
        Flag(("--reduce-range",), "reduce_range", "switch", "7 of the 8 bits, for processors whose 8-bit products "
             "saturate; by default as this one needs", "quantise"),
        *_GRAPHS,
        Flag(("-d", "--data"), "data", "text", "hub, embedded, a folder or a file: what int8-static is calibrated on, "
             "and what accuracy before and after is measured on", "data", "SOURCE"),
        Flag(("--allow-partial",), "allow_partial", "alone", "take *_partial files", "data"),
    )  # fmt: skip
    text = "Writes a model folder, or an exported fp32 file, as an ONNX file of fewer bits."
    places, rest = split_words(words, flags)
    typed = typed_flags("gated-bert quantize MODEL OUT.onnx", text, flags, rest, {"precision": "int8"})
    source, out = _model_and_file("quantize", places)
    precision = typed.get("precision", "int8")
    choose("--precision", precision, PRECISIONS)
    if precision == "int8-static" and "data" not in typed:
        raise FlagError("--precision: int8-static needs data to find the ranges of activations; name some with -d")
    if "data" in typed:
        find_data(typed["data"], "-d/--data")
    graph = _graph(typed)
    if source.suffix == _SUFFIX and graph != "standard":
        raise FlagError(f"--{graph}: only with a model folder; {source} is a graph already")
    if precision not in PRECISIONS_OF.get(graph, PRECISIONS):
        allowed = " or ".join(PRECISIONS_OF[graph])
        raise FlagError(f"--precision: {precision!r} is refused with --{graph}; allowed: {allowed}, or no --{graph}")
    prepare_environment()
    from gated_bert.compression.quantize import quantize_file

    with _as_onnx(source, graph) as exported:
        quantize_file(exported, out, precision, typed.get("reduce_range"), typed.get("data"),
                      bool(typed.get("allow_partial")))  # fmt: skip
    return 0


@contextlib.contextmanager
def _as_onnx(source: Path, graph: str) -> Iterator[Path]:
    """The ONNX file itself, or an export of the model folder that goes when it has been used."""
    if source.suffix == _SUFFIX:
        yield source
        return
    from gated_bert.compression.onnx_export import export_onnx
    from gated_bert.compression.source import load_source

    with temporary_folder() as folder:
        exported = folder / f"{file_name(source.resolve().name)}{_SUFFIX}"
        difference = export_onnx(exported, load_source(source), graph)
        print(f"{source}: exported in 32 bits; largest difference of a logit from the Keras model: {difference:.1e}")
        yield exported


def _graph(typed: dict) -> str:
    if typed.get("fused") and typed.get("tiled"):
        raise FlagError("--tiled: has the fused operators anyway; leave --fused out")
    return "tiled" if typed.get("tiled") else "fused" if typed.get("fused") else "standard"


def _model_and_file(name: str, places: list[str]) -> tuple[Path, Path]:
    if len(places) != 2 or Path(places[1]).suffix != _SUFFIX:
        other = " (or, with --format, a folder)" if name == "export" else ""
        raise FlagError(
            f"{name}: needs a model and a file ending in {_SUFFIX}{other}, gated-bert {name} MODEL OUT.onnx"
        )
    check_writable(f"{name} OUT", places[1], is_folder=False)
    source, out = (user_path(place) for place in places)
    check_model(source)
    check_file(out)
    return source, out
