"""Sub-commands about models, and what all commands share."""

from __future__ import annotations

import contextlib
import importlib.util
import os
from pathlib import Path
from typing import Any

from gated_bert.cli.outputs import check_writable
from gated_bert.cli.parsing import make_parser, read_flags
from gated_bert.cli.positionals import split_words
from gated_bert.config.flag_table import Flag
from gated_bert.support.checks import FlagError
from gated_bert.support.disk import remove_oldest
from gated_bert.support.environ import verbosity
from gated_bert.support.paths import cache_folder, user_path
from gated_bert.support.quiet import quieten
from gated_bert.tasks.data_source import find_data

_MOST_COMPILED = 4 * 2**30
"""Bytes of what JAX has compiled that are kept on the disk."""


def shrink_command(words: list[str]) -> int:
    """`gated-bert shrink`: a pruned model as smaller matrices."""
    flags = (
        Flag(("--round-to",), "round_to", "int", "round sizes up to multiples of this", "shrink", low=1),
        Flag(("--batch",), "batch", "int", "sequences in a prediction whose latency is measured", "shrink",
             low=1),
        Flag(("--length",), "length", "int", "tokens of each, also for the count of operations", "shrink", low=1),
    )
    text = "Shrinks the matrices of a model folder, or of a Hugging Face folder with zeroed weights."
    source, out, typed = two_folders("shrink", text, flags, words, {"round_to": 1, "batch": 8, "length": 128})
    prepare_environment()
    from gated_bert.compression.folders import shrink_folder

    shrink_folder(source, out, **typed)
    return 0


def patterns_command(words: list[str]) -> int:
    """`gated-bert patterns`: a picture of every pattern."""
    flags = (
        Flag(("-o", "--output"), "output", "text", "the PNG file", "patterns", "FILE"),
        Flag(("-f", "--sparsity"), "sparsity", "float", "fraction of the weights removed", "patterns", "FRACTION"),
        Flag(("-pt", "--pretrained"), "pretrained", "text", "whose matrices: an id or a folder", "patterns", "FROM"),
    )
    defaults = {"output": "patterns.png", "sparsity": 0.5, "pretrained": "random weights of the tiny size"}
    text = "Draws what each pattern leaves of the first encoder layer's matrices, pruned by magnitude."
    typed = typed_flags("gated-bert patterns", text, flags, words, defaults)
    out = user_path(typed.get("output", "patterns.png"))
    if out.is_dir() or out.suffix != ".png":
        raise FlagError.refused(flags[0].label, str(out), "a .png file")
    sparsity = typed.get("sparsity", 0.5)
    if not isinstance(sparsity, float) or not 0 < sparsity < 1:
        raise FlagError.refused(flags[1].label, sparsity, "a number between 0 and 1")
    prepare_environment()
    from gated_bert.experiments.models.pattern_pictures import draw_patterns

    path = draw_patterns(out, sparsity, typed.get("pretrained"))
    print(f"wrote {path}")
    return 0


def iou_command(words: list[str]) -> int:
    """`gated-bert iou`: how much the masks of runs overlap."""
    flags = (Flag(("-o", "--output-dir"), "output", "text", "folder of the tables and heat maps", "iou", "FOLDER"),)
    folders, words = split_words(words, flags)
    text = "Intersection over union of the closed weights of every pair of runs, beside what chance would give."
    typed = typed_flags("gated-bert iou RUN RUN…", text, flags, words, {"output": "iou"})
    if len(folders) < 2:
        raise FlagError("iou: at least two runs or model folders are needed, e.g. gated-bert iou results/results_*")
    for folder in folders:
        if not user_path(folder).is_dir():
            raise FlagError.refused("iou", folder, "existing folders of runs or models")
    prepare_environment()
    from gated_bert.experiments.models.iou import TABLE, compare_masks

    out = user_path(typed.get("output", "iou"))
    note_replaced(out / TABLE)
    for path in compare_masks([user_path(folder) for folder in folders], out):
        print(f"wrote {path}")
    return 0


def note_replaced(*paths: Path) -> None:
    """Says of files that a command is going to write that they are there already."""
    for path in paths:
        if path.exists():
            print(f"note: {path} is there already, and is replaced", flush=True)


def prepare_environment() -> None:
    """Sets what frameworks read on import, where the user has not: quiet logs, JAX where only JAX is, and a folder for
    what JAX compiles."""
    if verbosity(os.environ) < 2:
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
        quieten()
    if not os.environ.get("KERAS_BACKEND"):
        only_jax = importlib.util.find_spec("tensorflow") is None and importlib.util.find_spec("jax") is not None
        os.environ["KERAS_BACKEND"] = "jax" if only_jax else "tensorflow"
    if os.environ["KERAS_BACKEND"] == "jax":
        _keep_what_jax_compiles()


def _keep_what_jax_compiles():
    """Compiling is most of a short run's time; other jobs of a sweep, and later ones, take what one has compiled."""
    if "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return
    # Without a home folder nothing is kept.
    with contextlib.suppress(RuntimeError):
        folder = cache_folder() / "compiled"
        os.environ["JAX_COMPILATION_CACHE_DIR"] = str(folder)
        # JAX's own limit needs a second file beside each, and where one is missing it keeps nothing from then on.
        remove_oldest(folder, _MOST_COMPILED)


def typed_flags(prog: str, text: str, flags: tuple[Flag, ...], words: list[str], defaults: dict | None = None) -> dict:
    """What `words` say of `flags`."""
    return read_flags(make_parser(prog, text, flags, defaults or {}), flags, words)


def check_judging(typed: dict) -> None:
    """Refuses data to judge models on that are not there, and what goes with such data without any.

    Raises:
        FlagError: one of these.
    """
    data = typed.get("data")
    if data is not None:
        find_data(data, "-d/--data")
    for name in ("split", "allow_partial"):
        if name in typed and data is None:
            raise FlagError(f"--{name.replace('_', '-')}: only with -d, the data that the models are judged on")


def two_folders(
    name: str, text: str, flags: tuple[Flag, ...], words: list[str], defaults: dict | None = None
) -> tuple[Path, Path, dict[str, Any]]:
    """The folders MODEL_FOLDER and OUT of a command, which can be read and written, and its flags."""
    from gated_bert.compression.preconditions import check_folders

    folders, words = split_words(words, flags)
    typed = typed_flags(f"gated-bert {name} MODEL_FOLDER OUT", text, flags, words, defaults)
    if len(folders) != 2:
        raise FlagError(f"{name}: needs the folder of a model and a new folder, gated-bert {name} MODEL_FOLDER OUT")
    check_writable(f"{name} OUT", folders[1], is_folder=True)
    source, out = (user_path(folder) for folder in folders)
    check_folders(source, out)
    return source, out, typed
