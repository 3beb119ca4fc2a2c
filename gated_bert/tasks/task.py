"""What is learnt: the tasks that have names, and the record that a user's own task fills in too."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from gated_bert.config.parts import claim
from gated_bert.support.checks import choose
from gated_bert.support.errors import UserError
from gated_bert.support.paths import file_name
from gated_bert.support.records import check_record
from gated_bert.tasks.kinds import CLASSES, KINDS, MULTI_LABEL, SPANS, TARGET, TOKENS, Kind

if TYPE_CHECKING:
    from gated_bert.config.input_options import InputOptions
    from gated_bert.tasks.examples import TaskData


class TaskError(UserError):
    """Fields that make no task."""


@dataclass(frozen=True)
class Task:
    """One task: what goes in, what comes out, how it is judged.

    Attributes:
        name: short name, also in file names ("sst2").
        title: name for tables and plots ("SST-2").
        kind: one of `kinds.KINDS`.
        labels: class names, or tags, in the order of the outputs; empty for regression and spans.
        metrics: metric names, the primary one first: accuracy, f1, matthews, pearson, spearman, exact_match; of tags
            f1, precision and recall are those of entities; of several classes at once micro_f1, macro_f1,
            subset_accuracy.
        pair: whether an example is a pair of texts.
        dev_splits: names of the sets that are judged on, the one that decides first.
        target_range: lowest and highest target of a regression; `None` where it is unknown or for classes.

    Example:

    ```python
    assert Task("vowels", "Vowels", labels=("few", "many")).num_outputs == 2
    ```
    """

    name: str
    title: str
    kind: str = CLASSES
    labels: tuple[str, ...] = ()
    metrics: tuple[str, ...] = ("accuracy",)
    pair: bool = False
    dev_splits: tuple[str, ...] = ("dev",)
    target_range: tuple[float, float] | None = None

    def __post_init__(self):
        if self.kind not in KINDS:
            raise TaskError(f"task: kind is {self.kind!r}; allowed: {', '.join(KINDS)}")
        for what in ("name", "title"):
            if not getattr(self, what).strip():
                raise TaskError(f"task: {what} is empty; allowed: a text")
        seen = set()
        for label in self.labels:
            if not isinstance(label, str) or not label.strip() or label in seen:
                raise TaskError(f"task: {label!r} is no name of a class; allowed: texts that are not empty, each once")
            seen.add(label)
        if self.traits.has_labels != bool(self.labels):
            some = ", ".join(name for name, kind in KINDS.items() if kind.has_labels)
            raise TaskError(f"task: {len(self.labels)} classes, and kind is {self.kind!r}; {some} have some")
        if not self.metrics or not self.dev_splits:
            raise TaskError("task: no metrics or no development set; at least one of each is needed")

    @property
    def traits(self) -> Kind:
        """What all tasks of its kind have in common."""
        return KINDS[self.kind]

    @property
    def num_outputs(self) -> int:
        """Outputs of a text or of each token: one per class, 1 for regression, start and end for spans."""
        return len(self.labels) or self.traits.outputs

    @property
    def primary_metric(self) -> str:
        """The metric that a run is judged by."""
        return self.metrics[0]

    def to_dict(self) -> dict:
        """The record as a dictionary that JSON can hold."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict, where: str = "the task") -> Task:
        """The record from `to_dict`, also after a round trip through JSON; fields of newer versions are left out.

        Args:
            values: the fields.
            where: the file they stand in, for messages.

        Raises:
            UserError: a field is missing or of another type, or holds what makes no task.
        """
        try:
            return check_record(values, cls, where=f"{where}: task")
        except TaskError as error:
            raise UserError(f"{where}: {error}") from None


GENERIC_NAMES = ("train", "dev", "validation", "valid", "val", "test", "data")
"""Names of files and folders that say nothing about the task in them."""
OWN_DATA_ONLY = "own data only (-d with a file, or a folder with train.*)"
"""What flags about columns and labels are for."""


