"""Predictions for a file of any size, with their metrics and, if asked for, a log of what they took."""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from gated_bert.compression.onnx_model import is_onnx, open_model
from gated_bert.compression.predict import CHUNK_ROWS, Predicted, evaluation_config, predict_tables, warm_up
from gated_bert.compression.predicted_rows import PredictedRows, is_labelled, predicted_rows
from gated_bert.experiments.reports.results import metric_scale, metric_title
from gated_bert.experiments.runs.resource_log import ResourceLog
from gated_bert.support.files import replaced_file, write_json_atomic
from gated_bert.support.progress_bar import progress_bar
from gated_bert.tasks.columns import Columns, find_columns
from gated_bert.tasks.tables import read_chunks
from gated_bert.tasks.task import Task

LOG_SECONDS = 0.5
"""Seconds between two readings of the log of resources."""


def predict_file(
    source: Path,
    path: Path,
    out: Path,
    columns: Mapping[str, str],
    batch_size: int,
    max_len: int | None = None,
    monitor: bool = False,
) -> list[Path]:
    """Predicts every row of a file; it is read in parts, so that its size does not matter.

    All rows are looked through before the first is predicted.

    Args:
        source: a model folder or an ONNX file.
        path: a .tsv, .csv, .jsonl, .conll or .txt file.
        out: the CSV file of the predictions. `_metrics.json` and `_resources.csv` are appended to its name for others.
        columns: `text_column`, `text_pair_column` and `label_column`, as far as they were named.
        batch_size: rows in a batch.
        max_len: longest text in tokens; by default that of the model's training.
        monitor: whether to log memory and processor.

    Returns:
        The files written.

    Raises:
        UserError: a model or a file that cannot be read, or a refused row.
    """
    loaded = open_model(source)
    config = evaluation_config(loaded, batch_size, max_len)
    found = find_columns(path, loaded.task, columns, loaded.metadata.get("config") or {})
    rows = check_rows(path, found, loaded.task)
    log = ResourceLog(out.parent, LOG_SECONDS if monitor else 0.0, name=f"{out.stem}_resources.csv")
    try:
        with log:
            warm_up(loaded)
            if monitor:
                # Only a Keras model is on the backend's device, if that is a GPU.
                log.read("predict", None if is_onnx(source) else 1)
            predicted = predicted_rows(loaded.task)
            record = _predict(predicted, predict_tables(loaded, _tables(path, found), found, config), out, rows)
    except KeyboardInterrupt:
        raise KeyboardInterrupt("stopped; no predictions were written") from None
    about = {"model": str(source), "file": str(path), "task": loaded.task.name, **record,
             "batch_size": config.batch_size, "max_len": config.max_len}  # fmt: skip
    metrics_path = write_json_atomic(out.with_name(f"{out.stem}_metrics.json"), about)
    log.plot()
    print(_summary(about, loaded.task))
    print("".join(f"note: {note}\n" for note in predicted.notes), end="")
    logs = (log.path, log.path.with_suffix(".png"))
    return [out, metrics_path, *(path for path in logs if monitor and path.exists())]


def check_rows(path: Path, columns: Columns, task: Task) -> int:
    """The number of rows of a file, all of which can be predicted.

    Raises:
        UserError: one that cannot, by its line.
    """
    return sum(len(columns.examples(table, task)) for table in _tables(path, columns))


def _tables(path: Path, columns: Columns):
    return read_chunks(path, CHUNK_ROWS, columns.header)


def _predict(predicted: PredictedRows, parts: Iterable[Predicted], out: Path, rows: int) -> dict[str, float]:
    """Writes the predictions and returns their metrics and times."""
    began, done, tokenizing, predicting, labelled = time.perf_counter(), 0, 0.0, 0.0, False
    with replaced_file(out) as file, progress_bar("predict", rows) as advance:
        text = io.TextIOWrapper(file, encoding="utf-8", newline="", write_through=True)
        writer = csv.writer(text, lineterminator="\n")
        for part in parts:
            labelled = is_labelled(part.examples)
            if not done:
                writer.writerow(predicted.header(labelled))
            writer.writerows(predicted.rows(part, done + 1))
            if labelled:
                predicted.add(part)
            tokenizing, predicting = tokenizing + part.tokenize_seconds, predicting + part.model_seconds
            done += len(part.examples)
            advance("", len(part.examples))
        text.detach()
    seconds = time.perf_counter() - began
    return (predicted.result() if labelled else {"instances": done}) | {
        "total_seconds": seconds, "seconds_per_instance": seconds / done, "tokenize_seconds": tokenizing,
        "model_seconds": predicting, "model_seconds_per_instance": predicting / done,
    }  # fmt: skip


def _summary(record: Mapping[str, Any], task: Task) -> str:
    words = f", {record['words']:,} words" if "words" in record else ""
    right = f", {record['correct']:,} correct" if "correct" in record else ""
    lines = [f"{record['instances']:,} rows{words}{right}"]
    names = [name for name in dict.fromkeys(("accuracy", *task.metrics)) if name in record]
    lines += [f"{metric_title(name)}: {record[name] * metric_scale(name):.2f}" for name in names]
    lines.append(f"{record['total_seconds']:.2f} s, {1e3 * record['seconds_per_instance']:.2f} ms a row, of which the "
                 f"model {1e3 * record['model_seconds_per_instance']:.2f} ms")  # fmt: skip
    return "\n".join(lines)
