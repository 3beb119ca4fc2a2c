"""Predictions as rows of a table, and what they are worth, for every kind of task."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from scipy import special

from gated_bert.compression.predict import Predicted
from gated_bert.tasks.examples import Examples, SpanExamples, TaggedExamples
from gated_bert.tasks.kinds import CLASSES, MULTI_LABEL, SPANS, TARGET, TOKENS
from gated_bert.tasks.metrics import METRICS, evaluate, holding
from gated_bert.tasks.own_lists import LABEL_SEPARATOR
from gated_bert.tasks.squad_metrics import squad_scores
from gated_bert.tasks.tagging import predicted_tags, tag_metrics, unread
from gated_bert.tasks.task import Task


def is_labelled(examples: Examples) -> bool:
    """Whether it is known what is right."""
    return bool(examples.answers[0]) if isinstance(examples, SpanExamples) else examples.labels is not None


class PredictedRows:
    """Predictions of a task as rows, and their metrics, as parts of a file come in; a subclass for each kind of task.

    Args:
        task: what is predicted.

    Attributes:
        columns: names of the columns between the number of a row and the label.
        notes: what there is to say of the rows so far.
    """

    def __init__(self, task: Task):
        self.task, self.instances = task, 0
        self.columns: list[str] = ["prediction"]
        self.notes: list[str] = []

    def header(self, labelled: bool) -> list[str]:
        """The columns of `rows`."""
        return ["row", *self.columns, *["label"] * labelled]

    def rows(self, part: Predicted, first: int) -> Iterator[list[object]]:
        """The rows of a part: number, prediction, and the label where there is one; `first` is the first's number."""
        labelled = is_labelled(part.examples)
        for index in range(len(part.examples)):
            yield [first + index, *self.cells(part, index), *([self.label(part.examples, index)] if labelled else [])]

    def cells(self, part: Predicted, index: int) -> list[object]:
        """What is predicted of an example."""
        raise NotImplementedError(f"{type(self).__name__} does not say what is predicted")

    def label(self, examples: Examples, index: int) -> str:
        """What is right of an example."""
        raise NotImplementedError(f"{type(self).__name__} does not say what is right")

    def add(self, part: Predicted) -> None:
        """Counts a part whose labels are known."""
        self.instances += len(part.examples)
        self.count(part)

    def count(self, part: Predicted) -> None:
        """Keeps what `scores` needs of a part."""
        raise NotImplementedError(f"{type(self).__name__} counts nothing")

    def result(self) -> dict[str, float]:
        """`instances`, and `scores`."""
        return {"instances": self.instances, **self.scores()}

    def scores(self) -> dict[str, float]:
        """`correct` of classes, tags and (exact) answers; loss and the task's metrics."""
        raise NotImplementedError(f"{type(self).__name__} scores nothing")


class _Classes(PredictedRows):
    """Classes, of which only the counts of (label, prediction) are kept."""

    def __init__(self, task: Task):
        super().__init__(task)
        self.columns = ["prediction", *(f"probability_{label}" for label in task.labels)]
        self._loss, self._counts = 0.0, np.zeros((len(task.labels),) * 2, np.int64)

    def cells(self, part: Predicted, index: int) -> list[object]:
        outputs = part.outputs[index]
        shares = special.softmax(outputs.astype(np.float64))
        return [self.task.labels[outputs.argmax()], *(f"{share:.6f}" for share in shares)]

    def label(self, examples: Examples, index: int) -> str:
        return self.task.labels[examples.known_labels[index]]

    def count(self, part: Predicted) -> None:
        labels = part.examples.known_labels
        np.add.at(self._counts, (labels, part.outputs.argmax(axis=1)), 1)
        shares = special.log_softmax(part.outputs.astype(np.float64), axis=1)
        self._loss -= shares[np.arange(len(labels)), labels].sum()

    def scores(self) -> dict[str, float]:
        correct = int(np.trace(self._counts))
        labels, predicted = (places.ravel() for places in np.indices(self._counts.shape))
        counts = self._counts.ravel()
        return {"correct": correct, "accuracy": correct / self.instances, "loss": self._loss / self.instances} | {
            name: float(METRICS[name](labels, predicted, sample_weight=counts)) for name in self.task.metrics
        }


