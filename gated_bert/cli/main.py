"""The command `gated-bert`: one sub-command per job; parses, calls, prints."""

from __future__ import annotations

import os
import sys
import warnings
from pathlib import Path

from gated_bert.cli.activation_commands import activation_change_command
from gated_bert.cli.common import (
    iou_command,
    note_replaced,
    patterns_command,
    prepare_environment,
    shrink_command,
    typed_flags,
)
from gated_bert.cli.compress_commands import compress_command
from gated_bert.cli.deploy_commands import benchmark_command, inspect_command, predict_command
from gated_bert.cli.endings import REFUSED, end
from gated_bert.cli.example_lines import FIRST
from gated_bert.cli.explain_commands import explain_command, sp_lime_command
from gated_bert.cli.explain_compare_commands import compare_explanations_command, pos_command
from gated_bert.cli.export_commands import export_command, quantize_command
from gated_bert.cli.latency_commands import latency_table_command
from gated_bert.cli.lottery_commands import lottery_command
from gated_bert.cli.oneshot_commands import oneshot_command
from gated_bert.cli.outputs import check_writable
from gated_bert.cli.pipeline_commands import pipeline_command
from gated_bert.cli.plugin_words import load_named_plugins, without_plugins
from gated_bert.cli.positionals import split_words
from gated_bert.cli.settings import read_settings
from gated_bert.cli.student_commands import student_command
from gated_bert.cli.sweep_commands import stages_command, sweep_command
from gated_bert.cli.vocabulary_commands import trim_vocabulary_command
from gated_bert.cli.watch_commands import watch_command
from gated_bert.config import GatedBertConfig
from gated_bert.config.flag_table import JOB_FLAGS, LABELS, Flag
from gated_bert.config.own_commands import OWN_COMMANDS, Command
from gated_bert.experiments.sweeps.jobs import Plan, plan_jobs
from gated_bert.support.checks import FlagError, did_you_mean
from gated_bert.support.environ import LAUNCHER_VARIABLE, check_backend, verbosity
from gated_bert.support.paths import user_path
from gated_bert.support.records import read_record
from gated_bert.tasks.data_source import find_data

_PYTHONS_WARNING_TEXT = warnings.formatwarning


def train_command(words: list[str]) -> int:
    """`gated-bert train`: one run in this process."""
    typed = typed_flags("gated-bert train", "Trains one model, pruned by one method.", JOB_FLAGS, words)
    config, folder, flag, plan = _one_run(typed)
    prepare_environment()
    from gated_bert.experiments.reports.next_steps import say_next_of_run
    from gated_bert.experiments.runs.job_process import run_job
    from gated_bert.experiments.sweeps.overview import configuration_text

    alone = LAUNCHER_VARIABLE not in os.environ
    if alone and plan and config.recipe and verbosity(os.environ):
        print(configuration_text(plan, [("output", str(folder))]), flush=True)
    status = run_job(config, folder, bool(typed.get("resume")), flag)
    if alone:
        say_next_of_run(folder, config)
    return status


def compare_command(words: list[str]) -> int:
    """`gated-bert compare`: tables and plots from any set of run folders."""
    flags = (Flag(("-o", "--output-dir"), "output", "text", "folder of the comparison", "output", "FOLDER"),)
    folders, words = split_words(words, flags)
    typed = typed_flags("gated-bert compare FOLDER…", "Compares finished runs.", flags, words, {"output": "comparison"})
    if not folders:
        raise FlagError("compare: at least one folder of runs is needed, e.g. gated-bert compare results")
    for folder in folders:
        if not user_path(folder).is_dir():
            raise FlagError.refused("compare", folder, "existing folders of runs")
    from gated_bert.experiments.reports.compare import compare

    out = user_path(typed.get("output", "comparison"))
    note_replaced(out / "comparison.csv")
    compare([user_path(folder) for folder in folders], out)
    return 0


def download_command(words: list[str]) -> int:
    """`gated-bert download`: what a machine without a network will need."""
    known = ("glue", "ag_news", "squad", "bert")
    names, words = split_words(words, ())
    text = f"Fetches data or weights into a folder: {', '.join(known)}."
    typed_flags("gated-bert download WHAT FOLDER", text, (), words)
    if len(names) != 2:
        raise FlagError(f"download: needs what and a folder; what is one of {', '.join(known)}")
    if names[0] not in known:
        raise FlagError.refused("download", names[0], ", ".join(known) + did_you_mean(names[0], known))
    check_writable("download FOLDER", names[1], is_folder=True)
    from gated_bert.tasks.download import download

    download(names[0], user_path(names[1]))
    return 0


