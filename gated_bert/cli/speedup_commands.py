"""The command line of `gated-bert compress --speedups`."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gated_bert.cli.common import prepare_environment, typed_flags
from gated_bert.cli.latency_commands import DEFAULTS as SERVED_DEFAULTS
from gated_bert.cli.latency_commands import SERVED, served_in
from gated_bert.cli.latency_commands import SHOWN as SERVED_SHOWN
from gated_bert.cli.oneshot_commands import SHARED, dense_epochs_of, numbers
from gated_bert.cli.positionals import split_words
from gated_bert.cli.settings import read_settings
from gated_bert.compression.preconditions import check_model, speed_targets
from gated_bert.config import GatedBertConfig
from gated_bert.config.flag_table import DEFAULTS, PRUNING_FIELDS, Flag
from gated_bert.config.option import declared_fields
from gated_bert.config.space import REMOVAL_ORDERS
from gated_bert.support.checks import FlagError, choose
from gated_bert.support.environ import verbosity
from gated_bert.support.errors import UserError
from gated_bert.support.paths import user_path

if TYPE_CHECKING:
    from gated_bert.compression.latency import Conditions
    from gated_bert.experiments.studies.speedups import Family
    from gated_bert.experiments.sweeps.jobs import Job, Plan
    from gated_bert.models.architecture import Architecture

_GROUP = "speed"
SPEEDUPS = Flag(("--speedups",), "speedups", "list", "how many times as fast, over the dense model in fp32: 2,4,8",
                _GROUP, "TIMES")  # fmt: skip
_LEFT_OUT = {"methods", "seeds", "precision", "teacher", *PRUNING_FIELDS}
FLAGS = (
    SPEEDUPS,
    Flag(("--table",), "table", "text", "a latency table that was measured before; by default it is measured", _GROUP,
         "FILE"),
    Flag(("--texts",), "texts", "int", "training examples, without labels, that pruning looks at", _GROUP, low=32),
    Flag(("--search-steps",), "search_steps", "int", "draws in the search for what each layer is pruned to", _GROUP,
         low=0),
    Flag(("--order",), "order", "text", "which units go: obs (second order, with the update of what stays), or, to "
         "compare with, magnitude or random, the same share of every layer", _GROUP, "NAME", REMOVAL_ORDERS,
         names=REMOVAL_ORDERS),
    *SERVED,
    Flag(("--train-precision",), "precision", "text", "of training: auto, float32, mixed_bfloat16, mixed_float16",
         _GROUP, "NAME"),
    *(flag for flag in SHARED if flag.name not in _LEFT_OUT),
)  # fmt: skip
EPOCHS = 2
OWN = {"texts": 1024, "search_steps": 100, "order": "obs"}


@dataclass(frozen=True)
class _Words:
    """What is said of speed.

    Attributes:
        speedups: targets, rising.
        served: fields of `Conditions`.
        own: the fields of `OWN`.
        table: a latency table that is given.
    """

    speedups: list[float]
    served: dict[str, Any]
    own: dict[str, Any]
    table: Path | None

    @classmethod
    def taken_out_of(cls, typed: dict[str, Any]) -> _Words:
        """Takes them out of what was typed."""
        allowed = "numbers above 1 (1.01 to 1000), e.g. 2,4,8"
        speedups = speed_targets(numbers("--speedups", typed.pop("speedups"), allowed, 1.01, 1000))
        said = {flag.name: typed.pop(flag.name) for flag in SERVED if flag.name in typed}
        own = {name: typed.pop(name, value) for name, value in OWN.items()}
        choose("--order", own["order"], REMOVAL_ORDERS)
        table = user_path(typed.pop("table")) if "table" in typed else None
        if table is not None and not table.is_file():
            raise FlagError.refused("--table", str(table), "a file that gated-bert latency-table wrote")
        return cls(speedups, served_in({**SERVED_DEFAULTS, **said}), own, table)


def speedups_command(words: list[str]) -> int:
    """`gated-bert compress --speedups`: a family of models, each so many times as fast as the dense one."""
    text = ("Prunes heads and neurons of a model to measured speeds, one after the other, with the dense model as the "
            "teacher in between; -e 0 does not train.")  # fmt: skip
    given, rest = split_words(words, FLAGS)
    shown = {**DEFAULTS, **SERVED_SHOWN, **OWN, "epochs": EPOCHS, "dense_epochs": "as -e",
             "distill_layers": "all"}  # fmt: skip
    typed = typed_flags("gated-bert compress [MODEL] --speedups 2,4,8", text, FLAGS, rest, shown)
    said = _Words.taken_out_of(typed)
    if "precision" in typed:
        names = declared_fields(GatedBertConfig)["precision"].option.choices
        choose("--train-precision", typed["precision"], tuple(names))
    typed.setdefault("epochs", EPOCHS)
    # Before a model folder is looked at, which imports the framework.
    prepare_environment()
    source = _given_model(given, typed)
    if source is not None:
        typed |= _of_model(source, typed)
    dense_epochs = dense_epochs_of(typed)
    trained = typed["epochs"] > 0
    if not trained and "pretrained" not in typed:
        # The settings' own are then the dense model's.
        typed["epochs"] = dense_epochs
    learns = {name: typed.pop(name) for name in list(typed) if name.startswith("distill_")}
    settings = read_settings({"methods": ("baseline",), **typed}, {}, os.environ)
    verbosity(os.environ)
    if len(settings.tasks) > 1:
        raise FlagError.refused("-t/--task", ",".join(settings.tasks), "one of them")
    output = settings.output
    if (output / "models").exists() and not settings.launcher.resume:
        raise UserError(f"{output}: holds compressed models; go on with --resume, or choose another folder with -o")
    from gated_bert.experiments.sweeps.jobs import Plan, dense_plan, plan_jobs

    plan = plan_jobs(settings)
    if typed.get("check"):
        return 0
    epochs = settings.values["epochs"] if dense_epochs is None else dense_epochs
    dense = dense_plan(plan, output / "runs" / "dense", epochs=epochs).jobs[0] if epochs else None
    model = dense.folder / "model" if dense else source or _model_in(settings.values["pretrained"])
    from gated_bert.compression.latency import Conditions
    from gated_bert.experiments.studies.prune_to_speed import Effort
    from gated_bert.experiments.studies.speedups import Family, make_family
    from gated_bert.experiments.sweeps.overview import configuration_text

    asked = plan.jobs[0].config
    config = asked if trained else asked.replace(epochs=0, pretrained=str(model))
    conditions = Conditions(**said.served)
    if not (dense and typed.get("dry_run")):
        sizes, conditions = _sizes_and_conditions(asked, dense, model, said)
        if "max_len" not in typed:
            config = config.replace(max_len=min(config.max_len, sizes.max_position))
    effort = Effort(said.own["texts"], steps=said.own["search_steps"], seed=config.seed, order=said.own["order"])
    job = dataclasses.replace(plan.jobs[0], config=config)
    family = Family(output, dense, model, job, said.speedups, conditions, effort, learns, said.table)
    family.check()
    print(configuration_text(plan, _shown(plan, family)), flush=True)
    if typed.get("dry_run"):
        return 0
    from gated_bert.experiments.sweeps.sweep import sweep

    def run(jobs: Sequence[Job], folder: Path) -> int:
        return sweep(Plan(dataclasses.replace(settings, output=folder), tuple(jobs)), compared=False)

    return make_family(family, run)


def _sizes_and_conditions(
    asked: GatedBertConfig, dense: Job | None, model: Path, said: _Words
) -> tuple[Architecture, Conditions]:
    """Of the dense model and of its predictions, which are refused before it is trained."""
    from gated_bert.compression.latency import usual_conditions
    from gated_bert.experiments.studies.family_table import check_served, given_table
    from gated_bert.models.build import run_architecture
    from gated_bert.models.folder import read_architecture
    from gated_bert.tasks.task import get_task

    there = asked.pretrained or model
    sizes = run_architecture(asked, get_task(asked.task), 1) if dense else read_architecture(there)
    conditions = usual_conditions(sizes, **said.served)
    check_served(model, sizes, conditions)
    if said.table is not None:
        given_table(said.table, conditions, sizes)
    return sizes, conditions


def _shown(plan: Plan, family: Family) -> list[tuple[str, str]]:
    """Rows of the configuration that are others than a sweep's."""
    from gated_bert.experiments.sweeps.overview import precision_text

    epochs = {"of the dense model": family.dense.config.epochs if family.dense else 0,
              "after each target": family.job.config.epochs}  # fmt: skip
    rows = [("methods", ""), ("epochs", ", ".join(f"{count} {which}" for which, count in epochs.items() if count))]
    if any(epochs.values()):
        # `--precision` is that of predictions.
        rows.append(("precision", f"{precision_text(plan, '--train-precision')}, in training"))
    else:
        rows += [(name, "") for name in ("batch size", "learning rate", "optimizer", "precision")]
    return [*rows, ("longest text", str(family.job.config.max_len)), *family.describe()]


