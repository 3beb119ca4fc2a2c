"""Writing models in other tools' formats."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from keras import ops
from safetensors.numpy import save_file

from gated_bert.compression.kept import effective_kernel
from gated_bert.models.architecture import Architecture
from gated_bert.models.backbone import EncoderClassifier
from gated_bert.models.family import family_of
from gated_bert.models.folder import LoadedModel, replaced_folder
from gated_bert.models.weight_files import SAFETENSORS
from gated_bert.support.errors import UserError
from gated_bert.tasks.kinds import OF_SPAN, OF_TOKEN
from gated_bert.tasks.task import Task


def export_hugging_face(folder: str | Path, loaded: LoadedModel) -> None:
    """Writes a folder that transformers reads as its family's class for such a task, `ForSequenceClassification` …

    Closed weights become zeros.

    Args:
        folder: where to; one that is there is replaced as a whole.
        loaded: the model, with its tokeniser and task.

    Raises:
        UserError: layers of different sizes, for which the format has no fields, or a folder that cannot be written.
    """
    model, tokenizer = loaded.model, loaded.tokenizer
    _check_sizes_are_common(model.architecture)
    family = family_of(model)
    arrays = {name: np.ascontiguousarray(array) for name, array in _hugging_face_arrays(model).items()}
    with replaced_folder(Path(folder)) as new:
        save_file(arrays, new / SAFETENSORS, metadata={"format": "pt"})
        # The library writes a file that only its owner can read.
        (new / SAFETENSORS).chmod(0o644)
        write_json(new / "config.json", {
            **head_fields(loaded.task, family.class_prefix),
            "pad_token_id": tokenizer.special_id("pad"),
            **family.write_config(model.architecture),
        })  # fmt: skip
        write_tokenizer(new, loaded)


def write_tokenizer(folder: Path, loaded: LoadedModel) -> None:
    """Writes the files of a model's tokeniser that transformers reads."""
    tokenizer = loaded.tokenizer.for_words if loaded.task.traits.head == OF_TOKEN else loaded.tokenizer
    tokenizer.save(folder / "tokenizer.json")
    for name, text in tokenizer.transformers_files(loaded.config.max_position).items():
        (folder / name).write_text(text, encoding="utf-8")


def _check_sizes_are_common(config: Architecture):
    """Refuses layers whose sizes `config.json` of transformers cannot say."""
    size = config.original_head_dim
    heads = config.hidden_size // size
    for index, sizes in enumerate(config.layers):
        fits = sizes.num_heads * size == config.hidden_size and sizes.query_key_dim == sizes.value_dim == size
        if not fits or not sizes.intermediate_size or sizes != config.layers[0]:
            other = "" if sizes == config.layers[0] else f" and layer 0 {config.layers[0].describe()}"
            raise UserError(
                f"--format: 'hf' is refused: layer {index} has {sizes.describe()}{other}, and the format needs {heads} "
                f"heads of {size} and equally many neurons in every layer; export the model before it was shrunk"
            )


def _hugging_face_arrays(model: EncoderClassifier) -> dict[str, np.ndarray]:
    layers, family = {id(layer.raw_kernel): layer for layer in model.gated_layers()}, family_of(model)
    head, arrays = family.head_names(model.architecture.head), {}
    for name, variable in family.variables(model).items():
        if id(variable) in layers:
            kernel = effective_kernel(layers[id(variable)])
            # That of the head goes by the name of what is stored, as [outputs, in].
            arrays[name] = kernel.T if name in head else kernel
        else:
            arrays[name] = np.asarray(ops.convert_to_numpy(variable), dtype=np.float32)
    return family.tensors(arrays)


def head_fields(task: Task, class_prefix: str) -> dict[str, Any]:
    """What `config.json` of transformers says of a model's head."""
    fields: dict[str, Any] = {"architectures": [class_prefix + task.traits.ending]}
    if task.traits.head == OF_SPAN:
        return fields
    if task.traits.problem_type:
        fields["problem_type"] = task.traits.problem_type
    labels = task.labels or ("LABEL_0",)
    return fields | {
        "id2label": {str(index): label for index, label in enumerate(labels)},
        "label2id": {label: index for index, label in enumerate(labels)},
    }


def write_json(path: Path, values: dict) -> None:
    """Writes a record as transformers does."""
    path.write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
