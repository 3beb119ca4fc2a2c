"""What is looked at in the files of a checkpoint before a model of their sizes is made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from gated_bert.models.architecture import Architecture
from gated_bert.support.errors import UserError
from gated_bert.support.records import read_record
from gated_bert.support.schemas import HuggingFaceConfig


def check_type(where: str, found: str, allowed: tuple[str, ...]) -> None:
    """Refuses numbers of another type than is allowed."""
    if found not in allowed:
        raise UserError(f"{where} holds {found}; allowed: {', '.join(allowed)}")


def check_head(path: Path, shapes: Mapping[str, tuple[int, ...]], kernels: Sequence[str]) -> None:
    """Refuses a classifier whose outputs cannot be counted; `kernels` are what its kernel may be called."""
    for name in kernels:
        if len(shapes.get(name, (1, 1))) != 2:
            raise UserError(f"{path}: {name} is no matrix; fetch it again")


def check_stored(config: Architecture, path: Path, size: int, what: str) -> None:
    """Refuses sizes before a model of them is made: no weight is stored in less than two bytes."""
    counts = config.weight_counts()
    # Head and pooler may be missing.
    least = 2 * (config.num_parameters - counts["pooler"] - counts["classifier"] - config.hidden_size)
    if size < least:
        raise UserError(f"{path}: not a whole {what}, or another's: {size:,} bytes, and the sizes beside it need at "
                        f"least {least:,}; fetch both again")  # fmt: skip


def read_model_config(path: Path, title: str = "model") -> dict:
    """A `config.json` of transformers, or a `bert_config.json` of Google; `title` says whose it is, for messages.

    Raises:
        UserError: a missing or malformed file.
    """
    remedy = f"a {title} configuration belongs beside the weights"
    return read_record(path, HuggingFaceConfig, remedy=remedy, file_names=False)
