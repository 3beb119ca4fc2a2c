"""Prune by activation change → shrink → fine-tune, over seeds and threshold sets, beside the unpruned model."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np

from gated_bert.compression.shrink import shrink
from gated_bert.config import GatedBertConfig
from gated_bert.experiments.reports.run_layout import MODEL
from gated_bert.experiments.runs.output_folder import locked, note_set_aside, set_aside
from gated_bert.experiments.runs.same_record import changes
from gated_bert.experiments.studies.activation_config import UNPRUNED, ActivationConfig, ThresholdSet
from gated_bert.experiments.studies.activation_table import write_tables
from gated_bert.experiments.sweeps.jobs import Job, Plan, job_command
from gated_bert.experiments.sweeps.request import Settings
from gated_bert.models.backbone import EncoderClassifier
from gated_bert.models.build import build_model
from gated_bert.models.folder import METADATA, is_model_folder, load_model, save_model
from gated_bert.models.run_family import run_tokenizer
from gated_bert.pruning.activation_change import ActivationChanges, activation_changes, close_units, kept_layers
from gated_bert.support.backend import policy
from gated_bert.support.environ import data_label, verbosity
from gated_bert.support.errors import UserError
from gated_bert.support.files import write_csv_atomic
from gated_bert.support.records import read_record
from gated_bert.support.schemas import MadeByActivations
from gated_bert.tasks.data import load_task_data
from gated_bert.tasks.examples import TaskData
from gated_bert.tasks.kinds import CLASSES
from gated_bert.tasks.pipeline import BucketedDataset
from gated_bert.tasks.tokenizer_protocol import TokenizerProtocol

STARTS = "starts"


def run_activation_change(study: ActivationConfig, settings: Settings, sweep: Callable[..., int]) -> int:
    """Runs what is left of a study, then writes and prints its tables.

    Args:
        study: the thresholds and what activations are compared over.
        settings: the runs; their task, seeds and output folder.
        sweep: runs the jobs of one plan, without comparing them.

    Returns:
        The exit status of the first sweep in which a job failed, else 0.

    Raises:
        UserError: data, weights, thresholds or folders that cannot be used.
    """
    configs = [settings.config("baseline", settings.tasks[0], seed) for seed in settings.seeds]
    if verbosity(os.environ):
        print(_describe(study, settings, configs[0]), flush=True)
    resume, jobs = settings.launcher.resume, []
    with locked(settings.output):
        if resume:
            check_starts(study, settings)
        else:
            place = set_aside(settings.output, [settings.output / STARTS], made_of_them=False)
            note_set_aside(f"the earlier models in {settings.output / STARTS}", place)
    if study.base_epochs:
        base = [_job("base", config.replace(epochs=study.base_epochs), settings.output) for config in configs]
        status = sweep(Plan(settings, tuple(base)), compared=False)
        if status:
            return status
        configs = [_from_folder(job.config, job.folder / MODEL, config.epochs)
                   for job, config in zip(base, configs, strict=True)]  # fmt: skip
    for config in configs:
        starts = make_starts(config, study, settings.output / STARTS, resume)
        jobs += [_job(name, _from_folder(config, start, config.epochs), settings.output)
                 for name, start in starts.items()]  # fmt: skip
    status = sweep(Plan(settings, tuple(jobs)), compared=False)
    return status or write_tables(jobs, settings.output)


def check_starts(study: ActivationConfig, settings: Settings) -> None:
    """Refuses to go on with models that other thresholds, or other numbers of batches, have made.

    Raises:
        UserError: names the set of thresholds.
    """
    for seed in settings.seeds:
        for name, thresholds in study.thresholds.items():
            start = settings.output / STARTS / f"{name}_seed{seed}"
            made = read_record(start / METADATA, MadeByActivations, nan=True, tolerant=True) or {}
            now = _record(thresholds, study)
            for field, (was, value) in changes(made.get("activation_change", now), now).items():
                raise UserError(
                    f"--resume: {start} was made with {field} {was} of the thresholds {name}, not {value}; give the "
                    "same, or leave out --resume to start anew"
                )


def _record(thresholds: ThresholdSet, study: ActivationConfig) -> dict:
    return dataclasses.asdict(thresholds) | {"batches": study.activation_batches}


def _describe(study: ActivationConfig, settings: Settings, config: GatedBertConfig) -> str:
    """The configuration, one line each."""
    sets = [f"{name}: attention {list(one.attention)}, FFN {list(one.ffn)} ({one.scale})"
            for name, one in study.thresholds.items()]  # fmt: skip
    rows = [
        ("task and data", f"{config.task}, {data_label(os.environ, config.data)}"),
        ("training examples", "all" if config.train_examples is None else f"{config.train_examples:,}"),
        ("weights", config.pretrained or "random"),
        ("fine-tuning", f"{config.epochs} epoch(s), batches of {config.batch_size}, up to {config.max_len} tokens"),
        ("optimizer", f"{config.optimizer}, rate {config.learning_rate:g}, weight decay {config.weight_decay:g}"
         + (f", momentum {config.momentum:g}" if config.optimizer == "sgd" else "")),
        ("before pruning", f"{study.base_epochs} epoch(s) of fine-tuning" if study.base_epochs else "no fine-tuning"),
        ("activations over", f"{study.activation_batches} batches"),
        *(("thresholds", one) for one in sets),
        ("seeds", ", ".join(map(str, settings.seeds))),
        ("output", str(settings.output)),
    ]  # fmt: skip
    return "\n".join(["Pruning by activation change", *(f"  {name:<18}  {value}" for name, value in rows)])


def _from_folder(config: GatedBertConfig, folder: Path, epochs: int) -> GatedBertConfig:
    """The run that starts from a model folder, whose layers may differ in their sizes."""
    sizes = dict.fromkeys(("num_layers", "d_model", "num_heads", "dff", "vocab_size"))
    return config.replace(pretrained=str(folder.resolve()), epochs=epochs, **sizes)


def _job(variant: str, config: GatedBertConfig, output: Path) -> Job:
    folder = output / f"results_{variant}_{config.task}_seed{config.seed}"
    return Job(f"{variant} seed {config.seed}", config, folder, job_command(folder))


def make_starts(config: GatedBertConfig, study: ActivationConfig, folder: Path, resume: bool) -> dict[str, Path]:
    """The models that fine-tuning starts from: the unpruned one and, per threshold set, its pruned and shrunk copy.

    Args:
        config: the run of one seed.
        study: the thresholds.
        folder: where the model folders go, with `changes_seed{n}.csv`.
        resume: whether to keep those that are there.

    Returns:
        Variant → model folder.

    Raises:
        UserError: a task without classes, or thresholds for another number of layers.
    """
    names = {name: folder / f"{name}_seed{config.seed}" for name in (UNPRUNED, *study.thresholds)}
    if resume and all(is_model_folder(path) for path in names.values()):
        return names
    keras.utils.set_random_seed(config.seed)
    keras.config.set_dtype_policy(policy(config.precision, config.jit_compile))
    data, tokenizer = load_task_data(config), run_tokenizer(config)
    if data.task.kind != CLASSES:
        raise UserError(f"task_name: {data.task.name} is refused; allowed: a task of classes, for F1 and precision")
    model = build_model(config, data.task, tokenizer.vocab_size)
    _check_layers(study.thresholds, model.architecture.num_layers)
    changes = activation_changes(model, activation_batches(data, tokenizer, config, study.activation_batches))
    write_csv_atomic(folder / f"changes_seed{config.seed}.csv", _change_rows(changes))
    save_model(names[UNPRUNED], model, tokenizer, data.task, {"seed": config.seed})
    for name, thresholds in study.thresholds.items():
        pruned = load_model(names[UNPRUNED]).model
        small = prune(pruned, changes, thresholds)
        record = {"seed": config.seed, "activation_change": _record(thresholds, study)}
        save_model(names[name], small, tokenizer, data.task, record)
        print(f"{name} seed {config.seed}, pruned to\n{small.architecture.describe_layers()}", flush=True)
    return names


def prune(model: EncoderClassifier, changes: ActivationChanges, thresholds: ThresholdSet) -> EncoderClassifier:
    """Closes what is below its layer's threshold in `model`, and returns the smaller model that computes the same."""
    close_units(model, kept_layers(changes, thresholds.attention, thresholds.ffn, thresholds.scale))
    return shrink(model)


