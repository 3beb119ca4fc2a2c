"""Students of an explained model: trained for several seeds and loss weights, judged, measured, written down."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import keras
import numpy as np

from gated_bert.compression.benchmark import read_judged
from gated_bert.compression.model_statistics import random_inputs, take_turns
from gated_bert.compression.onnx_model import is_onnx, open_model
from gated_bert.compression.predict import evaluation_config
from gated_bert.experiments.explanations.documents import draw
from gated_bert.experiments.explanations.explanation_folder import (
    AGAIN,
    NOT_COMPARED,
    RECORD,
    making,
)
from gated_bert.experiments.explanations.student_table import student_name, students_text, summarize, write_plot
from gated_bert.experiments.reports.drawing import tolerated
from gated_bert.experiments.reports.names import short_names
from gated_bert.experiments.reports.plots import heading
from gated_bert.experiments.runs.environment import hardware, versions
from gated_bert.explain.student_training import (
    MODEL,
    STUDENT_FILES,
    ExplainedDataset,
    TrainedStudent,
    Training,
    load_student,
    save_student,
    student_similarity,
    train_student,
)
from gated_bert.explain.tokens import TokenExplanations, read_token_explanations
from gated_bert.models.family import family_mark
from gated_bert.models.folder import WEIGHTS, LoadedModel
from gated_bert.support.arrays import DAMAGED, read_npz
from gated_bert.support.errors import UserError, one_line
from gated_bert.support.files import replaced_file, write_csv_atomic
from gated_bert.support.paths import number_name, user_path
from gated_bert.support.progress_bar import progress_bar
from gated_bert.support.records import read_record
from gated_bert.support.schemas import ExplanationRecord, StudentRecord
from gated_bert.tasks.evaluation import make_dataset
from gated_bert.tasks.pipeline import BucketedDataset, predicted_batches

TABLE, SUMMARY, PLOT, PREDICTIONS = "students.csv", "students_summary.csv", "students.png", "bert_predictions.npz"
FOLDERS = "students"
BATCHES = (1, 32)
"""Documents in a prediction whose latency is measured."""
REPEATS = 30


@dataclass(frozen=True)
class Study:
    """What students are trained by and judged on.

    Attributes:
        data: hub, embedded, a folder or a file, as for training.
        seeds: of weights, dropout and order.
        xai_weights: of the explanations in the loss; 0 among them.
        epochs: passes over the documents.
        batch_size: documents in a batch.
        learning_rate: of Adam.
        held_out: share of the explained documents that similarity is measured on.
        threads: threads of one product, in the model and in students.
        split: of the task; None takes its test set, or where it has none the one that decides.
        allow_partial: whether `*_partial` files are accepted.
        count: documents of the split, drawn; None takes all.
        model: the explained model, where it is no longer where it was.
    """

    data: str
    seeds: tuple[int, ...]
    xai_weights: tuple[float, ...]
    epochs: int
    batch_size: int
    learning_rate: float
    held_out: float
    threads: int
    split: str | None = None
    allow_partial: bool = False
    count: int | None = None
    model: str | None = None

    @property
    def training(self) -> Training:
        """How a student is trained."""
        return Training(self.epochs, self.batch_size, self.learning_rate)


@dataclass(frozen=True)
class _Opened:
    """All that students are trained and judged with.

    Attributes:
        source: the explained model.
        loaded: what was read there.
        explanations: of the documents.
        rows: those that students are trained on, and those that similarity is measured on.
        max_len: longest document in tokens.
        judged: batches of the documents that students are judged on.
        record: for `explanation_folder.making`.
    """

    source: Path
    loaded: LoadedModel
    explanations: TokenExplanations
    rows: tuple[np.ndarray, np.ndarray]
    max_len: int
    judged: BucketedDataset
    record: dict


def train_students(folder: Path, out: Path, study: Study, resume: bool) -> list[Path]:
    """Trains students, vanilla and by explanations, and writes `students.csv`, its summary, a plot and the students.

    Args:
        folder: token explanations, as `explain --token-level` wrote them.
        out: where the files go.
        study: what is trained.
        resume: whether to keep the students that are there.

    Returns:
        The files written.

    Raises:
        UserError: explanations, a model, data or a folder that cannot be used.
        KeyboardInterrupt: stopped; its text says what is there.
    """
    opened = _open(folder, study)
    places = {(weight, seed): out / FOLDERS / f"weight_{number_name(weight)}_seed_{seed}"
              for weight in study.xai_weights for seed in study.seeds}  # fmt: skip

    def interrupted() -> str:
        there = sum(map(_is_student, places.values()))
        return (f"stopped; {there} of {len(places)} students are in {out}, and the same "
                "command with --resume goes on")  # fmt: skip

    with making(out, opened.record, resume, interrupted, "students"):
        predicted = _train_all(opened, study, out, places)
        rows = [{"student": student_name(weight), **_read(place)} for (weight, _), place in places.items()]
        bert = {"student": short_names([opened.source])[0], **_bert_costs(opened),
                "accuracy": float(np.mean(predicted == opened.judged.labels))}  # fmt: skip
        latency = _latency(opened, next(iter(places.values())))
        summary = summarize(rows, bert, latency)
        written = [write_csv_atomic(out / TABLE, rows), write_csv_atomic(out / SUMMARY, summary)]
        with tolerated(out / PLOT):
            written.append(write_plot(out / PLOT, summary, opened.record["data"]))
    print(students_text(summary, opened.record))
    return [*written, *places.values(), out / RECORD]


def _open(folder: Path, study: Study) -> _Opened:
    explained, explanations = _read_explained(folder)
    source = user_path(study.model or explained["model"])
    if not source.exists():
        raise UserError(f"{source}: no such file or folder, and {folder} explains this model; say by --model where it "
                        "is now")  # fmt: skip
    loaded = open_model(source, study.threads)
    task = loaded.task
    if (task.name, list(task.labels)) != (explained["task"], explained["labels"]):
        raise UserError(f"{source}: of task {task.name}, and {folder} explains a model of {explained['task']}")
    judged = read_judged({str(source): loaded}, study.data, study.split, study.allow_partial)
    label = heading(task.title, judged.label)
    if label == explained["data"]:
        raise UserError(f"{folder}: explains documents of {label}, which students would be judged on; explain --split "
                        "train, or choose another --split here")  # fmt: skip
    held = draw(len(explanations), None, round(study.held_out * len(explanations)))
    train = np.setdiff1d(np.arange(len(explanations)), held)
    if not len(held) or not len(train):
        raise UserError(f"{folder}: {len(explanations)} documents, too few to hold {study.held_out:g} of them out; "
                        "explain more")  # fmt: skip
    examples = judged.examples.take(draw(len(judged.examples), None, study.count))
    config = evaluation_config(loaded, BATCHES[-1], explained["max_len"])
    record = {
        "kind": "students", "task": task.name, "data": label, "judged_documents": len(examples),
        "train_documents": len(train), "held_out_documents": len(held), **asdict(study.training),
        "explained": {name: value for name, value in explained.items() if name not in NOT_COMPARED},
        "versions": versions(), "hardware": hardware() | {"threads": study.threads},
    }  # fmt: skip
    dataset = make_dataset(task, loaded.tokenizer, examples, config)
    return _Opened(source, loaded, explanations, (train, held), config.max_len, dataset, record)


def _read_explained(folder: Path) -> tuple[dict, TokenExplanations]:
    """How a folder of token explanations came to be, and what it holds.

    Raises:
        UserError: another folder, one that is not finished, or documents without labels.
    """
    record = read_record(folder / RECORD, ExplanationRecord, remedy=AGAIN)
    if record.get("kind") != "tokens":
        raise UserError(f"{folder}: no explanations of word pieces; `gated-bert explain … --token-level` writes them")
    if not record.get("complete"):
        raise UserError(f"{folder}: not all its documents are explained; go on with `gated-bert explain --resume`")
    explanations = read_token_explanations(folder)
    unknown = explanations.documents[explanations.labels < 0]
    if len(unknown):
        raise UserError(f"{folder}: no label of document {unknown[0]}; students are trained on labelled documents")
    return record, explanations


def _train_all(opened: _Opened, study: Study, out: Path, places: dict[tuple[float, int], Path]) -> np.ndarray:
    """Trains and judges the students that are not there yet; gives the model's classes of the judged documents."""
    missing = {key: place for key, place in places.items() if not _is_student(place)}
    batches = len(_dataset(opened, study, 0, None))
    known = (out / PREDICTIONS).is_file()
    total = len(missing) * study.epochs * batches + (0 if known else len(opened.judged))
    with progress_bar("students", total) as advance:
        if not known:
            found = _classes(opened.loaded.model, opened.judged, partial(advance, "predictions of the model"))
            with replaced_file(out / PREDICTIONS) as file:
                np.savez_compressed(file, classes=found)
        predicted = _read_classes(out / PREDICTIONS, len(opened.judged.encoded))
        for (weight, seed), place in missing.items():
            step = partial(advance, f"{student_name(weight)}, seed {seed}")
            _train_one(opened, study, weight, seed, predicted, place, step)
    return predicted


