"""Reading BERT checkpoints: a Hugging Face folder and Google's TensorFlow files, under one set of names.

The names are those of Google's checkpoints without the leading `bert/`, e.g.
`encoder/layer_0/attention/self/query/kernel`, and kernels are [in, out].
"""

from __future__ import annotations

import glob
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from gated_bert.models.architecture import BertConfig
from gated_bert.models.heads import Head, google_head, hugging_face_head, match_head, task_head
from gated_bert.support.errors import UserError, one_line
from gated_bert.support.paths import user_path
from gated_bert.support.records import read_record
from gated_bert.support.schemas import HuggingFaceConfig
from gated_bert.tasks.hub import hub_file
from gated_bert.tasks.task import Task

CHECKPOINT = "bert_model.ckpt"
SAFETENSORS = "model.safetensors"
_TF_FLOATS = ("float32", "float16", "bfloat16", "float64")
_FLOATS = ("F32", "F16", "BF16", "F64")
HEAD = {"output_weights": "classifier.weight", "output_bias": "classifier.bias"}
SPAN_HEAD = {"cls/squad/output_weights": "qa_outputs.weight", "cls/squad/output_bias": "qa_outputs.bias"}


class HuggingFaceCheckpoint:
    """`config.json` and `model.safetensors` as transformers writes them.

    Args:
        config_path: the configuration.
        weights_path: the weights.
    """

    def __init__(self, config_path: Path, weights_path: Path):
        self.config_path, self.weights_path = config_path, weights_path

    def architecture(self) -> BertConfig:
        """The sizes in `config.json`; see `read_bert_config`.

        Raises:
            UserError: also sizes that need more than the weights' file holds.
        """
        config = read_bert_config(self.config_path)
        _check_stored(config, self.weights_path, self.weights_path.stat().st_size, "safetensors file")
        return config

    def head(self) -> Head:
        """What the head is for, see `hugging_face_head`.

        Raises:
            UserError: a truncated or malformed file.
        """
        with self._opened() as file:
            shapes = {name.removeprefix("bert."): tuple(file.get_slice(name).get_shape()) for name in file.keys()}
        _check_head(self.weights_path, shapes)
        return hugging_face_head(_read_config(self.config_path), shapes)

    @contextmanager
    def _opened(self) -> Iterator:
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(self.weights_path, framework="numpy") as file:
                yield file
        except (SafetensorError, OSError) as error:
            raise UserError(
                f"{self.weights_path}: not a whole safetensors file ({one_line(error)}); fetch it again"
            ) from error

    def read(self, names: Iterable[str]) -> dict[str, np.ndarray]:
        """Those of the tensors called `names` that there are, float32.

        Raises:
            UserError: a truncated or malformed file.
        """
        arrays = {}
        with self._opened() as file:
            stored = {name.removeprefix("bert."): name for name in file.keys()}
            for name in names:
                found = next((stored[each] for each in hugging_face_names(name) if each in stored), None)
                if found is not None:
                    _check_type(f"{self.weights_path}: {found}", file.get_slice(found).get_dtype(), _FLOATS)
                    array = np.asarray(file.get_tensor(found), dtype=np.float32)
                    arrays[name] = array.T if name.endswith("/kernel") else array
        return arrays


class GoogleCheckpoint:
    """`bert_model.ckpt.*` and `bert_config.json` as Google published them.

    Args:
        prefix: path of the checkpoint without `.index` and `.data-…`.
    """

    def __init__(self, prefix: Path):
        self.weights_path = prefix

    def architecture(self) -> BertConfig:
        """The sizes in the `bert_config.json` beside the checkpoint; see `read_bert_config`.

        Raises:
            UserError: also sizes that need more than the checkpoint's files hold.
        """
        config = read_bert_config(self.weights_path.parent / "bert_config.json")
        parts = self.weights_path.parent.glob(f"{glob.escape(self.weights_path.name)}.data-*")
        _check_stored(config, self.weights_path, sum(part.stat().st_size for part in parts), "TensorFlow checkpoint")
        return config

    def head(self) -> Head:
        """What the head is for, see `google_head`.

        Raises:
            UserError: as of `read`.
        """
        with self._opened() as reader:
            shapes = {name: tuple(shape) for name, shape in reader.get_variable_to_shape_map().items()}
        _check_head(self.weights_path, shapes)
        return google_head(shapes)

    def read(self, names: Iterable[str]) -> dict[str, np.ndarray]:
        """Those of the tensors called `names` that there are, float32.

        Raises:
            UserError: TensorFlow is missing, or a truncated or malformed file.
        """
        arrays = {}
        with self._opened() as reader:
            stored, types = reader.get_variable_to_shape_map(), reader.get_variable_to_dtype_map()
            for name in names:
                full_name = name if name in HEAD | SPAN_HEAD else f"bert/{name}"
                if full_name in stored:
                    _check_type(f"{self.weights_path}: {full_name}", types[full_name].name, _TF_FLOATS)
                    arrays[name] = reader.get_tensor(full_name).astype(np.float32)
        return arrays

    @contextmanager
    def _opened(self) -> Iterator:
        try:
            import tensorflow as tf
        except ImportError as error:
            raise UserError(f"{self.weights_path}: reading a TensorFlow checkpoint needs tensorflow; "
                            "pip install 'gated_bert[tensorflow]', or give the same weights as safetensors") from error
        try:
            yield tf.train.load_checkpoint(str(self.weights_path))
        # The reader raises IndexError where a data file is cut short, RuntimeError where it is damaged.
        except (tf.errors.OpError, IndexError, RuntimeError, ValueError) as error:
            raise UserError(
                f"{self.weights_path}: not a whole TensorFlow checkpoint ({one_line(error)}); fetch it again"
            ) from error


