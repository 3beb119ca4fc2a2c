"""Writing models in other tools' formats."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from keras import ops
from safetensors.numpy import save_file
from tokenizers import normalizers

from gated_bert.compression.shrink import effective_kernel
from gated_bert.models.architecture import BertConfig, LayerSizes
from gated_bert.models.bert import BertClassifier
from gated_bert.models.checkpoints import HEAD, SAFETENSORS, SPAN_HEAD, hugging_face_names
from gated_bert.models.folder import LoadedModel, replaced_folder
from gated_bert.models.pretrained import checkpoint_variables
from gated_bert.support.errors import UserError
from gated_bert.tasks.task import Task
from gated_bert.tasks.tokenizer_rules import ROLES
from gated_bert.tasks.wordpiece import Tokenizer


def export_hugging_face(folder: str | Path, loaded: LoadedModel):
    """Writes a folder that transformers reads as `BertForSequenceClassification`, or `BertForQuestionAnswering`.

    Closed weights become zeros.

    Args:
        folder: where to; one that is there is replaced as a whole.
        loaded: the model, with its tokeniser and task.

    Raises:
        UserError: layers of different sizes, for which the format has no fields, or a folder that cannot be written.
    """
    model, tokenizer = loaded.model, loaded.tokenizer
    sizes = _common_sizes(model.bert_config)
    arrays = {name: np.ascontiguousarray(array) for name, array in _hugging_face_arrays(model).items()}
    with replaced_folder(Path(folder)) as new:
        save_file(arrays, new / SAFETENSORS, metadata={"format": "pt"})
        # The library writes a file that only its owner can read.
        (new / SAFETENSORS).chmod(0o644)
        _write_json(new / "config.json", _hugging_face_config(model.bert_config, sizes, loaded.task, tokenizer))
        tokenizer.save(new / "tokenizer.json")
        _write_json(new / "tokenizer_config.json", _tokenizer_config(tokenizer, model.bert_config))
        (new / "vocab.txt").write_text("\n".join(_vocabulary(tokenizer)) + "\n", encoding="utf-8")


FORMATS: dict[str, Callable[[str | Path, LoadedModel], None]] = {"hf": export_hugging_face}
"""Name of a format → its writer."""


def _common_sizes(config: BertConfig) -> LayerSizes:
    """The sizes of all layers, where `config.json` of transformers can say them."""
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
    return config.layers[0]


def _hugging_face_arrays(model: BertClassifier) -> dict[str, np.ndarray]:
    layers = {id(layer.raw_kernel): layer for layer in model.gated_layers()}
    arrays = {}
    for name, variable in checkpoint_variables(model).items():
        found = hugging_face_names(name)[0]
        key = found if name in HEAD | SPAN_HEAD else f"bert.{found}"
        if id(variable) in layers:
            arrays[key] = effective_kernel(layers[id(variable)]).T
        else:
            arrays[key] = np.asarray(ops.convert_to_numpy(variable), dtype=np.float32)
    return arrays


def _hugging_face_config(config: BertConfig, sizes: LayerSizes, task: Task, tokenizer: Tokenizer) -> dict:
    return {
        **_head_fields(task),
        "model_type": "bert",
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden_size,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": sizes.num_heads,
        "intermediate_size": sizes.intermediate_size,
        "hidden_act": config.hidden_act,
        "hidden_dropout_prob": config.dropout_rate,
        "attention_probs_dropout_prob": config.dropout_rate,
        "max_position_embeddings": config.max_position,
        "type_vocab_size": config.type_vocab_size,
        "layer_norm_eps": config.layer_norm_epsilon,
        "position_embedding_type": "absolute",
        "pad_token_id": tokenizer.special_id("[PAD]"),
    }


def _head_fields(task: Task) -> dict:
    if task.kind == "span":
        return {"architectures": ["BertForQuestionAnswering"]}
    labels = task.labels or ("LABEL_0",)
    return {
        "architectures": ["BertForSequenceClassification"],
        "problem_type": "regression" if task.kind == "regression" else "single_label_classification",
        "id2label": {str(index): label for index, label in enumerate(labels)},
        "label2id": {label: index for index, label in enumerate(labels)},
    }


def _tokenizer_config(tokenizer: Tokenizer, config: BertConfig) -> dict:
    """What makes transformers cut texts as `tokenizer.json` says, and those who read the vocabulary alone nearly so."""
    backend, normalizer = tokenizer.backend, tokenizer.backend.normalizer
    special = {name: tokenizer.special[token] for token, name in ROLES.items()}
    fields = {name: token for name, token in special.items() if backend.token_to_id(token) is not None}
    if isinstance(normalizer, normalizers.BertNormalizer):
        fields |= {"do_lower_case": normalizer.lowercase, "strip_accents": normalizer.strip_accents,
                   "tokenize_chinese_chars": normalizer.handle_chinese_chars}  # fmt: skip
    return {
        # BertTokenizer would take the vocabulary alone from the file and build the rest by rules of its own.
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": min(config.max_position, tokenizer.max_length or config.max_position),
        "model_input_names": ["input_ids", "token_type_ids", "attention_mask"],
        **fields,
    }


def _vocabulary(tokenizer: Tokenizer) -> list[str]:
    """The tokens in the order of their ids; ids without a token get a name that no text holds."""
    tokens = {index: token for token, index in tokenizer.backend.get_vocab().items()}
    return [tokens.get(index, f"[unused_{index}]") for index in range(tokenizer.vocab_size)]


def _write_json(path: Path, values: dict):
    path.write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
