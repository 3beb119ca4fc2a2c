"""Models to be compressed: a model folder, or pruned weights of another tool."""

from __future__ import annotations

import warnings
from pathlib import Path

from gated_bert.models.checkpoints import open_checkpoint
from gated_bert.models.folder import LoadedModel, is_model_folder, load_model
from gated_bert.models.heads import Head
from gated_bert.models.pretrained import close_zeros, load_pretrained, read_pretrained_architecture
from gated_bert.support.errors import UserError
from gated_bert.support.paths import user_path
from gated_bert.tasks.kinds import CLASSES, KINDS, SPANS, TARGET
from gated_bert.tasks.tables import shorten
from gated_bert.tasks.task import TASKS, Task, own_task_name, usual_metrics
from gated_bert.tasks.tokenizer import tokenizer_from_folder


def load_source(folder: str | Path) -> LoadedModel:
    """The model in a folder, with its tokeniser and task.

    Of weights without gates, a Hugging Face folder or Google's files, the gates of zeros are closed.

    Args:
        folder: a model folder, or a folder that `load_pretrained` reads.

    Raises:
        UserError: neither of these, or a missing, truncated or malformed file.
    """
    folder = user_path(folder)
    if is_model_folder(folder):
        return load_model(folder)
    checkpoint = open_checkpoint(str(folder))
    config = read_pretrained_architecture(str(folder))
    head = checkpoint.head()
    if not head.kind:
        warnings.warn(f"{checkpoint.weights_path}: no classifier in it; it starts from random values", stacklevel=2)
    task = _head_task(folder, head)
    tokenizer = tokenizer_from_folder(folder, kind=checkpoint.family.tokenizer)
    if tokenizer is None:
        files = " or ".join(checkpoint.family.tokenizer.files)
        raise UserError(f"{folder}: no {files} in it; put that of the model there")
    tokenizer.check_rows(config.vocab_size)
    model = checkpoint.family.model()(config.for_task(task))
    load_pretrained(model, str(folder), task)
    close_zeros(model)
    return LoadedModel(model, tokenizer, task, model.architecture, {})


def _head_task(folder: Path, head: Head) -> Task:
    """What a model with such a head was trained for."""
    name, title = own_task_name(folder), folder.resolve().name
    if head.kind == SPANS:
        return TASKS["squad"]
    if head.kind == TARGET:
        return Task(name, title, TARGET, metrics=("pearson", "spearman"))
    if head.kind and head.kind not in KINDS:
        raise UserError(
            f"{folder}: its head is for {head.description}; one for classes of texts or words, a regression or answers "
            f"as spans is needed, and `gated-bert train -pt {folder}` trains a new one"
        )
    if len(set(head.labels)) < len(head.labels):
        names = shorten(head.labels)
        raise UserError(f"{folder / 'config.json'}: id2label gives two classes one name ({names}); name them apart")
    labels = head.labels or ("LABEL_0", "LABEL_1")
    return Task(name, title, head.kind or CLASSES, labels, usual_metrics(head.kind or CLASSES, labels))
