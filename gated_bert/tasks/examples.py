"""The examples of a task in memory, whatever source they came from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from gated_bert.tasks.task import Task


@dataclass(frozen=True)
class Examples:
    """Texts and their labels.

    Attributes:
        texts: first text of each example.
        pairs: second texts, or `None` where the task has single texts.
        labels: [n] int32 class indices, or float32 targets, or of several classes at once [n, classes] int32, 1 where
            a class holds; `None` where they are not known.
    """

    texts: list[str]
    pairs: list[str] | None
    labels: np.ndarray | None

    def __len__(self) -> int:
        return len(self.texts)

    @property
    def known_labels(self) -> np.ndarray:
        """`labels`, of examples that have them.

        Raises:
            ValueError: they have none.
        """
        if self.labels is None:
            raise ValueError("examples without labels")
        return self.labels

    def take(self, indices: Sequence[int] | np.ndarray) -> Examples:
        """The examples at `indices`, in that order."""
        pairs = None if self.pairs is None else [self.pairs[index] for index in indices]
        labels = None if self.labels is None else self.labels[np.asarray(indices, dtype=np.int64)]
        return Examples([self.texts[index] for index in indices], pairs, labels)


@dataclass(frozen=True)
class SpanExamples(Examples):
    """Questions (`texts`), the contexts they are asked about (`pairs`), and their answers.

    Attributes:
        labels: [n, 2] int32, the first answer's characters in its context: first, and one after the last.
        ids: name of each question.
        answers: every accepted answer of each question.
    """

    pairs: list[str]
    labels: np.ndarray
    ids: list[str]
    answers: list[tuple[str, ...]]

    def take(self, indices: Sequence[int] | np.ndarray) -> SpanExamples:
        """The examples at `indices`, in that order."""
        return SpanExamples(
            [self.texts[index] for index in indices], [self.pairs[index] for index in indices],
            self.labels[np.asarray(indices, dtype=np.int64)],
            [self.ids[index] for index in indices], [self.answers[index] for index in indices],
        )  # fmt: skip


@dataclass(frozen=True)
class TaggedExamples(Examples):
    """Texts that are cut into words, each with a tag.

    Attributes:
        texts: the words of each text with blanks between them.
        labels: [words] int32 tags of all words, one text after the other; `None` where they are not known.
        words: the words of each text.
    """

    words: list[tuple[str, ...]]

    @classmethod
    def of(cls, words: Sequence[Sequence[str]], labels: np.ndarray | None) -> TaggedExamples:
        """The examples of words and tags.

        Args:
            words: the words of each text.
            labels: [words] tags of all words, one text after the other; None where they are not known.
        """
        return cls([" ".join(each) for each in words], None, labels, [tuple(each) for each in words])

    @property
    def offsets(self) -> np.ndarray:
        """[n + 1] int64, the words of text i are at `offsets[i]:offsets[i + 1]` among all."""
        return np.cumsum([0, *map(len, self.words)], dtype=np.int64)

    def take(self, indices: Sequence[int] | np.ndarray) -> TaggedExamples:
        """The examples at `indices`, in that order."""
        labels = self.labels
        if labels is not None:
            parts = np.split(labels, self.offsets[1:-1])
            labels = np.concatenate([labels[:0], *(parts[index] for index in indices)])
        return self.of([self.words[index] for index in indices], labels)


@dataclass(frozen=True)
class TaskData:
    """A task with its training and development examples.

    Attributes:
        task: what is learnt.
        train: training examples.
        dev: development examples by split, in the order of `task.dev_splits`.
        source: where they came from: kind, label (for tables and plots), path, partial, rows, and `split` where
            the development examples were cut out of the training file.
    """

    task: Task
    train: Examples
    dev: Mapping[str, Examples]
    source: dict = field(default_factory=dict)
