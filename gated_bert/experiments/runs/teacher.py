"""What a run learns from its teacher: outputs that are computed once for all runs, and the loss made of them."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import keras
import numpy as np
from keras import ops

from gated_bert.compression.source import load_source
from gated_bert.config import GatedBertConfig
from gated_bert.experiments.runs.teacher_folder import check_teacher
from gated_bert.models.backbone import EncoderClassifier
from gated_bert.models.distillation import Distillation, LayerDistillation
from gated_bert.support.arrays import DAMAGED
from gated_bert.support.errors import UserError
from gated_bert.support.lock import InUseError, lock_folder
from gated_bert.support.paths import cache_folder
from gated_bert.tasks.kinds import OF_SPAN, OF_TEXT
from gated_bert.tasks.pipeline import BucketedDataset, predicted_batches
from gated_bert.tasks.task import Task
from gated_bert.tasks.taught import Taught
from gated_bert.tasks.token_cache import keep
from gated_bert.tasks.tokenizer_protocol import TokenizerProtocol

LOGGER = logging.getLogger("gated_bert")
_FILE = "outputs.npy"
_BATCH = 64
_LOOK_SECONDS = 0.5


class Teacher:
    """The teacher of a run.

    Args:
        config: the run's record.
        task: what the run learns.
        tokenizer: the run's tokeniser.

    Raises:
        ConfigError, UserError: as of `check_teacher`.
    """

    def __init__(self, config: GatedBertConfig, task: Task, tokenizer: TokenizerProtocol):
        self.config, self.task = config, task
        self.folder = check_teacher(config, task, tokenizer)
        if self.folder.note:
            LOGGER.info("%s", self.folder.note)
        self.model = self._beside() if config.distills_layers else None

    def taught(self, dataset: BucketedDataset) -> Taught:
        """The batches of the training data, with what the teacher says beside their labels."""
        return Taught(dataset, self._outputs(dataset), self.task.traits.head)

    def loss(self, student: EncoderClassifier) -> Distillation:
        """What the run trains on; a teacher of layers reads every batch beside the student."""
        config, layers = self.config, None
        if config.distill_hardness is None or config.distill_temperature is None:
            raise ValueError("a record with a teacher holds both")
        if self.model is not None and config.distill_layers and config.distill_layer_weight:
            layers = LayerDistillation(self.model, student, config.distill_layers, config.distill_layer_weight)
        return Distillation(self.task.kind, config.distill_hardness, config.distill_temperature, layers)

    def _outputs(self, dataset: BucketedDataset) -> np.ndarray:
        """[n, outputs] of all examples, or [tokens, outputs] of all their tokens; kept under a digest of what decides.

        Without dropout they depend on nothing else, so that all runs of a sweep share them; of several that begin
        at the same time one computes them.
        """
        encoded = dataset.encoded
        by_text = self.task.traits.head == OF_TEXT
        shape = (len(encoded) if by_text else len(encoded.input_ids), self.task.num_outputs)
        folder = cache_folder() / "teachers" / self._digest(dataset)
        found = _kept(folder / _FILE, shape)
        if found is not None:
            return found
        with _turn(folder):
            found = _kept(folder / _FILE, shape)
            if found is None:
                outputs = self._computed(dataset, shape)
                keep(folder / _FILE, lambda file: np.save(file, outputs))
                found = _kept(folder / _FILE, shape)
                # A home folder that cannot be written to costs memory, and the time of the next run.
                found = outputs if found is None else found
        return found

    def _digest(self, dataset: BucketedDataset) -> str:
        """Of the teacher and of the examples as token ids, which texts, tokeniser and length decide."""
        found = hashlib.sha256(self.folder.digest)
        for name, array in (*sorted(dataset.encoded.inputs.items()), ("offsets", dataset.encoded.offsets)):
            found.update(f"{name} {array.dtype} {len(array)} ".encode())
            found.update(np.ascontiguousarray(array).data)
        return found.hexdigest()

    def _load(self) -> EncoderClassifier:
        # Not in the precision of this run, since others read what it says.
        keras.config.set_dtype_policy("float32")
        return load_source(self.folder.path).model

    def _beside(self) -> EncoderClassifier:
        """The teacher in the precision of the run."""
        loaded = self._load()
        model = loaded.rebuilt(dtype=self.config.precision)
        for variable, value in zip(model.weights, loaded.weights, strict=True):
            # Through NumPy: under JAX one variable must not take over another's buffer.
            variable.assign(ops.convert_to_numpy(value))
        return model

    def _computed(self, dataset: BucketedDataset, shape: tuple[int, int]) -> np.ndarray:
        began = time.monotonic()
        model = self._load()
        batches = BucketedDataset(dataset.encoded, None, _BATCH, dataset.buckets[-1], buckets=dataset.buckets,
                                  multiple=dataset.multiple)  # fmt: skip
        outputs, head = np.empty(shape, np.float32), self.task.traits.head
        for rows, predicted in predicted_batches(model, batches):
            if head == OF_TEXT:
                outputs[rows] = predicted[:, self.folder.rows]
                continue
            by_token = predicted.transpose(0, 2, 1) if head == OF_SPAN else predicted
            places, real = batches.token_places(rows, by_token.shape[1])
            outputs[places[real]] = by_token[real][:, self.folder.rows]
        if not np.isfinite(outputs).all():
            raise UserError(f"teacher: {self.folder.path} gives outputs that are not finite; choose another model")
        LOGGER.info("the teacher read %d examples in %.1f s", len(dataset.encoded), time.monotonic() - began)
        return outputs


def _kept(path: Path, shape: tuple[int, int]) -> np.ndarray | None:
    """The outputs in a file, which stay on the disk; None where there is nothing whole."""
    try:
        found = np.load(path, mmap_mode="r", allow_pickle=False)
    except DAMAGED:
        return None
    whole = isinstance(found, np.ndarray) and found.shape == shape and found.dtype == np.float32
    return found if whole and np.isfinite(found).all() else None


@contextmanager
def _turn(folder: Path) -> Iterator[None]:
    """Waits till no other process computes what goes into `folder`; where no lock can be had, for nobody."""
    lock = None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        while lock is None:
            try:
                lock = lock_folder(folder)
            except InUseError:
                time.sleep(_LOOK_SECONDS)
    except OSError:
        pass
    try:
        yield
    finally:
        if lock is not None:
            lock.release()
