"""Training of students, and the folders that they are kept in."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
from keras import ops

from gated_bert.explain.student import Student, explanation_loss, explanation_similarity
from gated_bert.explain.tokens import TokenExplanations
from gated_bert.models.family import marked_family
from gated_bert.models.folder import replaced_folder
from gated_bert.models.keras_file import read_keras
from gated_bert.support.backend import always_compiles
from gated_bert.support.errors import UserError
from gated_bert.support.paths import user_path
from gated_bert.support.records import check_record, read_record
from gated_bert.support.schemas import OfTask
from gated_bert.tasks.encoded import IDS, Encoded
from gated_bert.tasks.pipeline import BucketedDataset
from gated_bert.tasks.task import Task
from gated_bert.tasks.tokenizer_protocol import TokenizerProtocol

MODEL, TOKENIZER, RECORD = STUDENT_FILES = ("student.keras", "tokenizer.json", "record.json")


class ExplainedDataset(BucketedDataset):
    """Batches of documents with their labels (`logits`) and LIME weights (`attributions`) as targets.

    Args:
        explanations: of the documents, all of known classes.
        rows: which of them.
        **options: `batch_size`, `max_len` and `seed` of `BucketedDataset`.
    """

    def __init__(self, explanations: TokenExplanations, rows: np.ndarray, **options):
        ids = explanations.input_ids
        encoded = Encoded({IDS: ids}, explanations.offsets).take(rows)
        super().__init__(encoded, explanations.labels[rows], **options)
        ends = explanations.offsets
        self.weights = [explanations.weights[ends[row] : ends[row + 1]] for row in rows]

    def __getitem__(self, index: int):
        inputs, labels = super().__getitem__(index)
        rows = self._plan.batches[self._plan.first_batch + index]
        real = inputs["attention_mask"].astype(bool)
        weights = np.zeros((*real.shape, self.weights[0].shape[1]), np.float32)
        weights[real] = np.concatenate([self.weights[row] for row in rows])
        return inputs, {"logits": labels, "attributions": weights}


class _Explaining(keras.Model):
    """A student with its attributions as a second output, so that `fit` can hold both against targets."""

    def __init__(self, student: Student):
        super().__init__(name="explaining")
        self.student = student

    def call(self, inputs, training=None):
        logits = self.student(inputs, training=training)
        return {"logits": logits, "attributions": self.student.attributions(inputs)}


@dataclass(frozen=True)
class Training:
    """How a student is trained.

    Attributes:
        epochs: passes over the documents.
        batch_size: documents in a batch.
        learning_rate: of Adam.
    """

    epochs: int = 5
    batch_size: int = 32
    learning_rate: float = 1e-3


def train_student(
    dataset: ExplainedDataset,
    vocab_size: int,
    xai_weight: float,
    training: Training,
    seed: int,
    progress: Callable[[int], None] | None = None,
) -> Student:
    """Trains a student by (1 − w) · cross-entropy + w · `explanation_loss`.

    Students of one seed start from the same weights and see the same batches, whatever w is.

    Args:
        dataset: the documents, in the order of `seed`.
        vocab_size: rows of its embedding.
        xai_weight: w, from 0 (vanilla: cross-entropy alone) to 1.
        training: how.
        seed: of weights and dropout.
        progress: called after each batch with the batches done since the last call.

    Raises:
        UserError: the loss is no longer a finite number.
    """
    keras.utils.set_random_seed(seed)
    student = Student(vocab_size, dataset.weights[0].shape[1])
    model = _Explaining(student)
    model.compile(
        keras.optimizers.Adam(training.learning_rate),
        {"logits": keras.losses.SparseCategoricalCrossentropy(from_logits=True), "attributions": explanation_loss},
        loss_weights={"logits": 1 - xai_weight, "attributions": xai_weight},
        # Compiled for each length XLA would take longer than the training; JAX is slow without.
        jit_compile=always_compiles(),
    )
    follow = keras.callbacks.LambdaCallback(
        on_epoch_begin=lambda epoch, logs: dataset.set_epoch(epoch),
        on_train_batch_end=lambda batch, logs: progress and progress(1),
    )
    history = model.fit(dataset, epochs=training.epochs, shuffle=False, verbose=0, callbacks=[follow]).history
    if not math.isfinite(history["loss"][-1]):
        raise UserError(f"-l/--learning-rate: with {training.learning_rate:g} the loss of a student is no finite "
                        "number any more; give a smaller one")  # fmt: skip
    return student


def student_similarity(student: Student, dataset: ExplainedDataset) -> dict[str, float | None]:
    """Mean `explanation_similarity` of a student over the documents where it is defined, and how many these are.

    Returns:
        `cosine` and `spearman`, None where there is no such document, and `explained_documents`.
    """
    found = [explanation_similarity(*pair) for pair in _explanations(student, dataset)]
    values = {name: [each[name] for each in found if math.isfinite(each[name])] for name in ("cosine", "spearman")}
    means = {name: float(np.mean(each)) if each else None for name, each in values.items()}
    return {**means, "explained_documents": len(values["cosine"])}


def _explanations(student: Student, dataset: ExplainedDataset) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """LIME's weights and the student's attributions of each document, [tokens, classes]."""
    for index in range(len(dataset)):
        inputs, targets = dataset[index]
        found = ops.convert_to_numpy(student.attributions(inputs))
        for row, length in enumerate(inputs["attention_mask"].sum(axis=1)):
            yield targets["attributions"][row, :length], found[row, :length]


@dataclass(frozen=True)
class TrainedStudent:
    """What a student's folder holds.

    Attributes:
        model: the student.
        tokenizer: that of the explained model, which makes its inputs; `record` names its family.
        task: what it classifies.
        record: how it was trained, and what it is worth.
    """

    model: Student
    tokenizer: TokenizerProtocol
    task: Task
    record: dict


@dataclass(frozen=True)
class StudentSizes:
    """The sizes of a stored student, as `Student` takes them."""

    vocab_size: int
    classes: int
    embedding_size: int
    hidden_size: int
    dropout_rate: float

    @property
    def parameters(self) -> int:
        """Trainable parameters of such a student."""
        outputs = (self.hidden_size + 1) * self.classes
        return self.vocab_size * self.embedding_size + (self.embedding_size + 1) * self.hidden_size + outputs


def save_student(folder: Path, student: TrainedStudent):
    """Writes a student's folder as a whole: `student.keras`, `tokenizer.json` and `record.json`.

    Raises:
        UserError: it cannot be written.
    """
    with replaced_folder(folder) as new:
        student.model.save(new / MODEL)
        student.tokenizer.save(new / TOKENIZER)
        record = {"task": student.task.to_dict(), **student.record}
        (new / RECORD).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def load_student(folder: str | Path) -> TrainedStudent:
    """Reads a student's folder.

    Raises:
        UserError: a missing or malformed file.
    """
    folder = user_path(folder)
    for name in STUDENT_FILES:
        if not (folder / name).is_file():
            raise UserError(f"{folder}: no {name} in it; a student's folder holds {', '.join(STUDENT_FILES)}")
    record = read_record(folder / RECORD, OfTask)
    task = Task.from_dict(record.pop("task"), str(folder / RECORD))
    tokenizer = marked_family(record, str(folder / RECORD)).tokenizer.from_file(folder / TOKENIZER)

    def count(stored: dict) -> int:
        sizes = check_record(stored, StudentSizes, where=f"{folder / MODEL}: config.json")
        tokenizer.check_rows(sizes.vocab_size)
        return sizes.parameters

    return TrainedStudent(read_keras(folder / MODEL, "gated_bert>Student", count), tokenizer, task, record)