class _Values(PredictedRows):
    """What is judged whole, since ranks or classes need all rows: outputs and labels are kept."""

    def __init__(self, task: Task):
        super().__init__(task)
        self._kept: list[tuple[np.ndarray, np.ndarray]] = []

    def cells(self, part: Predicted, index: int) -> list[object]:
        return [f"{part.outputs[index, 0]:.6g}"]

    def label(self, examples: Examples, index: int) -> str:
        return f"{examples.known_labels[index]:.6g}"

    def count(self, part: Predicted) -> None:
        self._kept.append((part.outputs, part.examples.known_labels))

    def scores(self) -> dict[str, float]:
        outputs, labels = (np.concatenate(parts) for parts in zip(*self._kept, strict=True))
        return evaluate(self.task, outputs, labels)


class _Labels(_Values):
    """Several classes at once: those whose probability is above a half."""

    def __init__(self, task: Task):
        super().__init__(task)
        self.columns = ["prediction", *(f"probability_{label}" for label in task.labels)]

    def _named(self, holds: np.ndarray) -> str:
        return LABEL_SEPARATOR.join(label for label, true in zip(self.task.labels, holds, strict=True) if true)

    def cells(self, part: Predicted, index: int) -> list[object]:
        outputs = part.outputs[index]
        shares = special.expit(outputs.astype(np.float64))
        return [self._named(holding(outputs)), *(f"{share:.6f}" for share in shares)]

    def label(self, examples: Examples, index: int) -> str:
        return self._named(examples.known_labels[index])


class _Spans(PredictedRows):
    """Answers."""

    def __init__(self, task: Task):
        super().__init__(task)
        self.columns = ["answer"]
        self._sums = {"f1": 0.0, "exact_match": 0.0}

    def cells(self, part: Predicted, index: int) -> list[object]:
        return [part.answers[index]]

    def label(self, examples: Examples, index: int) -> str:
        return examples.answers[index][0] if isinstance(examples, SpanExamples) else ""

    def count(self, part: Predicted) -> None:
        if isinstance(part.examples, SpanExamples):
            names = part.examples.ids
            scores = squad_scores(dict(zip(names, part.answers, strict=True)), names, part.examples.answers)
            self._sums = {name: total + len(names) * scores[name] for name, total in self._sums.items()}

    def scores(self) -> dict[str, float]:
        means = {name: total / self.instances for name, total in self._sums.items()}
        return {"correct": round(self._sums["exact_match"]), **means}


class _Tags(PredictedRows):
    """Tags, a row for each word; the probability of one that no token shows is left out."""

    def __init__(self, task: Task):
        super().__init__(task)
        self.columns = ["word", "prediction", "probability"]
        self._kept: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
        self._unread = 0

    def rows(self, part: Predicted, first: int) -> Iterator[list[object]]:
        examples, tags = part.examples, predicted_tags(self.task, part.outputs)
        self._unread += int(np.isnan(part.outputs).any(axis=1).sum())
        self.notes = [unread(self._unread, "the file")] if self._unread else []
        shares = special.softmax(part.outputs.astype(np.float64), axis=1)
        assert isinstance(examples, TaggedExamples)
        place = 0
        for index, words in enumerate(examples.words):
            for word in words:
                share = shares[place, tags[place]]
                row = [first + index, word, self.task.labels[tags[place]], f"{share:.6f}" if np.isfinite(share) else ""]
                labels = [] if examples.labels is None else [self.task.labels[examples.labels[place]]]
                yield [*row, *labels]
                place += 1

    def count(self, part: Predicted) -> None:
        examples = part.examples
        assert isinstance(examples, TaggedExamples)
        self._kept.append((examples.known_labels, predicted_tags(self.task, part.outputs), np.diff(examples.offsets)))

    def scores(self) -> dict[str, float]:
        labels, predicted, lengths = (np.concatenate(parts) for parts in zip(*self._kept, strict=True))
        found = tag_metrics(self.task, labels, predicted, np.cumsum([0, *lengths]))
        return {"words": len(labels), "correct": int((labels == predicted).sum()), **found}


_KINDS = {CLASSES: _Classes, TARGET: _Values, SPANS: _Spans, TOKENS: _Tags, MULTI_LABEL: _Labels}


def predicted_rows(task: Task) -> PredictedRows:
    """Rows and metrics of a task's predictions."""
    return _KINDS[task.kind](task)
