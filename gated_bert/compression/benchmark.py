"""What models cost side by side, and which of them no other beats in both speed and metric."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gated_bert.compression.inspect_onnx import onnx_nonzero, read_onnx
from gated_bert.compression.model_statistics import gzipped_size, macs, measure_latency, open_macs, parameter_counts
from gated_bert.compression.onnx_file import weight_files
from gated_bert.compression.onnx_model import OnnxModel, is_onnx
from gated_bert.compression.predict import evaluation_config
from gated_bert.config import ConfigError
from gated_bert.config.input_options import checked_inputs
from gated_bert.models.folder import WEIGHTS, LoadedModel
from gated_bert.support.errors import UserError
from gated_bert.tasks.data import load_task_data
from gated_bert.tasks.evaluation import evaluate_model, make_dataset
from gated_bert.tasks.examples import Examples
from gated_bert.tasks.kinds import MULTI_LABEL
from gated_bert.tasks.labels import match_labels
from gated_bert.tasks.task import TASKS, Task

EVALUATION_BATCH = 32


def model_costs(source: Path, loaded: LoadedModel, length: int) -> dict[str, Any]:
    """Sizes of a model, and its multiply-accumulates (MACs) per token.

    Args:
        source: its folder or ONNX file.
        loaded: what was read there.
        length: tokens of a sequence, for the MACs.

    Returns:
        `format`; `parameters` and `nonzero_parameters`; `size_bytes` and `gzip_bytes` of the file that holds the
        weights (in a model folder gates too); `macs_per_token` of the architecture, and `open_macs_per_token` where
        closed weights cost nothing (None of an ONNX file).
    """
    files = weight_files(source) if is_onnx(source) else [source / WEIGHTS]
    sizes = {"size_bytes": sum(file.stat().st_size for file in files), "gzip_bytes": sum(map(gzipped_size, files))}
    dense, model = macs(loaded.config, length).total, loaded.model
    if isinstance(model, OnnxModel):
        form, opened = f"onnx {model.record['graph']} {model.record['precision']}", None
    else:
        form, opened = f"keras {model.dtype_policy.name}", open_macs(model, length).total
    parameters, nonzero = stored_parameters(source, loaded)
    return {"format": form, "parameters": parameters, "nonzero_parameters": nonzero, **sizes,
            "macs_per_token": dense, "open_macs_per_token": opened}  # fmt: skip


def stored_parameters(source: Path, loaded: LoadedModel) -> tuple[int, int]:
    """The numbers of a model's parameters and of those that are not zero.

    Args:
        source: its folder or ONNX file.
        loaded: what was read there.
    """
    if isinstance(loaded.model, OnnxModel):
        counts = loaded.config.num_parameters, onnx_nonzero(read_onnx(source))
    else:
        counts = parameter_counts(loaded.model)
    return counts[0], min(counts)


def cell_name(batch: int, length: int) -> str:
    """How columns name a shape: b8_l128."""
    return f"b{batch}_l{length}"


def measure_cell(
    models: Mapping[str, LoadedModel], batch: int, length: int, repeats: int
) -> dict[str, dict[str, float]]:
    """Latency and throughput at one shape, the models taking turns.

    Args:
        models: by name.
        batch: sequences.
        length: tokens of each.
        repeats: timed predictions of each model, after two that are not timed.

    Returns:
        Name of the model → `p50_ms` and `p95_ms` (of the predictions, milliseconds), `sequences_per_second` (of them
        all), each with the name of the shape appended.
    """
    seconds = measure_latency({name: each.model for name, each in models.items()}, batch, length, repeats)
    cell = cell_name(batch, length)
    return {
        name: {
            f"p50_ms_{cell}": 1e3 * float(np.quantile(taken, 0.5)),
            f"p95_ms_{cell}": 1e3 * float(np.quantile(taken, 0.95)),
            f"sequences_per_second_{cell}": batch * len(taken) / float(taken.sum()),
        }
        for name, taken in seconds.items()
    }


@dataclasses.dataclass(frozen=True)
class JudgedOn:
    """Examples that models of one task are judged on.

    Attributes:
        task: the task, with one split.
        examples: the examples of that split.
        label: what tables and plots call the data.
        train: the training examples, for what is calibrated.
        splits: names of all splits of the data but training.
    """

    task: Task
    examples: Examples
    label: str
    train: Examples
    splits: tuple[str, ...]


def read_judged(
    models: Mapping[str, LoadedModel], data: str, split: str | None = None, allow_partial: bool = False
) -> JudgedOn:
    """The examples to judge models on.

    Args:
        models: by name; all of one task.
        data: hub, embedded, a folder or a file, as for training.
        split: one of the task's splits; by default its test set where there is one, else the one that decides.
        allow_partial: whether `*_partial` files are accepted.

    Raises:
        UserError: models of different tasks, an unknown split, data of another task, or data that cannot be read.
    """
    first, loaded = next(iter(models.items()))
    task = loaded.task
    for name, each in models.items():
        if (each.task.name, each.task.labels) != (task.name, task.labels):
            raise UserError(
                f"-d/--data: {first} is of task {_described(task)} and {name} of {_described(each.task)}; models are "
                "judged on the same data, so give those of one task, or leave out -d"
            )
    recorded = loaded.metadata.get("config") or {}
    columns = ("text_column", "text_pair_column", "label_column")
    own: dict[str, Any] = {} if task.name in TASKS else {name: recorded.get(name) for name in columns}
    config = checked_inputs(task=task.name, data=data, allow_partial=allow_partial, **own)
    try:
        found = load_task_data(config, task)
    except ConfigError as error:
        if error.field != "task":
            raise
        raise UserError(f"-d/--data: {data!r} is refused; allowed: a file, or a folder with train.*, of task "
                        f"{task.name}, which is none of the known ones") from error  # fmt: skip
    # Own data has a test set where a test file is there now, whatever there was in training.
    splits = found.task.dev_splits
    chosen = split or (splits[-1] if splits[-1] == "test" else splits[0])
    if chosen not in splits:
        raise UserError(f"--split: {split!r} is refused; {task.title} has {', '.join(splits)}")
    dev, train = (_in_order(each, found.task, task, data) for each in (found.dev[chosen], found.train))
    label = f"{found.source['label']}, {chosen}"
    return JudgedOn(dataclasses.replace(task, dev_splits=(chosen,)), dev, label, train, splits)


def _in_order(examples: Examples, found: Task, wanted: Task, data: str) -> Examples:
    """The examples with their classes in the order of the models' outputs."""
    order = match_labels(wanted.labels, found.labels) if found.kind == wanted.kind else None
    if order is None:
        raise UserError(f"-d/--data: {data} is of task {_described(found)}, and the models of {_described(wanted)}")
    if found.labels == wanted.labels:
        return examples
    if wanted.kind == MULTI_LABEL:
        return dataclasses.replace(examples, labels=examples.known_labels[:, np.argsort(order)])
    return dataclasses.replace(examples, labels=np.array(order, dtype=np.int32)[examples.labels])


