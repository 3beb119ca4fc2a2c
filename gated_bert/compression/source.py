"""Models to be compressed: a model folder, or a pruned BERT of another tool."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
from keras import ops

from gated_bert.errors import UserError
from gated_bert.models.bert import BertClassifier
from gated_bert.models.checkpoints import SPAN_HEAD, open_checkpoint
from gated_bert.models.folder import LoadedModel, is_model_folder, load_model
from gated_bert.models.pretrained import load_pretrained, read_pretrained_architecture
from gated_bert.records import read_record
from gated_bert.schemas import HuggingFaceConfig
from gated_bert.tasks.own import own_task_name
from gated_bert.tasks.task import TASKS, Task
from gated_bert.tasks.tokenizer import tokenizer_from_folder


def load_source(folder: str | Path) -> LoadedModel:
    """The model in a folder, with its tokeniser and task.

    Of weights without gates, a Hugging Face folder or Google's files, the gates of zeros are closed: a tool that
    prunes by zeroing leaves nothing else to see it by.

    Args:
        folder: a model folder, or a folder that `load_pretrained` reads.

    Raises:
        UserError: neither of these, or a missing, truncated or malformed file.
    """
    folder = Path(folder).expanduser()
    if is_model_folder(folder):
        return load_model(folder)
    checkpoint = open_checkpoint(str(folder))
    config = read_pretrained_architecture(str(folder))
    heads = checkpoint.read(["output_bias", *SPAN_HEAD])
    span, head = SPAN_HEAD.keys() <= heads.keys(), heads.get("output_bias")
    if any(array.ndim != 1 for name, array in heads.items() if name.endswith("bias")):
        raise UserError(f"{checkpoint.weights_path}: the classifier's bias is no vector; fetch it again")
    if head is None and not span:
        warnings.warn(f"{checkpoint.weights_path}: no classifier in it; it starts from random values", stacklevel=2)
    task = TASKS["squad"] if span else _read_task(folder, 2 if head is None else len(head))
    tokenizer = tokenizer_from_folder(folder)
    if tokenizer is None:
        raise UserError(f"{folder}: no tokenizer.json or vocab.txt in it; put that of the model there")
    tokenizer.check_rows(config.vocab_size)
    model = BertClassifier(config.replace(num_outputs=task.num_outputs, span_head=span))
    load_pretrained(model, str(folder))
    _close_zeros(model)
    return LoadedModel(model, tokenizer, task, model.bert_config, {})


def _close_zeros(model: BertClassifier):
    # Not those of the classifier: zeros may be what a fresh one starts from.
    for layer in model.gated_layers():
        if layer.role != "classifier":
            layer.gates.assign((ops.convert_to_numpy(layer.raw_kernel) != 0).astype(np.float32))


def _read_task(folder: Path, outputs: int) -> Task:
    """What a model with so many outputs was trained for, as far as its `config.json` tells."""
    path = folder / "config.json"
    values = read_record(path, HuggingFaceConfig) if path.is_file() else {}
    kind = values.get("problem_type") or ("regression" if outputs == 1 else "single_label_classification")
    name = own_task_name(folder)
    if kind == "regression" and outputs == 1:
        return Task(name, folder.resolve().name, "regression", metrics=("pearson", "spearman"))
    if kind != "single_label_classification" or outputs == 1:
        raise UserError(
            f"{path}: problem_type {kind!r} with {outputs} output(s); a classification with one label, or a "
            "regression with one output, is needed"
        )
    names = values.get("id2label") or {}
    labels = tuple(str(names.get(str(index), f"LABEL_{index}")) for index in range(outputs))
    return Task(name, folder.resolve().name, labels=labels)