def _read_classes(path: Path, count: int) -> np.ndarray:
    try:
        found = read_npz(path)["classes"]
        if found.shape != (count,) or found.dtype.kind != "i":
            raise ValueError("of another type or shape")
    except DAMAGED as error:
        raise UserError(f"{path}: not a whole file ({one_line(error)}); remove it, and go on with --resume") from error
    return found


def _train_one(opened: _Opened, study: Study, weight: float, seed: int, predicted: np.ndarray, place: Path, step):
    step(0)
    began = time.perf_counter()
    vocab_size = opened.loaded.config.vocab_size
    student = train_student(_dataset(opened, study, 0, seed), vocab_size, weight, study.training, seed, step)
    seconds = time.perf_counter() - began
    classes = _classes(student, opened.judged, lambda done: None)
    record = family_mark(opened.loaded.config.model_type) | {
        "xai_weight": weight, "seed": seed, "accuracy": float(np.mean(classes == opened.judged.labels)),
        "agreement": float(np.mean(classes == predicted)),
        **student_similarity(student, _dataset(opened, study, 1, None)),
        "parameters": student.count_params(), "train_seconds": seconds,
    }  # fmt: skip
    save_student(place, TrainedStudent(student, opened.loaded.tokenizer, opened.loaded.task, record))


