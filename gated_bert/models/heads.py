"""The head of pretrained weights: what it is for, and which of its outputs is which of a task's classes."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gated_bert.tasks.kinds import CLASSES, KINDS, MULTI_LABEL, SPANS, TARGET, TOKENS
from gated_bert.tasks.labels import label_numbers, match_labels
from gated_bert.tasks.tables import shorten
from gated_bert.tasks.task import Task

CHOICE, LANGUAGE = "multiple choice", "masked language modelling"
NEXT_SENTENCE, PRETRAINING = "next sentence prediction", "pretraining"
_ARCHITECTURES = {
    "ForSequenceClassification": CLASSES,
    "ForQuestionAnswering": SPANS,
    "ForTokenClassification": TOKENS,
    "ForMultipleChoice": CHOICE,
    "ForMaskedLM": LANGUAGE,
    "LMHeadModel": LANGUAGE,
    "ForNextSentencePrediction": NEXT_SENTENCE,
    "ForPreTraining": PRETRAINING,
}
"""Ends of the names of transformers' classes, which begin with their family's."""
_CLASSIFIER = "classifier.weight"


@dataclass(frozen=True)
class HeadTensors:
    """How the tensors of a family tell which head they are of, all as transformers calls them.

    Attributes:
        classifier: the last kernel of a head for classes of texts.
        pooled: a kernel that such a head has, or reads, and one for classes of tokens has not.
        kinds: what a head is for → its tensors; where nothing else decides, the first whose tensors are there.
    """

    classifier: str
    pooled: str
    kinds: Mapping[str, tuple[str, ...]]


BERT_HEADS = HeadTensors(_CLASSIFIER, "pooler.dense.weight", {
    SPANS: ("qa_outputs.weight",),
    CLASSES: (_CLASSIFIER,),
    TOKENS: (_CLASSIFIER,),
    CHOICE: (_CLASSIFIER,),
    PRETRAINING: ("cls.predictions.bias", "cls.seq_relationship.weight"),
    LANGUAGE: ("cls.predictions.bias",),
    NEXT_SENTENCE: ("cls.seq_relationship.weight",),
})  # fmt: skip
_GOOGLE = {
    "cls/squad/output_weights": "qa_outputs.weight",
    "output_weights": _CLASSIFIER,
    "cls/predictions/output_bias": "cls.predictions.bias",
    "cls/seq_relationship/output_weights": "cls.seq_relationship.weight",
}
_GOOGLE_ORDER = {"mnli": ("contradiction", "entailment", "neutral")}
"""Order of the classes in Google's `run_classifier.py`, which writes no names, where it is not that of the task."""


@dataclass(frozen=True)
class Head:
    """What the head of pretrained weights gives.

    Attributes:
        kind: one of `kinds.KINDS`; in words what else it is for; empty where there is no head.
        labels: names of the classes in the order of the outputs; empty where there are none.
        named: whether the weights come with names at all, as those of Google's files do not.
    """

    kind: str = ""
    labels: tuple[str, ...] = ()
    named: bool = True

    @property
    def description(self) -> str:
        """What it is for, in words."""
        known = KINDS.get(self.kind)
        if known is None:
            return self.kind
        return f"{known.words} ({shorten(self.labels)})" if known.has_labels else known.words


