"""The command line of `gated-bert compress`."""

from __future__ import annotations

import dataclasses
import os

from gated_bert.cli.common import prepare_environment, typed_flags
from gated_bert.cli.oneshot_commands import AT_ONCE, SHARED, dense_epochs_of, numbers, prunes_alone
from gated_bert.cli.settings import read_settings
from gated_bert.cli.speedup_commands import SPEEDUPS, speedups_command
from gated_bert.config.flag_table import DEFAULTS, Flag
from gated_bert.experiments.studies.oneshot import Point, describe, oneshot_plans
from gated_bert.support.checks import FlagError
from gated_bert.support.environ import verbosity
from gated_bert.support.errors import UserError

_GROUP = "compression"
LEVELS = "20,30,40"
_OWN = {"methods": "magnitude", "pattern": "head_neuron", "scope": "layer", "pooling": "l1", "levels": LEVELS}

FLAGS = (
    Flag(("--levels",), "levels", "list", "per cent of the pattern's units removed: 20,30,40", _GROUP, "PERCENT"),
    *(flag for flag in SHARED if flag.name != "seeds"),
)


def compress_command(words: list[str]) -> int:
    """`gated-bert compress`: one task's model pruned, shrunk, exported, quantised and measured."""
    if any(word.partition("=")[0] == SPEEDUPS.options[0] for word in words):
        return speedups_command(words)
    text = ("Trains a model, prunes it to several levels, fine-tunes, shrinks, exports, quantises and measures them "
            "all; with --speedups to measured speeds (see gated-bert compress --speedups 2,4 -h).")  # fmt: skip
    typed = typed_flags("gated-bert compress", text, FLAGS, words, {**DEFAULTS, **_OWN, "dense_epochs": "as -e"})
    asked = typed.pop("levels", tuple(LEVELS.split(",")))
    levels = numbers("--levels", asked, "percentages from 1 to 99, e.g. 20,30,40", 1, 99)
    dense_epochs = dense_epochs_of(typed)
    alone = prunes_alone(typed, dense_epochs, os.environ)
    own = {name: value for name, value in _OWN.items() if name in ("pattern", "scope", "pooling")}
    settings = read_settings({"methods": (_OWN["methods"],), **own, **typed, **AT_ONCE}, {}, os.environ)
    verbosity(os.environ)
    for name, label in (("methods", "--strategy"), ("tasks", "-t/--task")):
        if len(getattr(settings, name)) > 1:
            raise FlagError.refused(label, ",".join(getattr(settings, name)), "one of them")
    output = settings.output
    if (output / "models").exists() and not settings.launcher.resume:
        raise UserError(f"{output}: holds compressed models; go on with --resume, or choose another folder with -o")
    from gated_bert.experiments.sweeps.jobs import plan_jobs

    plan = plan_jobs(dataclasses.replace(settings, output=output / "runs"))
    if typed.get("check"):
        return 0
    prepare_environment()
    backend = os.environ["KERAS_BACKEND"]
    if backend != "tensorflow":
        raise UserError(f"compress: KERAS_BACKEND={backend}: its ONNX files are made from TensorFlow's graphs; set "
                        "KERAS_BACKEND=tensorflow (pip install 'gated_bert[tensorflow]')")  # fmt: skip
    epochs = settings.values["epochs"] if dense_epochs is None else dense_epochs
    dense, pruned = oneshot_plans(plan, [Point(sparsity=level / 100) for level in levels], epochs, tuned=not alone)
    print(describe(dense, pruned, with_jobs=bool(typed.get("dry_run"))), flush=True)
    if typed.get("dry_run"):
        return 0
    from gated_bert.experiments.studies.compress import compress
    from gated_bert.experiments.sweeps.sweep import sweep

    return compress(output, dense, pruned, levels, lambda part: sweep(part, compared=False))
