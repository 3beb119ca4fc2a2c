"""The command line of `gated-bert pipeline`."""

from __future__ import annotations

from pathlib import Path

from gated_bert.cli.common import prepare_environment, typed_flags
from gated_bert.cli.compress_commands import FLAGS as COMPRESS_FLAGS
from gated_bert.cli.compress_commands import LEVELS, compress_command
from gated_bert.cli.explain_commands import LEAST_SAMPLES, LIME_DEFAULTS
from gated_bert.cli.student_commands import DEFAULTS as STUDENT_DEFAULTS
from gated_bert.config.flag_table import DEFAULTS, Flag
from gated_bert.support.errors import UserError
from gated_bert.support.paths import user_path
from gated_bert.tasks.data_source import folder_task

STEPS = ("compress", "explain", "sp-lime", "similarity", "pos", "tokens", "students", "report")
_GROUP = "explanations"
_DEFAULTS = {
    "documents": 100, "pick": 100, "token_documents": 100, "student_seeds": STUDENT_DEFAULTS["seeds"],
    "xai_weights": STUDENT_DEFAULTS["xai_weights"], "student_epochs": STUDENT_DEFAULTS["epochs"],
    **{name: LIME_DEFAULTS[name] for name in ("num_features", "num_samples")},
}  # fmt: skip
_OWN = (
    Flag(("--skip",), "skip", "list", "steps that are left out, of " + ", ".join(STEPS), _GROUP, "STEP", STEPS),
    Flag(("--documents",), "documents", "int", "documents of each class that the base model is explained on", _GROUP,
         low=1),
    Flag(("--pick",), "pick", "int", "documents that SP-LIME picks of them, for all models", _GROUP, low=1),
    Flag(("--num-features",), "num_features", "int", "most words of an explanation", _GROUP, low=1),
    Flag(("--num-samples",), "num_samples", "int", "LIME's samples of each document", _GROUP, low=LEAST_SAMPLES),
    Flag(("--token-documents",), "token_documents", "int", "training documents of each class that students learn from",
         _GROUP, low=1),
    Flag(("--student-seeds",), "student_seeds", "list", "seeds of the students: 1,2,3", _GROUP, "SEED"),
    Flag(("--student-epochs",), "student_epochs", "int", "passes of students over their documents", _GROUP, low=1),
    Flag(("--xai-weights",), "xai_weights", "list", "weights of the explanations in students' losses", _GROUP,
         "WEIGHT"),
)  # fmt: skip
_OPTIONS = {option for flag in _OWN for option in flag.options}


def pipeline_command(words: list[str]) -> int:
    """`gated-bert pipeline`: from a base model to the report on what pruning does to its explanations."""
    text = ("Compresses a task's model as `gated-bert compress` does, explains base and compressed models, compares "
            "the explanations, tags their words, trains students, and reports; flags of compress are taken, too. Every "
            "step is a command of its own, that is shown.")  # fmt: skip
    shown = {**DEFAULTS, **_DEFAULTS, "levels": LEVELS, "dense_epochs": "as -e"}
    typed = typed_flags("gated-bert pipeline", text, (*_OWN, *COMPRESS_FLAGS), words, shown)
    values = _DEFAULTS | {name: value for name, value in typed.items() if name in _DEFAULTS}
    output, skip = user_path(typed.get("output", "pipeline")), typed.get("skip", ())
    compress = [*_without_own(words), *(() if "output" in typed else ("-o", str(output)))]
    resume, dry = bool(typed.get("resume")), bool(typed.get("dry_run"))
    if (output / "pipeline.json").exists() and not resume and not dry:
        raise UserError(f"{output}: holds a pipeline's results; go on with --resume, or choose another folder with -o")
    if "compress" not in skip:
        compress_command([*compress, "--check", *["--resume"] * resume])
    elif not (output / "models" / "base").is_dir():
        raise UserError(f"{output / 'models'}: no base in it, and --skip compress; `gated-bert compress -o {output}` "
                        "makes the models")  # fmt: skip
    if typed.get("check"):
        return 0
    _check_task(output, typed, skip)
    data = [typed.get("data", DEFAULTS["data"])] + ["--allow-partial"] * bool(typed.get("allow_partial"))
    prepare_environment()
    from gated_bert.experiments.studies.compression_pipeline import print_pipeline, run_pipeline
    from gated_bert.experiments.studies.pipeline_plan import Pipeline

    if "pos" not in skip:
        from gated_bert.explain.pos import check_data

        check_data()
    levels = None if "compress" in skip else tuple(typed.get("levels", LEVELS.split(",")))
    pipeline = Pipeline(output, tuple(skip), tuple(compress), levels, tuple(data), typed.get("seed", 42), values)
    return print_pipeline(pipeline) if dry else run_pipeline(pipeline)


def _without_own(words: list[str]) -> list[str]:
    """The words that say what compress makes: without flags of `_OWN` and what follows them, and without `--resume`."""
    kept, own = [], False
    for word in words:
        if word.startswith("-"):
            own = word.split("=", 1)[0] in {*_OPTIONS, "--resume", "--dry-run"}
        if not own:
            kept.append(word)
    return kept


def _check_task(output: Path, typed: dict, skip: tuple[str, ...]):
    """Refuses tasks without explanations before hours of training, unless only training is asked for."""
    if set(STEPS[1:-1]) <= set(skip):
        return
    prepare_environment()
    from gated_bert.explain.lime import check_explainable
    from gated_bert.support.records import read_record
    from gated_bert.support.schemas import ModelConfig
    from gated_bert.tasks.task import Task, get_task

    if "compress" in skip:
        config = output / "models" / "base" / "config.json"
        task = Task.from_dict(read_record(config, ModelConfig)["task"], str(config))
    else:
        data = typed.get("data", DEFAULTS["data"])
        name = (typed.get("tasks") or (folder_task(data) or DEFAULTS["tasks"],))[0]
        if Path(name).suffix:
            return  # A file of the user's: what is in it is known once it is read.
        task = get_task(name)
    check_explainable(task)