def _described(task: Task) -> str:
    return f"{task.name} ({', '.join(task.labels) or task.kind})"


def judge(loaded: LoadedModel, judged: JudgedOn) -> dict[str, Any]:
    """The metrics of a model, and what an example takes.

    Returns:
        `metric` (its name), `value`, `instances`, `seconds_per_instance` of the model, `tokenize_seconds_per_instance`,
        and every metric by its name.
    """
    config = evaluation_config(loaded, EVALUATION_BATCH)
    split, count = judged.task.dev_splits[0], len(judged.examples)
    began = time.perf_counter()
    dataset = make_dataset(judged.task, loaded.tokenizer, judged.examples, config)
    tokenized = time.perf_counter()
    values, _ = evaluate_model(loaded.model, judged.task, {split: dataset}, {split: judged.examples}, config)
    ended = time.perf_counter()
    return {
        "metric": judged.task.primary_metric, "value": values[judged.task.primary_metric], "instances": count,
        "seconds_per_instance": (ended - tokenized) / count,
        "tokenize_seconds_per_instance": (tokenized - began) / count,
        **values,
    }  # fmt: skip


def pareto_front(costs: Sequence[float], values: Sequence[float]) -> list[int]:
    """Which points no other beats: as cheap and better, or cheaper and as good.

    Args:
        costs: less is better.
        values: more is better.

    Returns:
        Their indices, from the cheapest to the dearest.
    """
    order = sorted(range(len(costs)), key=lambda index: (costs[index], -values[index]))
    front, best = [], -np.inf
    for index in order:
        if values[index] > best:
            front.append(index)
            best = values[index]
    return front
