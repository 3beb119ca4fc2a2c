"""Batches of examples of about one length, padded to a few bucket lengths."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from gated_bert.tasks.encoded import IDS, REAL, Encoded

BUCKET_LENGTHS = (8, 16, 24, 32, 48, 64, 80, 96, 128, 192, 256, 384, 512)
SMALLEST_SHARE = 0.05


def choose_buckets(lengths: np.ndarray, max_len: int) -> tuple[int, ...]:
    """The few padded lengths that fit the data.

    Args:
        lengths: [n] tokens of each example.
        max_len: most tokens of an example.

    Returns:
        Rising lengths. The last holds the longest example; a bucket with less than 5 % of the examples is left out,
        since every shape costs a compilation.
    """
    longest = int(lengths.max())
    candidates = [length for length in BUCKET_LENGTHS if length < min(longest, max_len)]
    last = next((length for length in BUCKET_LENGTHS if length >= longest), longest)
    last = min(last, max(max_len, longest))
    buckets, below = [], 0
    for candidate in candidates:
        reached = int((lengths <= candidate).sum())
        if reached - below >= SMALLEST_SHARE * len(lengths):
            buckets.append(candidate)
            below = reached
    return (*buckets, last)


@dataclass(frozen=True)
class _Plan:
    """The batches of one epoch, as indices of examples, the padded length of each, and the first to be yielded."""

    batches: list[np.ndarray]
    lengths: np.ndarray
    first_batch: int


class BucketedDataset(keras.utils.PyDataset):
    """Length-bucketed batches for `fit`, `evaluate` and `predict`, a pure function of (seed, epoch, index).

    A batch is filled from one bucket. What is left of a bucket when its batches are full goes up to the next, so
    that at most one batch of an epoch is small. Keras fixes a data set's shapes by its first two batches on
    TensorFlow, so these two differ in length wherever the data has more than one. Give `fit` also `shuffle=False`: by
    default it shuffles the batches with a generator of its own.

    Args:
        encoded: token ids of n examples.
        labels: [n] classes or targets, or [n, …] of several parts; `None` yields inputs only.
        batch_size: examples in a batch.
        max_len: most tokens of an example.
        seed: seed of the order; `None` keeps the order of the data within each bucket, the same in every epoch.
        buckets: padded lengths, the last of which holds the longest example; by default `choose_buckets`.
        multiple: of this the sizes of all batches are multiples; a smaller batch takes examples of its own again.

    Raises:
        ValueError: an example is longer than the last bucket, or there are no examples.
    """

    def __init__(
        self,
        encoded: Encoded,
        labels: np.ndarray | None,
        batch_size: int,
        max_len: int,
        seed: int | None = None,
        buckets: Sequence[int] | None = None,
        multiple: int = 1,
    ):
        super().__init__(workers=1, use_multiprocessing=False)
        if len(encoded) == 0:
            raise ValueError("a data set needs at least one example")
        lengths = encoded.lengths
        self.buckets = tuple(buckets) if buckets is not None else choose_buckets(lengths, max_len)
        if lengths.max() > self.buckets[-1]:
            raise ValueError(f"an example has {lengths.max()} tokens, more than the last bucket, {self.buckets[-1]}")
        self.encoded, self.labels = encoded, labels
        self.batch_size, self.seed, self.multiple = batch_size, seed, multiple
        self._bucket_of = np.searchsorted(self.buckets, lengths)
        self.set_epoch(0)

    @property
    def examples(self) -> int:
        """Examples in an epoch."""
        return len(self.encoded)

    def set_epoch(self, epoch: int, first_batch: int = 0) -> None:
        """Sets the order to that of `epoch`; with `first_batch`, only the batches from there on are yielded.

        Args:
            epoch: epoch, counted from 0.
            first_batch: batches of the epoch that are already done, an index for which `can_start_at` holds.
        """
        # One assignment: Keras may still read ahead in another thread.
        self._plan = self._make_plan(epoch, first_batch)

    def can_start_at(self, index: int) -> bool:
        """Whether `fit` can start at batch `index` of this epoch on TensorFlow, see above; 0 always is such a batch."""
        lengths = self._plan.lengths
        return lengths[index : index + 2].min() != lengths[index : index + 2].max() or lengths.min() == lengths.max()

    def row_order(self) -> np.ndarray:
        """Index of each example in the order of yielding: `outputs[np.argsort(order)]` is in the data's order."""
        return np.concatenate(self._plan.batches[self._plan.first_batch :])

    @property
    def shapes(self) -> list[tuple[int, int]]:
        """(examples, length) of each batch."""
        return [(len(rows), int(length)) for rows, length in zip(self._plan.batches, self._plan.lengths, strict=True)]

    def __len__(self) -> int:
        return len(self._plan.batches) - self._plan.first_batch

    def __getitem__(self, index: int):
        return self.batch(index)[1]

    def batch(self, index: int) -> tuple[np.ndarray, Any]:
        """Which examples batch `index` holds, and what `[index]` gives, both of the same epoch."""
        plan = self._plan
        rows, length = plan.batches[plan.first_batch + index], int(plan.lengths[plan.first_batch + index])
        inputs = self._collate(rows, length)
        return rows, inputs if self.labels is None else (inputs, self._labels_of(self.labels, rows, length))

    def _labels_of(self, labels: np.ndarray, rows: np.ndarray, length: int) -> np.ndarray:
        """The labels of a batch of examples, padded to `length` tokens."""
        return labels[rows]

    def token_places(self, rows: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray]:
        """Where the tokens of examples stand among all, [batch, length], 0 at padding; and which are none of it."""
        starts, ends = self.encoded.offsets[rows, None], self.encoded.offsets[rows + 1, None]
        places = starts + np.arange(length)
        real = places < ends
        return np.where(real, places, 0), real

    def _collate(self, rows: np.ndarray, length: int) -> dict[str, np.ndarray]:
        places, real = self.token_places(rows, length)
        padding = {IDS: self.encoded.pad_id}
        inputs = {name: np.where(real, values[places], np.int32(padding.get(name, 0)))
                  for name, values in self.encoded.inputs.items()}  # fmt: skip
        return inputs | {REAL: real.astype(np.int32)}

    def _make_plan(self, epoch: int, first_batch: int) -> _Plan:
        random = None if self.seed is None else np.random.default_rng((self.seed, epoch))
        batches, lengths = [], []
        waiting = np.empty(0, dtype=np.int64)
        for bucket, length in enumerate(self.buckets):
            rows = np.flatnonzero(self._bucket_of == bucket)
            if random is not None:
                random.shuffle(rows)
            # Those promoted come first, so that they are not promoted again and again into longer padding.
            rows = np.concatenate([waiting, rows])
            last = bucket == len(self.buckets) - 1
            full = len(rows) if last else len(rows) // self.batch_size * self.batch_size
            for start in range(0, full, self.batch_size):
                batch = rows[start : min(start + self.batch_size, full)]
                batches.append(np.resize(batch, -(-len(batch) // self.multiple) * self.multiple))
                lengths.append(length)
            waiting = rows[full:]
        order = np.arange(len(batches))
        if random is not None:
            random.shuffle(order)
        padded = np.array(lengths)
        others = np.flatnonzero(padded[order] != padded[order[0]])
        if len(others):
            order[[1, others[0]]] = order[[others[0], 1]]
        return _Plan([batches[place] for place in order], padded[order], first_batch)


def predicted_batches(model: keras.Model, dataset: BucketedDataset) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Indices of the examples in each batch of a data set, and the model's outputs for them."""
    ends = np.cumsum([size for size, _ in dataset.shapes])[:-1]
    for index, rows in enumerate(np.split(dataset.row_order(), ends)):
        batch = dataset[index]
        # Of several devices each predicts such a batch whole under TensorFlow, and Keras joins what they find.
        yield rows, model.predict_on_batch(batch[0] if isinstance(batch, tuple) else batch)[: len(rows)]
