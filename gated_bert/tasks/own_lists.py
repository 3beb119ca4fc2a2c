"""A user's own files with lists: words with their tags, and texts with several labels."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from gated_bert.support.errors import UserError
from gated_bert.tasks.conll import TAGS, WORDS
from gated_bert.tasks.examples import Examples, TaggedExamples
from gated_bert.tasks.kinds import MULTI_LABEL, TOKENS
from gated_bert.tasks.tables import Table, label_text, shorten
from gated_bert.tasks.task import OUTSIDE, Task, are_entity_tags, entity_tags, usual_metrics

COLUMN_FLAGS = ("--text-column", "--text-pair-column", "--label-column")
WORD_COLUMNS, TAG_COLUMNS, LABEL_COLUMNS = (WORDS, "words"), (TAGS, "ner_tags"), ("labels", "label")
"""What columns of words, of tags and of several labels are called where they are not named, the first that is there."""
LABEL_SEPARATOR = ";"
"""Between the labels of a text in a .csv or .tsv file."""


Columns = tuple[str | None, str | None, str | None]
"""Names of text, second text and label, None where they were not given."""


def kind_of_lists(table: Table, columns: Columns) -> str | None:
    """What a list in the first row of a training file makes of it: of words tags, of labels several at once."""
    # Beside its words a text may be there as a whole, too.
    words = (columns[0],) if columns[0] else WORD_COLUMNS
    tags = (columns[2],) if columns[2] else TAG_COLUMNS
    if any(_holds_lists(table, name) for name in words) and (
        "text" not in table.columns or columns[0] or any(_holds_lists(table, name) for name in tags)
    ):
        return TOKENS
    labels = columns[2] or next((name for name in ("label", "labels") if name in table.columns), "")
    return MULTI_LABEL if _holds_lists(table, labels) else None


def _holds_lists(table: Table, name: str) -> bool:
    return isinstance(next(iter(table.columns.get(name, ())), None), list)


class Reader:
    """How a user's files become a task and its examples.

    Args:
        table: the training file.
        columns: names of text, second text and label, None where they were not given.
        task_type: what was asked for, if anything was.

    Attributes:
        label: column of the labels.

    Raises:
        UserError: a column that is not there, or one that files of this kind have not.
    """

    label: str

    def __init__(self, table: Table, columns: Columns, task_type: str | None):
        raise NotImplementedError(f"{type(self).__name__} does not say how it begins")

    def task(self, table: Table, name: str, title: str) -> Task:
        """What the labels of the training file say is to be learnt."""
        raise NotImplementedError(f"{type(self).__name__} makes no task")

    def examples(self, table: Table, task: Task) -> Examples:
        """The rows of a file with labels."""
        raise NotImplementedError(f"{type(self).__name__} makes no examples")

    def said(self, table: Table, task: Task) -> str:
        """What the labels of the training file were taken for."""
        raise NotImplementedError(f"{type(self).__name__} says nothing")

    def is_labelled(self, table: Table, task: Task) -> bool:
        """Whether the labels of a test file are known."""
        raise NotImplementedError(f"{type(self).__name__} does not say what has labels")


class _ListsReader(Reader):
    """What the readers of lists share: lists in two columns, and a task made of those of the second."""

    kind: str
    texts: tuple[str, ...]
    labels: tuple[str, ...]

    def __init__(self, table: Table, columns: Columns, task_type: str | None):
        if columns[1] is not None:
            raise UserError(f"{COLUMN_FLAGS[1]}: {columns[1]!r} is refused for {self.kind}; allowed: single texts")
        self.text, self.label = (self._name(table, given, usual, flag) for given, usual, flag in (
            (columns[0], self.texts, COLUMN_FLAGS[0]), (columns[2], self.labels, COLUMN_FLAGS[2])))  # fmt: skip

    def _name(self, table: Table, given: str | None, usual: Sequence[str], flag: str) -> str:
        name = given or next((name for name in usual if name in table.columns), usual[0])
        table.column(name, f"name it with {flag}")
        return name

    def is_labelled(self, table: Table, task: Task) -> bool:
        return any(cell for cell in table.columns.get(self.label, ()))


class TagsReader(_ListsReader):
    """Files of words and tags: of each type of entity all prefixes that the file has are tags, `O` the first."""

    kind, texts, labels = TOKENS, WORD_COLUMNS, TAG_COLUMNS

    def task(self, table: Table, name: str, title: str) -> Task:
        tags = self._tags(table)
        for row, each in enumerate(tags):
            if not all(tag.strip() and tag.isprintable() for tag in each):
                raise UserError(f"{table.where(row)}: a tag in column {self.label!r} is empty, or holds what cannot be "
                                "shown; correct it")  # fmt: skip
        labels = ordered_tags({tag for each in tags for tag in each}, str(table.path))
        if len(labels) < 2:
            raise UserError(f"{table.path}: every tag in column {self.label!r} is {labels[0]!r}; give at least two")
        return Task(name, title, TOKENS, labels, usual_metrics(TOKENS, labels))

    def examples(self, table: Table, task: Task) -> Examples:
        return tagged_examples(table, self.text, self.label, task.labels)

    def said(self, table: Table, task: Task) -> str:
        words = sum(map(len, self._tags(table)))
        place = f"of {words:,} words in {len(table.lines):,} texts of {table.path.name} (column {self.label!r})"
        if task.primary_metric == "f1":
            types = sorted({label[2:] for label in task.labels if label != OUTSIDE})
            return f"tags of {len(types):,} kinds of entities: {shorten(types, 6)}, {place}"
        return (f"{len(task.labels):,} tags: {shorten(task.labels, 6)}, {place}; judged by the accuracy of words, as "
                "they are none of entities (O, B-TYPE, I-TYPE)")  # fmt: skip

    def _tags(self, table: Table) -> list[list[str]]:
        return table.lists(self.label, str.split, f"name it with {COLUMN_FLAGS[2]}")


def ordered_tags(found: Iterable[str], where: str) -> tuple[str, ...]:
    """The tags of a task by those that its training file has.

    Args:
        found: these.
        where: the file, for messages.

    Returns:
        Of entities `O`, then for each type, sorted, every prefix that any type has (`B-LOC`, `I-LOC`, …); other tags
        sorted.

    Raises:
        UserError: most are those of entities, and one is not.
    """
    found = set(found)
    entities = {tag for tag in found if are_entity_tags([tag])}
    if not entities - {OUTSIDE}:
        return tuple(sorted(found))
    if found - entities:
        raise UserError(f"{where}: the tag {min(found - entities)!r} is not one of entities, as {min(entities)!r} is; "
                        "allowed: O, B-TYPE, I-TYPE (E-TYPE, S-TYPE)")  # fmt: skip
    prefixes = [prefix for prefix in "BIES" if any(tag.startswith(f"{prefix}-") for tag in found)]
    return entity_tags(sorted({tag[2:] for tag in found - {OUTSIDE}}), prefixes)


def tagged_examples(table: Table, text: str, label: str | None, labels: Sequence[str]) -> TaggedExamples:
    """The rows of a table as words and, where a column is named, tags.

    Args:
        table: a file, or a part of it.
        text: column of the words: lists, or texts with blanks between words.
        label: column of the tags, written alike; None where there are none.
        labels: the task's tags.

    Raises:
        UserError: a text without words, other numbers of words and tags, or an unknown tag.
    """
    words = table.lists(text, str.split, f"name it with {COLUMN_FLAGS[0]}")
    for row, each in enumerate(words):
        if not each:
            raise UserError(f"{table.where(row)}: no words in column {text!r}; fill it in or remove the line")
    if label is None:
        return TaggedExamples.of(words, None)
    known = {tag: index for index, tag in enumerate(labels)}
    numbers: list[int] = []
    tags = table.lists(label, str.split, f"name it with {COLUMN_FLAGS[2]}")
    for row, (each, own) in enumerate(zip(words, tags, strict=True)):
        if len(each) != len(own):
            raise UserError(f"{table.where(row)}: {len(each)} words in column {text!r} and {len(own)} tags in "
                            f"{label!r}; allowed: a tag for every word")  # fmt: skip
        unknown = [tag for tag in own if tag not in known]
        if unknown:
            raise UserError(f"{table.where(row)}: unknown tag {unknown[0]!r} in column {label!r}; allowed, as in the "
                            f"training file: {shorten(labels)}")  # fmt: skip
        numbers += [known[tag] for tag in own]
    return TaggedExamples.of(words, np.array(numbers, np.int32))


class LabelsReader(_ListsReader):
    """Files of texts with several labels, which are sorted."""

    kind, texts, labels = MULTI_LABEL, ("text",), LABEL_COLUMNS

    def task(self, table: Table, name: str, title: str) -> Task:
        labels = sorted({label for each in label_lists(table, self.label) for label in each})
        if len(labels) < 2:
            raise UserError(f"{table.path}: {len(labels)} label in column {self.label!r}; give at least two")
        return Task(name, title, MULTI_LABEL, tuple(labels), usual_metrics(MULTI_LABEL, labels))

    def examples(self, table: Table, task: Task) -> Examples:
        texts = table.texts(self.text, f"name it with {COLUMN_FLAGS[0]}")
        return Examples(texts, None, label_matrix(table, self.label, task.labels))

    def said(self, table: Table, task: Task) -> str:
        counts = [len(each) for each in label_lists(table, self.label)]
        return (f"{len(task.labels):,} labels, {min(counts)} to {max(counts)} a text: {shorten(task.labels, 4)} in "
                f"{len(counts):,} rows of {table.path.name} (column {self.label!r})")  # fmt: skip


def label_lists(table: Table, name: str) -> list[list[str]]:
    """The labels of each row: a list, or a text with `;` between them; each once.

    Raises:
        UserError: a missing column, or a cell that is neither.
    """
    found = table.lists(name, lambda cell: cell.split(LABEL_SEPARATOR), f"name it with {COLUMN_FLAGS[2]}")
    return [list(dict.fromkeys(text for label in each if (text := label_text(label)))) for each in found]


def label_matrix(table: Table, name: str, labels: Sequence[str]) -> np.ndarray:
    """The labels of each row, int32 [n, labels], 1 where a label holds.

    Raises:
        UserError: as of `label_lists`, or an unknown label.
    """
    known = {label: index for index, label in enumerate(labels)}
    found = np.zeros((len(table.lines), len(labels)), np.int32)
    for row, each in enumerate(label_lists(table, name)):
        for label in each:
            if label not in known:
                raise UserError(f"{table.where(row)}: unknown label {label!r} in column {name!r}; allowed: "
                                f"{shorten(labels)}")  # fmt: skip
            found[row, known[label]] = 1
    return found
