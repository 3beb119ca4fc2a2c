"""The command line of `gated-bert activation-change`."""

from __future__ import annotations

import dataclasses
import os

from gated_bert.cli.common import prepare_environment
from gated_bert.cli.parsing import make_parser, read_flags
from gated_bert.cli.settings import read_settings
from gated_bert.config.flag_table import LAUNCHER_FLAGS, Flag
from gated_bert.experiments.studies.activation_config import ActivationConfig, read_activation_config
from gated_bert.experiments.sweeps.request import Settings
from gated_bert.support.checks import FlagError, did_you_mean
from gated_bert.support.environ import verbosity
from gated_bert.support.paths import user_path

_GROUP = "activation change"
FLAGS = (
    Flag(("--config",), "config", "list", "JSON files; a later one overrides an earlier one", _GROUP, "FILE"),
    Flag(("--scale",), "scale", "text", "smoke (2 seeds), standard or full (10 seeds) instead of the file's seeds and "
         "examples", _GROUP, "SCALE"),
    Flag(("--seeds",), "seeds", "list", "several seeds: 1,2,3", _GROUP, "SEED"),
    Flag(("-d", "--data"), "data", "text", "hub, embedded, a folder or a file", _GROUP, "SOURCE"),
    Flag(("-pt", "--pretrained"), "pretrained", "text", "weights: a Hugging Face id or a folder", _GROUP, "FROM"),
    Flag(("-o", "--output-dir"), "output", "text", "folder of the results", _GROUP, "FOLDER"),
    LAUNCHER_FLAGS["publish"],
    LAUNCHER_FLAGS["resume"],
    dataclasses.replace(LAUNCHER_FLAGS["max_parallel_jobs"], help="most runs at a time"),
    LAUNCHER_FLAGS["output_mode"],
)  # fmt: skip
_SCALES = ("smoke", "standard", "full")


def read_command(words: list[str]) -> tuple[ActivationConfig, Settings]:
    """What the words of a command line ask for.

    Raises:
        UserError: a refused flag, file or value.
    """
    text = "Prunes heads and neurons whose activations hardly change between batches, shrinks, fine-tunes and compares."
    parser = make_parser("gated-bert activation-change", text, FLAGS, {"max_parallel_jobs": "1"})
    typed = read_flags(parser, FLAGS, words)
    if "config" not in typed:
        raise FlagError("--config: needed; e.g. --config configs/evaluate_config.json")
    study = read_activation_config(typed.pop("config"))
    if "scale" in typed:
        if typed["scale"] not in _SCALES:
            scale = typed["scale"]
            raise FlagError.refused("--scale", scale, ", ".join(_SCALES) + did_you_mean(scale, _SCALES))
        study = study.at_scale(typed.pop("scale"))
    run = {name: value for name, value in study.run.items() if value is not None}
    # The size that disk and memory are estimated by, and of a model without a file of its own.
    run = {"model_size": "bert-small", "output": "results/activation_change", **run}
    run |= {"tasks": (run.pop("task"),), "methods": ("baseline",), "seeds": tuple(map(str, study.seeds))}
    settings = read_settings(run | typed, {}, os.environ)
    verbosity(os.environ)
    return dataclasses.replace(study, seeds=settings.seeds), settings


def activation_change_command(words: list[str]) -> int:
    """`gated-bert activation-change`: prune, shrink and fine-tune, beside the unpruned model."""
    study, settings = read_command(words)
    prepare_environment()
    from gated_bert.experiments.studies.activation_study import run_activation_change
    from gated_bert.experiments.studies.study import publish
    from gated_bert.experiments.sweeps.sweep import sweep

    status = run_activation_change(study, settings, sweep)
    if status == 0 and settings.launcher.publish:
        places = [settings.values.get(name) or "" for name in ("data", "pretrained")]
        publish(
            settings.output,
            user_path(settings.launcher.publish),
            [str(settings.output), *filter(os.path.isabs, places)],
        )
    return status
