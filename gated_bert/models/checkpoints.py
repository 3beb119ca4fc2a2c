"""Reading BERT checkpoints: a Hugging Face folder and Google's TensorFlow files, under one set of names.

The names are those of Google's checkpoints without the leading `bert/`, e.g.
`encoder/layer_0/attention/self/query/kernel`, and kernels are [in, out].
"""

from __future__ import annotations

import glob
import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from gated_bert.errors import UserError
from gated_bert.models.architecture import BertConfig
from gated_bert.records import read_record
from gated_bert.schemas import HuggingFaceConfig
from gated_bert.tasks.hub import hub_file, one_line

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

    def read(self, names: Iterable[str]) -> dict[str, np.ndarray]:
        """Those of the tensors called `names` that there are, float32.

        Raises:
            UserError: a truncated or malformed file.
        """
        from safetensors import SafetensorError, safe_open

        arrays = {}
        try:
            with safe_open(self.weights_path, framework="numpy") as file:
                stored = {name.removeprefix("bert."): name for name in file.keys()}
                for name in names:
                    found = next((stored[each] for each in hugging_face_names(name) if each in stored), None)
                    if found is not None:
                        _check_type(f"{self.weights_path}: {found}", file.get_slice(found).get_dtype(), _FLOATS)
                        array = np.asarray(file.get_tensor(found), dtype=np.float32)
                        arrays[name] = array.T if name.endswith("/kernel") else array
        except (SafetensorError, OSError) as error:
            raise UserError(
                f"{self.weights_path}: not a whole safetensors file ({one_line(error)}); fetch it again"
            ) from error
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

    def read(self, names: Iterable[str]) -> dict[str, np.ndarray]:
        """Those of the tensors called `names` that there are, float32.

        Raises:
            UserError: TensorFlow is missing, or a truncated or malformed file.
        """
        try:
            import tensorflow as tf
        except ImportError as error:
            raise UserError(f"{self.weights_path}: reading a TensorFlow checkpoint needs tensorflow; "
                            "pip install 'gated_bert[tensorflow]', or give the same weights as safetensors") from error
        arrays = {}
        try:
            reader = tf.train.load_checkpoint(str(self.weights_path))
            stored, types = reader.get_variable_to_shape_map(), reader.get_variable_to_dtype_map()
            for name in names:
                full_name = name if name in HEAD | SPAN_HEAD else f"bert/{name}"
                if full_name in stored:
                    _check_type(f"{self.weights_path}: {full_name}", types[full_name].name, _TF_FLOATS)
                    arrays[name] = reader.get_tensor(full_name).astype(np.float32)
        # The reader raises IndexError where a data file is cut short, RuntimeError where it is damaged.
        except (tf.errors.OpError, IndexError, RuntimeError, ValueError) as error:
            raise UserError(
                f"{self.weights_path}: not a whole TensorFlow checkpoint ({one_line(error)}); fetch it again"
            ) from error
        return arrays


def _check_type(where: str, found: str, allowed: tuple[str, ...]):
    if found not in allowed:
        raise UserError(f"{where} holds {found}; allowed: {', '.join(allowed)}")


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
    path = Path(path_or_id).expanduser()
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


def read_bert_config(path: Path) -> BertConfig:
    """The architecture in a `config.json` of transformers or a `bert_config.json` of Google.

    Raises:
        UserError: a missing or malformed file, or a model that is not BERT.
    """
    values = read_record(path, HuggingFaceConfig, remedy="a BERT configuration belongs beside the weights")
    allowed = {
        "model_type": ("bert",),
        "hidden_act": ("gelu", "gelu_python"),
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
        )
    except KeyError as error:
        raise UserError(f"{path}: no field {error}; a BERT configuration is needed") from error
    except (UserError, TypeError) as error:
        raise UserError(f"{path}: {one_line(error)}") from error


def hugging_face_names(name: str) -> tuple[str, ...]:
    """What transformers calls `name`; layer norms have an older and a newer name."""
    if name in HEAD | SPAN_HEAD:
        return ((HEAD | SPAN_HEAD)[name],)
    stem, _, leaf = name.replace("layer_", "layer.").replace("/", ".").rpartition(".")
    if leaf.endswith("_embeddings"):
        return (f"{stem}.{leaf}.weight",)
    leaves = {"kernel": ("weight",), "gamma": ("weight", "gamma"), "beta": ("bias", "beta")}.get(leaf, (leaf,))
    return tuple(f"{stem}.{each}" for each in leaves)