def study_command(words: list[str]) -> int:
    """`gated-bert study`: a named set of sweeps, resumed where it stopped, and its comparison."""
    flags = (
        Flag(("--scale",), "scale", "text", "smoke, standard or full", "study", "SCALE"),
        Flag(("-o", "--output-dir"), "output", "text", "folder of the study", "study", "FOLDER"),
        Flag(("-d", "--data"), "data", "text", "hub or a folder of official files", "study", "SOURCE"),
        Flag(("-pt", "--pretrained"), "pretrained", "text", "weights: a Hugging Face id or a folder", "study", "FROM"),
        Flag(("--parts",), "parts", "list", "only these, and what they start from", "study", "NAME"),
        Flag(("-max-parallel-jobs", "--max-parallel-jobs"), "jobs", "int", "jobs of a part at a time (default: what "
             "the machine has room for, of parts beside each other 1)", "study", low=1),
        Flag(("--parts-at-a-time",), "at_a_time", "int", "parts beside each other (default 1)", "study", low=1),
        Flag(("--publish",), "publish", "text", "copy tables and plots here", "study", "FOLDER"),
        Flag(("--dry-run",), "dry_run", "alone", "show the commands of its parts, start nothing", "study"),
    )
    from gated_bert.experiments.studies.catalogue import SCALES, STUDIES, about
    from gated_bert.experiments.studies.study import publish, run_study

    names, words = split_words(words, flags)
    typed = typed_flags("gated-bert study NAME", about(names), flags, words, {"scale": "standard"})
    if len(names) != 1 or names[0] not in STUDIES:
        raise FlagError.refused("study", " ".join(names), ", ".join(STUDIES) + did_you_mean(" ".join(names), STUDIES))
    scale = typed.get("scale", "standard")
    if scale not in SCALES:
        raise FlagError.refused("--scale", scale, ", ".join(SCALES) + did_you_mean(scale, SCALES))
    if "data" in typed:
        find_data(typed["data"], "-d/--data")
    output = user_path(typed.get("output", f"results/study_{names[0]}_{scale}"))
    status = run_study(names[0], scale, output, _run_command, typed.get("data"), typed.get("pretrained"),
                       typed.get("jobs"), typed.get("parts", ()), typed.get("at_a_time", 1),
                       typed.get("dry_run", False))  # fmt: skip
    if status == 0 and "publish" in typed and "dry_run" not in typed:
        places = [typed[name] for name in ("data", "pretrained") if "/" in typed.get(name, "")]
        publish(output, user_path(typed["publish"]), [str(output), *places])
        print(f"copied to {typed['publish']}")
    return status


def _run_command(name: str, words: list[str]) -> int:
    return COMMANDS[name].run(words)


COMMANDS = {
    "train": Command("train and prune one model", train_command),
    "sweep": Command("train several methods, tasks and seeds, and compare them", sweep_command),
    "stages": Command("prune stage after stage, each from the last one's weights", stages_command),
    "oneshot": Command("prune trained models at once by several strategies, and compare them", oneshot_command),
    "lottery": Command("find lottery tickets, and train them beside their controls", lottery_command),
    "watch": Command("show runs as they go on, in the terminal or on a page", watch_command),
    "compare": Command("compare finished runs", compare_command),
    "study": Command("run a study whose figures the project publishes", study_command),
    "compress": Command("prune, shrink, export, quantise and measure one task's model", compress_command),
    "shrink": Command("make a pruned model's matrices smaller", shrink_command),
    "trim-vocabulary": Command("leave out the tokens that some texts never use", trim_vocabulary_command),
    "patterns": Command("show what each pattern removes from a real matrix", patterns_command),
    "iou": Command("compare which weights runs have closed", iou_command),
    "activation-change": Command("prune by how activations change, shrink, fine-tune", activation_change_command),
    "export": Command("write a model as an ONNX file, or in another tool's format", export_command),
    "quantize": Command("write a model as an ONNX file of 8 or 16 bits", quantize_command),
    "predict": Command("predict every row of a file by a model folder or an ONNX file", predict_command),
    "inspect": Command("show sizes, sparsity and masks of a model, or what an ONNX file holds", inspect_command),
    "benchmark": Command("compare models: size, speed, memory, metric", benchmark_command),
    "latency-table": Command("measure what heads and neurons of a model cost in time", latency_table_command),
    "explain": Command("explain predictions by LIME: words, their weights, a page", explain_command),
    "sp-lime": Command("pick documents whose explanations stand for all", sp_lime_command),
    "compare-explanations": Command("compare what models' predictions rest on", compare_explanations_command),
    "pos": Command("tag the words that explanations rest on, and compare models by them", pos_command),
    "student": Command("train small students of an explained model, vanilla and by its explanations", student_command),
    "pipeline": Command("compress, explain, compare, and report, from a base model on", pipeline_command),
    "download": Command("fetch data and weights for a machine without a network", download_command),
}

