"""Texts without labels that criteria look at in place of training examples."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from gated_bert.support.errors import UserError
from gated_bert.support.paths import user_path
from gated_bert.tasks.columns import find_columns
from gated_bert.tasks.evaluation import make_dataset
from gated_bert.tasks.examples import Examples
from gated_bert.tasks.kinds import SPANS
from gated_bert.tasks.tables import read_chunks
from gated_bert.tasks.task import Task
from gated_bert.tasks.tokenizer_protocol import TokenizerProtocol

if TYPE_CHECKING:
    from gated_bert.config import GatedBertConfig

FLAG = "--calibration-file"


def calibration_examples(config: GatedBertConfig, task: Task) -> Examples:
    """The first texts of `calibration_file`, as many as are looked at; labels in it are not read.

    Args:
        config: its `calibration_file`, `calibration_texts` and columns are read.
        task: what the model is for: it says whether there are two texts.

    Raises:
        UserError: no such file, one without a text, another kind of file, or a task of spans.
    """
    if task.kind == SPANS:
        raise UserError(f"{FLAG}: not for {task.title}, whose texts are cut into windows; leave it out, and training "
                        "examples are taken")  # fmt: skip
    path = user_path(str(config.calibration_file))
    if not path.is_file():
        raise UserError(f"{FLAG}: {path}: no such file; give a .txt (one text a line), .tsv, .csv or .jsonl file")
    named = {name: getattr(config, name) for name in ("text_column", "text_pair_column")}
    columns = find_columns(path, task, {}, named)
    table = next(iter(read_chunks(path, config.calibration_texts, columns.header)), None)
    found = None if table is None else dataclasses.replace(columns, label=None).examples(table, task)
    if found is None or not len(found):
        raise UserError(f"{FLAG}: {path}: no text in it; give at least one")
    return dataclasses.replace(found, labels=None)


def calibration_batches(config: GatedBertConfig, task: Task, tokenizer: TokenizerProtocol) -> list[tuple[Any, None]]:
    """These texts as batches (inputs, no labels); arguments and errors as of `calibration_examples`."""
    dataset = make_dataset(task, tokenizer, calibration_examples(config, task), config)
    return [(dataset[index], None) for index in range(len(dataset))]
