"""Batches that also hold what a teacher says of their examples."""

from __future__ import annotations

import keras
import numpy as np

from gated_bert.tasks.encoded import IDS
from gated_bert.tasks.kinds import OF_SPAN, OF_TEXT
from gated_bert.tasks.pipeline import BucketedDataset

LABELS, TEACHER_OUTPUTS = "labels", "teacher_outputs"
"""What the labels of a batch are made of where there is a teacher."""
PADDED = -3e4
"""Logit of tokens beyond a batch's length: no share in a softmax, and finite."""


class Taught(keras.utils.PyDataset):
    """The batches of a data set with a teacher's outputs beside their labels; its order is that of the data set.

    They are for the training loss alone, so that `fit` gets this, and whatever else looks at batches the data set.

    Args:
        dataset: batches with labels.
        outputs: the teacher's outputs: [n, outputs] of its n examples, or [tokens, outputs] of all their tokens.
        head: what they are of, one of those in `kinds`.
    """

    def __init__(self, dataset: BucketedDataset, outputs: np.ndarray, head: str):
        super().__init__(workers=1, use_multiprocessing=False)
        self.dataset, self.outputs, self.head = dataset, outputs, head

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        rows, (inputs, labels) = self.dataset.batch(index)
        if self.head == OF_TEXT:
            found = np.array(self.outputs[rows])
        else:
            found = self._of_tokens(rows, inputs[IDS].shape[1])
        return inputs, {LABELS: labels, TEACHER_OUTPUTS: found}

    def _of_tokens(self, rows: np.ndarray, length: int) -> np.ndarray:
        """Logits as a model puts them out, start and end [batch, 2, length] or tags [batch, length, outputs]."""
        places, real = self.dataset.token_places(rows, length)
        if self.head == OF_SPAN:
            return np.where(real[:, None, :], self.outputs[places].transpose(0, 2, 1), np.float32(PADDED))
        return np.where(real[:, :, None], self.outputs[places], np.float32(0))