def own_task_name(path: Path) -> str:
    """The name of the task in `path`: the file's or folder's, or where that is a general one that of the folder around
    it, in small letters, digits and underscores."""
    path = path.resolve()
    names = [path.name.split(".")[0], *(parent.name for parent in path.parents)]
    name = next((name for name in names if name.lower() not in GENERIC_NAMES), names[0])
    return file_name(re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_") or "own")


ENTAILMENT = ("entailment", "not_entailment")
ENTITY_METRICS = ("f1", "precision", "recall", "accuracy")
MULTI_LABEL_METRICS = ("micro_f1", "macro_f1", "subset_accuracy")
_ENTITY_TAG = re.compile(r"[BIES]-.+")
OUTSIDE = "O"
"""The tag of words outside of all entities."""


def are_entity_tags(labels: Iterable[str]) -> bool:
    """Whether tags are those of entities: `O`, and `B-LOC`, `I-LOC` and the like."""
    return all(label == OUTSIDE or _ENTITY_TAG.fullmatch(label) for label in labels)


def usual_metrics(kind: str, labels: Sequence[str]) -> tuple[str, ...]:
    """What a task of some kind with labels is judged by where nobody says otherwise, the primary metric first."""
    if kind == MULTI_LABEL:
        return MULTI_LABEL_METRICS
    return ENTITY_METRICS if kind == TOKENS and are_entity_tags(labels) else ("accuracy",)


def entity_tags(types: Iterable[str], prefixes: Iterable[str] = ("B", "I")) -> tuple[str, ...]:
    """The tags of entities of some types: `O`, then those of each type in its order, `B-LOC`, `I-LOC`, …"""
    prefixes = tuple(prefixes)
    return (OUTSIDE, *(f"{prefix}-{kind}" for kind in types for prefix in prefixes))


GLUE_TASKS = {
    task.name: task
    for task in (
        Task("sst2", "SST-2", labels=("negative", "positive")),
        Task("cola", "CoLA", labels=("unacceptable", "acceptable"), metrics=("matthews",)),
        Task("mrpc", "MRPC", labels=("not_equivalent", "equivalent"), metrics=("accuracy", "f1"), pair=True),
        Task("stsb", "STS-B", TARGET, metrics=("pearson", "spearman"), pair=True, target_range=(0.0, 5.0)),
        Task("qnli", "QNLI", labels=ENTAILMENT, pair=True),
        Task("rte", "RTE", labels=ENTAILMENT, pair=True),
        Task("wnli", "WNLI", labels=("not_entailment", "entailment"), pair=True),
        Task(
            "mnli",
            "MNLI",
            labels=("entailment", "neutral", "contradiction"),
            pair=True,
            dev_splits=("dev_matched", "dev_mismatched"),
        ),
    )
}
"""The GLUE tasks by name."""

TASKS = {
    **GLUE_TASKS,
    "squad": Task("squad", "SQuAD", SPANS, metrics=("f1", "exact_match"), pair=True),
    "ag_news": Task(
        "ag_news",
        "AG News",
        labels=("World", "Sports", "Business", "Sci/Tech"),
        dev_splits=("validation", "test"),
    ),
    "ner": Task("ner", "NER", TOKENS, labels=entity_tags(("LOC", "ORG", "PER")), metrics=ENTITY_METRICS),
    "topics": Task("topics", "Topics", MULTI_LABEL, labels=("World", "Sports", "Business", "Sci/Tech"),
                   metrics=MULTI_LABEL_METRICS),
}  # fmt: skip
"""The tasks by name."""
EMBEDDED_ONLY = ("ner", "topics")
"""Tasks that have a name for their embedded data alone: other data of their kinds are files of one's own."""


LOADERS: dict[str, Callable[[InputOptions], TaskData]] = {}
"""Name of a registered task → what reads its examples."""


def register_task(task: Task, load: Callable[[InputOptions], TaskData]) -> None:
    """Makes a task of a user's own known by name, as a `-t`.

    Files of one's own need none (`-d FILE`): this is for what is read in another way.

    Args:
        task: its record; the name is one that no other task has.
        load: the task's data for a run's record, of which it may read `data`, `max_len`, `train_examples` …; training
            examples and those of each of the task's `dev_splits`.

    Raises:
        UserError: a name that is taken or no name, or arguments of other types.
    """
    if not isinstance(task, Task) or not callable(load):
        raise UserError(f"register_task: {task!r}, {load!r} is refused; allowed: a Task, and a function that reads it")
    claim("task", task.name, TASKS)
    TASKS[task.name], LOADERS[task.name] = task, load


def get_task(name: str) -> Task:
    """The task called `name`.

    Raises:
        ConfigError: an unknown name.
    """
    choose("task", name, tuple(TASKS))
    return TASKS[name]
