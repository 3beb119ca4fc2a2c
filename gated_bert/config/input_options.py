"""What texts a run trains on, and how they become batches."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from gated_bert.config.option import DATA, RUN, FilledIn, check_declared, option
from gated_bert.config.presets import usual_doc_stride, usual_max_len
from gated_bert.config.space import TASK_TYPES
from gated_bert.support.checks import MOST, whole


@dataclass(frozen=True)
class InputOptions:
    """Task, source, tokens and batches."""

    task: str = option("sst2", "the task", group=RUN, metavar="TASK")
    data: str = option("hub", "hub, embedded, a folder of official files, or a .tsv, .csv, .jsonl or .conll file", "-d",
                       "--data", group=DATA, metavar="SOURCE")  # fmt: skip
    allow_partial: bool = option(False, "accept *_partial files; every table says so", "--allow-partial", group=DATA)
    vocab: str | None = option(None, "a vocab.txt or tokenizer.json, or its folder", "--vocab", group=DATA,
                               metavar="PATH")  # fmt: skip
    max_len: FilledIn[int] = option(None, "longest text in tokens, 8 to 512; squad: 384 where not given", "-ml",
                                    "--max-len", group=RUN, low=8, high=512)  # fmt: skip
    train_examples: int | None = option(None, "train on a seeded choice of so many examples", "--train-examples",
                                        group=DATA, low=1, high=MOST)  # fmt: skip
    text_column: str | None = option(None, "column of the text in a file of your own, or of its words", "--text-column",
                                     group=DATA)  # fmt: skip
    text_pair_column: str | None = option(None, "column of the second text", "--text-pair-column", group=DATA)
    label_column: str | None = option(None, "column of the label, or of tags or labels", "--label-column", group=DATA)
    task_type: str | None = option(None, "what labels of a file of your own are: " + ", ".join(TASK_TYPES) + "; by "
                                   "default told from them", "--task-type", group=DATA, metavar="TYPE",
                                   choices=TASK_TYPES)  # fmt: skip
    doc_stride: int | None = option(None, "squad: tokens between the starts of two windows of a context; by default a "
                                    "third of -ml, at most 128", "--doc-stride", group=DATA, low=1)  # fmt: skip
    n_best_size: int = option(20, "squad: likeliest starts and ends of a window that are combined", "--n-best",
                              group=DATA, low=1, high=512)  # fmt: skip
    max_answer_length: int = option(30, "squad: most tokens of an answer", "--max-answer-length", group=DATA, low=1,
                                    high=512)  # fmt: skip
    batch_size: int = option(96, "examples in a batch", "-b", "--batch-size", group=RUN, low=1)


def usual_lengths(options: InputOptions) -> dict[str, Any]:
    """`max_len` and `doc_stride`, with those of the task where they are not given.

    Raises:
        ConfigError: a refused length.
    """
    max_len, stride = options.max_len, options.doc_stride
    if max_len is None:
        max_len = usual_max_len(options.task)
    whole("max_len", max_len, 8, 512)
    if options.task == "squad" and stride is None:
        stride = usual_doc_stride(max_len)
    return {"max_len": max_len, "doc_stride": stride}


def check_stride(options: InputOptions) -> None:
    """Refuses windows that would leave out what lies between them.

    Raises:
        ConfigError: a stride that is not below the longest text.
    """
    if options.doc_stride is not None:
        whole("doc_stride", options.doc_stride, 1, options.max_len - 1)


def checked_inputs(**values: Any) -> InputOptions:
    """The section with these values, filled in and checked as in a run's record.

    Raises:
        ConfigError: a refused value.
    """
    options = InputOptions(**values)
    options = dataclasses.replace(options, **usual_lengths(options))
    check_declared(options)
    check_stride(options)
    return options