def hugging_face_head(
    config: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]], class_prefix: str, tensors: HeadTensors
) -> Head:
    """The head in a folder of transformers.

    `architectures` decides, where the tensors of such a head are there; otherwise the tensors, the names of the classes
    and, for one output, whether the configuration says that there is one label.

    Args:
        config: `config.json`.
        shapes: shapes of the tensors, without what their family's names begin with.
        class_prefix: what the names of the family's classes begin with.
        tensors: the family's, by which its heads are known.
    """
    named = config.get("architectures")
    names = [name for name in (named if isinstance(named, list) else ()) if isinstance(name, str)]
    kinds = (_ARCHITECTURES.get(name.removeprefix(class_prefix)) for name in names if name.startswith(class_prefix))
    # No other head has tensors like those of spans, whatever a configuration that was copied along says.
    spans = tensors.kinds.get(SPANS)
    there = [kind for kind, names in tensors.kinds.items() if all(name in shapes for name in names)]
    alone = spans != tensors.kinds.get(CLASSES)
    given = SPANS if SPANS in there and alone else next((kind for kind in kinds if kind in there), None)
    kind = given or (there[0] if there else "")
    if kind == TOKENS:
        return _token_head(_label_names(config, shapes[tensors.kinds[TOKENS][0]][0])[0], given is not None)
    if kind != CLASSES:
        return Head(kind)
    outputs = shapes[tensors.classifier][0]
    labels, said = _label_names(config, outputs)
    problem = config.get("problem_type")
    if given is None and (_are_tags(labels) or tensors.pooled not in shapes):
        return _token_head(labels, False)
    if given is None and outputs == 1 and problem is None and said != 1:
        # Transformers leaves out two labels, its default, and writes down the one of a regression.
        return Head(CHOICE)
    if problem == KINDS[MULTI_LABEL].problem_type:
        return Head(MULTI_LABEL, labels)
    if problem not in (None, KINDS[CLASSES].problem_type, KINDS[TARGET].problem_type):
        return Head(f"problem_type {problem!r} with {outputs} output(s)")
    if (problem or (TARGET if outputs == 1 else None)) == TARGET:
        return Head(TARGET if outputs == 1 else f"a regression of {outputs} values")
    return Head(CLASSES if outputs > 1 else "classification of one class", labels)


def _token_head(labels: tuple[str, ...], said: bool) -> Head:
    """A head for tags, unless it has one output, which is no choice between tags, and nothing says that it is one."""
    return Head(TOKENS, labels) if said or len(labels) > 1 else Head(CHOICE)


def google_head(shapes: Mapping[str, tuple[int, ...]]) -> Head:
    """The head in Google's files, whose classes have no names.

    Args:
        shapes: shapes of the tensors, under Google's names.
    """
    known = {_GOOGLE[name]: shape for name, shape in shapes.items() if name in _GOOGLE}
    kind = next((kind for kind, names in BERT_HEADS.kinds.items() if all(name in known for name in names)), "")
    if kind != CLASSES:
        return Head(kind)
    outputs = known[_CLASSIFIER][0]
    return Head(TARGET) if outputs == 1 else Head(CLASSES, tuple(map(str, range(outputs))), named=False)


def task_head(task: Task) -> Head:
    """The head of a model that was trained for `task`."""
    return Head(task.kind, task.labels)


def match_head(head: Head, task: Task) -> tuple[list[int] | None, str]:
    """Which output of a head is which of a task's.

    Args:
        head: what pretrained weights have.
        task: what is to be learnt.

    Returns:
        The outputs of the head in the order of the task's, None where a new head is needed; and a sentence about it,
        empty where there is nothing to say.
    """
    fresh = "the model's head starts from random values"
    if not head.kind:
        return None, ""
    if head.kind != task.kind:
        return None, f"its head is for {head.description}, {task.title} needs {task_head(task).description}; {fresh}"
    if not task.traits.has_labels:
        return list(range(task.num_outputs)), ""
    rows = match_labels(head.labels, task.labels)
    if rows is not None:
        return rows, ""
    numbers = label_numbers(head.labels)
    if len(head.labels) != len(task.labels) or numbers is None:
        found, wanted = shorten(head.labels), shorten(task.labels)
        return None, f"its head has the classes {found}, {task.title} has {wanted}; {fresh}"
    order = task.labels if head.named else _GOOGLE_ORDER.get(task.name, ())
    # A user's own task may have that name too.
    order = order if set(order) == set(task.labels) else task.labels
    rows = [numbers.index(order.index(label)) for label in task.labels]
    doubt = ", though MNLI's checkpoints differ in it" if task.name == "mnli" else ""
    return rows, f"its classes have no names; {', '.join(order)} is taken for their order{doubt}"


def _label_names(config: Mapping[str, Any], outputs: int) -> tuple[tuple[str, ...], int | None]:
    """Names of the outputs, `LABEL_n` where there is none; and how many labels the configuration names, if any."""
    names = config.get("id2label")
    if not isinstance(names, dict):
        ids = config.get("label2id")
        names = {str(index): name for name, index in ids.items()} if isinstance(ids, dict) else {}
    said = len(names) or config.get("num_labels")
    return tuple(str(names.get(str(index), f"LABEL_{index}")) for index in range(outputs)), said


def _are_tags(labels: Sequence[str]) -> bool:
    """Whether classes are those of tokens: `O`, and `B-…`, `I-…` and the like."""
    return "O" in labels and all(label == "O" or re.match(r"[BIESLU][-_]", label) for label in labels)
