import os
import subprocess
import sys
import time
from pathlib import Path

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gated_bert.tasks.encoded import Encoded
from gated_bert.tasks.glue import read_glue_folder
from gated_bert.tasks.pipeline import BucketedDataset, choose_buckets
from gated_bert.tasks.task import TASKS
from gated_bert.tasks.wordpiece import Tokenizer

FIT_SCRIPT = Path(__file__).with_name("fit_buckets.py")


def make_encoded(lengths, pad_id=0):
    """Example i is the tokens i + 1, its second half of segment 1."""
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    ids = np.repeat(np.arange(1, len(lengths) + 1), lengths).astype(np.int32)
    places = np.arange(offsets[-1]) - np.repeat(offsets[:-1], lengths)
    segments = (places >= np.repeat(lengths, lengths) // 2).astype(np.int32)
    return Encoded({"input_ids": ids, "token_type_ids": segments}, offsets, pad_id)


def same_batch(one, other):
    return all(np.array_equal(one[0][name], other[0][name]) for name in one[0]) and np.array_equal(one[1], other[1])


def test_a_batch_holds_what_it_should():
    dataset = BucketedDataset(make_encoded([3, 2]), np.array([7, 8], np.int32), 2, 8, buckets=(4,))
    inputs, labels = dataset[0]
    assert inputs["input_ids"].tolist() == [[1, 1, 1, 0], [2, 2, 0, 0]]
    assert inputs["token_type_ids"].tolist() == [[0, 1, 1, 0], [0, 1, 0, 0]]
    assert inputs["attention_mask"].tolist() == [[1, 1, 1, 0], [1, 1, 0, 0]]
    assert labels.tolist() == [7, 8] and labels.dtype == np.int32
    assert {array.dtype for array in inputs.values()} == {np.dtype(np.int32)}
    unlabelled = BucketedDataset(make_encoded([3, 2], pad_id=9), None, 2, 8, buckets=(4,))[0]
    assert unlabelled["input_ids"].tolist() == [[1, 1, 1, 9], [2, 2, 9, 9]]


def test_the_rest_of_a_bucket_goes_up_and_one_batch_is_small():
    dataset = BucketedDataset(make_encoded([3] * 5 + [6] * 4 + [12] * 2), None, 4, 16, buckets=(4, 8, 16))
    assert sorted(dataset.shapes) == [(3, 16), (4, 4), (4, 8)]
    first = {length: rows for (_, length), rows in zip(dataset.shapes, dataset._plan.batches, strict=True)}
    assert first[8].tolist() == [4, 5, 6, 7], "the promoted example is not promoted again"


@pytest.mark.parametrize(
    ("lengths", "max_len", "buckets"),
    [
        ([5] * 99 + [60], 128, (8, 64)),
        ([5, 12, 30, 30], 128, (8, 16, 32)),
        ([5, 128], 128, (8, 128)),
        ([100], 100, (100,)),
        ([16, 16], 128, (16,)),
        ([5] * 60 + [10] * 4 + [20] * 36, 128, (8, 24)),
    ],
)
def test_few_buckets_that_fit_the_data(lengths, max_len, buckets):
    assert choose_buckets(np.array(lengths), max_len) == buckets


@settings(max_examples=150, deadline=None)
@given(
    lengths=st.lists(st.integers(2, 64), min_size=1, max_size=80),
    batch_size=st.integers(1, 100),
    seed=st.none() | st.integers(0, 9),
    epoch=st.integers(0, 3),
)
def test_every_example_comes_once_and_only_one_batch_is_small(lengths, batch_size, seed, epoch):
    dataset = BucketedDataset(make_encoded(lengths), np.arange(len(lengths)), batch_size, 64, seed)
    dataset.set_epoch(epoch)
    assert sorted(dataset.row_order()) == list(range(len(lengths)))
    assert sum(size < batch_size for size, _ in dataset.shapes) == (len(lengths) % batch_size > 0)
    padded = [length for _, length in dataset.shapes]
    assert len(set(padded[:2])) == min(2, len(set(padded)))
    assert dataset.can_start_at(0)
    for index in range(len(dataset)):
        inputs, labels = dataset[index]
        assert inputs["attention_mask"].sum(axis=1).tolist() == [lengths[label] for label in labels]
        assert inputs["input_ids"].max(axis=1).tolist() == [label + 1 for label in labels]


def test_the_order_depends_on_seed_and_epoch_only():
    lengths = np.random.default_rng(0).integers(2, 64, 200)
    one, other = (BucketedDataset(make_encoded(lengths), np.arange(200), 16, 64, seed=5) for _ in range(2))
    for epoch in (2, 0, 1):
        one.set_epoch(epoch)
    other.set_epoch(1)
    assert all(same_batch(one[index], other[index]) for index in range(len(one)))
    other.set_epoch(2)
    assert one.row_order().tolist() != other.row_order().tolist()
    fixed = BucketedDataset(make_encoded(lengths), None, 16, 64)
    before = fixed.row_order()
    fixed.set_epoch(3)
    np.testing.assert_array_equal(fixed.row_order(), before)


def test_the_rest_of_an_epoch_is_the_epochs_end():
    lengths = np.random.default_rng(0).integers(2, 64, 200)
    whole, rest = (BucketedDataset(make_encoded(lengths), np.arange(200), 16, 64, seed=5) for _ in range(2))
    start = next(index for index in range(5, 13) if whole.can_start_at(index))
    rest.set_epoch(0, first_batch=start)
    assert len(rest) == len(whole) - start
    assert all(same_batch(rest[index], whole[start + index]) for index in range(len(rest)))
    np.testing.assert_array_equal(rest.row_order(), whole.row_order()[-len(rest.row_order()) :])
    assert not whole.can_start_at(len(whole) - 1), "one batch alone would fix the length"


def test_more_room_than_data_and_too_little():
    assert BucketedDataset(make_encoded([5, 30, 7]), None, 96, 128).shapes == [(3, 32)]
    with pytest.raises(ValueError, match="an example has 9 tokens, more than the last bucket, 8"):
        BucketedDataset(make_encoded([9]), None, 1, 16, buckets=(8,))
    with pytest.raises(ValueError, match="at least one example"):
        BucketedDataset(make_encoded([]), None, 1, 16)


@pytest.mark.daily_every(2)
@pytest.mark.parametrize("backend", ["tensorflow", "jax"])
@pytest.mark.nightly
def test_fit_evaluate_and_predict_take_every_length(backend):
    pytest.importorskip(backend)
    environment = {**os.environ, "KERAS_BACKEND": backend, "JAX_PLATFORMS": "cpu"}
    environment["PYTHONPATH"] = os.pathsep.join([str(FIT_SCRIPT.parents[2]), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run([sys.executable, str(FIT_SCRIPT)], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == f"{backend}: the two halves of a fit equal the whole"


@pytest.mark.real_data
def test_collating_sst2_costs_little(real_data):
    data = read_glue_folder(real_data, TASKS["sst2"])
    encoded = Tokenizer.from_vocab(real_data / "bert" / "vocab.txt").encode(data.train.texts[:9600], None, 128)
    dataset = BucketedDataset(encoded, data.train.labels[:9600], 96, 128, seed=1)
    start = time.process_time()
    dataset.set_epoch(1)
    tokens = sum(dataset[index][0]["attention_mask"].size for index in range(len(dataset)))
    assert time.process_time() - start < 0.2, "0.1 ms a batch is usual; a training step takes 50 ms"
    assert tokens < 0.25 * 9600 * 128
    assert len(dataset.buckets) <= 6
    assert keras.utils.PyDataset in type(dataset).__mro__ and dataset.workers == 1