def _dataset(opened: _Opened, study: Study, part: int, seed: int | None) -> ExplainedDataset:
    """Batches of the documents that students are trained on (part 0) or that are held out (1)."""
    options = {"batch_size": study.batch_size, "max_len": opened.max_len, "seed": seed}
    return ExplainedDataset(opened.explanations, opened.rows[part], **options)


def _classes(model, dataset: BucketedDataset, step: Callable[[int], None]) -> np.ndarray:
    """The classes that a model predicts, in the data's order."""
    classes = np.empty(dataset.examples, np.int64)
    for rows, outputs in predicted_batches(model, dataset):
        classes[rows] = outputs.argmax(axis=1)
        step(1)
    return classes


def _is_student(place: Path) -> bool:
    return all((place / name).is_file() for name in STUDENT_FILES)


def _read(place: Path) -> dict:
    record = read_record(place / RECORD, StudentRecord)
    record.pop("task")
    return {**record, "size_bytes": (place / MODEL).stat().st_size}


def _bert_costs(opened: _Opened) -> dict[str, int]:
    file = opened.source if is_onnx(opened.source) else opened.source / WEIGHTS
    return {"parameters": opened.loaded.config.num_parameters, "size_bytes": file.stat().st_size}


def _latency(opened: _Opened, place: Path) -> dict[str, dict[str, float]]:
    """Milliseconds a document of the model (`bert`) and of one student, at the length that half the documents fit."""
    dataset = opened.judged
    median = np.quantile(dataset.encoded.lengths, 0.5, method="higher")
    length = next(each for each in dataset.buckets if each >= median)
    models: dict[str, keras.Model] = {"bert": opened.loaded.model, "student": load_student(place).model}
    found: dict[str, dict[str, float]] = {name: {"length": length} for name in models}
    for batch in BATCHES:
        inputs = random_inputs(opened.loaded.config, batch, length)
        calls = {name: partial(model.predict_on_batch, inputs) for name, model in models.items()}
        for name, taken in take_turns(calls, REPEATS).items():
            found[name][f"ms_a_document_b{batch}"] = 1e3 * float(np.median(taken)) / batch
    return found
