"""Kinds of tasks, and what models, files and other tools have to know of each."""

from __future__ import annotations

from dataclasses import dataclass

CLASSES, TARGET, SPANS = "classification", "regression", "span"
TOKENS, MULTI_LABEL = "token_classification", "multi_label_classification"

OF_TEXT, OF_SPAN, OF_TOKEN = "text", "span", "token"
"""What a head's outputs are of: [batch, outputs]; [batch, 2, length], over whose tokens a softmax goes; or, tokens
being classified one by one, [batch, length, outputs]."""


@dataclass(frozen=True)
class Kind:
    """What all tasks of a kind have in common.

    Attributes:
        words: what it is, for messages.
        head: what the outputs are of: `OF_TEXT`, `OF_SPAN` or `OF_TOKEN`.
        has_labels: whether there is an output for each of the task's labels.
        outputs: outputs where there are no labels.
        ending: end of the name of transformers' class of such models.
        problem_type: what transformers calls it in `config.json`; None: nothing.
        pipeline: the hub's name for it.
    """

    words: str
    head: str = OF_TEXT
    has_labels: bool = True
    outputs: int = 1
    ending: str = "ForSequenceClassification"
    problem_type: str | None = None
    pipeline: str = "text-classification"


KINDS = {
    CLASSES: Kind("classification", problem_type="single_label_classification"),
    TARGET: Kind("a regression", has_labels=False, problem_type="regression"),
    SPANS: Kind("answers as spans", OF_SPAN, False, 2, "ForQuestionAnswering", pipeline="question-answering"),
    TOKENS: Kind("tags of words", OF_TOKEN, ending="ForTokenClassification", pipeline="token-classification"),
    MULTI_LABEL: Kind("several classes at once", problem_type="multi_label_classification"),
}
"""The kinds by name."""
