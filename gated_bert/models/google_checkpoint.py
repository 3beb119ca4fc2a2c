"""Google's TensorFlow checkpoints, which only BERT has."""

from __future__ import annotations

import glob
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from gated_bert.models.architecture import PostNormConfig
from gated_bert.models.bert_family import BertFamily
from gated_bert.models.checkpoint_checks import check_head, check_stored, check_type, read_model_config
from gated_bert.models.heads import Head, google_head
from gated_bert.models.post_norm_family import HEAD, SPAN_HEAD
from gated_bert.support.errors import UserError, one_line

CHECKPOINT = "bert_model.ckpt"
_FLOATS = ("float32", "float16", "bfloat16", "float64")


class GoogleCheckpoint:
    """`bert_model.ckpt.*` and `bert_config.json` as Google published them.

    Args:
        prefix: path of the checkpoint without `.index` and `.data-…`.
    """

    family = BertFamily

    def __init__(self, prefix: Path):
        self.weights_path = prefix

    def architecture(self) -> PostNormConfig:
        """The sizes in the `bert_config.json` beside the checkpoint; see `Family.read_config`.

        Raises:
            UserError: also sizes that need more than the checkpoint's files hold.
        """
        path = self.weights_path.parent / "bert_config.json"
        config = self.family.read_config(read_model_config(path, self.family.title), str(path))
        parts = self.weights_path.parent.glob(f"{glob.escape(self.weights_path.name)}.data-*")
        check_stored(config, self.weights_path, sum(part.stat().st_size for part in parts), "TensorFlow checkpoint")
        return config

    def head(self) -> Head:
        """What the head is for, see `google_head`.

        Raises:
            UserError: as of `read`.
        """
        with self._opened() as reader:
            shapes = {name: tuple(shape) for name, shape in reader.get_variable_to_shape_map().items()}
        check_head(self.weights_path, shapes, ("output_weights",))
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
                full_name = name if name in (*HEAD, *SPAN_HEAD) else f"bert/{name}"
                if full_name in stored:
                    check_type(f"{self.weights_path}: {full_name}", types[full_name].name, _FLOATS)
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