def _check_type(where: str, found: str, allowed: tuple[str, ...]):
    if found not in allowed:
        raise UserError(f"{where} holds {found}; allowed: {', '.join(allowed)}")


def _check_head(path: Path, shapes: Mapping[str, tuple[int, ...]]):
    """Refuses a classifier whose outputs cannot be counted."""
    for name in ("classifier.weight", "output_weights"):
        if len(shapes.get(name, (1, 1))) != 2:
            raise UserError(f"{path}: {name} is no matrix; fetch it again")


def _check_stored(config: BertConfig, path: Path, size: int, what: str):
    """Refuses sizes before a model of them is made: no weight is stored in less than two bytes."""
    counts = config.weight_counts()
    # Head and pooler may be missing.
    least = 2 * (config.num_parameters - counts["pooler"] - counts["classifier"] - config.hidden_size)
    if size < least:
        raise UserError(f"{path}: not a whole {what}, or another's: {size:,} bytes, and the sizes beside it need at "
                        f"least {least:,}; fetch both again")  # fmt: skip


def open_checkpoint(path_or_id: str) -> HuggingFaceCheckpoint | GoogleCheckpoint:
    """The checkpoint in a folder, at a checkpoint prefix, or of an id on the Hugging Face hub.

    Raises:
        UserError: nothing there that can be read.
    """
    path = user_path(path_or_id)
    if path.is_dir():
        if (path / f"{CHECKPOINT}.index").is_file():
            return GoogleCheckpoint(path / CHECKPOINT)
        for name in ("config.json", SAFETENSORS):
            if not (path / name).is_file():
                raise UserError(
                    f"{path}: no {name} in it; a pretrained folder holds config.json and {SAFETENSORS}, "
                    f"or bert_config.json and {CHECKPOINT}.*"
                )
        return HuggingFaceCheckpoint(path / "config.json", path / SAFETENSORS)
    if path.with_name(path.name + ".index").is_file():
        return GoogleCheckpoint(path)
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", path_or_id) or path_or_id.startswith("."):
        raise UserError(f"{path}: no such folder; give a folder, a checkpoint prefix or a Hugging Face id")
    remedy = f"check the id, or give -pt FOLDER with config.json and {SAFETENSORS} in it"
    paths = [hub_file(path_or_id, (name,), remedy) for name in ("config.json", SAFETENSORS)]
    return HuggingFaceCheckpoint(*paths)


def read_head(path_or_id: str) -> Head:
    """What the head of pretrained weights is for, and its classes, without loading the weights.

    Args:
        path_or_id: as for `open_checkpoint`, or a model folder of this package.

    Raises:
        UserError: nothing there that can be read.
    """
    record = user_path(path_or_id) / "config.json"
    task = read_record(record).get("task") if record.is_file() else None
    # What transformers calls a task is a text.
    is_own = isinstance(task, dict)
    return task_head(Task.from_dict(task, str(record))) if is_own else open_checkpoint(path_or_id).head()


def head_notes(path_or_id: str | None, task: Task) -> list[str]:
    """What there is to say, if anything, about the head that `task` gets from pretrained weights; errors as above."""
    sentence = match_head(read_head(path_or_id), task)[1] if path_or_id is not None else ""
    return [f"{path_or_id}: {sentence}"] if sentence else []


def read_bert_config(path: Path) -> BertConfig:
    """The architecture in a `config.json` of transformers or a `bert_config.json` of Google.

    Raises:
        UserError: a missing or malformed file, or a model that is not BERT.
    """
    values = _read_config(path)
    allowed = {
        "model_type": ("bert",),
        "position_embedding_type": ("absolute",),
        "is_decoder": (False,),
    }
    for name, known in allowed.items():
        if values.get(name, known[0]) not in known:
            raise UserError(f"{path}: {name} is {values[name]!r}; only {known[0]!r} is supported")
    try:
        return BertConfig.uniform(
            values["num_hidden_layers"],
            values["hidden_size"],
            values["num_attention_heads"],
            values["intermediate_size"],
            vocab_size=values["vocab_size"],
            max_position=values.get("max_position_embeddings", 512),
            type_vocab_size=values.get("type_vocab_size", 2),
            layer_norm_epsilon=values.get("layer_norm_eps", 1e-12),
            hidden_act=values.get("hidden_act", "gelu"),
        )
    except KeyError as error:
        raise UserError(f"{path}: no field {error}; a BERT configuration is needed") from error
    except (UserError, TypeError) as error:
        raise UserError(f"{path}: {one_line(error)}") from error


def _read_config(path: Path) -> dict:
    remedy = "a BERT configuration belongs beside the weights"
    return read_record(path, HuggingFaceConfig, remedy=remedy, file_names=False)


def hugging_face_names(name: str) -> tuple[str, ...]:
    """What transformers calls `name`; layer norms have an older and a newer name."""
    if name in HEAD | SPAN_HEAD:
        return ((HEAD | SPAN_HEAD)[name],)
    stem, _, leaf = name.replace("layer_", "layer.").replace("/", ".").rpartition(".")
    if leaf.endswith("_embeddings"):
        return (f"{stem}.{leaf}.weight",)
    leaves = {"kernel": ("weight",), "gamma": ("weight", "gamma"), "beta": ("bias", "beta")}.get(leaf, (leaf,))
    return tuple(f"{stem}.{each}" for each in leaves)