def _given_model(given: list[str], typed: dict[str, Any]) -> Path | None:
    """The model folder that the words name."""
    if len(given) > 1:
        raise FlagError(f"compress: one model folder at most, not {' '.join(given)}")
    for name, label in (("pretrained", "-pt/--pretrained"), ("dense_epochs", "--dense-epochs")):
        if given and name in typed:
            raise FlagError(f"{label}: not together with a model folder, which is pruned as it is")
    return user_path(given[0]) if given else None


def _of_model(source: Path, typed: dict[str, Any]) -> dict[str, Any]:
    """The words that a model folder stands for, or, where it is gone, its copy in the family's folder."""
    from gated_bert.experiments.studies.family_folder import dense_of

    if typed.get("resume"):
        source = dense_of(user_path(typed.get("output", DEFAULTS["output"])), source)
    if not source.exists():
        raise UserError(f"{source}: no such file or folder; give a model folder")
    check_model(source)
    _model_in(str(source))
    task = _task_of(source)
    if typed.get("tasks", (task,)) != (task,):
        raise FlagError.refused("-t/--task", ",".join(typed["tasks"]), f"{task}, which the model is for")
    return {"pretrained": str(source), "dense_epochs": 0, "tasks": (task,)}


def _model_in(name: str) -> Path:
    """The model folder of that name."""
    from gated_bert.models.folder import is_model_folder

    if not is_model_folder(name):
        raise FlagError.refused("compress --speedups", name, "a model folder; gated-bert train -pt FOLDER makes one of "
                                "weights of other tools")  # fmt: skip
    return user_path(name)


def _task_of(source: Path) -> str:
    from gated_bert.experiments.runs.teacher_folder import read_task

    task = read_task(str(source))
    if task is None:
        raise FlagError(f"compress: {source} does not say its task; name it with -t")
    return task.name
