"""Families of encoders: what `model_type` in a configuration stands for."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, ClassVar

from gated_bert.models.architecture import BERT, Architecture
from gated_bert.models.family_sizes import DISTILBERT, ELECTRA, MODERNBERT, ROBERTA, XLM_ROBERTA
from gated_bert.models.heads import HeadTensors
from gated_bert.support.errors import UserError
from gated_bert.tasks.tokenizer_protocol import TokenizerProtocol

if TYPE_CHECKING:
    from collections.abc import Mapping

    import keras
    import numpy as np

    from gated_bert.models.backbone import EncoderClassifier


class Family:
    """One family: its classes, and how its published checkpoints are written; a subclass is registered as it is.

    Checkpoints are read and written under names of our own, in which kernels, [in, out], end in `/kernel`.

    Attributes:
        model_type: its name in `config.json`.
        architecture: the record of its sizes.
        tokenizer: its tokeniser.
        title: what messages call it.
        prefix: what the names of a checkpoint's encoder tensors may begin with, `bert.`.
        class_prefix: what its classes are called in transformers, `Bert` of `BertForSequenceClassification`.
        optional: starts of names that a checkpoint may lack: the head, and a pooler that pretraining did not need.
        outside: starts of names of ours whose tensors stand outside the encoder, without `prefix`.
        pooled: what messages call the layer that makes the first token what the classifier reads.
        heads: the tensors by which the heads of its checkpoints are known.
    """

    model_type: ClassVar[str]
    architecture: ClassVar[type[Architecture]]
    tokenizer: ClassVar[type[TokenizerProtocol]]
    title: ClassVar[str]
    prefix: ClassVar[str]
    class_prefix: ClassVar[str]
    optional: ClassVar[tuple[str, ...]]
    outside: ClassVar[tuple[str, ...]] = ("output_", "cls/")
    pooled: ClassVar[str] = "pooler"
    heads: ClassVar[HeadTensors]

    @classmethod
    def model(cls) -> type[EncoderClassifier]:
        """The class of its models, imported here: who reads what a checkpoint holds must not wait for Keras."""
        raise NotImplementedError(f"the family {cls.model_type} lacks this part; see Family")

    @classmethod
    def read_config(cls, values: dict, where: str) -> Architecture:
        """The architecture in a `config.json` of transformers, which stands in the file `where`.

        Raises:
            UserError: a field that is missing, or a kind of the family that is not known.
        """
        raise NotImplementedError(f"the family {cls.model_type} lacks this part; see Family")

    @classmethod
    def write_config(cls, architecture: Architecture) -> dict:
        """The inverse, for an architecture whose layers are all alike."""
        raise NotImplementedError(f"the family {cls.model_type} lacks this part; see Family")

    @classmethod
    def head_names(cls, head: str) -> tuple[str, str]:
        """Our names of the kernel and bias of a head, one of `Architecture.head`; checkpoints hold these as
        [outputs, in]."""
        raise NotImplementedError(f"the family {cls.model_type} lacks this part; see Family")

    @classmethod
    def variables(cls, model: EncoderClassifier) -> dict[str, keras.Variable]:
        """The variables of a model that a checkpoint can hold, by our names."""
        raise NotImplementedError(f"the family {cls.model_type} lacks this part; see Family")

    @classmethod
    def transformers_names(cls, name: str) -> tuple[str, ...]:
        """What transformers calls, without `prefix`, what we call `name`: the newest first."""
        raise NotImplementedError(f"the family {cls.model_type} lacks this part; see Family")

    @classmethod
    def part_of_tensor(cls, name: str, tensor: np.ndarray) -> np.ndarray:
        """What we call `name`, of the tensor of a checkpoint that it is in: kernels are stored as [out, in]."""
        return tensor.T if name.endswith("/kernel") else tensor

    @classmethod
    def tensors(cls, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The tensors of a checkpoint, under transformers' names, that hold arrays of ours: the inverse."""
        return {cls.full_name(name): array.T if name.endswith("/kernel") else array for name, array in arrays.items()}

    @classmethod
    def full_name(cls, name: str) -> str:
        """What transformers calls what we call `name`, as it stands in a checkpoint."""
        return ("" if name.startswith(cls.outside) else cls.prefix) + cls.transformers_names(name)[0]


_MODULES = {
    BERT: "gated_bert.models.bert_family",
    ROBERTA: "gated_bert.models.roberta_family",
    XLM_ROBERTA: "gated_bert.models.roberta_family",
    DISTILBERT: "gated_bert.models.distilbert_family",
    ELECTRA: "gated_bert.models.electra_family",
    MODERNBERT: "gated_bert.models.modernbert_family",
}
"""Families of this package → the module that registers them when it is imported."""
_REGISTERED: dict[str, type[Family]] = {}


def register_family(family: type[Family]) -> type[Family]:
    """Makes a family known by its `model_type`; also a decorator."""
    _REGISTERED[family.model_type] = family
    return family


def known_families() -> list[str]:
    """The names of all families, in their order."""
    return sorted({*_MODULES, *_REGISTERED})


def get_family(model_type: str, where: str = "the architecture") -> type[Family]:
    """The family of that name.

    Args:
        model_type: the name.
        where: the file it stands in, for messages.

    Raises:
        UserError: none is known by it.
    """
    known = known_families()
    if model_type not in known:
        raise UserError(f"{where}: model_type is {str(model_type)[:60]!r}; known: {', '.join(known)}")
    if model_type not in _REGISTERED:
        importlib.import_module(_MODULES[model_type])
    return _REGISTERED[model_type]


def family_of(model: EncoderClassifier) -> type[Family]:
    """The family of a model."""
    return get_family(model.architecture.model_type)


def marked_family(record: dict, where: str) -> type[Family]:
    """The family that a record names under `model_type`, BERT where it names none; errors as of `get_family`."""
    return get_family(record.get("model_type", BERT), where)


def family_mark(model_type: str) -> dict[str, str]:
    """What a record says of its family for `marked_family` to read: nothing of BERT, whose records are older."""
    return {} if model_type == BERT else {"model_type": model_type}


def read_architecture_of(values: Any, where: str) -> Architecture:
    """The architecture that `Architecture.to_dict` wrote, of whichever family.

    Args:
        values: the fields; those of BERT name no family.
        where: the file they stand in, for messages.

    Raises:
        UserError: an unknown family, or as of `from_dict`.
    """
    family = marked_family(values if isinstance(values, dict) else {}, where)
    return family.architecture.from_dict(values, where)