RECORDING = ("train", "sweep", "stages", "oneshot", "lottery", "compress", "pipeline")
"""Commands whose runs hold plug-ins in their records; for the others `--plugin FILE` only loads one."""


def main(words: list[str] | None = None) -> int:
    """Runs a sub-command.

    Args:
        words: the command line without the program's name; `None` takes the process's own.

    Returns:
        The exit status: 0 done, 1 a job failed, 2 refused, 70 a fault of the toolkit, 130 interrupted.
    """
    words = sys.argv[1:] if words is None else words
    warnings.formatwarning = _warning_text
    try:
        try:
            status = _dispatch(words)
        except SystemExit as shown:
            status = shown.code if isinstance(shown.code, int) else int(shown.code is not None)
        # What cannot be written is told now, and not by Python at exit.
        sys.stdout.flush()
        return status
    except (Exception, KeyboardInterrupt) as error:
        return end(error, words)


def _warning_text(message, category, filename, lineno, line=None) -> str:
    """A warning of this package's as one line, without the place in its code."""
    if category is UserWarning and Path(filename).is_relative_to(Path(__file__).parents[1]):
        return f"warning: {message}\n"
    return _PYTHONS_WARNING_TEXT(message, category, filename, lineno, line)


def _dispatch(words: list[str]) -> int:
    if not words:
        _print_first()
        return REFUSED
    name = words[0]
    if not {"-h", "--help"} & set(words):
        check_backend(os.environ)
        verbosity(os.environ)
    if LAUNCHER_VARIABLE in os.environ and name not in ("train", "-h", "--help"):
        # Of a study that runs its parts beside each other; `train` does both itself.
        from gated_bert.experiments.runs.job_process import stop_on_signals, watch_launcher

        stop_on_signals()
        watch_launcher()
    load_named_plugins(words[1:])
    commands = COMMANDS | {own: entry for own, entry in OWN_COMMANDS.items() if own not in COMMANDS}
    if name in ("-h", "--help"):
        print("usage: gated-bert COMMAND [flags]\n\ncommands (each answers -h):")
        for command, entry in commands.items():
            print(f"  {command:<21}{entry.summary}")
        return 0
    if name not in commands:
        raise FlagError.refused("command", name, ", ".join(commands) + did_you_mean(name, commands))
    return commands[name].run(words[1:] if name in RECORDING else without_plugins(words[1:]))


def _print_first():
    print("gated-bert prunes BERT-style models. Five commands to begin with:\n")
    for line, what in FIRST.items():
        print(f"  {line}\n      {what}\n")
    print("gated-bert -h lists all commands, and each answers -h.")


def _one_run(typed: dict) -> tuple[GatedBertConfig, Path, str, Plan | None]:
    """The run's record, its folder, the flag that named that, and its plan where no file holds the record."""
    named_by = LABELS["run_dir" if "run_dir" in typed else "config_file" if "config_file" in typed else "output"]
    if "config_file" in typed:
        others = [LABELS[name] for name in typed if name not in ("config_file", "run_dir", "resume")]
        if others:
            raise FlagError(f"{others[0]}: not together with --config-file, which holds the whole record")
        path = user_path(typed["config_file"])
        if not path.is_file():
            raise FlagError.refused("--config-file", str(path), "an existing JSON file")
        remedy = "give a JSON object of fields and values"
        record = read_record(path, where=f"--config-file: {path}", remedy=remedy)
        config = GatedBertConfig.from_dict(record)
        return config, user_path(typed.get("run_dir", path.parent)), named_by, None
    settings = read_settings(typed, {"methods": "spt"}, os.environ)
    if len(settings.methods) != 1 or len(settings.tasks) != 1:
        raise FlagError("train: one method and one task; `gated-bert sweep` takes several")
    if "run_dir" in typed and "output" in typed:
        raise FlagError(f"{LABELS['output']}: not together with {LABELS['run_dir']}, the folder of this very run")
    plan = plan_jobs(settings)
    (job,) = plan.jobs
    return job.config, user_path(typed.get("run_dir") or job.folder), named_by, plan
