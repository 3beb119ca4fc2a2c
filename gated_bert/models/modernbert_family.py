"""ModernBERT: its configuration, and the tensors of its checkpoints, which hold several of our matrices each.

Our names are those of transformers, with `/` for `.`, and the part of a tensor last.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from gated_bert.models.architecture import PostNormConfig
from gated_bert.models.family import register_family
from gated_bert.models.family_sizes import MODERNBERT, ModernBertConfig
from gated_bert.models.heads import CHOICE, CLASSES, LANGUAGE, SPANS, TOKENS, HeadTensors
from gated_bert.models.post_norm_family import PostNormFamily
from gated_bert.support.errors import UserError, one_line
from gated_bert.tasks.file_tokenizers import PlainTokenizer

if TYPE_CHECKING:
    import keras

    from gated_bert.models.modernbert import ModernBertClassifier

_LOCAL, _GLOBAL = "sliding_attention", "full_attention"
_THETAS = {_GLOBAL: ("global_rope_theta", 160_000.0), _LOCAL: ("local_rope_theta", 10_000.0)}
_QKV = ("query", "key", "value")
_CLASSIFIER = ("classifier.weight",)


@register_family
class ModernBertFamily(PostNormFamily):
    """ModernBERT, as transformers writes it."""

    model_type = MODERNBERT
    architecture: ClassVar[type[ModernBertConfig]] = ModernBertConfig
    tokenizer = PlainTokenizer
    title = "ModernBERT"
    prefix = "model."
    class_prefix = "ModernBert"
    fields = {
        "num_layers": "num_hidden_layers",
        "d_model": "hidden_size",
        "num_heads": "num_attention_heads",
        "dff": "intermediate_size",
        "vocab_size": "vocab_size",
        "max_position": "max_position_embeddings",
        "layer_norm_epsilon": "norm_eps",
        "hidden_act": "hidden_activation",
        "local_attention": "local_attention",
        "head_act": "classifier_activation",
        "pooling": "classifier_pooling",
    }
    defaults = {
        "max_position_embeddings": 8192, "norm_eps": 1e-5, "hidden_activation": "gelu", "local_attention": 128,
        "classifier_activation": "gelu", "classifier_pooling": "cls",
    }  # fmt: skip
    only = dict.fromkeys(("attention_bias", "mlp_bias", "norm_bias", "classifier_bias"), False)
    dropout_fields = ("embedding_dropout", "attention_dropout", "mlp_dropout", "classifier_dropout")
    heads = HeadTensors("classifier.weight", "head.dense.weight", {
        CLASSES: _CLASSIFIER, SPANS: _CLASSIFIER, TOKENS: _CLASSIFIER, CHOICE: _CLASSIFIER, LANGUAGE: ("decoder.bias",),
    })  # fmt: skip
    outside = ("head/", "classifier/")
    optional = outside

    @classmethod
    def model(cls) -> type[ModernBertClassifier]:
        """See `Family`."""
        from gated_bert.models.modernbert import ModernBertClassifier

        return ModernBertClassifier

    @classmethod
    def read_config(cls, values: dict, where: str) -> PostNormConfig:
        """See `Family`; layers and rotations are written in an older and a newer way."""
        config = super().read_config(values, where)
        every = values.get("global_attn_every_n_layers") or 3
        if not isinstance(every, int) or every < 1:
            raise UserError(f"{where}: global_attn_every_n_layers is {str(every)[:60]!r}; allowed: a whole number")
        usual = [_LOCAL if index % every else _GLOBAL for index in range(config.num_layers)]
        kinds = values.get("layer_types") or usual
        known = isinstance(kinds, list) and all(kind in (_LOCAL, _GLOBAL) for kind in kinds)
        if not known or len(kinds) != config.num_layers:
            raise UserError(f"{where}: layer_types is {str(kinds)[:60]}; allowed: {_LOCAL} or {_GLOBAL} for each layer")
        rotations = values.get("rope_parameters") or {}
        if not isinstance(rotations, dict) or set(rotations) - {_LOCAL, _GLOBAL}:
            raise UserError(f"{where}: rope_parameters is {str(rotations)[:60]}; allowed: {_GLOBAL} and {_LOCAL}, each "
                            "with its rope_theta")  # fmt: skip
        thetas = {}
        for kind, (older, theta) in _THETAS.items():
            given = rotations.get(kind) or {}
            if not isinstance(given, dict):
                raise UserError(f"{where}: rope_parameters of {kind} is {str(given)[:60]}; allowed: its rope_theta")
            named = values.get("rope_scaling") or given.get("rope_type") or "default"
            if named != "default":
                raise UserError(f"{where}: rope_type is {str(named)[:60]!r}; only 'default' is supported")
            asked = given.get("rope_theta") or values.get(older) or theta
            if not isinstance(asked, int | float) or isinstance(asked, bool):
                raise UserError(f"{where}: rope_theta is {str(asked)[:60]!r}; allowed: a number")
            thetas[kind] = float(asked)
        places = tuple(index for index, kind in enumerate(kinds) if kind == _GLOBAL)
        try:
            return config.replace(global_layers=places, global_theta=thetas[_GLOBAL], local_theta=thetas[_LOCAL])
        except UserError as error:
            raise UserError(f"{where}: {one_line(error)}") from error

    @classmethod
    def write_config(cls, architecture: ModernBertConfig) -> dict:  # type: ignore[override]  # its own alone
        """See `Family`."""
        thetas = {_GLOBAL: architecture.global_theta, _LOCAL: architecture.local_theta}
        kinds = [_GLOBAL if index in architecture.global_layers else _LOCAL for index in range(architecture.num_layers)]
        rotations = {kind: {"rope_type": "default", "rope_theta": theta} for kind, theta in thetas.items()}
        return super().write_config(architecture) | {"layer_types": kinds, "rope_parameters": rotations}

    @classmethod
    def head_names(cls, head: str) -> tuple[str, str]:
        """See `Family`."""
        return "classifier/weight", "classifier/bias"

    @classmethod
    def variables(cls, model: ModernBertClassifier) -> dict[str, keras.Variable]:  # type: ignore[override]
        """See `Family`."""
        encoder = model.encoder
        named = {
            "embeddings/tok_embeddings/weight": encoder.embeddings.token.embeddings,
            "embeddings/norm/weight": encoder.embeddings.norm.gamma,
            "final_norm/weight": encoder.final_norm.gamma,
            "head/dense/weight/kernel": encoder.pooler.raw_kernel,
            "head/norm/weight": encoder.head_norm.gamma,
        }
        for index, block in enumerate(encoder.blocks):
            stem = f"layers/{index}"
            if block.attention_norm is not None:
                named[f"{stem}/attn_norm/weight"] = block.attention_norm.gamma
            kernels = {role: layer.raw_kernel for role, layer in block.matrices().items()}
            named |= {f"{stem}/attn/Wqkv/weight/{role}": kernels[role] for role in _QKV}
            named |= {
                f"{stem}/attn/Wo/weight/kernel": kernels["attention_output"],
                f"{stem}/mlp_norm/weight": block.ffn_norm.gamma,
                f"{stem}/mlp/Wi/weight/gated": kernels["ffn_intermediate"],
                f"{stem}/mlp/Wo/weight/kernel": kernels["ffn_output"],
            }
        head = (model.classifier.raw_kernel, model.classifier.bias)
        return named | dict(zip(cls.head_names(model.architecture.head), head, strict=True))

    @classmethod
    def transformers_names(cls, name: str) -> tuple[str, ...]:
        """See `Family`."""
        stem, _, part = name.rpartition("/")
        return ((stem if part in (*_QKV, "gated", "kernel") else name).replace("/", "."),)

    @classmethod
    def part_of_tensor(cls, name: str, tensor: np.ndarray) -> np.ndarray:
        """See `Family`."""
        part = name.rpartition("/")[2]
        if part in _QKV and len(tensor) % 3 == 0:
            return np.split(tensor, 3)[_QKV.index(part)].T
        if part == "gated" and len(tensor) % 2 == 0:
            # Ours has the two columns of a neuron side by side.
            return np.stack(np.split(tensor, 2), axis=1).reshape(tensor.shape).T
        return super().part_of_tensor(name, tensor)

    @classmethod
    def tensors(cls, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """See `Family`."""
        found: dict[str, Any] = {}
        for name, array in arrays.items():
            part = name.rpartition("/")[2]
            if part in _QKV:
                found.setdefault(cls.full_name(name), []).append(array.T)
            elif part == "gated":
                found[cls.full_name(name)] = [array.T[0::2], array.T[1::2]]
            else:
                found |= super().tensors({name: array})
        return {name: np.concatenate(each) if isinstance(each, list) else each for name, each in found.items()}