def activation_batches(
    data: TaskData, tokenizer: TokenizerProtocol, config: GatedBertConfig, count: int
) -> list[dict[str, np.ndarray]]:
    """`count` batches of equally many training texts, drawn with the run's seed and padded to one length.

    Raises:
        UserError: fewer training texts than batches.
    """
    size = min(config.batch_size, len(data.train) // count)
    if not size:
        raise UserError(f"activation_batches: {count} is refused; allowed: up to the {len(data.train)} training texts")
    chosen = np.random.default_rng(config.seed).permutation(len(data.train))[: size * count]
    texts = data.train.take(chosen)
    encoded = tokenizer.encode(texts.texts, texts.pairs, config.max_len)
    batches = BucketedDataset(encoded, None, size, config.max_len, buckets=(int(encoded.lengths.max()),))
    return [batches[index] for index in range(count)]


def _check_layers(sets: dict[str, ThresholdSet], layers: int):
    for name, thresholds in sets.items():
        if len(thresholds.attention) != layers:
            raise UserError(
                f"thresholds {name}: {len(thresholds.attention)} layers, and the model has {layers}; give one "
                "threshold per layer, or set num_hidden_layers"
            )


def _change_rows(changes: ActivationChanges) -> list[dict]:
    rows = [
        {"layer": index, "activation": name, "unit": unit, "change": float(change)}
        for index, layer in enumerate(changes.layers)
        for name, values in layer.items()
        for unit, change in enumerate(values)
    ]
    pooler = enumerate(changes.pooler)
    return rows + [{"layer": None, "activation": "pooler", "unit": u, "change": float(change)} for u, change in pooler]
